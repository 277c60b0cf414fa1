"""The log in memory on another event loop, and with a clock that a simulation turns."""

from contextlib import aclosing

import anyio
import pytest

from lumina.bus.memory import MemoryBlobs, MemoryLive, MemoryLog
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.record import Draft

pytestmark = pytest.mark.anyio


def request(number: int) -> Draft[Event]:
    """Return a request for a specialist."""
    stream = StreamId("local")
    event = UnloadRequested(node="local", instance=f"tiny#{number}", reason=UnloadReason.IDLE)
    name = root_event_id(stream, name=str(number))
    return Draft(event=event, id=name, stream=stream, agent="governor", time_ms=number, causation=None)


async def test_a_turned_clock_delivers_again() -> None:
    """With a clock of its own the ack wait passes when the clock is turned, and not before."""
    now = 100.0
    log = MemoryLog(clock=lambda: now, ack_wait_s=15)
    await log.append(request(1))
    async with aclosing(log.work("specialist")) as first, aclosing(log.work("specialist")) as second:
        held = await anext(first)
        again: list[int] = []

        async def wait() -> None:
            again.append((await anext(second)).recorded.seq)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(0.05)
                now += 14
                log.tick()
                await held.in_progress()
                now += 14
                log.tick()
                await anyio.sleep(0.05)
                assert again == []
                now += 2
                log.tick()
    assert again == [1]


async def test_a_history_can_be_gone_on_with() -> None:
    """A log that begins with given records continues their chains and fills their slots no second time."""
    old = MemoryLog()
    records = [await old.append(request(number)) for number in range(3)]
    log = MemoryLog(records)
    assert await log.append(request(1)) == records[1]
    fresh = await log.append(request(3))
    assert (fresh.seq, fresh.position, fresh.previous) == (4, 4, records[2].digest)
    assert [each async for each in log.read()] == [*records, fresh]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_runs_on_every_backend(backend: str) -> None:
    """Appending, following, working, blobs and chatter need nothing of asyncio."""

    async def everything() -> list[int]:
        log, blobs, live = MemoryLog(), MemoryBlobs(), MemoryLive()
        seen: list[int] = []
        await live.say("lumina.live.x", payload=b"nobody hears")

        async def follow() -> None:
            async with aclosing(log.follow()) as source:
                async for recorded in source:
                    seen.append(recorded.seq)
                    if len(seen) == 3:
                        return

        async def work() -> None:
            async with aclosing(log.work("specialist")) as deliveries:
                for _ in range(3):
                    await (await anext(deliveries)).ack()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                group.start_soon(work)
                for number in range(3):
                    await log.append(request(number))
        assert await blobs.get(await blobs.put(b"x")) == b"x"
        return seen

    assert anyio.run(everything, backend=backend) == [1, 2, 3]
