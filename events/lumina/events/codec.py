"""Bytes of an event body: JSON in a fixed order, so that equal events have equal bytes and digests."""

from functools import cache

import msgspec

from lumina.events.base import Event
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.errors import InvalidEvent, UnknownEvent
from lumina.events.values import checked_before

_encoder = msgspec.json.Encoder(order="deterministic")


@cache
def _decoder(event_type: str) -> msgspec.json.Decoder[Event]:
    return msgspec.json.Decoder(EVENT_TYPES[event_type])


def encode(event: msgspec.Struct) -> bytes:
    """Return the canonical bytes of an event, or of any struct whose digest matters."""
    return _encoder.encode(event)


def decode(body: bytes, *, event_type: str) -> Event:
    """Return the event of type `event_type` that `body` holds. Unknown fields are ignored, missing ones defaulted.

    Raises:
        UnknownEvent: No such type here.
        InvalidEvent: The body does not fit the type; the message has the path of the field.
    """
    if event_type not in EVENT_TYPES:
        raise UnknownEvent(f"event type {event_type!r} is unknown to this version of Lumina; upgrade to read it")
    try:
        return checked_before(_decoder(event_type).decode, body)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(f"{event_type}: {error}") from error
