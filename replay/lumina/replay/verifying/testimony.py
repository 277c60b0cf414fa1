"""What can be proved of records that nobody decides again, as they come from outside: a client's, a node's, a clock's.

Who may write them, that nothing on the log caused them, that their slot was free, and that their bytes are the one
notation of what they say, with the digest of their fields. For all other records the digest of what is decided again
covers the same.
"""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from lumina.bus.log import Records
from lumina.bus.stored import Stored
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.catalogue import WRITERS
from lumina.events.codec import encode
from lumina.events.errors import UnknownEvent
from lumina.events.ids import EventId, StreamId, root_event_id
from lumina.events.record import Recorded, fields_digest
from lumina.events.run import RunClosed, RunForked, RunSubmitted
from lumina.events.timer import TimerElapsed
from lumina.replay.comparing import NOTHING
from lumina.replay.report import Difference

OUTSIDE: Final = frozenset({"client", "node", "clock"})
"""Whose records nobody decides again."""
RECENT_SLOTS_MAX: Final = 256
"""How many slots are kept beside those of the open runs: of nodes, and of runs that ended a short while ago."""
TEXT_CHARACTERS_MAX: Final = 2_000


@runtime_checkable
class _Bytes(Protocol):
    """A log whose bytes can be had."""

    def originals(
        self, filters: Sequence[Filter] = ..., *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]: ...


class OutsideProof:
    """All that comes from outside, following a history. Hand it every record in order.

    Args:
        events: Where the bytes of a record are looked up that are not as expected.
    """

    def __init__(self, events: Records) -> None:
        self._events = events
        self._slots = _Slots()

    async def take(self, recorded: Recorded[Event]) -> Difference | None:
        """Return what is wrong with a record's writer, or with what comes from outside.

        Raises:
            UnknownEvent: It has fields that this version does not know.
        """
        filled = self._slots.fill(recorded)
        writers = WRITERS[type(recorded.event)]
        if recorded.agent not in writers:
            return Difference(field="agent", recorded=recorded.agent, decided=" or ".join(writers))
        if recorded.agent not in OUTSIDE:
            return None
        if recorded.causation is not None:
            return Difference(field="causation", recorded=recorded.causation, decided=NOTHING)
        if filled:
            return Difference(field="id", recorded=recorded.id, decided="another; this slot was filled before")
        return _timer_difference(recorded) or await self._body_difference(recorded)

    async def _body_difference(self, recorded: Recorded[Event]) -> Difference | None:
        """Compare the body's digests with those of the notation that this version has for the event."""
        body = encode(recorded.event)
        expected = sha256(body).hexdigest()
        standing: bytes | None = body
        if recorded.body != expected:
            standing = await self._standing(recorded)
        if standing is None:
            unlike = f"{expected}; it has fields unknown to this version, or another notation"
            return Difference(field="body", recorded=recorded.body, decided=unlike)
        if (fields := fields_digest(standing)) != recorded.fields:
            return Difference(field="fields", recorded=recorded.fields, decided=fields)
        if standing == body:
            return None
        unknown = _unknown_field(msgspec.json.decode(standing), recorded.event)
        if unknown is not None:
            what = f"record {recorded.seq}: {recorded.type} has a field {unknown!r}"
            raise UnknownEvent(f"{what} that this version of Lumina does not know; upgrade to prove it")
        return Difference(field="body", recorded=_text(standing), decided=_text(body))

    async def _standing(self, recorded: Recorded[Event]) -> bytes | None:
        """Return the bytes of a record's body; None when this log can't give them."""
        if not isinstance(self._events, _Bytes):
            return None
        which = Filter(stream=recorded.stream, agent=recorded.agent)
        originals = self._events.originals((which,), after=recorded.seq - 1, until=recorded.seq)
        async with aclosing(originals) as messages:
            async for message in messages:
                if sha256(message.payload).hexdigest() == recorded.body:
                    return message.payload
        return None


class _Slots:
    """Which slots are filled: those of the open runs, and the newest ones beside."""

    def __init__(self) -> None:
        self._filled: set[EventId] = set()
        self._open: dict[StreamId, list[EventId]] = {}
        self._recent: deque[EventId] = deque()

    def fill(self, recorded: Recorded[Event]) -> bool:
        """Fill a slot. Return whether it was filled before, by whomever."""
        if recorded.id in self._filled:
            return True
        self._filled.add(recorded.id)
        if recorded.position == 1 and isinstance(recorded.event, RunSubmitted | RunForked):
            self._open.setdefault(recorded.stream, [])
        self._open.get(recorded.stream, self._recent).append(recorded.id)
        if isinstance(recorded.event, RunClosed):
            self._recent.extend(self._open.pop(recorded.stream, ()))
        while len(self._recent) > RECENT_SLOTS_MAX:
            self._filled.discard(self._recent.popleft())
        return False


def _timer_difference(recorded: Recorded[Event]) -> Difference | None:
    """Return what is wrong with a timer's id or time."""
    if not isinstance(recorded.event, TimerElapsed):
        return None
    timer = recorded.event
    slot = root_event_id(recorded.stream, name=f"timer/{timer.timer}/{timer.due}")
    if recorded.id != slot:
        return Difference(field="id", recorded=recorded.id, decided=slot)
    if recorded.time_ms < timer.due:
        return Difference(field="time_ms", recorded=str(recorded.time_ms), decided=f"{timer.due} or later")
    return None


def _unknown_field(standing: Any, known: Any) -> str | None:
    """Return the path of the first field of a body that its type does not have."""
    if isinstance(standing, dict) and isinstance(known, msgspec.Struct):
        names = dict(zip(known.__struct_encode_fields__, known.__struct_fields__, strict=True))
        tag = known.__struct_config__.tag_field
        for name, value in standing.items():
            if name == tag:
                continue
            if name not in names:
                return str(name)
            if inside := _unknown_field(value, getattr(known, names[name])):
                return f"{name}.{inside}"
    elif isinstance(standing, list) and isinstance(known, tuple):
        for number, (one, other) in enumerate(zip(standing, known, strict=False)):
            if inside := _unknown_field(one, other):
                return f"{number}.{inside}"
    return None


def _text(body: bytes) -> str:
    text = body.decode(errors="replace")
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}…"
