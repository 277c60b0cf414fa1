"""Blobs: in memory and in a standard JetStream object store."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from hashlib import sha256

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.blobs import CHUNK_BYTES, JetStreamBlobs
from lumina.bus.errors import BlobMissing, BlobsFull
from lumina.bus.log import Blobs
from lumina.bus.memory import MemoryBlobs
from lumina.bus.subjects import BLOB_BUCKET, BLOB_CHUNK_PREFIX, BLOB_STREAM

pytestmark = pytest.mark.anyio

CONTENTS = [
    b"",
    b"one chunk",
    bytes(range(256)) * 512,
    b"a" * CHUNK_BYTES + b"b",
    b"".join(bytes([number % 251]) * 1000 for number in range(3000)),
]


@pytest.fixture(params=["memory", "jetstream"])
async def blobs(request: pytest.FixtureRequest) -> AsyncIterator[Blobs]:
    """Yield every implementation, empty."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryBlobs()
            return
        server: LogServer = request.getfixturevalue("log_server")
        await server.set_up()
        yield JetStreamBlobs(await stack.enter_async_context(server.transport()))


async def test_what_is_put_is_got(blobs: Blobs) -> None:
    """Any bytes come back by their SHA-256, from nothing to many chunks."""
    for content in CONTENTS:
        assert await blobs.put(content) == sha256(content).hexdigest()
    for content in CONTENTS:
        assert await blobs.get(sha256(content).hexdigest()) == content


async def test_what_was_never_put_is_missing(blobs: Blobs) -> None:
    """A digest that nobody stored is BlobMissing."""
    with pytest.raises(BlobMissing):
        await blobs.get("0" * 64)


async def messages(server: LogServer) -> int:
    """Return how many messages the bucket's stream holds."""
    async with server.admin() as js:
        return (await js.stream_info(BLOB_STREAM)).state.messages


async def test_putting_again_stores_nothing(log_server: LogServer) -> None:
    """The same bytes, once more or from several processes at the same time, are stored once."""
    await log_server.set_up()
    content = CONTENTS[-1]
    async with log_server.transport() as one, log_server.transport() as two:
        async with anyio.create_task_group() as group:
            for transport in (one, two, one, two):
                group.start_soon(JetStreamBlobs(transport).put, content)
        count = await messages(log_server)
        assert count == 24  # 23 chunks and their description
        await JetStreamBlobs(two).put(content)
        assert await messages(log_server) == count
        assert await JetStreamBlobs(one).get(sha256(content).hexdigest()) == content


async def test_a_put_that_was_cut_off_is_continued(log_server: LogServer) -> None:
    """Chunks without a description are no blob yet; the next put uses them."""
    await log_server.set_up()
    content = CONTENTS[-1]
    digest = sha256(content).hexdigest()
    async with log_server.transport() as transport:
        for number in range(3):
            chunk = content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            await transport.request(f"{BLOB_CHUNK_PREFIX}.{digest}", payload=chunk)
        blobs = JetStreamBlobs(transport)
        with pytest.raises(BlobMissing):
            await blobs.get(digest)
        await blobs.put(content)
        assert await messages(log_server) == 24
        assert await blobs.get(digest) == content


async def test_other_bytes_in_its_place_do_no_harm(log_server: LogServer) -> None:
    """Who stores rubbish where a blob will stand can't keep it from being stored."""
    await log_server.set_up()
    content = CONTENTS[3]
    digest = sha256(content).hexdigest()
    async with log_server.transport() as transport:
        await transport.request(f"{BLOB_CHUNK_PREFIX}.{digest}", payload=b"rubbish")
        blobs = JetStreamBlobs(transport)
        assert await blobs.put(content) == digest
        assert await blobs.get(digest) == content


async def test_a_changed_blob_is_missing(log_server: LogServer) -> None:
    """What does not have its digest any more is never returned."""
    await log_server.set_up()
    content = CONTENTS[1]
    digest = sha256(content).hexdigest()
    async with log_server.transport() as transport:
        blobs = JetStreamBlobs(transport)
        await blobs.put(content)
        async with log_server.admin() as js:
            await js.purge_stream(BLOB_STREAM, subject=f"{BLOB_CHUNK_PREFIX}.{digest}")
        with pytest.raises(BlobMissing, match="another digest"):
            await blobs.get(digest)
    memory = MemoryBlobs()
    memory.contents[await memory.put(content)] = b"changed"
    with pytest.raises(BlobMissing):
        await memory.get(digest)


async def test_other_clients_read_ours_and_we_read_theirs(log_server: LogServer) -> None:
    """The bucket is a standard object store: the client library's own API and ours understand each other."""
    await log_server.set_up()
    async with log_server.transport() as transport, log_server.admin() as js:
        blobs = JetStreamBlobs(transport)
        theirs = await js.object_store(BLOB_BUCKET)
        for content in CONTENTS:
            digest = await blobs.put(content)
            found = await theirs.get(digest)
            assert (found.data or b"") == content
            assert found.info.size == len(content)
        for content in (b"their bytes", b"c" * (3 * CHUNK_BYTES + 7)):
            digest = sha256(content).hexdigest()
            await theirs.put(digest, content)
            assert await blobs.get(digest) == content
            assert await blobs.put(content) == digest


async def test_no_room(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A full bucket is BlobsFull, says what to do, and stores what fits after room was made."""
    server = LogServer(tmp_path_factory.mktemp("full"), max_bytes=300_000)
    server.start()
    try:
        await server.set_up()
        async with server.transport() as transport:
            blobs = JetStreamBlobs(transport)
            small = await blobs.put(b"small")
            with pytest.raises(BlobsFull, match=f"raise the limit of the stream {BLOB_STREAM}"):
                await blobs.put(CONTENTS[-1])
            assert await blobs.get(small) == b"small"
            async with server.admin() as js:
                config = (await js.stream_info(BLOB_STREAM)).config
                config.max_bytes = 10_000_000
                await js.update_stream(config)
            assert await blobs.get(await blobs.put(CONTENTS[-1])) == CONTENTS[-1]
    finally:
        server.kill()

    memory = MemoryBlobs(bytes_max=10)
    await memory.put(b"12345")
    with pytest.raises(BlobsFull, match="bytes_max"):
        await memory.put(b"123456")


async def test_blobs_survive_a_restart_in_the_middle(log_server: LogServer) -> None:
    """A put and a get that meet a killed server finish when it is back."""
    await log_server.set_up()
    content = CONTENTS[-1]
    async with log_server.transport() as transport:
        blobs = JetStreamBlobs(transport)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(blobs.put, content)
                await anyio.sleep(0.01)
                await anyio.to_thread.run_sync(log_server.restart)
            assert await blobs.get(sha256(content).hexdigest()) == content
