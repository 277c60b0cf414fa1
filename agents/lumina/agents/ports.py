"""The two shapes of agent: keepers, who hold state and decide, and workers, who answer one request.

Both are pure but for `Worker.perform`. `keeping.py` and `working.py` do their I/O, `replay` proves them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.events.run import ChainHead
from lumina.events.values import BlobRef

S = TypeVar("S")
EffectT = TypeVar("EffectT", bound=msgspec.Struct)
RawT = TypeVar("RawT", bound="Raw")


NO_BLOBS: Final[Mapping[str, bytes]] = MappingProxyType({})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One fact that a keeper decided, and the stream that it belongs to.

    Attributes:
        written: The record that it becomes, if the keeper has needed it already; it saves computing it again.
        after: What `evolve` returns for that record, on the state after the answers before it; likewise.
    """

    event: Event
    stream: StreamId
    written: Recorded[Event] | None = None
    after: Any = None


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """A moment at which a keeper wants to hear a `timer.elapsed` in `stream`. Unique by stream, timer and due."""

    stream: StreamId
    timer: str
    due_ms: int


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the history of a shard begins that is a fork of another one.

    Attributes:
        parent: The shard that it is a fork of.
        at: The last record of the parent that belongs to it.
        chains: The heads of the parent's chains there; one that names others is a fork of nothing.
        without: A record of the parent that does not, nor what descends from it.
    """

    parent: StreamId
    at: EventId
    chains: tuple[ChainHead, ...]
    without: EventId | None = None


class Keeper(Protocol[S]):
    """Holds state per shard; all its outputs are a function of the ordered records that it consumed.

    For each input the runner calls `evolve`, then `decide` on the new state, then `evolve` with each answer, before
    it looks at the next input. Answers carry the input's time. `evolve` never refuses; deciding a record twice (that
    is: when its answers are folded already) returns nothing.
    """

    name: str
    """Who it is on the log."""
    inputs: tuple[Filter, ...]
    """What it reads. Its own answers among them are recognised by their writer and compared, not consumed."""

    def shard(self, recorded: Recorded[Event]) -> StreamId | None:
        """Return the shard that a record concerns, None for a record that it ignores."""
        ...

    def origin(self, recorded: Recorded[Event]) -> Origin | None:
        """Return where to find the history that an input's shard begins with; None when it begins with that input.

        The caller hands that history to `evolve`, in the order of `ancestry.in_decision_order`, before the input.
        """
        ...

    def initial(self, shard: StreamId) -> S:
        """Return the state of a shard before its first record."""
        ...

    def evolve(self, state: S, recorded: Recorded[Event]) -> S:
        """Return the state after a record, an input or an own answer. Must not look at `recorded.seq`."""
        ...

    def decide(self, state: S, recorded: Recorded[Event]) -> tuple[Answer, ...]:
        """Return the facts that follow from an input on the state that already contains it."""
        ...

    def deadlines(self, state: S) -> tuple[Deadline, ...]:
        """Return the moments that the state waits for; those that elapsed must not be among them any more."""
        ...

    def finished(self, state: S) -> bool:
        """Whether a shard will never decide anything again, so that the runner may forget it."""
        ...

    def owes(self, state: S, stream: StreamId) -> bool:
        """Whether it may still write in `stream`, whose run is closed; if not, its chain there may be forgotten."""
        ...


class Raw(msgspec.Struct, kw_only=True, frozen=True):
    """What an effect returned, as it is recorded. Subclasses add what `conclude` needs; bytes become base64.

    Attributes:
        ended_at_ms: When the effect ended: the time of the outcome's record.
    """

    ended_at_ms: int


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """The fact that follows from an effect, and the blobs that it names and that must be stored before it."""

    event: Event
    blobs: tuple[bytes, ...] = ()


class Recording(msgspec.Struct, Generic[RawT], frozen=True, kw_only=True):
    """What `conclude` is given: the digest of the effect, what it returned, and where that is kept."""

    effect: str
    raw: RawT
    ref: BlobRef


class Progress(Protocol):
    """Tells whoever watches how an effect goes on. Nothing is decided from it."""

    async def __call__(self, phase: str, **figures: float | str) -> None:
        """Say for instance `generating`, tokens=41, tokens_per_s=38.5. Never fails."""
        ...


class Worker(Protocol[EffectT, RawT]):
    """Answers one request. Only `perform` touches the world; the rest is derived again on replay."""

    name: str
    """Who it is on the log; also the name of its consumer."""
    raw_type: type[RawT]

    def needs(self, request: Recorded[Event], *, blobs: Mapping[str, bytes] = NO_BLOBS) -> tuple[str, ...]:
        """Return the digests of the blobs that `prepare` and `conclude` read, as far as they follow from `blobs`.

        A blob may name others: the caller (`gathering.py`) asks again with what it found, until nothing is missing.
        """
        ...

    def prepare(self, request: Recorded[Event], *, blobs: Mapping[str, bytes]) -> EffectT:
        """Return what is to be done, as data. Its canonical JSON is digested into the outcome."""
        ...

    async def perform(self, effect: EffectT, *, progress: Progress) -> RawT:
        """Do it, and leave nothing running when cancelled.

        Failures of the outside world are part of what it returns. An OSError means that this machine lacks something
        for now: the request is given back. It raises anything else only for bugs.
        """
        ...

    def stopped(self, request: Recorded[Event], *, ended_at_ms: int) -> RawT | None:
        """Return what stands for an effect that was stopped, or not begun, since its run ended.

        None when nobody waits for its outcome.
        """
        ...

    def conclude(
        self, request: Recorded[Event], recording: Recording[RawT], *, blobs: Mapping[str, bytes]
    ) -> Conclusion:
        """Return the outcome event."""
        ...
