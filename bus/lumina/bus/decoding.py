"""From a stored message to a record, believing nothing: bytes, envelope and subject must agree. Pure."""

from lumina.bus.errors import LogDamaged
from lumina.bus.stored import Stored
from lumina.bus.subjects import subject_of
from lumina.events.base import Event
from lumina.events.errors import InvalidEvent, UnknownEvent
from lumina.events.record import Recorded, from_headers


def decoded(stored: Stored) -> Recorded[Event]:
    """Return the record that a stored message holds.

    Raises:
        LogDamaged: Its bytes do not have their digest, or it claims another writer than its subject.
        UnknownEvent: It was written by a newer version.
    """
    try:
        recorded = from_headers(stored.headers, body=stored.payload, seq=stored.seq)
    except UnknownEvent as error:
        raise UnknownEvent(f"record {stored.seq}: {error}") from error
    except InvalidEvent as error:
        raise LogDamaged(str(error), seq=stored.seq) from error
    subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
    if subject != stored.subject:
        # The server guards subjects, not envelopes: who speaks in another's name is found out here.
        reason = f"its envelope belongs on {subject}, and it was published on {stored.subject}"
        raise LogDamaged(reason, seq=stored.seq, stream=recorded.stream)
    return recorded
