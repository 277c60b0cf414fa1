"""Whether a run is whole: what `run.closed` says about its chains, and the blobs that its records name."""

from collections import deque
from collections.abc import Iterator
from contextlib import aclosing
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from lumina.agents.closing import root_of
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Recorded
from lumina.events.run import ChainHead, RunClosed, RunForked, RunSubmitted
from lumina.events.values import BlobRef

RECENT_MAX: Final = 64
"""Of how many records at the end of a chain the digests are kept; older ones are read again when they are needed."""


class _Chain:
    """How long a writer's chain in an open run is, and the digests at its end."""

    def __init__(self) -> None:
        self.count = 0
        self.recent: deque[str] = deque(maxlen=RECENT_MAX)

    def add(self, digest: str) -> None:
        self.count += 1
        self.recent.append(digest)


class Chains:
    """The chains of every open run, to compare with what `run.closed` says about them."""

    def __init__(self, events: Records) -> None:
        self._events = events
        self._open: dict[StreamId, dict[str, _Chain]] = {}

    @property
    def open(self) -> int:
        """How many runs have begun and not ended."""
        return len(self._open)

    async def take(self, recorded: Recorded[Event]) -> str | None:
        """Return what is wrong with the run that a record closes, else None.

        Raises:
            LogDamaged: A part of a chain that was read again is not whole.
        """
        chains = self._open.get(recorded.stream)
        if chains is None:
            # Only with these words a run begins; what else stands here is late, or belongs to a node.
            if recorded.position != 1 or not isinstance(recorded.event, RunSubmitted | RunForked):
                return None
            chains = self._open[recorded.stream] = {}
        chains.setdefault(recorded.agent, _Chain()).add(recorded.digest)
        if not isinstance(recorded.event, RunClosed):
            return None
        del self._open[recorded.stream]
        return await self._fault(recorded, recorded.event, chains=chains)

    async def _fault(self, recorded: Recorded[Event], closed: RunClosed, *, chains: dict[str, _Chain]) -> str | None:
        """Return why `closed` does not speak of these chains. What landed after the decision to close is late."""
        root = root_of(closed.chains)
        if root != closed.root:
            return f"its root is {closed.root}, but that of its chains is {root}"
        if sum(head.count for head in closed.chains) != closed.records:
            return f"it counts {closed.records} records, its chains {sum(head.count for head in closed.chains)}"
        for head in closed.chains:
            chain = chains.get(head.agent, _Chain())
            if head.count > chain.count:
                return f"it names {head.count} records by {head.agent}; {chain.count} stand before it"
            if head.count and (digest := await self._digest(chain, head=head, closing=recorded)) != head.digest:
                return f"record {head.count} by {head.agent} has digest {digest}, not {head.digest}"
        own = next((head.count for head in closed.chains if head.agent == recorded.agent), 0)
        if own != recorded.position - 1:
            return f"it names {own} records by its own writer, but is that writer's record {recorded.position}"
        return None

    async def _digest(self, chain: _Chain, *, head: ChainHead, closing: Recorded[Event]) -> str:
        """Return the digest of the record of a chain that `head` names by its place."""
        late = chain.count - head.count
        if late < len(chain.recent):
            return chain.recent[-1 - late]
        which = Filter(stream=closing.stream, agent=head.agent)
        async with aclosing(self._events.read((which,), until=closing.seq)) as records:
            async for each in records:
                if each.position == head.count:
                    return each.digest
        return "that can't be found any more"


def blob_refs(value: Any) -> Iterator[BlobRef]:
    """Yield every blob that an event names, in the order of its fields."""
    if isinstance(value, BlobRef):
        yield value
    elif isinstance(value, msgspec.Struct):
        for field in _bearing(type(value)):
            yield from blob_refs(getattr(value, field))
    elif isinstance(value, tuple):
        for item in value:
            yield from blob_refs(item)


@cache
def _bearing(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields in which a blob may be named: few of all that there are."""
    return tuple(field.name for field in msgspec.structs.fields(kind) if _may_name(inspect.type_info(field.type)))


def _may_name(kind: inspect.Type) -> bool:
    match kind:
        case inspect.StructType(cls=cls):
            return issubclass(cls, BlobRef) or bool(_bearing(cls))
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            return _may_name(inner)
        case inspect.TupleType(item_types=several) | inspect.UnionType(types=several):
            return any(_may_name(each) for each in several)
        case _:
            return False  # numbers, texts and the like
