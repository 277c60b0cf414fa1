"""The runs that a fork descends from, and whether what it says about the first of them is so."""

from contextlib import aclosing

from lumina.agents.ancestry import GENERATIONS_MAX
from lumina.agents.closing import chain_heads, root_of
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Head, Recorded
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


async def fork_fault(recorded: Recorded[Event], *, events: Records) -> str | None:
    """Return what is wrong with what the first record of a fork says about its parent's chains; None for all else.

    A fork of a record that does not stand in its parent is no fault: the orchestrator refuses it.

    Raises:
        LogDamaged: The parent's part of the log is not whole.
    """
    event = recorded.event
    if not isinstance(event, RunForked) or recorded.position != 1:
        return None
    if (root := root_of(event.chains)) != event.root:
        return f"its root is {event.root}, but that of the chains that it names is {root}"
    heads: dict[str, Head] = {}
    parent = StreamId(event.parent)
    async with aclosing(events.read((Filter(stream=parent),), until=recorded.seq - 1)) as records:
        async for each in records:
            heads[each.agent] = Head(position=each.position, digest=each.digest)
            if each.id == event.at:
                break
        else:
            return None
    standing = chain_heads(heads)
    if standing == event.chains:
        return None
    for named in event.chains:
        found = next((head for head in standing if head.agent == named.agent), None)
        if found != named:
            there = "no record" if found is None else f"{found.count} records, the last with digest {found.digest}"
            said = f"{named.count} records by {named.agent}, the last with digest {named.digest}"
            return f"it names {said}; up to {event.at} there is {there} in {parent}"
    unnamed = next(head.agent for head in standing if head.agent not in {named.agent for named in event.chains})
    return f"it does not name the chain of {unnamed} in {parent}"
