"""The connection: what nats-py does wrong by itself must not reach anybody."""

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import BusError, Forbidden, LogUnavailable, PayloadTooLarge
from lumina.bus.nats_transport import connect
from lumina.bus.transport import Inbox, Message, Reconnected

pytestmark = pytest.mark.anyio


async def test_headers_count_towards_the_limit(log_server: LogServer) -> None:
    """A message whose body fits and whose headers do not is refused here; sent, it would close the connection."""
    async with log_server.transport() as transport:
        limit = transport.max_payload_bytes
        async with transport.subscribe("hello") as ears:
            with pytest.raises(PayloadTooLarge, match="with headers"):
                await transport.publish("hello", payload=b"x" * (limit - 50), headers={"name": "y" * 100})
            await transport.publish("hello", payload=b"x" * (limit - 200), headers={"name": "y" * 100})
            with anyio.fail_after(5):
                (heard,) = await ears.take(timeout_s=5)
        assert isinstance(heard, Message)
        assert heard.headers == {"name": "y" * 100}


async def test_nothing_is_sent_later(log_server: LogServer) -> None:
    """What was said without a connection fails at once, and is not sent when the connection is back."""
    async with log_server.transport() as transport, transport.subscribe("hello") as ears:
        log_server.kill()
        with anyio.fail_after(10):
            while True:
                try:
                    await transport.publish("hello", payload=b"ghost")
                except LogUnavailable:
                    break
                await anyio.sleep(0.01)
        ears.take_nowait()
        with pytest.raises(LogUnavailable):
            await transport.publish("hello", payload=b"ghost")
        log_server.start()
        assert await transport.wait_connected(timeout_s=20)
        await transport.publish("hello", payload=b"now")
        heard: list[object] = []
        with anyio.move_on_after(1):
            while True:
                heard += await ears.take(timeout_s=1)
        assert Reconnected() in heard
        assert [each.payload for each in heard if isinstance(each, Message)] == [b"now"]


async def test_a_request_fails_when_the_connection_breaks(log_server: LogServer) -> None:
    """Who waits for an answer is told as soon as it can't come any more, not after the timeout."""
    async with (
        log_server.transport() as transport,
        log_server.transport("silent") as silent,
        silent.subscribe("question"),
    ):
        await anyio.sleep(0.1)
        started = anyio.current_time()
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                with pytest.raises(LogUnavailable, match="lost"):
                    await transport.request("question", timeout_s=30)

            group.start_soon(ask)
            await anyio.sleep(0.2)
            log_server.kill()
        assert anyio.current_time() - started < 5


async def test_a_request_without_an_answer_ends(log_server: LogServer) -> None:
    """Silence is LogUnavailable after the timeout; nobody there is LogUnavailable at once."""
    async with log_server.transport() as transport:
        async with transport.subscribe("question"):
            with pytest.raises(LogUnavailable, match="no answer within"):
                await transport.request("question", timeout_s=0.2)
        with pytest.raises(LogUnavailable, match="nobody listens"):
            await transport.request("void", timeout_s=5)


async def test_wrong_credentials_are_forbidden(log_server: LogServer) -> None:
    """A server that does not know us is Forbidden at once, not an outage to wait out."""
    log_server.kill()
    log_server.permissions = "publish: [], subscribe: []"
    log_server.no_auth = False
    log_server.start()
    started = anyio.current_time()
    with pytest.raises(Forbidden, match="credentials"):
        async with connect(Endpoint(url=log_server.url, name="test"), timeout_s=20):
            pass
    assert anyio.current_time() - started < 10


async def test_an_inbox_is_bounded() -> None:
    """What does not fit is dropped and counted; an error comes after what had arrived."""
    inbox = Inbox(items_max=2)
    for number in range(3):
        inbox.put(Message("s", b"%d" % number))
    inbox.fail(LogUnavailable, "gone")
    assert inbox.dropped == 1
    arrived = await inbox.take(timeout_s=1)
    assert [each.payload for each in arrived if isinstance(each, Message)] == [b"0", b"1"]
    with pytest.raises(BusError, match="gone"):
        await inbox.take(timeout_s=1)
    assert await Inbox().take(timeout_s=0.01) == []


def test_an_endpoint_does_not_show_its_seed() -> None:
    """Whoever logs an endpoint does not log the secret."""
    endpoint = Endpoint(url="nats://h:1", name="sandbox", seed="SUSECRET")
    assert "SECRET" not in repr(endpoint)
    assert endpoint.inbox_prefix == "_INBOX_sandbox"
