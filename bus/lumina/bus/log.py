"""The event log as everybody sees it. `jetstream.py` and `memory.py` implement it and pass one contract suite.

Whoever leaves `read`, `follow`, `work` or `hear` early closes it (`contextlib.aclosing`), or leaves it to the garbage
collector, which closes it a little later.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from lumina.bus.stored import Stored
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Draft, Head, Recorded


class Records(Protocol):
    """The part of an event log that can be read again and again. An exported file has it, too."""

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """Return the end of one writer's chain in one stream."""
        ...

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """Return the record in the slot `event` of that writer's chain, or None when it is empty."""
        ...

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """Return the newest record that the filter matches, or None."""
        ...

    async def last_seq(self) -> int:
        """Return the sequence of the newest record, 0 for an empty log."""
        ...

    def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """Yield the records in order with `after` < seq <= `until` (default: the newest at the time of the call).

        Every digest is checked. Reading everything (`Filter()`) also checks that no sequence is missing and that
        every chain is whole; reading one stream or one chain checks the chains that it covers wholly, from their
        start when `after` is 0.

        Raises:
            LogDamaged: With the sequence at which the log can't be trusted. Nothing is ever skipped.
            LogUnavailable: The log can't be reached.
        """
        ...


class Originals(Records, Protocol):
    """Records that can also be had as the bytes that they are, to be written to another place bit for bit."""

    async def log_id(self) -> str:
        """Return what was drawn when the log was created; it tells one log from another."""
        ...

    def originals(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]:
        """Yield what `read` yields, checked in the same way, as messages: subject, headers and bytes of the body.

        The headers are those with which the record was published; what a server adds when it is read is left out.

        Raises as `read` does.
        """
        ...


class EventLog(Records, Protocol):
    """An append-only sequence of records in one total order, with a hash chain per writer and stream."""

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """Fill the slot `draft.id` and return the record; if it is filled already, return what stands there.

        The caller compares: a slot that holds other bytes is a divergence, not a conflict. Concurrent writers of one
        chain are serialised; a lost acknowledgement is resolved by reading.

        Raises:
            LogUnavailable: The log can't be reached; whether the record is there is unknown. Append it again later.
            LogFull: Nothing was stored; make room, then append again.
            LogDamaged: The chain's head can't be trusted; nothing was stored.
            PayloadTooLarge: The record is over the server's limit; put the large part into a blob.
        """
        ...

    def follow(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0
    ) -> AsyncGenerator[Recorded[Event], None]:
        """Yield as `read` does, then every new record as it lands, until the consumer stops asking.

        Survives a restart of the server without loss or repetition; raises LogUnavailable only when the log is gone
        for good (`retry_s_max` of the implementation).
        """
        ...

    def work(self, worker: str) -> AsyncGenerator["Delivery", None]:
        """Yield requests for the worker role `worker`, shared with every other instance of that role.

        A request that is not acknowledged in time is delivered again, to any instance. See `workers.py` for which
        events each role answers.
        """
        ...


class Delivery(Protocol):
    """One request in the hands of one worker instance."""

    @property
    def recorded(self) -> Recorded[Event]:
        """The request."""
        ...

    async def ack(self) -> None:
        """Say that its outcome is in the log."""
        ...

    async def in_progress(self) -> None:
        """Say that the work goes on; call it at least every `heartbeat_s`."""
        ...

    async def retry(self, *, delay_s: float) -> None:
        """Give it back; it will be delivered again after `delay_s`."""
        ...


class Blobs(Protocol):
    """Content-addressed storage for what is too large for events."""

    async def put(self, content: bytes) -> str:
        """Store `content` and return its SHA-256. Storing what is there already changes nothing.

        Raises:
            BlobsFull: Nothing was stored; the message says how to make room.
            LogUnavailable: The store can't be reached.
        """
        ...

    async def get(self, digest: str) -> bytes:
        """Return the content.

        Raises:
            BlobMissing: No blob has this digest, or what stands there has another digest.
            LogUnavailable: The store can't be reached.
        """
        ...


class Live(Protocol):
    """Unlogged chatter: token streams, progress, heartbeats. It may be lost, and nothing is decided from it."""

    async def say(self, subject: str, *, payload: bytes) -> None:
        """Publish, or drop it silently when nobody can be reached."""
        ...

    def hear(self, subject: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """Yield (subject, payload) from now on."""
        ...
