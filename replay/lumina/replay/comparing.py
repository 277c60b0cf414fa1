"""The first field in which two records differ."""

from typing import Any, Final

import msgspec

from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.replay.report import Difference, Link

ENVELOPE: Final = ("type", "id", "stream", "agent", "causation", "time_ms")
CHAIN: Final = ("position", "previous", "digest")
NOTHING: Final = "nothing"
VALUE_CHARACTERS_MAX: Final = 2_000
_ABSENT: Final = object()


def link_of(recorded: Recorded[Event]) -> Link:
    """Return a record's name."""
    return Link(seq=recorded.seq, id=recorded.id, type=recorded.type, agent=recorded.agent, stream=recorded.stream)


def first_difference(recorded: Recorded[Event], decided: Recorded[Event]) -> Difference | None:
    """Return where two records differ: envelope first, then the event field by field, then the chain.

    A digest covers all of these to the byte, and whoever read the record has recomputed it: equal ones end the search.
    """
    if recorded.digest == decided.digest:
        return None
    for field in ENVELOPE:
        if getattr(recorded, field) != getattr(decided, field):
            return _difference(field, getattr(recorded, field), getattr(decided, field))
    inside = event_difference(recorded.event, decided.event)
    if inside is not None:
        return inside
    for field in CHAIN:
        if getattr(recorded, field) != getattr(decided, field):
            return _difference(field, getattr(recorded, field), getattr(decided, field))
    return None


def event_difference(recorded: Event, decided: Event) -> Difference | None:
    """Return the deepest path at which two events first differ, compared as the JSON that they are written as."""
    return _inside("event", recorded, decided)


def undecided(recorded: Recorded[Event]) -> Difference:
    """Return the difference between a record and no decision at all."""
    return Difference(field="record", recorded=_text(msgspec.to_builtins(recorded.event)), decided=NOTHING)


def missing(decided: Recorded[Event], *, before: Recorded[Event]) -> Difference:
    """Return the difference between a record and the decision that should stand before it, and is nowhere."""
    earlier = f"{decided.type} {decided.id} in {decided.stream}, which was decided before it and is not there"
    return Difference(field="record", recorded=f"{before.type} {before.id}", decided=earlier)


def _inside(path: str, recorded: Any, decided: Any) -> Difference | None:
    if isinstance(recorded, msgspec.Struct) and type(recorded) is type(decided):
        for field in recorded.__struct_fields__:
            found = _inside(f"{path}.{field}", getattr(recorded, field), getattr(decided, field))
            if found is not None:
                return found
        return None
    if isinstance(recorded, list | tuple) and isinstance(decided, list | tuple):
        for number in range(max(len(recorded), len(decided))):
            one = recorded[number] if number < len(recorded) else _ABSENT
            other = decided[number] if number < len(decided) else _ABSENT
            found = _inside(f"{path}[{number}]", one, other)
            if found is not None:
                return found
        return None
    # As texts: 1, 1.0 and true are equal in Python and three things in JSON.
    one_text, other_text = _text(recorded), _text(decided)
    return None if one_text == other_text else Difference(field=path, recorded=one_text, decided=other_text)


def _difference(field: str, recorded: Any, decided: Any) -> Difference:
    return Difference(field=field, recorded=_text(recorded), decided=_text(decided))


def _text(value: Any) -> str:
    if value is _ABSENT:
        return NOTHING
    text = msgspec.json.encode(value, order="deterministic").decode()
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}…"
