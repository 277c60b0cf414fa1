"""Everything about one moment of a timeline, as one plain JSON object that is the same wherever it is made."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from lumina.bus.log import Blobs
from lumina.replay.cast import Cast
from lumina.replay.report import Difference
from lumina.replay.stepping.breakpoints import as_json
from lumina.replay.stepping.plain import Change, json_of, plain
from lumina.replay.stepping.timeline import KEEPERS, Decided, Timeline, Told
from lumina.replay.stepping.why import Why, why
from lumina.replay.stepping.workbench import Workbench
from lumina.replay.words import say

DIFFERS: Final = "differs"
NOT_DERIVED: Final = "not derived"


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One record and all that is known about it.

    Attributes:
        index: Its number among the records of the run, from 1.
        count: How many there are.
        record: As breakpoints see it.
        says: The record in words.
        why: The rule that it follows from, and its reason.
        marks: What is unusual about it: `shared`, `late`, `after the end`, `differs`, `not derived`.
        others: How many records of other runs stand between it and the record before it.
        difference: How it differs from what is decided or derived now.
        problem: Why it can't be derived here, for instance since a blob is lost; empty when it can.
        causes: What led to it, the nearest first.
        decided: What was decided in answer to it.
        changed: What is different from the record before.
        agents: The state of each agent, by name.
        projections: The rows of each projection, by name and table.
    """

    run: str
    index: int
    count: int
    record: dict[str, Any]
    says: str
    why: Why
    marks: tuple[str, ...]
    others: int
    difference: Difference | None
    problem: str
    causes: tuple[Told, ...]
    decided: tuple[Decided, ...]
    changed: tuple[Change, ...]
    agents: dict[str, Any] = {}
    projections: dict[str, dict[str, list[Any]]] = {}

    def json(self) -> bytes:
        """Return it as JSON in sorted order: equal moments have equal bytes."""
        return json_of(self)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose states and rows are wanted; None for all, an empty tuple for none."""

    agents: tuple[str, ...] | None = None
    projections: tuple[str, ...] | None = None


NO_STATES = Scope(agents=(), projections=())


class Walk:
    """A timeline with its workers: what a stepper needs."""

    def __init__(self, timeline: Timeline, *, blobs: Blobs, cast: Cast) -> None:
        self.timeline = timeline
        self.bench = Workbench(timeline, blobs=blobs, workers=cast.workers)

    @property
    def agents(self) -> tuple[str, ...]:
        """All agents, in the order in which they are shown."""
        return (*KEEPERS, *self.bench.names)

    @property
    def projections(self) -> tuple[str, ...]:
        """All projections."""
        return tuple(self.timeline.tables)

    async def state(self, agent: str, moment: int) -> Any:
        """Return an agent's state at a moment as plain JSON."""
        if agent in KEEPERS:
            return plain(self.timeline.stops[moment].states[agent])
        return plain(await self.bench.state(agent, moment))

    async def changed(self, moment: int) -> tuple[Change, ...]:
        """Return what is different from the moment before, of all agents and projections."""
        workers = [each for name in self.bench.names for each in await self.bench.changed(name, moment)]
        return (*self.timeline.states_changed(moment), *workers, *self.timeline.rows_changed(moment))

    async def difference(self, moment: int) -> Difference | None:
        """Return how a record differs from what is decided or derived now."""
        return self.timeline.stops[moment].difference or await self.bench.difference(moment)

    async def marks(self, moment: int) -> tuple[str, ...]:
        """Return what is unusual about a record, as far as it can be told only from the workers, too."""
        marks = [mark for mark in self.timeline.marks(moment) if mark != DIFFERS]
        found = {DIFFERS: await self.difference(moment), NOT_DERIVED: await self.bench.problem(moment)}
        return (*marks, *(mark for mark, holds in found.items() if holds))

    async def moment(self, moment: int, *, scope: Scope | None = None) -> Moment:
        """Return all about a moment. Raises LogUnavailable when the blobs can't be reached."""
        scope = Scope() if scope is None else scope
        timeline = self.timeline
        stop = timeline.stops[moment]
        difference, problem = await self.difference(moment), await self.bench.problem(moment)
        agents = _chosen(scope.agents, self.agents)
        return Moment(
            run=timeline.run,
            index=moment + 1,
            count=len(timeline),
            record=as_json(stop.recorded),
            says=say(stop.recorded),
            why=why(stop.recorded.event),
            marks=await self.marks(moment),
            others=stop.between,
            difference=difference,
            problem=problem,
            causes=timeline.causes(moment),
            decided=await self._decided(moment),
            changed=tuple(each.plain() for each in await self.changed(moment)),
            agents={name: await self.state(name, moment) for name in agents},
            projections={
                name: timeline.tables[name].tables(moment) for name in _chosen(scope.projections, self.projections)
            },
        )

    async def _decided(self, moment: int) -> tuple[Decided, ...]:
        """Return what was decided in answer; workers' outcomes are derived again as well."""
        found: list[Decided] = []
        for decided in self.timeline.decided(moment):
            difference = decided.difference
            if difference is None and decided.seq is not None and decided.agent in self.bench.names:
                difference = await self.bench.difference(self.timeline.moment(decided.seq))
            found.append(msgspec.structs.replace(decided, difference=difference))
        return tuple(found)


def _chosen(wanted: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    return tuple(known) if wanted is None else tuple(name for name in known if name in wanted)
