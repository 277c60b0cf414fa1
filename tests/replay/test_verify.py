"""`verify` proves what took place, and finds each thing that did not."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Draft, Head, Recorded, chain
from lumina.events.run import RunClosed
from lumina.replay.errors import RunUnknown
from lumina.replay.report import Report, Status
from lumina.replay.verifying.verify import verify_all, verify_run

History = tuple[MemoryLog, MemoryBlobs]
RUN = StreamId("r-bbb")

pytestmark = pytest.mark.anyio


def rewritten(
    records: tuple[Recorded[Event], ...], change: Callable[[Recorded[Event]], dict[str, Any] | None]
) -> MemoryLog:
    """Return a log in which some records are others, or are missing (None), and every chain fits again.

    That is what a forger with the right tools would do: no digest gives it away.
    """
    heads: dict[tuple[StreamId, str], Head] = {}
    kept: list[Recorded[Event]] = []
    for recorded in records:
        fields = change(recorded)
        if fields is None:
            continue
        draft = Draft(
            event=fields.get("event", recorded.event),
            id=fields.get("id", recorded.id),
            stream=recorded.stream,
            agent=fields.get("agent", recorded.agent),
            time_ms=fields.get("time_ms", recorded.time_ms),
            causation=fields.get("causation", recorded.causation),
        )
        where = (draft.stream, draft.agent)
        again, _ = chain(draft, after=heads.get(where, Head()))
        heads[where] = Head(position=again.position, digest=again.digest)
        kept.append(msgspec.structs.replace(again, seq=len(kept) + 1))
    return MemoryLog(kept)


def first(history: History, kind: str, *, run: str = RUN) -> Recorded[Event]:
    """Return the first record of a type in a run."""
    return next(each for each in history[0].records if each.type == kind and each.stream == run)


def but(event: Event, **fields: Any) -> Event:
    """Return an event with other fields."""
    return msgspec.structs.replace(event, **fields)


async def forged(history: History, kind: str, **fields: Any) -> Report:
    """Verify the run after its first record of a type was replaced by one with other fields."""
    log, blobs = history
    target = first(history, kind)
    return await verify_run(rewritten(log.records, lambda each: fields if each.id == target.id else {}), blobs, RUN)


async def test_what_took_place_is_proved(history: History) -> None:
    """Every agent's part of a run is decided again and equal, invariants included, and the counts say so."""
    log, blobs = history
    report = await verify_run(log, blobs, RUN, invariants=True)
    assert report.lines()[0].startswith("r-bbb: ok")
    assert (report.status, report.broken, report.pending, report.closed) == (Status.OK, (), 0, 1)
    own = [each for each in log.records if each.stream == RUN]
    assert report.records == len(own)
    for agent in ("orchestrator", "specialist", "validator", "sandbox"):
        assert report.decided[agent] == sum(each.agent == agent for each in own) > 0
    assert report.decided["governor"] > 0


async def test_the_whole_log_is_proved_in_one_pass(history: History) -> None:
    """Each record that an agent wrote counts once; only what came from outside is not decided again."""
    log, blobs = history
    report = await verify_all(log, blobs, invariants=True)
    assert (report.status, report.broken) == (Status.OK, ())
    outside = {"client", "node", "clock"}
    assert sum(report.decided.values()) == sum(each.agent not in outside for each in log.records)
    assert report.closed == 3
    assert report.blobs > 6


async def test_an_unknown_run_is_refused(history: History) -> None:
    """There is nothing to prove about a run that the log does not hold."""
    with pytest.raises(RunUnknown, match="r-zzz"):
        await verify_run(*history, StreamId("r-zzz"))


async def test_every_prefix_is_proved(history: History) -> None:
    """However far a log has come, what stands in it is right; what is decided but not written yet is pending."""
    log, blobs = history
    pending = set()
    for end in range(1, len(log.records) + 1):
        report = await verify_all(MemoryLog(log.records[:end]), blobs)
        assert report.status is Status.OK, (end, report.lines())
        pending.add(report.pending)
    assert max(pending) > 0


@pytest.mark.parametrize(
    ("kind", "fields", "path"),
    [
        ("run.planned.v1", {"reason": "another"}, "event.reason"),
        ("step.attempt_started.v1", {"model": "large"}, "event.model"),
        ("generation.finished.v1", {"detail": "slow"}, "event.detail"),
        ("generation.finished.v1", {"effect": "0" * 64}, "event.effect"),
        ("lease.granted.v1", {"context": 4096}, "event.context"),
        ("validation.finished.v1", {"detail": "fine"}, "event.detail"),
        ("execution.finished.v1", {"exit_code": 0}, "event.exit_code"),
        ("execution.finished.v1", {"stdout": "1\n"}, "event.stdout"),
        ("execution.finished.v1", {"wall_ms": 31}, "event.wall_ms"),
        ("step.accepted.v1", {"attempt": 1}, "event.attempt"),
    ],
)
async def test_a_forged_fact_is_found(history: History, kind: str, fields: dict[str, Any], path: str) -> None:
    """Whoever's fact is changed, with all digests made good, the record, the field and both values are named."""
    target = first(history, kind)
    report = await forged(history, kind, event=but(target.event, **fields))
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert (report.divergence.at.seq, report.divergence.at.type) == (target.seq, kind)
    assert report.divergence.difference.field == path
    (field,) = fields
    assert report.divergence.difference.recorded == msgspec.json.encode(fields[field]).decode()
    assert report.divergence.difference.decided == msgspec.json.encode(getattr(target.event, field)).decode()


@pytest.mark.parametrize(
    "kind", ["run.planned.v1", "lease.granted.v1", "generation.finished.v1", "execution.finished.v1"]
)
@pytest.mark.parametrize(
    ("field", "value"), [("time_ms", 5), ("id", EventId("f" * 32)), ("causation", EventId("e" * 32))]
)
async def test_a_forged_envelope_is_found(history: History, kind: str, field: str, value: Any) -> None:
    """Time, id and cause are decided again like everything else."""
    target = first(history, kind)
    report = await forged(history, kind, **{field: value})
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert report.divergence.at.seq == target.seq


async def test_a_divergence_names_its_causes_up_to_the_root(history: History) -> None:
    """The chain of causes leads from the record back to the submission."""
    target = first(history, "execution.finished.v1")
    report = await forged(history, "execution.finished.v1", event=but(target.event, exit_code=0))
    assert report.divergence is not None
    types = [link.type for link in report.divergence.causes]
    assert types[0] == "execution.requested.v1"
    assert types[-1] == "run.submitted.v1"
    assert "generation.finished.v1" in types
    assert any("because of record" in line for line in report.lines())


@pytest.mark.parametrize(
    "kind",
    ["run.planned.v1", "generation.requested.v1", "lease.granted.v1", "step.accepted.v1", "execution.finished.v1"],
)
async def test_a_record_that_is_cut_out_is_missed(history: History, kind: str) -> None:
    """A log from which one record was removed, and every chain closed over the gap, does not pass."""
    log, blobs = history
    target = first(history, kind)
    cut = rewritten(log.records, lambda each: None if each.id == target.id else {})
    report = await verify_run(cut, blobs, RUN)
    assert report.status is not Status.OK


async def test_a_record_that_is_put_in_is_found(history: History) -> None:
    """An acceptance that nobody decided is named."""
    log, blobs = history
    accepted = first(history, "step.accepted.v1")

    def change(each: Recorded[Event]) -> dict[str, Any]:
        if each.stream == RUN and each.type == "step.attempt_started.v1":
            return {"event": accepted.event}
        return {}

    report = await verify_run(rewritten(log.records, change), blobs, RUN)
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert report.divergence.difference.field == "type"


async def test_one_who_may_not_write_an_event_is_found(history: History) -> None:
    """An acceptance signed by the sandbox diverges in its writer."""
    report = await forged(history, "step.accepted.v1", agent="sandbox")
    assert report.divergence is not None
    assert report.divergence.difference.field == "agent"
    assert report.divergence.difference.decided == "orchestrator"


async def test_one_changed_byte_is_damage(history: History) -> None:
    """A record whose bytes lost their digest stops the proof at its sequence."""
    log, blobs = history
    target = first(history, "execution.finished.v1")
    records = [
        msgspec.structs.replace(each, event=but(each.event, exit_code=0)) if each.id == target.id else each
        for each in log.records
    ]
    report = await verify_run(MemoryLog(records), blobs, RUN)
    assert report.status is Status.DAMAGED
    assert report.status.exit_code == 5
    assert report.damage is not None
    assert report.damage.seq == target.seq


async def test_a_gap_is_damage(history: History) -> None:
    """A sequence that is missing stops the proof of the whole log."""
    log, blobs = history
    report = await verify_all(MemoryLog([each for each in log.records if each.seq != 9]), blobs)
    assert report.status is Status.DAMAGED
    assert report.damage is not None
    assert report.damage.seq in {9, 10}


async def test_every_blob_is_missed_when_it_is_gone(history: History) -> None:
    """Whichever blob of the run is lost, the proof says which one and who names it."""
    log, blobs = history
    named = 0
    for digest in blobs.contents:
        rest = MemoryBlobs()
        rest.contents = {key: value for key, value in blobs.contents.items() if key != digest}
        report = await verify_all(log, rest)
        assert report.status is Status.DAMAGED, digest
        assert report.damage is not None
        assert digest in report.damage.reason
        assert "which record" in report.damage.reason
        named += 1
    assert named == len(blobs.contents)


async def test_a_blob_that_changed_is_damage(history: History) -> None:
    """A raw result with other bytes under its old name is not taken."""
    log, blobs = history
    target = first(history, "execution.finished.v1")
    digest = target.event.raw.digest  # type: ignore[attr-defined]  # an outcome has one
    changed = MemoryBlobs()
    changed.contents = {**blobs.contents, digest: blobs.contents[digest] + b" "}
    report = await verify_run(log, changed, RUN)
    assert report.status is Status.DAMAGED


async def test_another_raw_result_is_found(history: History) -> None:
    """A raw result that was exchanged for another whole one gives another outcome."""
    log, blobs = history
    target = first(history, "execution.finished.v1")
    ref = target.event.raw  # type: ignore[attr-defined]  # an outcome has one
    content = blobs.contents[ref.digest].replace(b'"exit_code":1', b'"exit_code":7')
    assert content != blobs.contents[ref.digest]
    digest = sha256(content).hexdigest()
    other = MemoryBlobs()
    other.contents = {**blobs.contents, digest: content}
    event = but(target.event, raw=msgspec.structs.replace(ref, digest=digest))
    forged_log = rewritten(log.records, lambda each: {"event": event} if each.id == target.id else {})
    report = await verify_run(forged_log, other, RUN)
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert report.divergence.difference.field == "event.exit_code"


async def test_the_end_of_a_run_speaks_of_its_chains(history: History) -> None:
    """A `run.closed` whose root, counts or digests are not those of the records is damage, and says why."""
    closed = first(history, "run.closed.v1")
    assert isinstance(closed.event, RunClosed)
    fewer = (msgspec.structs.replace(closed.event.chains[0], digest="1" * 64), *closed.event.chains[1:])
    for fields in ({"root": "0" * 64}, {"records": closed.event.records + 1}, {"chains": fewer}):
        report = await forged(history, "run.closed.v1", event=but(closed.event, **fields))
        assert report.status is Status.DAMAGED
        assert report.damage is not None
        assert report.damage.seq == closed.seq


async def test_a_forged_lease_elsewhere_counts_while_this_run_goes_on(history: History) -> None:
    """The governor's part is one for all runs: a lease that it did not grant makes what follows unproven."""
    log, blobs = history
    target = first(history, "lease.granted.v1", run="r-aaa")
    last = {run: max(each.seq for each in log.records if each.stream == run) for run in ("r-aaa", "r-bbb")}
    assert last["r-bbb"] > target.seq
    event = but(target.event, context=1)
    changed = rewritten(log.records, lambda each: {"event": event} if each.id == target.id else {})
    report = await verify_run(changed, blobs, RUN)
    assert report.divergence is not None
    assert (report.divergence.at.seq, report.divergence.at.stream) == (target.seq, "r-aaa")


async def test_a_forged_release_after_a_run_does_not_count(history: History) -> None:
    """What the governor does after a run has ended changes nothing in it."""
    log, blobs = history
    target = [each for each in log.records if each.type == "lease.released.v1"][-1]
    over = [run for run in ("r-aaa", "r-bbb", "r-ccc") if run != target.stream]
    event = but(target.event, reason="forged")
    changed = rewritten(log.records, lambda each: {"event": event} if each.id == target.id else {})
    verdicts = {
        run: (await verify_run(changed, blobs, StreamId(run))).status
        for run in over
        if max(each.seq for each in log.records if each.stream == run) < target.seq
    }
    assert set(verdicts.values()) == {Status.OK}
    assert (await verify_run(changed, blobs, target.stream)).status is Status.DIVERGED


async def test_only_this_run_and_the_governor_count(history: History) -> None:
    """A forged plan in another run is no fault of this one; the whole log does not pass."""
    log, blobs = history
    target = first(history, "validation.finished.v1", run="r-ccc")
    event = but(target.event, detail="forged")
    changed = rewritten(log.records, lambda each: {"event": event} if each.id == target.id else {})
    assert (await verify_run(changed, blobs, StreamId("r-aaa"))).status is Status.OK
    assert (await verify_all(changed, blobs)).status is Status.DIVERGED
