"""The log, the blobs and the workers through the accounts of the embedded server: each with its own credentials."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import anyio
import pytest

from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.errors import Forbidden
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.nats_transport import connect
from lumina.bus.permissions import AgentRole
from lumina.bus.server import EmbeddedServer, embedded_server
from lumina.bus.subjects import Filter
from lumina.bus.transport import Transport
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.record import Draft
from lumina.events.run import RunCancelRequested
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

NODE = StreamId("local")
RECORDS = 1_500


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """Run one server per test."""
    async with embedded_server(tmp_path_factory.mktemp("log"), sync="default") as running:
        yield running


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close what a test opened."""
    async with AsyncExitStack() as opened:
        yield opened


async def transport(server: EmbeddedServer, stack: AsyncExitStack, role: AgentRole) -> Transport:
    """Connect with the credentials of `role`."""
    return await stack.enter_async_context(connect(server.endpoint(role)))


def draft(event: Event, *, agent: str, number: int, stream: StreamId = NODE) -> Draft[Event]:
    """Return a draft in the slot that agent and number name."""
    return Draft(
        event=event,
        id=root_event_id(stream, name=f"{agent}/{number}"),
        stream=stream,
        agent=agent,
        time_ms=1_700_000_000_000 + number,
        causation=None,
    )


def timer(number: int) -> Draft[Event]:
    """Return what a keeper's runner says for the clock."""
    return draft(TimerElapsed(timer=f"t-{number}", due=number), agent="clock", number=number)


async def test_a_keepers_records_are_read_and_followed_by_another(
    server: EmbeddedServer, stack: AsyncExitStack
) -> None:
    """Batches of direct gets and the tail cross from account to account, complete and in order."""
    governor = JetStreamLog(await transport(server, stack, "governor"))
    client = JetStreamLog(await transport(server, stack, "client"))
    written = [await governor.append(timer(number)) for number in range(RECORDS)]
    assert [each async for each in client.read()] == written
    async with aclosing(client.follow(after=RECORDS - 1)) as records:
        with anyio.fail_after(10):
            assert await anext(records) == written[-1]
            late = await governor.append(timer(RECORDS))
            assert await anext(records) == late
    assert await client.log_id() == server.log_id


async def test_a_request_is_worked_on(server: EmbeddedServer, stack: AsyncExitStack) -> None:
    """A keeper's request reaches a worker, is kept by heartbeats, given back, delivered again and acknowledged."""
    governor = JetStreamLog(await transport(server, stack, "governor"))
    specialist = JetStreamLog(await transport(server, stack, "specialist"))
    request = UnloadRequested(instance="tiny#0", node="local", reason=UnloadReason.IDLE)
    recorded = await governor.append(draft(request, agent="governor", number=1))
    async with aclosing(specialist.work("specialist")) as deliveries:
        with anyio.fail_after(10):
            first = await anext(deliveries)
            await first.in_progress()
            await first.retry(delay_s=0.1)
            again = await anext(deliveries)
            await again.ack()
    assert first.recorded == again.recorded == recorded
    assert await governor.last(Filter(agent="specialist")) is None


async def test_nobody_appends_in_anothers_name(server: EmbeddedServer, stack: AsyncExitStack) -> None:
    """An append under another's name fails with `Forbidden`, and the log stays as it was."""
    sandbox = JetStreamLog(await transport(server, stack, "sandbox"))
    cancelled = RunCancelRequested(reason="I say so.")
    with pytest.raises(Forbidden):
        await sandbox.append(draft(cancelled, agent="client", number=1, stream=StreamId("r-1")))
    assert await sandbox.last_seq() == 0


async def test_blobs_go_from_agent_to_agent(server: EmbeddedServer, stack: AsyncExitStack) -> None:
    """What one role puts, another gets, in several chunks."""
    content = bytes(range(251)) * 4_000
    digest = await JetStreamBlobs(await transport(server, stack, "sandbox")).put(content)
    assert await JetStreamBlobs(await transport(server, stack, "validator")).get(digest) == content
