"""An exported file is read as the log that it comes from, and nothing that is wrong with one goes unnoticed."""

import struct
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import pytest
from tests.bus.test_log_contract import draft, unload

from lumina.bus.archive import open_archive
from lumina.bus.archive_format import FORMAT, SEAL, Covers, Line, Manifest
from lumina.bus.archive_writer import ArchiveWriter, line_of, written
from lumina.bus.errors import ArchiveBroken, ArchiveTooNew, BlobMissing, BlobsFull, BusError, LogDamaged
from lumina.bus.memory import MemoryLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.errors import EventError
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Head, Recorded, chain_digest, fields_digest, sealed_from
from lumina.events.run import RunCancelRequested
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

BLOBS = (b"", b"one", b"two" * 100_000)
ONE = StreamId("r-1")
ENOUGH = RunCancelRequested(reason="enough; “genug” \n\t\\ \x01")


async def some_log(count: int = 8) -> MemoryLog:
    """Return a log with the chains of two writers in each of three streams, and one of a node."""
    log = MemoryLog()
    for number in range(count):
        stream = StreamId(f"r-{number % 3}")
        await log.append(draft(number, stream=stream))
        await log.append(draft(number, stream=stream, agent="client", event=ENOUGH))
        await log.append(unload(number))
    return log


def manifest_of(writer: ArchiveWriter, **others: object) -> Manifest:
    """Return what a file of a whole log says about itself, or of something else."""
    said = {
        "format": FORMAT,
        "lumina": "0.1.0",
        "code": "0.1.0+0",
        "log_id": "memory",
        "scope": "log",
        "records": writer.records,
        "first_seq": writer.first_seq,
        "last_seq": writer.last_seq,
        "blobs": tuple(writer.blobs),
    }
    return msgspec.convert({**said, **others}, Manifest)


async def file_of(log: MemoryLog, path: Path, *, filters: tuple[Filter, ...] = (Filter(),), **others: object) -> Path:
    """Write a log to a file."""
    with written(path) as writer:
        async for stored in log.originals(filters):
            writer.record(line_of(stored))
        for digest, content in sorted((sha256(content).hexdigest(), content) for content in BLOBS):
            writer.blob(digest, content=content)
        writer.finish(manifest_of(writer, **others))
    return path


@pytest.fixture
async def log() -> MemoryLog:
    """Return a log."""
    return await some_log()


@pytest.fixture
async def path(log: MemoryLog, tmp_path: Path) -> Path:
    """Return its file."""
    return await file_of(log, tmp_path / "all.lumina")


@pytest.mark.parametrize(
    "filters",
    [
        [Filter()],
        [Filter(stream=ONE)],
        [Filter(agent="client")],
        [Filter(event=TimerElapsed)],
        [Filter(event=RunCancelRequested), Filter(stream=ONE, agent="clock")],
        [Filter(stream=ONE, agent="clock"), Filter(stream=ONE, agent="client")],
        [Filter(stream=StreamId("nobody"))],
    ],
)
async def test_a_file_reads_as_its_log(log: MemoryLog, path: Path, filters: list[Filter]) -> None:
    """Every question of the reading half of a log has the same answer, whole and between `after` and `until`."""
    async with open_archive(path) as archive:
        assert [each async for each in archive.read(filters)] == [each async for each in log.read(filters)]
        part = [each async for each in archive.read(filters, after=3, until=11)]
        assert part == [each async for each in log.read(filters, after=3, until=11)]
        stored = [each async for each in log.originals(filters, after=2)]
        assert [each async for each in archive.originals(filters, after=2)] == stored
        assert await archive.last(filters[0]) == await log.last(filters[0])


async def test_single_records_are_found_in_a_file(log: MemoryLog, path: Path) -> None:
    """Slots, heads, sequences and the log's name are those of the log."""
    async with open_archive(path) as archive:
        assert await archive.last_seq() == await log.last_seq() == 24
        assert await archive.log_id() == await log.log_id()
        for each in log.records:
            assert await archive.find(each.id, stream=each.stream, agent=each.agent) == each
            assert await archive.at(each.seq) == each
            assert await archive.head(each.stream, agent=each.agent) == await log.head(each.stream, agent=each.agent)
        assert await archive.find(EventId("0" * 32), stream=ONE, agent="clock") is None
        assert await archive.find(log.records[0].id, stream=ONE, agent="nobody") is None
        assert await archive.at(25) is None
        assert await archive.head(ONE, agent="nobody") == Head()


async def test_blobs_come_out_as_they_went_in(path: Path) -> None:
    """A blob has its bytes; one that is not there is missed; nothing can be put into a file."""
    async with open_archive(path) as archive:
        for content in BLOBS:
            assert await archive.get(sha256(content).hexdigest()) == content
        for name in ("0" * 64, "../all.lumina", ""):
            with pytest.raises(BlobMissing):
                await archive.get(name)
        with pytest.raises(BlobsFull):
            await archive.put(b"more")


async def test_a_reader_ahead_of_the_file_is_told(path: Path) -> None:
    """Who has read further than the file goes reads another log."""
    async with open_archive(path) as archive:
        with pytest.raises(LogDamaged) as caught:
            _ = [each async for each in archive.read(after=25)]
        assert caught.value.seq == 25


async def test_an_empty_log_makes_a_file(tmp_path: Path) -> None:
    """Nothing is in it, and nothing is wrong with it."""
    path = await file_of(MemoryLog(), tmp_path / "empty.lumina")
    async with open_archive(path) as archive:
        assert [each async for each in archive.read()] == []
        assert await archive.last_seq() == 0
        assert await archive.last(Filter()) is None


async def test_equal_content_gives_equal_bytes(log: MemoryLog, path: Path, tmp_path: Path) -> None:
    """Neither clock nor machine stands in a file by accident."""
    again = await file_of(log, tmp_path / "again.lumina")
    assert again.read_bytes() == path.read_bytes()


async def test_a_part_of_a_log_is_checked_as_far_as_it_goes(log: MemoryLog, tmp_path: Path) -> None:
    """A file of one run has gaps between its records, none in its chains: a record that is taken out is missed."""
    covers = (Covers(stream=ONE), Covers(type="node.unload_requested.v1"))
    filters = (Filter(stream=ONE),)
    path = await file_of(log, tmp_path / "r-1.lumina", filters=filters, scope="run", run=ONE, runs=[ONE], covers=covers)
    async with open_archive(path) as archive:
        assert [each.seq async for each in archive.read()] == [each.seq for each in log.records if each.stream == ONE]

    fewer = MemoryLog([each for each in log.records if each.stream == ONE and each.position != 2])
    with written(path, replace=True) as writer:
        for stored in [each async for each in fewer.originals((Filter(event=TimerElapsed),))]:
            writer.record(line_of(stored))
        writer.finish(manifest_of(writer, scope="run", run=ONE, runs=[ONE], covers=covers))
    async with open_archive(path) as archive:
        with pytest.raises(LogDamaged, match="position 3 follows 1"):
            _ = [each async for each in archive.read()]


async def test_a_body_of_a_newer_version_keeps_its_digest(tmp_path: Path) -> None:
    """A field that this version does not know stays in the bytes, and the record is whole."""
    log = MemoryLog()
    record = await log.append(draft(1))
    (stored,) = [each async for each in log.originals()]
    line = with_new_digests(line_of(stored), body=stored.payload.decode()[:-1] + ',"later":1}')
    path = tmp_path / "newer.lumina"
    with written(path) as writer:
        writer.record(line)
        writer.finish(manifest_of(writer))
    async with open_archive(path) as archive:
        (found,) = [each async for each in archive.originals()]
        assert found.payload.endswith(b',"later":1}')
        assert [each.event async for each in archive.read()] == [record.event]


def with_new_digests(line: Line, *, body: str) -> Line:
    """Return a line with another body, sealed again."""
    headers = dict(line.headers)
    headers["ce-luminabody"] = sha256(body.encode()).hexdigest()
    headers["ce-luminafields"] = fields_digest(body.encode())
    headers["ce-luminadigest"] = chain_digest(sealed_from(headers, seq=line.seq))
    return Line(seq=line.seq, headers=headers, body=body)


async def read_all(path: Path) -> list[Recorded[Event]]:
    """Read everything that there is in a file."""
    async with open_archive(path) as archive:
        for digest in archive.manifest.blobs:
            await archive.get(digest)
        return [each async for each in archive.read()]


async def test_any_flipped_bit_is_found(path: Path) -> None:
    """Wherever one bit of the file is changed, opening it says so; the record is named when it is in one."""
    whole = path.read_bytes()
    chance = Random(3)
    places = {0, 30, len(whole) - 1, len(whole) - 70, len(whole) - 90}
    for at in places | {chance.randrange(len(whole)) for _ in range(150)}:
        changed = bytearray(whole)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ArchiveBroken):
            await read_all(path)


async def test_any_cut_is_found(path: Path) -> None:
    """A file that ends early is refused, wherever."""
    whole = path.read_bytes()
    for size in (0, 1, 3, 4, 30, 99, 100, len(whole) // 2, len(whole) - 78, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArchiveBroken):
            await read_all(path)


def seal(path: Path) -> None:
    """Seal a file again, as somebody would who wants his changes to go unnoticed."""
    content = path.read_bytes()[:-64]
    path.write_bytes(content + sha256(content[: -len(SEAL)]).hexdigest().encode())


def rewritten(path: Path, members: dict[str, bytes]) -> None:
    """Pack a file again with other members, and seal it."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**kept, **members}.items():
            if content != b"(none)":
                archive.writestr(name, content)
        archive.comment = SEAL + b"0" * 64
    seal(path)


def records_of(path: Path) -> list[bytes]:
    """Return the lines of a file."""
    with zipfile.ZipFile(path) as archive:
        return archive.read("records.jsonl").splitlines(keepends=True)


def manifest_bytes(path: Path, **changes: object) -> bytes:
    """Return a file's manifest with changes."""
    with zipfile.ZipFile(path) as archive:
        said = msgspec.json.decode(archive.read("manifest.json"))
    return msgspec.json.encode({**said, **changes})


WRONG: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "no manifest": lambda _: {"manifest.json": b"(none)"},
    "no records": lambda _: {"records.jsonl": b"(none)"},
    "a manifest that is no JSON": lambda _: {"manifest.json": b"{"},
    "a manifest of another shape": lambda _: {"manifest.json": b'{"format":1}'},
    "a manifest that nests without end": lambda _: {"manifest.json": b'{"format":' + b"[" * 100_000},
    "a manifest of nothing": lambda path: {"manifest.json": manifest_bytes(path, scope="run")},
    "an absolute name": lambda _: {"/etc/passwd": b"x"},
    "a name that climbs": lambda _: {"../../blobs/" + "0" * 64: b"x"},
    "a blob that is not listed": lambda _: {"blobs/" + "0" * 64: b"x"},
    "a blob that is not there": lambda _: {f"blobs/{sha256(b'one').hexdigest()}": b"(none)"},
    "another blob": lambda _: {f"blobs/{sha256(b'one').hexdigest()}": b"two"},
    "a line that is no JSON": lambda path: {"records.jsonl": b"".join([*records_of(path)[:5], b"{\n"])},
    "a line that is no text": lambda path: {"records.jsonl": b"".join([*records_of(path)[:5], b"\xff\xfe\n"])},
    "a line with a lone surrogate": lambda path: {
        "records.jsonl": b"".join([*records_of(path)[:5], b'{"seq":6,"headers":{},"body":"\\ud800"}\n'])
    },
    "an envelope without an id": lambda path: {"records.jsonl": records_of(path)[0].replace(b"ce-id", b"ce-ie")},
    "a record twice": lambda path: {"records.jsonl": records_of(path)[0] * 2},
    "a record too few at the end": lambda path: {"records.jsonl": b"".join(records_of(path)[:-1])},
    "a record too few in the middle": lambda path: {
        "records.jsonl": b"".join(records_of(path)[:4] + records_of(path)[5:]),
        "manifest.json": manifest_bytes(path, records=23),
    },
    "a changed word": lambda path: {"records.jsonl": b"".join(records_of(path)).replace(b"enough", b"enouph", 1)},
    "a changed time": lambda path: {"records.jsonl": b"".join(records_of(path)).replace(b".003Z", b".004Z", 1)},
    "a line without an end": lambda _: {"records.jsonl": b'"' + b"x" * (9 * 2**20)},
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_file_that_is_made_up_is_refused(path: Path, name: str) -> None:
    """Whoever seals a wrong file again is found out by what is in it."""
    rewritten(path, WRONG[name](path))
    with pytest.raises((LogDamaged, BlobMissing)):
        await read_all(path)


async def test_a_bomb_does_not_go_off(path: Path) -> None:
    """A blob that unpacks to more than a blob may have ends at the limit."""
    bomb = b"\0" * (257 * 2**20)
    rewritten(path, {f"blobs/{sha256(b'one').hexdigest()}": bomb})
    assert path.stat().st_size < 2**20
    async with open_archive(path) as archive:
        with pytest.raises(BlobMissing, match="larger than"):
            await archive.get(sha256(b"one").hexdigest())


async def test_a_list_of_members_without_end_is_not_read(path: Path) -> None:
    """The size of the list is looked at before memory is taken for it."""
    content = bytearray(path.read_bytes())
    content[-78 - 22 + 12 : -78 - 22 + 16] = struct.pack("<L", 2**31)
    path.write_bytes(content)
    seal(path)
    with pytest.raises(ArchiveBroken, match="list of members"):
        await read_all(path)


async def test_a_file_of_very_many_blobs(log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more members than the old list of a ZIP archive counts, the long list is written, read and bounded."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = await file_of(log, tmp_path / "many.lumina")
    assert len(await read_all(path)) == 24
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x06\x06") + 40
    content[at : at + 8] = struct.pack("<Q", 2**40)
    path.write_bytes(content)
    seal(path)
    with pytest.raises(ArchiveBroken, match="list of members"):
        await read_all(path)


async def test_a_file_of_a_later_version(path: Path) -> None:
    """Who can't read it is told to upgrade, and not that it is broken."""
    rewritten(path, {"manifest.json": manifest_bytes(path, format=2, novelty=[])})
    with pytest.raises(ArchiveTooNew, match="upgrade"):
        await read_all(path)


async def test_a_file_that_was_packed_again(path: Path) -> None:
    """A member twice, or an archive by other means, is refused with a reason."""
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("records.jsonl", b"")
    seal(path)
    with pytest.raises(ArchiveBroken, match="twice"):
        await read_all(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", b"{}")
    with pytest.raises(ArchiveBroken, match="other means"):
        await read_all(path)


async def test_any_bytes_are_read_or_refused(path: Path) -> None:
    """Bytes that are changed at random in what is unpacked never end in anything but an error of the tree."""
    lines = records_of(path)
    chance = Random(5)
    for _ in range(150):
        changed = bytearray(b"".join(lines))
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        rewritten(path, {"records.jsonl": bytes(changed)})
        try:
            await read_all(path)
        except (BusError, EventError):
            continue
        # What is left alone by digests: the headers of no meaning for a record.
        assert [msgspec.json.decode(line)["body"] for line in records_of(path)] == [
            msgspec.json.decode(line)["body"] for line in lines
        ]


async def test_a_file_appears_whole_or_not_at_all(log: MemoryLog, path: Path, tmp_path: Path) -> None:
    """Nothing is left of an export that failed, and a file that is there is replaced only on demand."""
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        await file_of(log, path)
    (first, *_) = [each async for each in log.originals()]

    def fail() -> None:
        with written(path, replace=True) as writer:
            writer.record(line_of(first))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
