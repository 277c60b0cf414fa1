"""External consumers follow the log with nothing but a standard client, and can't change it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import anyio
import nats
import pytest
from nats.aio.client import Client
from nats.js.api import ObjectInfo
from nats.js.errors import NotFoundError

from lumina.bus.address import Running
from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.errors import Forbidden
from lumina.bus.nats_transport import connect
from lumina.bus.server import EmbeddedServer, create_consumer_credentials, embedded_server
from lumina.bus.subjects import (
    BLOB_BUCKET,
    BLOB_CHUNK_PREFIX,
    BLOB_META_PREFIX,
    BLOB_STREAM,
    JS_API,
    LOG_ALL,
    LOG_STREAM,
    TAIL_ALL,
    stream_facts_subject,
)
from lumina.bus.topology import ensure_mirrors
from lumina.bus.transport import Message, Transport

pytestmark = pytest.mark.anyio

SUBMITTED = "lumina.log.run.r-{}.client.submitted-v1"
CLOSED = "lumina.log.run.r-1.orchestrator.closed-v1"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """Run one server for all tests of this file; they only add to its log."""
    async with embedded_server(tmp_path_factory.mktemp("consumers"), sync="default") as running:
        await create_consumer_credentials(running.home, name="first")
        yield running


@asynccontextmanager
async def plain_client(running: Running, *, key: Path) -> AsyncIterator[Client]:
    """Connect as an external program does: address, key file, inbox prefix."""
    client = await nats.connect(running.url, nkeys_seed=str(key), inbox_prefix=f"_INBOX_{key.stem}")
    try:
        yield client
    finally:
        await client.close()


async def put(transport: Transport, subject: str, payload: bytes) -> int:
    """Store a message and return its sequence."""
    return int(json.loads((await transport.request(subject, payload=payload)).payload)["seq"])


async def last_seq(running: Running) -> int:
    """Return where the log itself ends."""
    async with connect(running.endpoint("client")) as client:
        facts = json.loads((await client.request(stream_facts_subject(LOG_STREAM))).payload)
        return int(facts["state"]["last_seq"])


async def test_a_new_consumer_is_known_without_a_restart(server: EmbeddedServer) -> None:
    """Its key works at once, connections of the agents stay up, and the server's process is the same."""
    async with connect(server.endpoint("sandbox")) as agent:
        key = await create_consumer_credentials(server.home, name="second")
        async with plain_client(server, key=key) as client:
            assert client.is_connected
        assert (await agent.request(stream_facts_subject(LOG_STREAM), timeout_s=2)).payload
    assert server.process.returncode is None


async def test_nats_py_follows_the_log_from_its_start(server: EmbeddedServer) -> None:
    """An ordered consumer of plain nats-py gets every record, old and new, in order and with the log's sequences."""
    key = await create_consumer_credentials(server.home, name="ordered")
    async with connect(server.endpoint("client")) as writer:
        for number in range(3):
            await put(writer, SUBMITTED.format(number), b"{}")
        async with plain_client(server, key=key) as client:
            following = await client.jetstream().subscribe(LOG_ALL, stream=LOG_STREAM, ordered_consumer=True)
            end = await put(writer, SUBMITTED.format("new"), b'{"new":true}')
            seen: list[tuple[int, str, bytes]] = []
            while not seen or seen[-1][0] < end:
                message = await following.next_msg(timeout=10)
                seen.append((message.metadata.sequence.stream, message.subject, message.data))
            await following.unsubscribe()
    assert [seq for seq, _, _ in seen] == list(range(1, end + 1))
    assert seen[-1] == (end, SUBMITTED.format("new"), b'{"new":true}')


async def test_nats_py_pulls_with_an_ephemeral_consumer(server: EmbeddedServer) -> None:
    """A pull consumer with a filter, as the ordered consumers of newer clients use it, works as well."""
    key = await create_consumer_credentials(server.home, name="puller")
    async with connect(server.endpoint("client")) as writer:
        await put(writer, SUBMITTED.format("pulled"), b"{}")
    async with plain_client(server, key=key) as client:
        pulling = await client.jetstream().pull_subscribe(SUBMITTED.format("pulled"), stream=LOG_STREAM)
        [message] = await pulling.fetch(1, timeout=10)
        await message.ack_sync()
        assert message.subject == SUBMITTED.format("pulled")


async def test_nats_py_reads_blobs(server: EmbeddedServer) -> None:
    """A blob's entry and its chunks can be read with a standard client that names the stream."""
    key = await create_consumer_credentials(server.home, name="reader")
    content = bytes(range(256)) * 2_000
    async with connect(server.endpoint("client")) as writer:
        digest = await JetStreamBlobs(writer).put(content)
    async with plain_client(server, key=key) as client:
        entry = await _entry(client, digest)
        chunks = await client.jetstream().subscribe(
            f"{BLOB_CHUNK_PREFIX}.{entry.nuid}", stream=BLOB_STREAM, ordered_consumer=True
        )
        found = b"".join([(await chunks.next_msg(timeout=10)).data for _ in range(entry.chunks or 0)])
        await chunks.unsubscribe()
    assert sha256(found).hexdigest() == digest
    assert found == content


async def _entry(client: Client, digest: str) -> ObjectInfo:
    """Return what the object store says about a blob, once the mirror has it: it follows within milliseconds."""
    store = await client.jetstream().object_store(BLOB_BUCKET)
    with anyio.fail_after(10):
        while True:
            try:
                return await store.get_info(digest)
            except NotFoundError:
                await anyio.sleep(0.05)


async def test_the_tail_is_heard(server: EmbeddedServer) -> None:
    """Records are heard as they land, with their sequence, by a subscription without JetStream."""
    async with (
        connect(server.endpoint("consumer-first")) as consumer,
        connect(server.endpoint("client")) as writer,
        consumer.subscribe(TAIL_ALL) as tail,
    ):
        await consumer.request(stream_facts_subject(LOG_STREAM))
        seq = await put(writer, SUBMITTED.format("tail"), b"{}")
        [message] = await tail.take(timeout_s=5)
    assert isinstance(message, Message)
    assert message.headers["Nats-Sequence"] == str(seq)


async def test_a_consumer_changes_nothing(server: EmbeddedServer) -> None:
    """Writing events and blobs, and changing streams, is refused."""
    calls = ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE")
    async with connect(server.endpoint("consumer-first")) as consumer:
        for subject in (
            CLOSED,
            SUBMITTED.format(1),
            f"{BLOB_CHUNK_PREFIX}.x",
            f"{BLOB_META_PREFIX}.x",
            "lumina.tail.run.r-1.client.submitted-v1",
            "lumina.live.r-1.client.x",
            "lumina.mirror.api.CONSUMER.CREATE.LUMINA_LOG.x",
            *(f"{JS_API}.STREAM.{call}.{stream}" for call in calls for stream in (LOG_STREAM, BLOB_STREAM)),
        ):
            with pytest.raises(Forbidden):
                await consumer.request(subject, payload=b"{}")


@pytest.mark.parametrize(
    "deliver", [CLOSED, f"{JS_API}.STREAM.DELETE.{LOG_STREAM}", f"{JS_API}.STREAM.PURGE.{LOG_STREAM}"]
)
@pytest.mark.parametrize("headers_only", [False, True])
async def test_no_delivery_reaches_the_log(server: EmbeddedServer, deliver: str, headers_only: bool) -> None:
    """A hostile consumer that has messages delivered to an event's subject, or to a call that deletes, hits no log."""
    async with connect(server.endpoint("client")) as writer:
        before = await put(writer, SUBMITTED.format("deliver"), b"{}")
    async with connect(server.endpoint("consumer-first")) as consumer:
        config = {"deliver_subject": deliver, "ack_policy": "none", "headers_only": headers_only, "name": "x"}
        body = json.dumps({"stream_name": LOG_STREAM, "config": config}).encode()
        await consumer.request(f"{JS_API}.CONSUMER.CREATE.{LOG_STREAM}.x", payload=body)
        for subject in (f"{JS_API}.DIRECT.GET.{LOG_STREAM}", f"{JS_API}.STREAM.MSG.GET.{LOG_STREAM}"):
            await consumer.publish(subject, payload=b'{"seq":1}', reply=deliver)
        await anyio.sleep(0.5)
        await consumer.publish(f"{JS_API}.CONSUMER.DELETE.{LOG_STREAM}.x")
    assert await last_seq(server) == before
    async with connect(server.endpoint("client")) as reader:
        facts = json.loads((await reader.request(stream_facts_subject(LOG_STREAM))).payload)
        assert facts["state"]["messages"] == before
    await ensure_mirrors(server.endpoint("curator"))  # The copy may be gone: that much a hostile consumer can do.


async def test_the_mirror_is_there_after_a_restart(tmp_path: Path) -> None:
    """Credentials made while no server runs work when it starts."""
    key = await create_consumer_credentials(tmp_path, name="early")
    async with embedded_server(tmp_path, sync="default") as running, plain_client(running, key=key) as client:
        facts = await client.jetstream().stream_info(LOG_STREAM)
        assert facts.config.mirror is not None
    async with embedded_server(tmp_path, sync="default") as running, plain_client(running, key=key) as client:
        assert (await client.jetstream().stream_info(BLOB_STREAM)).config.mirror is not None


@pytest.mark.parametrize("name", ["", "A", "a b", "a.b", "*", "x" * 41, "../up"])
async def test_a_consumers_name_is_checked(tmp_path: Path, name: str) -> None:
    """What can't be a subject token or a file name is refused before anything is written."""
    with pytest.raises(ValueError, match="lower-case"):
        await create_consumer_credentials(tmp_path, name=name)
