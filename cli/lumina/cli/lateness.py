"""Marks, for whoever reads along, which records came too late for their run."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.late import is_late
from lumina.events.record import Recorded
from lumina.events.run import RunClosed

ENDS_KEPT_MAX: Final = 1_000
"""Runs whose end is remembered; late records come soon after it."""


class Lateness:
    """Remembers the ends of runs."""

    def __init__(self, records: Iterable[Recorded[Event]] = ()) -> None:
        self._ends: OrderedDict[StreamId, RunClosed] = OrderedDict()
        for recorded in records:
            self.of(recorded)

    @classmethod
    async def known(cls, events: Records, *, run: StreamId | None) -> "Lateness":
        """Return what is known before the first record is read: how `run` has ended, if it has."""
        end = None if run is None else await events.last(Filter(stream=run, event=RunClosed))
        return cls(() if end is None else (end,))

    def of(self, recorded: Recorded[Event]) -> bool:
        """Return whether a record is known to be late. One that stands before the end of its run needs that first."""
        if isinstance(recorded.event, RunClosed):
            self._ends[recorded.stream] = recorded.event
            if len(self._ends) > ENDS_KEPT_MAX:
                self._ends.popitem(last=False)
        end = self._ends.get(recorded.stream)
        return end is not None and is_late(recorded, closed=end)
