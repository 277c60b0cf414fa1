"""Live chatter, in memory and on NATS: heard by who listens, lost for everybody else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.live import NatsLive
from lumina.bus.log import Live
from lumina.bus.memory import MemoryLive
from lumina.bus.subjects import live_subject
from lumina.events.ids import StreamId

pytestmark = pytest.mark.anyio

TOKENS = live_subject(StreamId("r-1"), agent="specialist", what="tokens")
OTHER = live_subject(StreamId("r-2"), agent="specialist", what="tokens")


@pytest.fixture(params=["memory", "nats"])
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Live]:
    """Yield every implementation."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryLive()
        else:
            server: LogServer = request.getfixturevalue("log_server")
            yield NatsLive(await stack.enter_async_context(server.transport()))


async def test_who_listens_hears_what_it_listens_to(live: Live) -> None:
    """Each listener gets what matches its subject, in order, from the moment that it listens."""
    heard: dict[str, list[bytes]] = {"lumina.live.r-1.>": [], "lumina.live.*.specialist.tokens": []}
    await live.say(TOKENS, payload=b"before")

    async def listen(subject: str, count: int) -> None:
        async with aclosing(live.hear(subject)) as source:
            async for _, payload in source:
                heard[subject].append(payload)
                if len(heard[subject]) == count:
                    return

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(listen, "lumina.live.r-1.>", 3)
            group.start_soon(listen, "lumina.live.*.specialist.tokens", 4)
            await anyio.sleep(0.2)
            await live.say(OTHER, payload=b"other")
            for number in range(3):
                await live.say(TOKENS, payload=b"%d" % number)
    assert heard["lumina.live.r-1.>"] == [b"0", b"1", b"2"]
    assert heard["lumina.live.*.specialist.tokens"] == [b"other", b"0", b"1", b"2"]


async def test_saying_never_fails(log_server: LogServer) -> None:
    """Without a server, and with too much at once, chatter is dropped in silence."""
    async with log_server.transport() as transport:
        live = NatsLive(transport)
        await live.say(TOKENS, payload=b"x" * 2_000_000)
        log_server.kill()
        for _ in range(5):
            await live.say(TOKENS, payload=b"x")
            await anyio.sleep(0.05)
