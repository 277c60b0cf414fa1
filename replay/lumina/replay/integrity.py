"""Whether a run is whole: what `run.closed` says about its chains, and the blobs that its records name."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from lumina.agents.orchestrator import RUN_PREFIX
from lumina.events.base import Event
from lumina.events.catalogue import WRITERS
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.events.timer import TimerElapsed
from lumina.events.values import BlobRef
from lumina.replay.report import Difference


class Chains:
    """The digests of every open run by writer, to compare with what `run.closed` says about them."""

    def __init__(self) -> None:
        self._digests: dict[StreamId, dict[str, list[str]]] = {}
        self._closed: set[StreamId] = set()

    @property
    def closed(self) -> int:
        """How many runs have ended."""
        return len(self._closed)

    def take(self, recorded: Recorded[Event]) -> str | None:
        """Return what is wrong with the run that a record closes, else None."""
        if recorded.stream in self._closed or not recorded.stream.startswith(RUN_PREFIX):
            return None
        chains = self._digests.setdefault(recorded.stream, {})
        chains.setdefault(recorded.agent, []).append(recorded.digest)
        if not isinstance(recorded.event, RunClosed):
            return None
        self._closed.add(recorded.stream)
        return _fault(recorded, recorded.event, chains=self._digests.pop(recorded.stream))


def _fault(recorded: Recorded[Event], closed: RunClosed, *, chains: dict[str, list[str]]) -> str | None:
    """Return why `closed` does not speak of these chains. Records that landed after the decision to close are late."""
    root = sha256("".join(f"{head.agent} {head.count} {head.digest}\n" for head in closed.chains).encode()).hexdigest()
    if root != closed.root:
        return f"its root is {closed.root}, but that of its chains is {root}"
    if sum(head.count for head in closed.chains) != closed.records:
        return f"it counts {closed.records} records, its chains {sum(head.count for head in closed.chains)}"
    for head in closed.chains:
        digests = chains.get(head.agent, [])
        if head.count > len(digests):
            return f"it names {head.count} records by {head.agent}; {len(digests)} stand before it"
        if head.count and digests[head.count - 1] != head.digest:
            return f"record {head.count} by {head.agent} has digest {digests[head.count - 1]}, not {head.digest}"
    own = next((head.count for head in closed.chains if head.agent == recorded.agent), 0)
    if own != recorded.position - 1:
        return f"it names {own} records by its own writer, but is that writer's record {recorded.position}"
    return None


def root_difference(recorded: Recorded[Event]) -> Difference | None:
    """Return what is wrong with a record's writer or, for a timer, with its id and time."""
    writers = WRITERS[type(recorded.event)]
    if recorded.agent not in writers:
        return Difference(field="agent", recorded=recorded.agent, decided=" or ".join(writers))
    if not isinstance(recorded.event, TimerElapsed):
        return None
    timer = recorded.event
    slot = root_event_id(recorded.stream, name=f"timer/{timer.timer}/{timer.due}")
    if recorded.id != slot:
        return Difference(field="id", recorded=recorded.id, decided=slot)
    if recorded.time_ms < timer.due:
        return Difference(field="time_ms", recorded=str(recorded.time_ms), decided=f"{timer.due} or later")
    return None


def blob_refs(value: Any) -> Iterator[BlobRef]:
    """Yield every blob that an event names, in the order of its fields."""
    match value:
        case BlobRef():
            yield value
        case msgspec.Struct():
            for field in value.__struct_fields__:
                yield from blob_refs(getattr(value, field))
        case tuple():
            for item in value:
                yield from blob_refs(item)
        case _:
            pass  # numbers, texts and the like name nothing
