"""A run in one file: it is decided again from there as from its log, and what is hidden is found nowhere."""

import zipfile
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import pytest
from tests.replay.forked_runs import CHILD, GRANDCHILD, PARENT, family

from lumina.agents.governor import NAME as GOVERNOR
from lumina.bus.archive import open_archive
from lumina.bus.archive_format import Line, Manifest, check_hidden, field_digest, fields_of, line_from
from lumina.bus.archive_writer import line_of, written
from lumina.bus.errors import ArchiveBroken, FieldsHidden
from lumina.bus.log import Originals
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.cli.exporting import Wishes, export_all, export_run
from lumina.events.generation import GenerationFinished
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft
from lumina.models.backend import Message
from lumina.models.turns import PARTS_MAX, extended
from lumina.replay.bundles.bundle import share_of
from lumina.replay.bundles.redaction import Redaction
from lumina.replay.errors import NotRedactable, RunUnknown
from lumina.replay.report import Report, Status
from lumina.replay.verifying.verify import verify_all, verify_run

pytestmark = pytest.mark.anyio

History = tuple[MemoryLog, MemoryBlobs]
RUN = StreamId("r-bbb")
REQUEST = "Write a Python script that prints 1"


async def exported(history: History, path: Path, *, hide: tuple[str, ...] = (), blobs: bool = True) -> Manifest:
    """Export the second of the three runs."""
    wishes = Wishes(path=path, hide=hide, blobs=blobs, replace=True)
    return await export_run(history[0], history[1], RUN, wishes=wishes)


async def proof_of(path: Path, *, run: StreamId | None = RUN) -> Report:
    """Verify a file, with nothing but the file."""
    async with open_archive(path) as archive:
        if run is None:
            return await verify_all(archive, archive)
        return await verify_run(archive, archive, run, invariants=not archive.hides)


async def test_a_run_is_decided_again_from_its_file(history: History, tmp_path: Path) -> None:
    """All five agents' parts are proved from one file, as many records as from the log."""
    manifest = await exported(history, tmp_path / "run.lumina")
    report = await proof_of(tmp_path / "run.lumina")
    assert report == await verify_run(history[0], history[1], RUN, invariants=True)
    assert (report.status, report.pending, report.closed) == (Status.OK, 0, 1)
    assert (manifest.run, manifest.runs, manifest.scope) == (RUN, (RUN,), "run")


async def test_a_file_holds_no_more_than_the_run_needs(history: History, tmp_path: Path) -> None:
    """Of runs that came later nothing is told, of those before only what the governor decided on."""
    await exported(history, tmp_path / "run.lumina")
    last = max(each.seq for each in history[0].records if each.stream == RUN)
    async with open_archive(tmp_path / "run.lumina") as archive:
        records = [each async for each in archive.read()]
        blobs = set(archive.manifest.blobs)
        with zipfile.ZipFile(tmp_path / "run.lumina") as members:
            schemas = {name for name in members.namelist() if name.startswith("schemas/")}
    others = [each for each in records if each.stream != RUN]
    assert all(each.seq < last for each in others if each.agent != GOVERNOR)
    assert not any(each.type in {"run.submitted.v1", "validation.finished.v1"} for each in others)
    assert schemas == {f"schemas/{each.type}.json" for each in records}
    assert blobs < set(history[1].contents)


async def test_an_open_run_is_exported_as_far_as_it_is(history: History, tmp_path: Path) -> None:
    """Of a run that has not ended the file has everything up to the log's end."""
    cut = next(each.seq for each in history[0].records if each.type == "execution.finished.v1" and each.stream == RUN)
    log = MemoryLog([each for each in history[0].records if each.seq <= cut])
    assert (await share_of(log, RUN)).until == cut
    await export_run(log, history[1], RUN, wishes=Wishes(path=tmp_path / "open.lumina"))
    assert (await proof_of(tmp_path / "open.lumina")).status is Status.OK


async def test_the_whole_log_is_in_one_file(history: History, tmp_path: Path) -> None:
    """Every record of every run comes out as it is, and all of it is proved."""
    manifest = await export_all(history[0], history[1], wishes=Wishes(path=tmp_path / "all.lumina"))
    assert manifest.runs == ("r-aaa", "r-bbb", "r-ccc")
    assert set(manifest.blobs) == set(history[1].contents)
    assert await proof_of(tmp_path / "all.lumina", run=None) == await verify_all(*history)
    async with open_archive(tmp_path / "all.lumina") as archive:
        assert [each async for each in archive.originals()] == [each async for each in history[0].originals()]


async def test_a_conversation_goes_along(history: History, tmp_path: Path) -> None:
    """The texts and earlier turns of a conversation, which no record names, are in the file."""
    blobs = MemoryBlobs()
    blobs.contents.update(history[1].contents)
    said = [Message("user", f"sentence {number}") for number in range(3 * PARTS_MAX)]
    talk = extended(None, blobs={}, said=said)
    for content in talk.blobs:
        await blobs.put(content)
    log = MemoryLog(history[0].records)
    finished = next(each for each in history[0].records if isinstance(each.event, GenerationFinished))
    event = msgspec.structs.replace(finished.event, turn=talk.turn)
    slot = root_event_id(StreamId("r-talk"), name="turn")
    agent, time_ms = finished.agent, finished.time_ms
    await log.append(
        Draft(event=event, id=slot, stream=StreamId("r-talk"), agent=agent, time_ms=time_ms, causation=finished.id)
    )
    manifest = await export_run(log, blobs, StreamId("r-talk"), wishes=Wishes(path=tmp_path / "talk.lumina"))
    assert {sha256(content).hexdigest() for content in talk.blobs} <= set(manifest.blobs)


@pytest.mark.parametrize("hide", [(), ("request",)])
async def test_a_fork_takes_its_parents_along(tmp_path: Path, hide: tuple[str, ...]) -> None:
    """A fork of a fork is proved from its own file, and so are the runs that it descends from."""
    log, blobs = await family()
    path = tmp_path / "fork.lumina"
    manifest = await export_run(log, blobs, GRANDCHILD, wishes=Wishes(path=path, hide=hide))
    assert manifest.runs == (GRANDCHILD, CHILD, PARENT)
    whole = await verify_run(log, blobs, GRANDCHILD)
    report = await proof_of(path, run=GRANDCHILD)
    proved = Status.WHOLE if hide else Status.OK
    assert (report.status, report.records, report.parents) == (proved, whole.records, whole.parents)
    assert report.decided == ({} if hide else whole.decided)
    for run in (CHILD, PARENT):
        assert (await proof_of(path, run=run)).status is proved


async def test_an_unknown_run_can_not_be_exported(history: History, tmp_path: Path) -> None:
    """There is no file of what never was."""
    with pytest.raises(RunUnknown):
        await export_run(*history, StreamId("r-none"), wishes=Wishes(path=tmp_path / "none.lumina"))
    assert list(tmp_path.iterdir()) == []


async def test_a_file_without_blobs_is_proved_as_far_as_it_goes(history: History, tmp_path: Path) -> None:
    """Keepers are decided again, workers are not, and the report says so."""
    manifest = await exported(history, tmp_path / "run.lumina", blobs=False)
    report = await proof_of(tmp_path / "run.lumina")
    assert (report.status, report.status.exit_code) == (Status.WHOLE, 4)
    assert (report.blobs, report.blobs_left_out) == (0, manifest.blobs_left_out)
    assert manifest.blobs_left_out > 3
    whole = (await verify_run(history[0], history[1], RUN)).decided
    workers = {"specialist", "validator", "sandbox"}
    assert report.decided == {agent: 0 if agent in workers else count for agent, count in whole.items()}
    assert report.underived == sum(count for agent, count in whole.items() if agent in workers)
    assert "not all of it decided again" in report.lines()[0]


def unpacked(path: Path) -> dict[str, bytes]:
    """Return what is in a file, but for the schemas, which say the same for everybody."""
    with zipfile.ZipFile(path) as members:
        return {name: members.read(name) for name in members.namelist() if not name.startswith("schemas/")}


async def test_what_is_hidden_is_found_nowhere(history: History, tmp_path: Path) -> None:
    """The request is gone from every record and every blob, in plain, in JSON and in Base64; the rest is proved."""
    await exported(history, tmp_path / "plain.lumina")
    assert any(REQUEST.encode() in content for content in unpacked(tmp_path / "plain.lumina").values())

    manifest = await exported(history, tmp_path / "run.lumina", hide=("request",))
    for name, content in unpacked(tmp_path / "run.lumina").items():
        for text in (REQUEST, "Python script that prints", REQUEST.lower()):
            assert text.encode() not in content, name
            assert b64encode(text.encode())[:-4] not in content, name
    assert manifest.hidden == ("request",)
    assert manifest.hidden_records > 2
    report = await proof_of(tmp_path / "run.lumina")
    assert (report.status, report.hidden_records, report.closed) == (Status.WHOLE, manifest.hidden_records, 1)
    assert report.decided == {}


async def test_hidden_bytes_in_raw_results_are_left_out(history: History, tmp_path: Path) -> None:
    """What a program printed stands as Base64 in its raw result: hiding that field's value leaves the blob out."""
    secret = "NameError: name 'one' is not defined"
    raw = next(name for name, content in history[1].contents.items() if b64encode(b"Traceback (most")[:16] in content)
    field = next(
        name
        for each in history[0].records
        if each.stream == RUN and each.type == "execution.finished.v1"
        for name, value in fields_of(msgspec.json.encode(each.event).decode()).items()
        if secret in value
    )
    await exported(history, tmp_path / "run.lumina", hide=(field,))
    members = unpacked(tmp_path / "run.lumina")
    assert f"blobs/{raw}" not in members
    assert not any(secret.encode() in content for content in members.values())


async def test_what_a_hidden_blob_holds_is_hidden_elsewhere(history: History, tmp_path: Path) -> None:
    """With the code the answers go in which a model wrote it, and what quotes it."""
    code = b"print(one)"
    await exported(history, tmp_path / "plain.lumina")
    assert sum(code in content for content in unpacked(tmp_path / "plain.lumina").values()) > 1
    await exported(history, tmp_path / "run.lumina", hide=("code",))
    assert not any(code in content for content in unpacked(tmp_path / "run.lumina").values())
    assert (await proof_of(tmp_path / "run.lumina")).status is Status.WHOLE


async def test_a_field_inside_another_hides_the_whole(history: History, tmp_path: Path) -> None:
    """`brief` stands inside of steps and asks: the fields that contain it are hidden, others are not."""
    await exported(history, tmp_path / "run.lumina", hide=("brief",))
    async with open_archive(tmp_path / "run.lumina") as archive:
        hidden = {line.headers["ce-type"]: line.hidden for line in archive.lines() if line.hidden}
        assert hidden["run.planned.v1"] == ("steps",)
        assert "ask" in hidden["generation.requested.v1"]
        with pytest.raises(FieldsHidden, match="without its request"):
            _ = [each async for each in archive.read()]


@pytest.mark.parametrize(
    ("names", "said"),
    [(("request", "no_such_field"), "no record has a field 'no_such_field'"), (("root",), "can't be hidden")],
)
async def test_what_can_not_be_hidden_is_said(
    history: History, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    """A name that is of no field, and one by which the chains are proved, end the export."""
    with pytest.raises(NotRedactable, match=said):
        await exported(history, tmp_path / "run.lumina", hide=names)
    assert list(tmp_path.iterdir()) == []


async def test_a_text_of_an_envelope_can_not_be_hidden(history: History) -> None:
    """A value that is also the name of a stream stands in every envelope: the export says so."""
    redaction = Redaction(("request",))
    redaction.learn(Line(seq=1, headers={}, body='{"request":"long-run-name"}'))
    with pytest.raises(NotRedactable, match="envelope"):
        redaction.check(["r-long-run-name-1"])


async def lines_of(log: Originals, *, hide: tuple[str, ...]) -> list[Line]:
    """Return the redacted lines of a log."""
    redaction = Redaction(hide)
    lines = [line_of(stored) async for stored in log.originals()]
    for line in lines:
        redaction.learn(line)
    redaction.check([])
    return [redaction.redact(line) for line in lines]


async def test_every_change_of_a_redacted_record_is_found(history: History) -> None:
    """Any visible value, hidden digest, name, order, or header that is changed: the record is refused."""
    chance = Random(11)
    for line in await lines_of(history[0], hide=("request", "brief", "stderr")):
        if not line.hidden:
            continue
        check_hidden(line)
        for changed in changes(line, chance=chance):
            assert changed != line
            with pytest.raises(ArchiveBroken):
                check_hidden(changed)


def changes(line: Line, *, chance: Random) -> list[Line]:
    """Return a redacted record with every kind of change."""
    replace = msgspec.structs.replace
    found = [
        replace(line, hidden=()),
        replace(line, hidden=line.hidden[1:]),
        replace(line, hidden=(*line.hidden, line.hidden[0])),
        replace(line, hidden=tuple(sorted({*line.hidden, "type"}))),
        replace(line, hidden=(*line.hidden, "zzz")),
        replace(line, body=line.body.replace(":", ": ", 1)),
        replace(line, body=line.body[:-1] + ',"more":1}'),
        replace(line, body="{" + ",".join(reversed(line.body[1:-1].split(",")))[:50] + "}"),
        replace(line, headers={**line.headers, "ce-more": "x"}),
    ]
    for name, value in line.headers.items():
        at = chance.randrange(len(value))
        other = chr(ord(value[at]) ^ 1)
        found.append(replace(line, headers={**line.headers, name: value[:at] + other + value[at + 1 :]}))
        found.append(replace(line, headers={each: line.headers[each] for each in line.headers if each != name}))
    for at in range(0, len(line.body), 3):
        other = chr(ord(line.body[at]) ^ (1 << chance.randrange(5)))
        if other != line.body[at]:
            found.append(replace(line, body=line.body[:at] + other + line.body[at + 1 :]))
    for name in line.hidden:
        shown = fields_of(line.body)[name]
        found.append(replace(line, body=line.body.replace(shown, f'"{field_digest("1")}"')))
        found.append(
            replace(line, body=line.body.replace(shown, shown.upper())) if shown != shown.upper() else found[0]
        )
    return found


async def test_a_redacted_record_can_not_be_left_out(history: History, tmp_path: Path) -> None:
    """The chains and the root of a redacted run still count every record."""
    path = tmp_path / "run.lumina"
    await exported(history, path, hide=("request",))
    async with open_archive(path) as archive:
        lines, manifest = list(archive.lines()), archive.manifest
    for gone in [line for line in lines if line.headers["ce-subject"] == RUN][:-4]:
        kept = [line for line in lines if line is not gone]
        with written(path, replace=True) as writer:
            for line in kept:
                writer.record(line)
            fewer = msgspec.structs.replace(
                manifest,
                records=len(kept),
                first_seq=kept[0].seq,
                last_seq=kept[-1].seq,
                hidden_records=sum(bool(line.hidden) for line in kept),
                blobs=(),
                blobs_left_out=1,
            )
            writer.finish(fewer)
        report = await proof_of(path)
        assert report.status is Status.DAMAGED, gone
        assert report.damage is not None
        assert report.damage.seq > gone.seq


async def test_equal_exports_have_equal_bytes(history: History, tmp_path: Path) -> None:
    """A run that has ended gives the same file whenever it is exported, redacted or not."""
    for hide in ((), ("request",)):
        for name in ("one", "two"):
            await exported(history, tmp_path / name, hide=hide)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_lines_are_what_they_say() -> None:
    """A line keeps a body to the byte, whatever stands in it."""
    body = '{"type":"x","text":"\\u0000 \\" ä \\\\n"}'
    line = line_from(msgspec.json.encode(Line(seq=3, headers={"a": "b"}, body=body)), after=2)
    assert (line.body, sha256(line.body.encode()).digest()) == (body, sha256(body.encode()).digest())
