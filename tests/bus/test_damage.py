"""Damage to the log's files: what a file store skips in silence is found here, with the place where it begins.

The cases are those of a JetStream file store: a flipped byte makes it drop a record, a cut tail makes it give out
the same sequences again. The server itself reports neither.
"""

import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.errors import CheckpointFailed, LogDamaged, LogUnavailable
from lumina.bus.gate import Checkpoint, CheckpointFile, guarded, pass_gate
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.subjects import LOG_STREAM, Filter, chain_filter, subject_of
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Head, Recorded, chain, to_headers
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

RUN = StreamId("r-1")
COUNT = 60


def draft(number: int) -> Draft[Event]:
    """Return a draft whose slot and timer are named by `number`."""
    return Draft(
        event=TimerElapsed(timer=f"timer-{number:04}", due=number),
        id=root_event_id(RUN, name=str(number)),
        stream=RUN,
        agent="clock",
        time_ms=number,
        causation=None,
    )


async def fill(server: LogServer, *, count: int = COUNT) -> list[Recorded[Event]]:
    """Write `count` records; record n names `timer-n`."""
    await server.set_up()
    async with server.transport() as transport:
        log = JetStreamLog(transport)
        return [await log.append(draft(number)) for number in range(1, count + 1)]


def flip(server: LogServer, number: int) -> None:
    """Change one letter in the body of record `number`, on disk."""
    for block in server.blocks:
        content = bytearray(block.read_bytes())
        at = content.find(f"timer-{number:04}".encode())
        if at >= 0:
            content[at] ^= 1
            block.write_bytes(content)
            return
    raise AssertionError(f"record {number} is in no block")


def cut_tail(server: LogServer, *, index: bool) -> None:
    """Cut 100 bytes off the end of the newest block; without `index`, the server's index goes too."""
    block = server.blocks[-1]
    content = block.read_bytes()
    block.write_bytes(content[:-100])
    if not index:
        (block.parent / "index.db").unlink(missing_ok=True)


async def note(
    records: AsyncGenerator[Recorded[Event], None], *, seen: list[int], at_last: anyio.Event | None = None
) -> None:
    """Add the sequences that `records` yields to `seen`, and tell `at_last` when the last one was there."""
    async for recorded in records:
        seen += [recorded.seq]
        if at_last is not None and recorded.seq == COUNT:
            at_last.set()


async def read_until_damage(server: LogServer, *, after: int = 0) -> tuple[list[int], int]:
    """Return the sequences that a full read yields before it stops, and the sequence that it names."""
    seen: list[int] = []
    async with server.transport() as transport:
        log = JetStreamLog(transport)
        await log.last_seq()
        with pytest.raises(LogDamaged) as caught:
            await note(log.read(after=after), seen=seen)
    return seen, caught.value.seq


async def test_a_flipped_byte_is_a_gap_for_a_reader(log_server: LogServer) -> None:
    """A record that the server skips stops every reader just before it."""
    await fill(log_server)
    log_server.end(signal.SIGTERM)
    flip(log_server, 20)
    log_server.start()
    assert await read_until_damage(log_server) == (list(range(1, 20)), 20)
    assert await read_until_damage(log_server, after=10) == (list(range(11, 20)), 20)


async def test_a_flipped_byte_breaks_the_chain_of_its_stream(log_server: LogServer) -> None:
    """Who reads one stream only, where sequences have gaps, sees it by the chain; and nobody appends behind it."""
    await fill(log_server)
    log_server.end(signal.SIGTERM)
    flip(log_server, 20)
    log_server.start()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        with pytest.raises(LogDamaged) as caught:
            _ = [each async for each in log.read([Filter(stream=RUN)])]
        assert (caught.value.seq, caught.value.stream) == (21, RUN)
        with pytest.raises(LogDamaged):
            await log.append(draft(COUNT + 1))
        with pytest.raises(LogDamaged):
            await log.head(RUN, agent="clock")


async def test_a_follower_stops_at_damage(log_server: LogServer) -> None:
    """Following is no weaker than reading."""
    await fill(log_server)
    log_server.end(signal.SIGTERM)
    flip(log_server, 30)
    log_server.start()
    seen: list[int] = []
    async with log_server.transport() as transport:
        with anyio.fail_after(20), pytest.raises(LogDamaged) as caught:
            await note(JetStreamLog(transport).follow(), seen=seen)
    assert (seen, caught.value.seq) == (list(range(1, 30)), 30)


async def test_a_cut_tail_that_the_index_remembers(log_server: LogServer) -> None:
    """The server says that it has 60 records and gives 59: a full read names the 60th."""
    await fill(log_server)
    log_server.end(signal.SIGTERM)
    cut_tail(log_server, index=True)
    log_server.start()
    assert await read_until_damage(log_server) == (list(range(1, COUNT)), COUNT)


async def test_a_cut_tail_is_found_by_the_gate(log_server: LogServer, tmp_path: Path) -> None:
    """A log that ends before the checkpoint is not written to, though nothing in it is wrong."""
    records = await fill(log_server)
    file = CheckpointFile(tmp_path / "own" / "checkpoint.json")
    last = records[-1]
    file.save(Checkpoint(log_id="log-1", seq=last.seq, event=last.id, digest=last.digest))
    log_server.end(signal.SIGTERM)
    cut_tail(log_server, index=False)
    log_server.start()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        assert [each async for each in log.read()] == records[:-1]
        with pytest.raises(LogDamaged, match="lost its tail; `lumina repair`") as caught:
            await pass_gate(log, file)
        assert caught.value.seq == COUNT
        with pytest.raises(LogDamaged):
            async with guarded(log, file.path):
                pass

        # Somebody without a checkpoint writes; the sequence is given out again.
        other = await log.append(draft(999))
        assert other.seq == COUNT
        with pytest.raises(LogDamaged, match="stands there"):
            await pass_gate(log, file)
        with pytest.raises(LogDamaged):
            _ = [each async for each in log.read(after=COUNT + 5)]


async def test_a_writer_whose_head_is_lost_does_not_go_on(log_server: LogServer) -> None:
    """A process that lived through the loss of its own last record refuses to append behind it."""
    await log_server.set_up()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        for number in range(1, COUNT + 1):
            await log.append(draft(number))
        log_server.kill()
        cut_tail(log_server, index=False)
        log_server.start()
        with pytest.raises(LogDamaged) as caught:
            await log.append(draft(COUNT + 1))
        assert caught.value.seq == COUNT


async def test_a_follower_that_lived_through_the_loss_is_told(log_server: LogServer) -> None:
    """A follower that saw 60 records is told after the reconnection that the log ends at 59."""
    await log_server.set_up()
    seen: list[int] = []
    at_last = anyio.Event()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        for number in range(1, COUNT + 1):
            await log.append(draft(number))

        async def follow() -> None:
            with pytest.raises(LogDamaged, match="lost its tail"):
                await note(log.follow(), seen=seen, at_last=at_last)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                await at_last.wait()
                log_server.kill()
                cut_tail(log_server, index=False)
                log_server.start()


async def test_a_recreated_log_is_another_log(log_server: LogServer, tmp_path: Path) -> None:
    """A stream that was deleted and made again has another id, and the gate is closed."""
    records = await fill(log_server, count=3)
    file = CheckpointFile(tmp_path / "checkpoint.json")
    file.save(Checkpoint(log_id="log-0", seq=3, event=records[2].id, digest=records[2].digest))
    async with log_server.transport() as transport:
        with pytest.raises(LogDamaged, match="this is the log 'log-1'"):
            await pass_gate(JetStreamLog(transport), file)


async def test_a_lost_stream_is_not_an_empty_log(log_server: LogServer) -> None:
    """When the stream's own description is damaged the log is unavailable, not empty."""
    await fill(log_server, count=3)
    log_server.end(signal.SIGTERM)
    (log_server.blocks[0].parent.parent / "meta.inf").write_bytes(b"")
    log_server.start()
    async with log_server.transport() as transport:
        with pytest.raises(LogUnavailable, match=LOG_STREAM):
            _ = [each async for each in JetStreamLog(transport).read()]


async def test_who_speaks_in_anothers_name_is_found_out(log_server: LogServer) -> None:
    """A record whose envelope names another writer than its subject is damage, though its digest is right."""
    await log_server.set_up()
    recorded, body = chain(draft(1), after=Head())
    forged = subject_of(recorded.event, stream=RUN, agent="sandbox")
    async with log_server.transport() as transport:
        await transport.request(forged, payload=body, headers=to_headers(recorded))
        with pytest.raises(LogDamaged, match="published on") as caught:
            _ = [each async for each in JetStreamLog(transport).read()]
        assert caught.value.seq == 1


@pytest.mark.parametrize("damage", ["body", "digest", "missing", "time"])
async def test_a_record_that_is_not_one_stops_readers(log_server: LogServer, damage: str) -> None:
    """Bytes without their digest, and envelopes that can't be read, are LogDamaged at their sequence."""
    await fill(log_server, count=2)
    recorded, body = chain(draft(3), after=Head(position=2, digest="1" * 64))
    headers = to_headers(recorded)
    match damage:
        case "body":
            body = body.replace(b"0003", b"0004")
        case "digest":
            headers["ce-luminadigest"] = "0" * 64
        case "missing":
            del headers["ce-id"]
        case _:
            headers["ce-time"] = "yesterday"
    subject = subject_of(recorded.event, stream=RUN, agent="clock")
    assert subject.startswith(chain_filter(RUN, agent="clock").removesuffix(">").replace("*", "timer"))
    async with log_server.transport() as transport:
        await transport.request(subject, payload=body, headers=headers)
    assert await read_until_damage(log_server) == ([1, 2], 3)


async def test_a_checkpoint_that_cannot_be_read_closes_the_gate(tmp_path: Path, log_server: LogServer) -> None:
    """A damaged checkpoint is an error that names the file, not a missing one."""
    await log_server.set_up()
    path = tmp_path / "checkpoint.json"
    path.write_bytes(b"{")
    async with log_server.transport() as transport:
        with pytest.raises(CheckpointFailed, match="remove this file"):
            await pass_gate(JetStreamLog(transport), CheckpointFile(path))
