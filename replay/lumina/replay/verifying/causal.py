"""What led to a record: its cause, the cause of that, and so on to the root, which may stand in other runs."""

from contextlib import aclosing
from typing import Final

from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId
from lumina.events.record import Recorded
from lumina.replay.comparing import link_of
from lumina.replay.report import Link

CAUSES_MAX: Final = 200
SEARCHES_MAX: Final = 16
"""How often the whole log is searched for a cause that stands in another run. It takes time, but no memory."""


async def causes_of(recorded: Recorded[Event], *, events: Records) -> tuple[Link, ...]:
    """Return the causes of a record, the nearest first, as far as they stand before it in a log that can be read.

    Raises:
        LogDamaged: The log is not whole before the record.
    """
    causes: list[Link] = []
    near: dict[EventId, tuple[Link, EventId | None]] = {}
    cause, stream, searches = recorded.causation, recorded.stream, 0
    near = await _by_id(events, which=Filter(stream=stream), until=recorded.seq)
    while cause is not None and len(causes) < CAUSES_MAX:
        if cause not in near and searches < SEARCHES_MAX:
            searches += 1
            found = await _found(events, event=cause, until=recorded.seq)
            if found is None:
                break
            near = await _by_id(events, which=Filter(stream=found.stream), until=recorded.seq)
        if cause not in near:
            break
        link, cause = near.pop(cause)  # a cause that is its own descendant ends the walk
        causes.append(link)
    return tuple(causes)


async def _by_id(events: Records, *, which: Filter, until: int) -> dict[EventId, tuple[Link, EventId | None]]:
    async with aclosing(events.read((which,), until=until)) as records:
        return {each.id: (link_of(each), each.causation) async for each in records}


async def _found(events: Records, *, event: EventId, until: int) -> Recorded[Event] | None:
    async with aclosing(events.read(until=until)) as records:
        async for each in records:
            if each.id == event:
                return each
    return None
