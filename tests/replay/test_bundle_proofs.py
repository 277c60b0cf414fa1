"""What a file says about itself switches no proof off, and what hides fields is still checked wherever it can be."""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from tests.replay.test_bundles import RUN, History, exported, proof_of
from tests.replay.test_verify import but, first, rewritten

from lumina.agents.closing import root_of
from lumina.bus import checks
from lumina.bus.archive import open_archive
from lumina.bus.archive_format import Line, Manifest, hide
from lumina.bus.archive_writer import line_of, written
from lumina.bus.errors import FieldsHidden, LogDamaged
from lumina.bus.memory import MemoryLog
from lumina.cli.exporting import Wishes, export_run
from lumina.events.base import Event
from lumina.events.execution import ExecutionVerdict
from lumina.events.record import Recorded
from lumina.events.run import ChainHead, RunClosed
from lumina.replay.bundles.freezing import name_of_test, text_of_test
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_run

pytestmark = pytest.mark.anyio

Change = Callable[[Recorded[Event]], dict[str, Any]]


async def rewritten_file(
    path: Path, *, lines: Sequence[Line] | None = None, without: Sequence[str] = (), **said: Any
) -> None:
    """Write a file anew, sealed and consistent: other records, fewer blobs, or another manifest."""
    async with open_archive(path) as archive:
        kept = list(archive.lines()) if lines is None else lines
        blobs = {digest: await archive.get(digest) for digest in archive.manifest.blobs if digest not in without}
        manifest = archive.manifest
    with written(path, replace=True) as writer:
        for line in kept:
            writer.record(line)
        for digest, content in blobs.items():
            writer.blob(digest, content=content)
        counts = {
            "records": writer.records,
            "first_seq": writer.first_seq,
            "last_seq": writer.last_seq,
            "hidden_records": writer.hidden_records,
            "blobs": tuple(blobs),
        }
        writer.finish(msgspec.convert({**msgspec.to_builtins(manifest), **counts, **said}, Manifest))


def forged_plan(history: History) -> MemoryLog:
    """Return the log with a plan that nobody decided; every digest is made good again."""
    plan = first(history, "run.planned.v1", run=RUN)
    event = but(plan.event, reason="another")
    return rewritten(history[0].records, lambda each: {"event": event} if each.id == plan.id else {})


async def forged_file(history: History, path: Path, *, blobs: bool = True) -> Manifest:
    """Export the run of a log with a forged plan."""
    return await export_run(forged_plan(history), history[1], RUN, wishes=Wishes(path=path, blobs=blobs))


@pytest.mark.parametrize("said", [{"blobs_left_out": 1}, {"hidden_records": 1}])
async def test_a_manifest_switches_no_proof_off(history: History, tmp_path: Path, said: dict[str, Any]) -> None:
    """A forged file, all of it there, that says that something was left out is damaged."""
    path = tmp_path / "run.lumina"
    await forged_file(history, path)
    assert (await proof_of(path)).status is Status.DIVERGED
    await rewritten_file(path, **said)
    async with open_archive(path) as archive:
        report = await verify_run(archive, archive, RUN)
    assert report.status is Status.DAMAGED
    assert report.damage is not None
    assert "it says that" in report.damage.reason


async def test_a_forged_decision_is_found_without_blobs(history: History, tmp_path: Path) -> None:
    """What keepers decide, and invariants, need no blobs: leaving them out hides nothing of it."""
    await forged_file(history, tmp_path / "run.lumina", blobs=False)
    report = await proof_of(tmp_path / "run.lumina")
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert report.divergence.at.type == "run.planned.v1"


async def test_invariants_are_checked_without_blobs(history: History, tmp_path: Path) -> None:
    """A law that is broken is told of a file without blobs, too; of one that hides fields they are refused."""
    path = tmp_path / "run.lumina"
    await exported(history, path, blobs=False)
    whole = await proof_of(path)
    assert (whole.status, whole.broken) == (Status.WHOLE, ())
    passed = [each for each in history[0].records if each.type == "execution.finished.v1" and each.stream == RUN][-1]
    failed = but(passed.event, verdict=ExecutionVerdict.FAILED)
    log = rewritten(history[0].records, lambda each: {"event": failed} if each.id == passed.id else {})
    await export_run(log, history[1], RUN, wishes=Wishes(path=path, blobs=False, replace=True))
    assert [broken.at.type for broken in (await proof_of(path)).broken][:1] == ["step.accepted.v1"]
    await exported(history, path, hide=("request",))
    async with open_archive(path) as archive:
        with pytest.raises(FieldsHidden, match="no invariants can be checked"):
            await verify_run(archive, archive, RUN, invariants=True)


async def test_outcomes_are_derived_where_their_blobs_are(history: History, tmp_path: Path) -> None:
    """With one raw result left out, that outcome alone is not derived; the verdict is not that of a proof."""
    path = tmp_path / "run.lumina"
    await exported(history, path)
    proved = await proof_of(path)
    raw = first(history, "validation.finished.v1", run=RUN).event.raw.digest  # type: ignore[attr-defined]  # an outcome has one
    await rewritten_file(path, without=(raw,), blobs_left_out=1)
    report = await proof_of(path)
    assert (report.status, report.blobs_left_out) == (Status.WHOLE, 1)
    assert report.underived > 0
    assert sum(report.decided.values()) + report.underived == sum(proved.decided.values())


async def test_a_blob_that_was_lost_was_not_left_out(history: History, tmp_path: Path) -> None:
    """A file that lacks a blob, and does not say so, or says so of another number, is damaged."""
    path = tmp_path / "run.lumina"
    await exported(history, path)
    raw = first(history, "validation.finished.v1", run=RUN).event.raw.digest  # type: ignore[attr-defined]  # an outcome has one
    for said in (0, 2):
        await exported(history, path)
        await rewritten_file(path, without=(raw,), blobs_left_out=said)
        assert (await proof_of(path)).status is Status.DAMAGED, said


def hidden_request(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with the run's request hidden, by its digest."""
    found = []
    for line in lines:
        text = msgspec.json.decode(line.body, type=dict[str, msgspec.Raw]).get("request")
        names = {} if text is None else {"request": sha256(bytes(text)).hexdigest()}
        found.append(hide(line, names=names) if names else line)
    return found


async def redacted(history: History, path: Path, *, change: Change) -> str:
    """Return why a redacted file of a history that was changed, with all digests made good, is damaged."""
    await exported(history, path)
    log = rewritten(history[0].records, change)
    async with open_archive(path) as archive:
        wanted = {line.seq for line in archive.lines()}
    lines = [line_of(stored) async for stored in log.originals() if stored.seq in wanted]
    await rewritten_file(path, lines=hidden_request(lines), hidden=["request"])
    report = await proof_of(path)
    if report.damage is None:
        assert report.status is Status.WHOLE
        return ""
    return report.damage.reason


def closing(history: History, *, chains: Callable[[tuple[ChainHead, ...]], tuple[ChainHead, ...]]) -> Change:
    """Return a change of the chains that the end of the run names, with its root and count made good."""
    end = first(history, "run.closed.v1", run=RUN)
    assert isinstance(end.event, RunClosed)
    named = chains(end.event.chains)
    event = but(end.event, chains=named, root=root_of(named), records=sum(head.count for head in named))
    return lambda each: {"event": event} if each.id == end.id else {}


def without(agent: str, named: tuple[ChainHead, ...]) -> tuple[ChainHead, ...]:
    """Return the chains but for that of a writer."""
    return tuple(head for head in named if head.agent != agent)


async def test_every_writer_is_named_at_the_end_of_a_redacted_run(history: History, tmp_path: Path) -> None:
    """A writer that is not named, one of whom less is named, and one that never wrote are found."""
    path = tmp_path / "run.lumina"
    assert await redacted(history, path, change=lambda _: {}) == ""
    for agent in ("client", "governor", "orchestrator", "sandbox", "specialist", "validator"):
        unnamed = closing(history, chains=partial(without, agent))
        assert "names the writers" in await redacted(history, path, change=unnamed), agent
    digests = {(each.agent, each.position): each.digest for each in history[0].records if each.stream == RUN}

    def fewer(named: tuple[ChainHead, ...]) -> tuple[ChainHead, ...]:
        return tuple(
            ChainHead(agent=h.agent, count=h.count - 1, digest=digests[h.agent, h.count - 1])
            if h.agent == "specialist"
            else h
            for h in named
        )

    assert "records by specialist" in await redacted(history, path, change=closing(history, chains=fewer))
    stranger = ChainHead(agent="stranger", count=1, digest="0" * 64)
    more = closing(history, chains=lambda named: (*named, stranger))
    assert "names the writers" in await redacted(history, path, change=more)


async def test_nobody_writes_what_is_not_his_in_a_redacted_run(history: History, tmp_path: Path) -> None:
    """Who may write which type is checked of records that hide fields, too."""
    plan = first(history, "run.planned.v1", run=RUN)
    reason = await redacted(
        history,
        tmp_path / "run.lumina",
        change=lambda each: {"agent": "sandbox", "id": plan.id} if each.id == plan.id else {},
    )
    assert "sandbox may not write run.planned.v1" in reason


async def test_chains_that_a_reader_of_a_file_forgot_are_read_again(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one chain a record that was cut out is still missed, with fields hidden and without."""
    monkeypatch.setattr(checks, "CHAINS_MAX", 1)
    path = tmp_path / "run.lumina"
    for hidden in ((), ("request",)):
        await exported(history, path, hide=hidden)
        assert (await proof_of(path)).damage is None
        async with open_archive(path) as archive:
            lines = list(archive.lines())
        gone = next(
            line
            for line in lines
            if line.headers["ce-subject"] == RUN
            and (line.headers["ce-luminaposition"], line.headers["ce-source"]) == ("3", "/lumina/orchestrator")
        )
        await rewritten_file(path, lines=[line for line in lines if line is not gone])
        async with open_archive(path) as archive:
            if hidden:
                report = await verify_run(archive, archive, RUN)
                assert report.damage is not None
                assert "position 4 follows 2" in report.damage.reason
            else:
                with pytest.raises(LogDamaged, match="position 4 follows 2"):
                    _ = [each async for each in archive.read()]


async def test_a_frozen_run_that_was_cut_is_red(history: History, tmp_path: Path) -> None:
    """A test knows how long the run was, that it had ended, and that nothing was left to decide."""
    path = tmp_path / "run.lumina"
    manifest = await exported(history, path)
    proof = await proof_of(path)
    text = text_of_test(manifest, file=path.name, proof=proof)
    test = compile(text, str(tmp_path / "test_it.py"), "exec")

    def red() -> str:
        found: list[str] = []

        def once() -> None:
            names: dict[str, Any] = {"__file__": str(tmp_path / "test_it.py"), "__name__": "test_it"}
            exec(test, names)  # it is what is tested
            try:
                names[name_of_test(manifest)]()
            except AssertionError as error:
                found.append(str(error))

        thread = Thread(target=once)  # it starts an event loop of its own
        thread.start()
        thread.join()
        return "".join(found)

    assert red() == ""
    async with open_archive(path) as archive:
        lines = list(archive.lines())
    for left in (len(lines) - 1, len(lines) - 6):
        await rewritten_file(path, lines=lines[:left])
        assert "the file was cut" in red(), left


async def test_a_status_has_an_exit_code_of_its_own() -> None:
    """Scripts tell what was proved from what could not be."""
    assert len({status.exit_code for status in Status}) == len(Status)
