"""The log on JetStream when connections break and servers are killed."""

import anyio
import pytest
from nats.aio.client import Client
from tests.bus.conftest import LogServer

from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import Forbidden, LogUnavailable
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.nats_transport import NatsTransport, connect
from lumina.bus.subjects import LOG_ALL, LOG_PREFIX, Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.record import Draft, Recorded
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

RUN = StreamId("r-1")


def draft(number: int, *, event: Event | None = None) -> Draft[Event]:
    """Return a draft whose slot is named by `number`."""
    return Draft(
        event=event or TimerElapsed(timer="t", due=number),
        id=root_event_id(RUN, name=str(number)),
        stream=RUN,
        agent="clock",
        time_ms=number,
        causation=None,
    )


async def test_a_lost_acknowledgement_is_resolved_by_reading(log_server: LogServer) -> None:
    """An append whose answer was lost returns the record that landed, and does not append a second one."""
    await log_server.set_up()
    async with log_server.lossy() as transport:
        log = JetStreamLog(transport)
        await log.append(draft(1))
        transport.lose = 1
        second = await log.append(draft(2))
        third = await log.append(draft(3))
        assert transport.lost == 1
        assert (second.seq, second.position, third.position) == (2, 2, 3)
        assert [each.id async for each in log.read()] == [draft(number).id for number in (1, 2, 3)]


async def test_a_connection_that_breaks_during_appends(log_server: LogServer) -> None:
    """However often the connection breaks between request and answer, each slot is filled once, in order."""
    await log_server.set_up()
    transport = NatsTransport(Endpoint(url=log_server.url, name="test"))
    await transport.start(timeout_s=10)
    client: Client = transport._client  # the only way to break the connection from this side
    log = JetStreamLog(transport)
    done = anyio.Event()
    records: list[Recorded[Event]] = []

    async def break_it() -> None:
        while not done.is_set():
            await anyio.sleep(0.15)
            await client.force_reconnect()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(break_it)
            records += [await log.append(draft(number)) for number in range(400)]
            done.set()
    assert client.stats["reconnects"] > 0
    assert [each async for each in log.read()] == records
    assert [each.seq for each in records] == list(range(1, 401))
    await transport.stop()


async def test_a_server_that_is_killed_during_appends_and_follow(log_server: LogServer) -> None:
    """Nothing acknowledged is lost, nothing is doubled, and followers see every record once, over three kills."""
    await log_server.set_up()
    count = 240
    seen: list[tuple[int, str]] = []

    async with log_server.transport("writer") as ours, log_server.transport("reader") as theirs:
        writer, reader = JetStreamLog(ours), JetStreamLog(theirs)
        finished = anyio.Event()

        async def follow() -> None:
            async for recorded in reader.follow():
                seen.append((recorded.seq, recorded.id))
                if len(seen) == count:
                    return

        async def write() -> None:
            for number in range(count):
                await writer.append(draft(number))
                await anyio.sleep(0.005)
            finished.set()

        with anyio.fail_after(90):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                group.start_soon(write)
                for _ in range(3):
                    await anyio.sleep(0.6)
                    await anyio.to_thread.run_sync(log_server.restart)
        assert finished.is_set()
        assert seen == [(number + 1, draft(number).id) for number in range(count)]
        assert [each.seq async for each in writer.read()] == list(range(1, count + 1))


async def test_work_survives_a_restart(log_server: LogServer) -> None:
    """A waiting worker gets its next request after the server was killed, though its pull was forgotten."""
    await log_server.set_up()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        handled: list[int] = []

        async def work() -> None:
            async for delivery in log.work("specialist"):
                await delivery.ack()
                handled.append(delivery.recorded.seq)
                if len(handled) == 3:
                    return

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(work)
                for number in range(3):
                    request = UnloadRequested(node="local", instance=f"tiny#{number}", reason=UnloadReason.IDLE)
                    await log.append(draft(number, event=request))
                    await anyio.sleep(0.3)
                    if number < 2:
                        await anyio.to_thread.run_sync(log_server.restart)
    assert sorted(handled) == [1, 2, 3]


async def test_an_append_without_a_server_fails_in_time(log_server: LogServer) -> None:
    """An outage longer than `append_s_max` is LogUnavailable, and the same append succeeds when the server is back."""
    await log_server.set_up()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport, append_s_max=0.5)
        await log.append(draft(1))
        log_server.kill()
        started = anyio.current_time()
        with pytest.raises(LogUnavailable):
            await log.append(draft(2))
        assert anyio.current_time() - started < 3
        log_server.start()
        assert await transport.wait_connected(timeout_s=20)
        patient = JetStreamLog(transport)
        assert (await patient.append(draft(2))).seq == 2


async def test_follow_and_work_give_up_when_the_log_is_gone_for_good(log_server: LogServer) -> None:
    """After `retry_s_max` without a server, followers and workers raise LogUnavailable."""
    await log_server.set_up()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport, retry_s_max=0.5, poll_s=0.2)
        await log.append(draft(1))

        async def follow() -> None:
            with pytest.raises(LogUnavailable):
                _ = [each async for each in log.follow()]

        async def work() -> None:
            with pytest.raises(LogUnavailable):
                _ = [each async for each in log.work("specialist")]

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                group.start_soon(work)
                await anyio.sleep(0.5)
                log_server.kill()


async def test_nobody_listens(log_server: LogServer) -> None:
    """No server at all, and a server that was never set up, are outages that say what is missing."""
    async with log_server.transport() as transport:
        with pytest.raises(LogUnavailable, match="set up"):
            await JetStreamLog(transport, append_s_max=0.2).append(draft(1))
    log_server.kill()
    with pytest.raises(LogUnavailable, match="no NATS server"):
        async with connect(Endpoint(url=log_server.url, name="test"), timeout_s=0.5):
            pass


async def test_a_closed_connection_ends_followers(log_server: LogServer) -> None:
    """Who still follows on a connection that is closed on purpose is told at once."""
    await log_server.set_up()
    ended = anyio.Event()

    async with anyio.create_task_group() as group:
        async with log_server.transport() as transport:
            log = JetStreamLog(transport)

            async def follow() -> None:
                with pytest.raises(LogUnavailable):
                    _ = [each async for each in log.follow([Filter(event=TimerElapsed)])]
                ended.set()

            group.start_soon(follow)
            await anyio.sleep(0.2)
        with anyio.fail_after(5):
            await ended.wait()


async def test_forbidden_is_not_an_outage(log_server: LogServer) -> None:
    """A subject that the credentials do not allow is Forbidden, at once, for publishing, asking and hearing."""
    log_server.kill()
    log_server.permissions = f'publish: {{ deny: ["{LOG_ALL}"] }}, subscribe: {{ allow: ["_INBOX_test.>"] }}'
    log_server.start()
    async with log_server.transport() as transport:
        started = anyio.current_time()
        with pytest.raises(Forbidden, match="lumina"):
            await transport.request(f"{LOG_PREFIX}.timer.r-1.clock.elapsed-v1", payload=b"{}")
        assert anyio.current_time() - started < 2
        async with transport.subscribe("lumina.tail.>") as tail:
            with pytest.raises(Forbidden):
                await tail.take(timeout_s=5)
        assert await transport.wait_connected(timeout_s=1)
