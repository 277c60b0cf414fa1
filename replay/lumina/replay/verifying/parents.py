"""The runs that a fork descends from. Whether what it says about them is so, the orchestrator has to decide."""

from contextlib import aclosing

from lumina.agents.ancestry import GENERATIONS_MAX
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.ids import StreamId
from lumina.events.run import RunForked


async def parents_of(run: StreamId, *, events: Records) -> tuple[StreamId, ...]:
    """Return the run's parent, its parent's parent and so on; nothing for a run that is no fork.

    Raises:
        LogDamaged: The first record of one of them can't be trusted.
    """
    parents: list[StreamId] = []
    stream: StreamId | None = run
    while stream is not None and len(parents) < GENERATIONS_MAX:
        stream = await _parent_of(stream, events=events)
        if stream is None or stream in {run, *parents}:
            break
        parents.append(stream)
    return tuple(parents)


async def _parent_of(run: StreamId, *, events: Records) -> StreamId | None:
    async with aclosing(events.read((Filter(stream=run, event=RunForked),))) as records:
        async for recorded in records:
            if recorded.position == 1 and isinstance(recorded.event, RunForked):
                return StreamId(recorded.event.parent)
    return None
