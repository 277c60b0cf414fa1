"""Who takes part: the pure cores of all agents, built so that they can touch nothing."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from lumina.agents.governor import Governor
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Keeper, Worker
from lumina.agents.sandbox import Sandbox
from lumina.agents.specialist import Specialist
from lumina.agents.validator import Validator
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.node import NodeAnnounced
from lumina.events.record import Recorded


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """The agents whose part can be decided again.

    Attributes:
        orchestrator: The keeper of runs; of its inputs only those of one run count for that run.
        governor: The keeper of a node; it sees all runs.
        workers: By the name under which they write.
    """

    orchestrator: Keeper[Any]
    governor: Keeper[Any]
    workers: Mapping[str, Worker[Any, Any]]


def whole_cast(node: str = "local") -> Cast:
    """Return all agents of a system whose one node is called `node`."""
    workers: tuple[Worker[Any, Any], ...] = (Specialist(), Validator(), Sandbox(tiers={}))
    return Cast(
        orchestrator=Orchestrator(),
        governor=Governor(node=StreamId(node)),
        workers={worker.name: worker for worker in workers},
    )


async def node_of(events: Records) -> StreamId | None:
    """Return the one node of a log, None when none has announced itself: the first announcement says it, for ever.

    Raises LogDamaged and LogUnavailable, as reading does.
    """
    async with aclosing(events.read((Filter(event=NodeAnnounced),))) as records:
        async for recorded in records:
            return recorded.stream
    return None


async def cast_of(events: Records) -> Cast:
    """Return all agents of the node of a log; it is called `local` unless its owner says so. Raises as `node_of`."""
    node = await node_of(events)
    return whole_cast() if node is None else whole_cast(node)


class Inputs:
    """Tells which records are among the inputs of an agent, or what a worker is handed."""

    def __init__(self, filters: tuple[Filter, ...]) -> None:
        self._everything = Filter() in filters
        self._filters = filters
        self._kinds = {each.event for each in filters}

    def hold(self, recorded: Recorded[Event]) -> bool:
        """Return whether some filter lets the record through."""
        if self._everything:
            return True
        kind = type(recorded.event)
        if kind not in self._kinds and None not in self._kinds:
            return False
        return any(
            each.event in {None, kind}
            and each.stream in {None, recorded.stream}
            and each.agent in {None, recorded.agent}
            for each in self._filters
        )
