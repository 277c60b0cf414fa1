"""Makes the timeline of a run from a log, in one pass.

The governor's part of a run depends on all runs before it. So what it read and said there streams past; only what
caused something in this run is kept of it.
"""

from collections.abc import Sequence

from lumina.agents.ancestry import history_of
from lumina.agents.governor import LOCAL
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.projections.catalogue import PROJECTIONS
from lumina.replay.cast import Cast, cast_of, whole_cast
from lumina.replay.errors import RunUnknown
from lumina.replay.report import Difference
from lumina.replay.stepping.following import Following, Taken
from lumina.replay.stepping.table_history import TableHistory
from lumina.replay.stepping.timeline import GOVERNOR, ORCHESTRATOR, Stop, Timeline


async def read_timeline(events: Records, run: StreamId, *, cast: Cast | None = None) -> Timeline:
    """Return the timeline of a run, open or closed, as far as the log goes now.

    Raises:
        RunUnknown: The log holds no record of it.
        LogDamaged: The log is not whole.
        LogUnavailable: The log can't be reached.
    """
    until = await events.last_seq()
    shared = await _shared(events, run)
    cast = await cast_of(events) if cast is None else cast
    maker = _Maker(run, cast=cast, shared=shared)
    streams = dict.fromkeys((*(recorded.stream for recorded in shared), run))
    filters = (*(Filter(stream=each) for each in streams), *cast.governor.inputs, Filter(agent=cast.governor.name))
    async for recorded in events.read(filters, until=until):
        origin = cast.orchestrator.origin(recorded) if recorded.stream in streams else None
        history = () if origin is None else await history_of(origin, events=events, before=recorded.seq)
        maker.take(recorded, history=history)
    return maker.timeline()


async def _shared(events: Records, run: StreamId) -> Sequence[Recorded[Event]]:
    """Return what a fork shares with its parents; nothing for a run that is none. Raises RunUnknown."""
    keeper = whole_cast().orchestrator
    found: Sequence[Recorded[Event]] | None = None
    async for recorded in events.read((Filter(stream=run),)):
        found = () if found is None else found
        if not found and (origin := keeper.origin(recorded)) is not None:
            found = await history_of(origin, events=events, before=recorded.seq)
    if found is None:
        raise RunUnknown(f"the log holds no run {run!r}")
    return found


class _Maker:
    """Takes records in the order of the log."""

    def __init__(self, run: StreamId, *, cast: Cast, shared: Sequence[Recorded[Event]]) -> None:
        self._run = run
        self._orchestrator = Following(cast.orchestrator)
        self._governor = Following(cast.governor)
        self._tables = tuple(TableHistory(projection) for projection in PROJECTIONS)
        self._shared = {recorded.id for recorded in shared}
        self._parents = {recorded.stream for recorded in shared} - {run}
        self._stops: list[Stop] = []
        self._known: set[EventId] = set()
        self._elsewhere: dict[EventId, Recorded[Event]] = {}
        self._landed: dict[EventId, int] = {}
        self._awaited: set[EventId] = set()
        self._apart: tuple[Recorded[Event], Difference] | None = None
        self._shard = run
        self._node = LOCAL
        self._between = 0

    def take(self, recorded: Recorded[Event], *, history: Sequence[Recorded[Event]]) -> None:
        """Take the next record, of this run, of its parents or of others."""
        kept = self._is_stop(recorded)
        governed = self._governor.take(recorded)
        self._node = governed.shard or self._node
        decided = Taken()
        if recorded.stream == self._run or recorded.stream in self._parents:
            decided = self._orchestrator.take(recorded, history=history)
        if recorded.id in self._awaited:
            self._awaited.discard(recorded.id)
            self._landed[recorded.id] = recorded.seq
        for table in self._tables:
            if kept or not table.of_runs:
                table.apply(recorded)
        if kept:
            self._stop(recorded, decided=decided, governed=governed)
            return
        self._between += 1
        if governed.difference is not None and self._apart is None:
            self._apart = (recorded, governed.difference)
        if any(answer.stream == self._run or answer.stream in self._parents for answer in governed.answers):
            self._elsewhere[recorded.id] = recorded

    def _is_stop(self, recorded: Recorded[Event]) -> bool:
        """Whether a record belongs to the run, or to its node because of the run: an unload that it made necessary."""
        if recorded.stream == self._run or recorded.id in self._shared:
            return True
        keeps = self._orchestrator.keeper.shard(recorded) is None
        return keeps and recorded.causation is not None and recorded.causation in self._known

    def _stop(self, recorded: Recorded[Event], *, decided: Taken, governed: Taken) -> None:
        if self._orchestrator.keeper.shard(recorded) is not None:
            self._shard = recorded.stream
        answers = (*decided.answers, *governed.answers)
        self._awaited.update(answer.id for answer in answers)
        self._known.add(recorded.id)
        self._stops.append(
            Stop(
                recorded=recorded,
                answers=answers,
                states={
                    ORCHESTRATOR: self._orchestrator.state(self._shard),
                    GOVERNOR: self._governor.state(self._node),
                },
                difference=decided.difference or governed.difference,
                late=decided.late or governed.late,
                shared=recorded.id in self._shared,
                between=self._between,
            )
        )
        self._between = 0
        for table in self._tables:
            table.mark()

    def timeline(self) -> Timeline:
        """Return what was taken."""
        return Timeline(
            self._run,
            stops=self._stops,
            tables=self._tables,
            elsewhere=self._elsewhere,
            landed=self._landed,
            pending=len(self._awaited),
            apart=self._apart,
        )
