"""`verify` on a real JetStream log: it holds as it was written, and one changed byte is found with its record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.ids import StreamId
from lumina.events.record import Draft
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all, verify_run

RUN = StreamId("r-bbb")
History = tuple[MemoryLog, MemoryBlobs]

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def stored(history: History, folder: Path) -> AsyncIterator[LogServer]:
    """Write the history to a server of its own, and stop that at the end."""
    server = LogServer(folder)
    server.start()
    try:
        await server.set_up()
        async with server.transport() as transport:
            log, blobs = JetStreamLog(transport), JetStreamBlobs(transport)
            for content in history[1].contents.values():
                await blobs.put(content)
            for each in history[0].records:
                draft = Draft(
                    event=each.event,
                    id=each.id,
                    stream=each.stream,
                    agent=each.agent,
                    time_ms=each.time_ms,
                    causation=each.causation,
                )
                assert (await log.append(draft)).digest == each.digest
        yield server
    finally:
        await anyio.to_thread.run_sync(server.kill)


async def test_a_stored_history_is_proved(history: History, tmp_path: Path) -> None:
    """What the agents did in memory, written to disk, is proved from there, run by run and as a whole."""
    async with stored(history, tmp_path) as server, server.transport() as transport:
        log, blobs = JetStreamLog(transport), JetStreamBlobs(transport)
        whole = await verify_all(log, blobs, invariants=True)
        assert (whole.status, whole.broken, whole.records) == (Status.OK, (), len(history[0].records))
        report = await verify_run(log, blobs, RUN, invariants=True)
        assert (report.status, report.broken) == (Status.OK, ())


@pytest.mark.parametrize("kind", ["run.submitted.v1", "lease.granted.v1", "execution.finished.v1", "run.closed.v1"])
async def test_one_changed_byte_on_disk_names_the_record(history: History, tmp_path: Path, kind: str) -> None:
    """A letter that is changed in the file of a stopped server ends the proof, of the run and of the whole log."""
    target = next(each for each in history[0].records if each.type == kind and each.stream == RUN)
    async with stored(history, tmp_path) as server:
        server.end()
        _change(server, digest=target.digest)
        server.start()
        async with server.transport() as transport:
            log, blobs = JetStreamLog(transport), JetStreamBlobs(transport)
            for report in (await verify_all(log, blobs), await verify_run(log, blobs, RUN)):
                assert report.status is Status.DAMAGED
                assert report.damage is not None
                assert report.damage.seq == target.seq, report.lines()


def _change(server: LogServer, *, digest: str) -> None:
    """Change one letter of the body that follows a record's digest in its headers."""
    for block in server.blocks:
        content = bytearray(block.read_bytes())
        at = content.find(f"ce-luminadigest: {digest}".encode())
        if at >= 0:
            at = content.index(b'"type":', at) + len(b'"type":"r')
            content[at] ^= 1
            block.write_bytes(content)
            return
    raise AssertionError("the record is in no block")
