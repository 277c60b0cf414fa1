"""The ends of the writers' chains, as this process knows them, and which slots each chain has filled.

The server forgets message ids after its dedupe window. That a slot is filled once, for ever, is known here: the ids
of a chain are read from the log when the chain is first touched, and then kept up to date.
"""

from typing import Final

import anyio

from lumina.bus.errors import LogDamaged
from lumina.bus.stored import Stored, StoredMessages
from lumina.bus.subjects import chain_filter
from lumina.events.base import Event
from lumina.events.errors import InvalidEvent, UnknownEvent
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Head, Recorded, from_headers

CHAINS_MAX: Final = 4_096


class Chain:
    """One writer's records in one stream. Hold `lock` while you look at the rest."""

    def __init__(self, stream: StreamId, *, agent: str) -> None:
        self.filter = chain_filter(stream, agent=agent)
        self.lock = anyio.Lock()
        self.head = Head()
        self.slots: dict[EventId, int] = {}
        self.known = False
        self._stream = stream

    def extend(self, recorded: Recorded[Event]) -> None:
        """Take note of the successor of the head."""
        self.slots[recorded.id] = recorded.seq
        self.head = Head(seq=recorded.seq, position=recorded.position, digest=recorded.digest)

    async def refresh(self, messages: StoredMessages) -> bool:
        """Read what is new after the head; return whether anything is.

        Raises:
            LogDamaged: What is there does not continue what was there before.
            LogUnavailable: The log can't be reached; what was read is kept.
        """
        newest: Stored | None = None
        while True:
            batch = await messages.batch(self.filter, seq=self.head.seq + 1)
            for newest in batch.messages:
                self._link(newest)
            if not batch.pending or not batch.messages:
                break
        self.known = True
        if newest is not None:
            _check_bytes(newest)
        return newest is not None

    async def check_head(self, messages: StoredMessages) -> None:
        """Check that the head still stands where it stood.

        Raises:
            LogDamaged: It does not: the log lost it, or is another log.
        """
        if self.head.seq == 0:
            return
        stored = await messages.at(self.head.seq)
        if stored is None or stored.headers.get("ce-luminadigest") != self.head.digest:
            reason = "it was the end of a chain, and is gone; the log lost its tail or was replaced"
            raise LogDamaged(reason, seq=self.head.seq, stream=self._stream)

    def _link(self, stored: Stored) -> None:
        headers = stored.headers
        try:
            event, position = EventId(headers["ce-id"]), int(headers["ce-luminaposition"])
            previous, digest = headers["ce-luminaprevious"], headers["ce-luminadigest"]
        except (KeyError, ValueError) as error:
            raise LogDamaged(f"envelope: {error}", seq=stored.seq, stream=self._stream) from error
        if position != self.head.position + 1 or previous != self.head.digest:
            reason = f"position {position} in {self.filter} does not continue {self.head.position} ({self.head.seq})"
            raise LogDamaged(reason, seq=stored.seq, stream=self._stream)
        self.slots[event] = stored.seq
        self.head = Head(seq=stored.seq, position=position, digest=digest)


class Chains:
    """The chains that were touched last, up to `chains_max`."""

    def __init__(self, *, chains_max: int = CHAINS_MAX) -> None:
        self._chains: dict[tuple[StreamId, str], Chain] = {}
        self._chains_max = chains_max

    def of(self, stream: StreamId, *, agent: str) -> Chain:
        """Return the chain; its lock must be taken before anything else is awaited."""
        key = (stream, agent)
        chain = self._chains.pop(key, None) or Chain(stream, agent=agent)
        self._chains[key] = chain
        if len(self._chains) > self._chains_max:
            idle = next((old for old, each in self._chains.items() if old != key and not each.lock.locked()), None)
            if idle is not None:
                del self._chains[idle]
        return chain


def _check_bytes(stored: Stored) -> None:
    """Recompute the digest of what the next record will name as its predecessor."""
    try:
        from_headers(stored.headers, body=stored.payload, seq=stored.seq)
    except UnknownEvent:
        return  # Written by a newer version; its digest was found right before its type was looked at.
    except InvalidEvent as error:
        raise LogDamaged(str(error), seq=stored.seq) from error
