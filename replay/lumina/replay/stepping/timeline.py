"""A run to walk along, forward and back: at every record what the keepers and projections were, what was decided, why.

A timeline is made once (`timeline_reading.py`) and never changes: states are immutable and share what they have in
common, rows are kept per version. So a moment is looked up, not computed, and is the same however one gets there.
Workers hold no state; what they had in hand at a record is derived in `workbench.py`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec

from lumina.agents.ancestry import named_by
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked
from lumina.replay.errors import SeqOutside
from lumina.replay.report import Difference
from lumina.replay.stepping.plain import Change, changes
from lumina.replay.stepping.table_history import TableHistory
from lumina.replay.stepping.why import Why, why
from lumina.replay.words import say

ORCHESTRATOR: Final = "orchestrator"
GOVERNOR: Final = "governor"
KEEPERS: Final = (ORCHESTRATOR, GOVERNOR)


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the run, with what the keepers made of it.

    Attributes:
        recorded: It.
        answers: What the keepers decide on it, in their order, as it must stand in the log (with `seq` 0).
        states: Of the keepers, by name: on an input the state on which they decide it, else the one after it.
        difference: How it differs from what is decided, or that a keeper fails on it.
        late: A later input of its keeper landed before it.
        shared: It stands in a run that this one is a fork of.
        between: How many records of other runs were taken since the stop before it.
    """

    recorded: Recorded[Event]
    answers: tuple[Recorded[Event], ...]
    states: Mapping[str, Any]
    difference: Difference | None = None
    late: bool = False
    shared: bool = False
    between: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A record by name, in words, and why it was written. `seq` is None for one that is not in the log."""

    seq: int | None
    id: str
    type: str
    agent: str
    stream: str
    says: str
    why: Why


class Decided(Told, frozen=True, kw_only=True):
    """What was decided in answer to a record; by keepers, as it is decided now.

    Attributes:
        late: It landed after a later input of its keeper, which had counted it in already.
        missing: It is not in the log, or not yet.
        difference: How the record in the log differs from it.
    """

    late: bool = False
    missing: bool = False
    difference: Difference | None = None


class Timeline:
    """The stops of one run in the order of the log. `moment` is always an index into `stops`."""

    def __init__(
        self,
        run: StreamId,
        *,
        stops: Sequence[Stop],
        tables: Sequence[TableHistory],
        elsewhere: Mapping[EventId, Recorded[Event]],
        landed: Mapping[EventId, int],
        pending: int,
        apart: tuple[Recorded[Event], Difference] | None,
    ) -> None:
        """Take what `timeline_reading` has gathered.

        Args:
            run: Which.
            stops: Its records; of a fork first those that it shares.
            tables: All projections, with one moment per stop.
            elsewhere: Records of other runs that caused some of this one's.
            landed: Where the decisions stand, by id.
            pending: How many decisions on records of this run are not in the log.
            apart: The first record of another run that the governor decides otherwise, and in what.
        """
        self.run = run
        self.stops = tuple(stops)
        self.tables = {table.projection.name: table for table in tables}
        self.pending = pending
        self.apart = apart
        self._elsewhere = elsewhere
        self._landed = landed
        self._told: dict[EventId, Told] = {}

    def __len__(self) -> int:
        return len(self.stops)

    @cached_property
    def seqs(self) -> tuple[int, ...]:
        """The sequences of all stops, rising."""
        return tuple(stop.recorded.seq for stop in self.stops)

    @cached_property
    def _places(self) -> dict[EventId, int]:
        return {stop.recorded.id: moment for moment, stop in enumerate(self.stops)}

    @cached_property
    def _effects(self) -> dict[EventId, list[int]]:
        effects: dict[EventId, list[int]] = {}
        for moment, stop in enumerate(self.stops):
            if stop.recorded.causation is not None:
                effects.setdefault(stop.recorded.causation, []).append(moment)
        return effects

    @cached_property
    def closed(self) -> int | None:
        """The moment at which the run is closed, None while it is open."""
        ends = (moment for moment, stop in enumerate(self.stops) if self._ends(stop))
        return next(ends, None)

    def _ends(self, stop: Stop) -> bool:
        return isinstance(stop.recorded.event, RunClosed) and stop.recorded.stream == self.run

    def moment(self, seq: int) -> int:
        """Return the index of the record with this sequence. Raises SeqOutside."""
        place = bisect_left(self.seqs, seq)
        if place < len(self.seqs) and self.seqs[place] == seq:
            return place
        near = " and ".join(str(each) for each in self.seqs[max(0, place - 1) : place + 1])
        raise SeqOutside(
            f"{self.run} has no record {seq}; its records lie between {self.seqs[0]} and {self.seqs[-1]},"
            f" the nearest is {near}"
        )

    def up_to(self, seq: int) -> int:
        """Return the index of the last record up to this sequence. Raises SeqOutside for one outside of the run."""
        if not self.seqs[0] <= seq <= self.seqs[-1]:
            raise SeqOutside(
                f"{self.run} has no record {seq}; its records lie between {self.seqs[0]} and {self.seqs[-1]}"
            )
        return bisect_left(self.seqs, seq + 1) - 1

    def effects(self, cause: EventId, *, agent: str) -> tuple[int, ...]:
        """Return the moments of the records by `agent` that a record caused."""
        return tuple(each for each in self._effects.get(cause, ()) if self.stops[each].recorded.agent == agent)

    def marks(self, moment: int) -> tuple[str, ...]:
        """Return what is unusual about a record: `shared`, `late`, `after the end`, `differs`."""
        stop = self.stops[moment]
        found = {
            "shared": stop.shared,
            "late": stop.late,
            "after the end": self.closed is not None and moment > self.closed,
            "differs": stop.difference is not None,
        }
        return tuple(mark for mark, holds in found.items() if holds)

    def states_changed(self, moment: int) -> tuple[Change, ...]:
        """Return what is different from the moment before in the states of the keepers."""
        states = self.stops[moment].states
        before = self.stops[moment - 1].states if moment else dict.fromkeys(states, msgspec.UNSET)
        return tuple(each for name in KEEPERS for each in changes(before[name], states[name], path=name))

    def rows_changed(self, moment: int) -> tuple[Change, ...]:
        """Return what is different from the moment before in the rows of all projections."""
        return tuple(each for table in self.tables.values() for each in table.changed(moment))

    def decided(self, moment: int) -> tuple[Decided, ...]:
        """Return what was decided in answer to a record: by keepers, decided again; by workers, as it stands.

        Also what keepers wrote in answer to it and does not follow from it: its own stop says how it differs.
        """
        stop = self.stops[moment]
        found = []
        for answer in stop.answers:
            seq, place = self._landed.get(answer.id), self._places.get(answer.id)
            there = None if place is None else self.stops[place]
            difference = None if there is None else there.difference
            late = there is not None and there.late
            found.append(_decided(told(answer, seq=seq), late=late, difference=difference))
        known = {answer.id for answer in stop.answers}
        for place in self._effects.get(stop.recorded.id, ()):
            there = self.stops[place]
            if there.recorded.id not in known:
                late = bool({"late", "after the end"} & {*self.marks(place)})
                found.append(_decided(told(there.recorded), late=late, difference=there.difference))
        return tuple(found)

    def causes(self, moment: int) -> tuple[Told, ...]:
        """Return what led to a record, the nearest cause first.

        Where a record of another run made room for a waiting request of this one, the chain goes on with the request.
        A fork follows from the record that it branches off at.
        """
        causes = []
        for recorded in self._chain(self.stops[moment].recorded):
            if recorded.id not in self._told:  # chains are long, and share most of what they have
                self._told[recorded.id] = told(recorded)
            causes.append(self._told[recorded.id])
        return tuple(causes)

    def _chain(self, recorded: Recorded[Event]) -> Iterator[Recorded[Event]]:
        effect: Recorded[Event] | None = recorded
        while effect is not None:
            cause = self._record(effect.event.at if isinstance(effect.event, RunForked) else effect.causation)
            if cause is not None:
                yield cause
            if cause is not None and cause.id in self._elsewhere:
                cause = next((found for each in named_by(effect)[2:] if (found := self._record(each))), None)
                if cause is not None:
                    yield cause
            effect = cause

    def _record(self, known: EventId | None) -> Recorded[Event] | None:
        if known is None:
            return None
        place = self._places.get(known)
        return self._elsewhere.get(known) if place is None else self.stops[place].recorded


def told(recorded: Recorded[Event], *, seq: int | None = None) -> Told:
    """Return a record by name and in words; `seq` for one that is decided and has none of its own."""
    return Told(
        seq=recorded.seq or seq,
        id=recorded.id,
        type=recorded.type,
        agent=recorded.agent,
        stream=recorded.stream,
        says=say(recorded),
        why=why(recorded.event),
    )


def _decided(decision: Told, *, late: bool, difference: Difference | None) -> Decided:
    fields = {field: getattr(decision, field) for field in decision.__struct_fields__}
    return Decided(**fields, late=late, missing=decision.seq is None, difference=difference)
