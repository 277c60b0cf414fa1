"""What every event log promises: one suite, run on the log in memory and on JetStream."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import anyio
import msgspec
import pytest
from tests.bus.conftest import LogUnderTest

from lumina.bus.errors import LogDamaged, PayloadTooLarge
from lumina.bus.log import EventLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId, root_event_id
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.record import NO_DIGEST, Draft, Head, Recorded
from lumina.events.run import RunCancelRequested
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

RUN = StreamId("r-1")


def draft(number: int, *, stream: StreamId = RUN, agent: str = "clock", event: Event | None = None) -> Draft[Event]:
    """Return a draft whose slot is named by `number`, stream and agent."""
    return Draft(
        event=event or TimerElapsed(timer=f"step-{number}", due=number),
        id=root_event_id(stream, name=f"{agent}/{number}"),
        stream=stream,
        agent=agent,
        time_ms=1_700_000_000_000 + number,
        causation=None,
    )


def unload(number: int) -> Draft[Event]:
    """Return a request that the role `specialist` answers."""
    event = UnloadRequested(instance=f"tiny#{number}", node="local", reason=UnloadReason.IDLE)
    return draft(number, stream=StreamId("local"), agent="governor", event=event)


async def collect(records: AsyncGenerator[Recorded[Event], None], *, count: int, timeout_s: float = 10) -> list[int]:
    """Return the sequences of the next `count` records."""
    found: list[int] = []
    with anyio.fail_after(timeout_s):
        async with aclosing(records) as source:
            async for recorded in source:
                found.append(recorded.seq)
                if len(found) == count:
                    break
    return found


async def test_append_returns_the_record_as_it_stands(under_test: LogUnderTest) -> None:
    """What `append` returns is what every reader finds."""
    first = await under_test.log.append(draft(1))
    second = await under_test.log.append(draft(2))

    assert (first.seq, first.position, first.previous) == (1, 1, NO_DIGEST)
    assert (second.seq, second.position, second.previous) == (2, 2, first.digest)
    other = await under_test.another()
    assert [each async for each in other.read()] == [first, second]
    assert await other.last_seq() == 2
    assert await other.head(RUN, agent="clock") == Head(seq=2, position=2, digest=second.digest)


async def test_an_empty_log(under_test: LogUnderTest) -> None:
    """Nothing is found in an empty log, and nothing is damaged."""
    log = under_test.log
    assert [each async for each in log.read()] == []
    assert await log.last_seq() == 0
    assert await log.last(Filter()) is None
    assert await log.head(RUN, agent="clock") == Head()
    assert await log.find(EventId("0" * 32), stream=RUN, agent="clock") is None
    assert await log.at(1) is None


async def test_a_filled_slot_keeps_its_record(under_test: LogUnderTest) -> None:
    """Appending to a filled slot returns what stands there, also for another process, other bytes, and much later."""
    first = await under_test.log.append(draft(1))
    await under_test.log.append(draft(2))

    again = msgspec.structs.replace(draft(1), event=TimerElapsed(timer="another", due=99))
    assert await under_test.log.append(again) == first
    await anyio.sleep(0.3)  # Past the dedupe window of the test server.
    other = await under_test.another()
    assert await other.append(again) == first
    assert await other.last_seq() == 2


async def test_find_and_last(under_test: LogUnderTest) -> None:
    """A slot is found by its id in its writer's chain, also when another process filled it."""
    log = under_test.log
    other = await under_test.another()
    assert await other.find(draft(1).id, stream=RUN, agent="clock") is None
    first = await log.append(draft(1))
    second = await log.append(draft(1, agent="client", event=RunCancelRequested(reason="enough")))

    assert await other.find(first.id, stream=RUN, agent="clock") == first
    assert await other.find(first.id, stream=RUN, agent="client") is None
    assert await other.last(Filter()) == second
    assert await other.last(Filter(agent="clock")) == first
    assert await other.last(Filter(event=RunCancelRequested, stream=RUN)) == second
    assert await other.last(Filter(stream=StreamId("r-2"))) is None
    assert await other.at(2) == second


async def test_writers_of_one_chain_are_serialised(under_test: LogUnderTest) -> None:
    """Concurrent processes that write as the same agent in one stream make one unbroken chain."""
    logs = [under_test.log, await under_test.another("b"), await under_test.another("c")]

    async def write(which: int) -> None:
        for number in range(12):
            await logs[which].append(draft(which * 100 + number))

    async with anyio.create_task_group() as group:
        for which in range(len(logs)):
            group.start_soon(write, which)

    records = [each async for each in under_test.log.read()]
    assert [each.position for each in records] == list(range(1, 37))
    assert len({each.id for each in records}) == 36


async def test_competitors_for_one_slot_fill_it_once(under_test: LogUnderTest) -> None:
    """Two processes that decide the same at the same time append one record, and both get it."""
    other = await under_test.another()
    results: list[Recorded[Event]] = []

    async def write(log: EventLog) -> None:
        results.extend([await log.append(draft(number)) for number in range(10)])

    async with anyio.create_task_group() as group:
        for log in (under_test.log, other, under_test.log):
            group.start_soon(write, log)

    assert await under_test.log.last_seq() == 10
    assert len({(each.seq, each.id, each.digest) for each in results}) == 10


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ([Filter()], lambda each: True),
        ([Filter(stream=StreamId("r-2"))], lambda each: each.stream == "r-2"),
        ([Filter(agent="client")], lambda each: each.agent == "client"),
        ([Filter(event=TimerElapsed)], lambda each: isinstance(each.event, TimerElapsed)),
        (
            [Filter(event=RunCancelRequested), Filter(stream=StreamId("r-1"), agent="clock")],
            lambda each: isinstance(each.event, RunCancelRequested) or each.stream == "r-1",
        ),
        (
            [Filter(stream=StreamId("r-1"), agent="clock"), Filter(stream=StreamId("r-1"), agent="client")],
            lambda each: each.stream == "r-1",
        ),
    ],
)
async def test_reading_by_filter(
    under_test: LogUnderTest, filters: list[Filter], wanted: Callable[[Recorded[Event]], bool]
) -> None:
    """A reader gets exactly what its filters match, once, in order, between `after` and `until`."""
    for number in range(8):
        await under_test.log.append(draft(number, stream=StreamId(f"r-{number % 3}")))
        stop = RunCancelRequested(reason="enough")
        await under_test.log.append(draft(number, stream=StreamId(f"r-{number % 3}"), agent="client", event=stop))

    everything = [each async for each in under_test.log.read()]
    assert [each.seq for each in everything] == list(range(1, 17))
    assert [each async for each in under_test.log.read(filters)] == list(filter(wanted, everything))
    part = [each async for each in under_test.log.read(filters, after=3, until=11)]
    assert part == [each for each in everything if wanted(each) and 3 < each.seq <= 11]


async def test_a_reader_ahead_of_the_log_finds_damage(under_test: LogUnderTest) -> None:
    """Who has read further than the log goes is told that the log lost its tail."""
    await under_test.log.append(draft(1))
    with pytest.raises(LogDamaged) as caught:
        _ = [each async for each in under_test.log.read(after=3)]
    assert caught.value.seq == 2
    with pytest.raises(LogDamaged):
        await collect(under_test.log.follow(after=3), count=1)


async def test_follow_catches_up_and_goes_on(under_test: LogUnderTest) -> None:
    """A follower gets what was there and what comes, without loss or repetition."""
    other = await under_test.another()
    for number in range(5):
        await other.append(draft(number))
    seen: list[int] = []

    async def follow() -> None:
        seen.extend(await collect(under_test.log.follow(after=2), count=18))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        for number in range(5, 20):
            await other.append(draft(number))
    assert seen == list(range(3, 21))


async def test_a_follower_hears_at_once(under_test: LogUnderTest) -> None:
    """A record reaches an idle follower in far less than the slow poll takes."""
    other = await under_test.another()
    delays: list[float] = []

    async def follow() -> None:
        async with aclosing(under_test.log.follow([Filter(event=TimerElapsed)])) as source:
            async for _recorded in source:
                delays.append(anyio.current_time())
                if len(delays) == 5:
                    return

    started: list[float] = []
    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        for number in range(5):
            await anyio.sleep(0.1)
            started.append(anyio.current_time())
            await other.append(draft(number))
    assert max(b - a for a, b in zip(started, delays, strict=True)) < 2


async def test_a_follower_that_is_cancelled_loses_nothing(under_test: LogUnderTest) -> None:
    """Following again from the last record seen goes on where the cancelled follower stopped."""
    seen: list[int] = []

    async def follow() -> None:
        nonlocal seen
        after = seen[-1] if seen else 0
        async with aclosing(under_test.log.follow(after=after)) as source:
            async for recorded in source:
                seen += [recorded.seq]  # Not a comprehension: what was seen before the cancellation counts.

    for number in range(6):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await under_test.log.append(draft(number))
            await anyio.sleep(0.02 * (number % 3))
            group.cancel_scope.cancel()
    await under_test.log.append(draft(6))
    rest = await collect(under_test.log.follow(after=seen[-1] if seen else 0), count=7 - len(seen))
    assert seen + rest == list(range(1, 8))


async def test_two_workers_share(under_test: LogUnderTest) -> None:
    """Every request goes to one instance of its role, and to no other while that one holds it."""
    logs = [under_test.log, await under_test.another()]
    handled: list[int] = []

    async def work(which: int, scope: anyio.CancelScope) -> None:
        async with aclosing(logs[which].work("specialist")) as deliveries:
            async for delivery in deliveries:
                handled.append(delivery.recorded.seq)
                await anyio.sleep(0.01)
                await delivery.ack()
                if len(handled) == 20:
                    scope.cancel()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for which in range(2):
                group.start_soon(work, which, group.cancel_scope)
            for number in range(20):
                await under_test.log.append(unload(number))
                await under_test.log.append(draft(number))  # Not for a specialist.
    assert sorted(handled) == list(range(1, 41, 2))


async def test_what_a_dead_instance_held_comes_again(under_test: LogUnderTest) -> None:
    """An unacknowledged request is delivered to another instance after the ack wait, an acknowledged one never."""
    await under_test.log.append(unload(1))
    await under_test.log.append(unload(2))
    async with aclosing(under_test.log.work("specialist")) as deliveries:
        first = await anext(deliveries)
        await first.ack()
        second = await anext(deliveries)
        assert second.recorded.seq == 2

    other = await under_test.another()
    with anyio.fail_after(10):
        async with aclosing(other.work("specialist")) as deliveries:
            again = await anext(deliveries)
            assert again.recorded == second.recorded
            await again.ack()
    with anyio.move_on_after(1.5) as scope:
        async with aclosing(under_test.log.work("specialist")) as deliveries:
            await anext(deliveries)
    assert scope.cancelled_caught


async def test_a_heartbeat_keeps_a_request(under_test: LogUnderTest) -> None:
    """Work longer than the ack wait is not handed to another instance while heartbeats come."""
    other = await under_test.another()
    await under_test.log.append(unload(1))
    taken: list[int] = []

    async def compete() -> None:
        async with aclosing(other.work("specialist")) as theirs:
            taken.append((await anext(theirs)).recorded.seq)

    async with aclosing(under_test.log.work("specialist")) as mine:
        held = await anext(mine)
        async with anyio.create_task_group() as group:
            group.start_soon(compete)
            for _ in range(8):
                await anyio.sleep(0.3)
                await held.in_progress()
            await held.ack()
            group.cancel_scope.cancel()
    assert taken == []


async def test_a_request_given_back_comes_after_its_delay(under_test: LogUnderTest) -> None:
    """`retry` delivers again, not before the delay and well before the ack wait would."""
    await under_test.log.append(unload(1))
    async with aclosing(under_test.log.work("specialist")) as deliveries:
        first = await anext(deliveries)
        started = anyio.current_time()
        await first.retry(delay_s=0.3)
        with anyio.fail_after(5):
            again = await anext(deliveries)
        assert again.recorded == first.recorded
        assert 0.25 < anyio.current_time() - started < 0.9
        await again.ack()


async def test_a_worker_that_left_takes_nothing_along(under_test: LogUnderTest) -> None:
    """A request that arrives after an instance was cancelled goes to another one at once."""
    other = await under_test.another()
    with anyio.move_on_after(0.3):
        async with aclosing(under_test.log.work("specialist")) as deliveries:
            await anext(deliveries)
    await under_test.log.append(unload(1))
    started = anyio.current_time()
    with anyio.fail_after(5):
        async with aclosing(other.work("specialist")) as deliveries:
            await (await anext(deliveries)).ack()
    assert anyio.current_time() - started < 0.8


async def test_a_record_over_the_limit_is_refused(under_test: LogUnderTest) -> None:
    """A record that the server would not take is refused before, and the connection lives on."""
    huge = RunCancelRequested(reason="x")
    msgspec.structs.force_setattr(huge, "reason", "x" * 1_100_000)
    with pytest.raises(PayloadTooLarge):
        await under_test.log.append(draft(1, agent="client", event=huge))
    assert (await under_test.log.append(draft(2))).seq == 1
