"""Records as the bytes that they are: from a real log through a file into another real log, bit for bit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.bus.conftest import LogServer
from tests.bus.test_archive import manifest_of
from tests.bus.test_log_contract import draft, unload

from lumina.bus.archive import open_archive
from lumina.bus.archive_writer import line_of, written
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.memory import MemoryLog
from lumina.bus.stored import Stored
from lumina.events.ids import StreamId

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server_in(folder: Path) -> AsyncIterator[LogServer]:
    """Have a server with the log's streams for the time of the block."""
    folder.mkdir()
    server = LogServer(folder)
    server.start()
    try:
        await server.set_up()
        yield server
    finally:
        await anyio.to_thread.run_sync(server.kill)


async def test_a_log_is_restored_from_its_file(tmp_path: Path) -> None:
    """Sequence, subject, headers and body of every record are those of the log that was exported."""
    path = tmp_path / "all.lumina"
    async with server_in(tmp_path / "first") as server, server.transport() as transport:
        log = JetStreamLog(transport)
        for number in range(20):
            await log.append(draft(number, stream=StreamId(f"r-{number % 3}")))
            await log.append(unload(number))
        originals = [each async for each in log.originals()]
        records = [each async for each in log.read()]
        with written(path) as writer:
            for stored in originals:
                writer.record(line_of(stored))
            writer.finish(manifest_of(writer, log_id=await log.log_id()))
    assert originals[0].headers["Nats-Msg-Id"] == records[0].id
    assert not {"Nats-Sequence", "Nats-Subject", "Nats-Stream", "Nats-Time-Stamp"} & set(originals[0].headers)

    async with server_in(tmp_path / "second") as server, server.transport() as transport:
        async with open_archive(path) as archive:
            async for stored in archive.originals():
                await transport.request(stored.subject, payload=stored.payload, headers=stored.headers)
        restored = JetStreamLog(transport)
        assert [each async for each in restored.originals()] == originals
        assert [each async for each in restored.read()] == records


async def test_both_logs_give_the_same_originals(tmp_path: Path) -> None:
    """What differs between the log in memory and JetStream is only what the client needs for an append."""
    memory = MemoryLog()
    async with server_in(tmp_path / "one") as server, server.transport() as transport:
        log = JetStreamLog(transport)
        for number in range(5):
            for each in (memory, log):
                await each.append(draft(number))
        found = [each async for each in log.originals(after=2)]
    assert [plain(each) for each in found] == [each async for each in memory.originals(after=2)]


def plain(stored: Stored) -> Stored:
    """Return a message without the headers of its append."""
    headers = {name: value for name, value in stored.headers.items() if name.startswith("ce-")}
    return Stored(stored.seq, stored.subject, headers, stored.payload)
