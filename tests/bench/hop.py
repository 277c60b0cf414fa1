"""One hop: a request is appended, a worker is handed it and appends its outcome, a follower reads that."""

import time
from contextlib import aclosing

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from tests.bench.figures import Figure, latency
from tests.bench.raw import Yardstick
from tests.bench.stage import processes, served

from lumina.bus.startup import Sync
from lumina.bus.subjects import Filter
from lumina.cli.following import now_ms, store
from lumina.cli.place import Bus, bus
from lumina.events.base import Event
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Recorded
from lumina.events.validation import ValidationRequested
from lumina.events.values import BlobRef

PART = "hop"
CODE = b"def add(a, b):\n    return a + b\n"
CONTRACT = OutputContract(language=Language.PYTHON, form=Form.FUNCTION, entry="add")
WARM_UP = 10


async def measure(sync: Sync, *, count: int, raw: Yardstick) -> list[Figure]:
    """Return the latency of a bare append, and of the validator's hop."""
    async with served(sync) as place, bus(place, role="orchestrator") as connected:
        code = await store(CODE, blobs=connected.blobs, media_type="text/x-python")
        with processes(place, ("validator",)):
            hops = (await _hops(connected, code, count=WARM_UP + count))[WARM_UP:]
        appends = [await _append(connected, code, number=number) for number in range(count)]
    what = "append request, worker, hear its outcome"
    note = "reads a blob, writes a blob"
    return [
        latency(PART, "append", samples=appends, sync=sync, raw=raw.publish_ms),
        latency(PART, what, samples=hops, sync=sync, raw=raw.hop_ms, note=note),
    ]


def _draft(code: BlobRef, *, stream: StreamId, name: str) -> Draft[ValidationRequested]:
    event = ValidationRequested(
        step=1, attempt=1, code=code, contract=CONTRACT, tools=("compile", "ruff", "pylint"), timeout_ms=10_000
    )
    return Draft(
        event=event,
        id=root_event_id(stream, name=name),
        stream=stream,
        agent="orchestrator",
        time_ms=now_ms(),
        causation=None,
    )


async def _hops(connected: Bus, code: BlobRef, *, count: int) -> list[float]:
    """Return the milliseconds of hops, each in a stream of its own, as a run is."""
    send, receive = anyio.create_memory_object_stream[Recorded[Event]](1)
    samples = []
    async with anyio.create_task_group() as tasks, send, receive:
        tasks.start_soon(_follow, connected, send)
        for number in range(count):
            draft = _draft(code, stream=StreamId(f"r-hop{number}"), name="hop")
            started = time.perf_counter()
            await connected.events.append(draft)
            outcome = await receive.receive()
            samples.append((time.perf_counter() - started) * 1000)
            assert outcome.causation == draft.id, "one request, one outcome"
        tasks.cancel_scope.cancel()
    return samples


async def _follow(connected: Bus, send: MemoryObjectSendStream[Recorded[Event]]) -> None:
    async with aclosing(connected.events.follow((Filter(agent="validator"),))) as records:
        async for recorded in records:
            await send.send(recorded)


async def _append(connected: Bus, code: BlobRef, *, number: int) -> float:
    """Return the milliseconds of one append to a chain that is known."""
    draft = _draft(code, stream=StreamId("r-append"), name=f"append/{number}")
    started = time.perf_counter()
    await connected.events.append(draft)
    return (time.perf_counter() - started) * 1000
