"""Names of things: runs, events, slots. Derived where the design says so, never drawn."""

from hashlib import sha256
from typing import Annotated, Final, NewType

from msgspec import Meta

EventId = NewType("EventId", str)
StreamId = NewType("StreamId", str)
"""The second subject token after the category: a run id or a node name."""

EVENT_ID_CHARACTERS: Final = 32

AnyEventId = Annotated[EventId, Meta(pattern=rf"^[0-9a-f]{{{EVENT_ID_CHARACTERS}}}$(?!\n)")]
AnyStreamId = Annotated[StreamId, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$(?!\n)")]


def event_id(causation: EventId, *, agent: str, ordinal: int) -> EventId:
    """Return the name of the slot that `agent` fills as its `ordinal`-th answer to `causation`.

    The first 128 bits of SHA-256, in hexadecimal: the same decision, made again, has the same id.
    """
    return EventId(sha256(f"{causation}\n{agent}\n{ordinal}".encode()).hexdigest()[:EVENT_ID_CHARACTERS])


def root_event_id(stream: StreamId, *, name: str) -> EventId:
    """Return the id of an event that nothing on the log caused: a submission, an announcement, a timer.

    `name` must be unique within `stream`, for instance `run.submitted` or `timer/step-1/1700000000000`.
    """
    return EventId(sha256(f"{stream}\n{name}".encode()).hexdigest()[:EVENT_ID_CHARACTERS])
