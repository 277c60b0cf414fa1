"""What every event is: an immutable, validated fact with a tag `category.past_tense.vN`."""

from functools import cache

from lumina.events.values import Value


class Event(Value, frozen=True, kw_only=True, tag_field="type"):
    """A fact in the past tense. Ids, time, correlation and causation live in the envelope."""


def type_of(event: Event | type[Event]) -> str:
    """Return the tag of an event, for instance `run.submitted.v1`."""
    return _tag_of(event if isinstance(event, type) else event.__class__)


@cache
def _tag_of(kind: type[Event]) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str), f"{kind!r} has no tag"
    return tag


def category_of(event_type: str) -> str:
    """Return `run` for `run.submitted.v1`."""
    return event_type.split(".", 1)[0]
