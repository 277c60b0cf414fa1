"""A record as one line of JSON, for `--json` and for programs that read `lumina logs`."""

import msgspec

from lumina.events.base import Event
from lumina.events.record import Recorded, rfc3339


class EventLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope under CloudEvents' names, the body under `data`; `late` where it came too late for its run."""

    seq: int
    id: str
    type: str
    time: str
    source: str
    subject: str
    causationid: str | None = None
    digest: str
    late: bool = False
    data: Event


def event_line(recorded: Recorded[Event], *, late: bool = False) -> bytes:
    """Return one line of JSON without a line feed."""
    return msgspec.json.encode(
        EventLine(
            seq=recorded.seq,
            id=recorded.id,
            type=recorded.type,
            time=rfc3339(recorded.time_ms),
            source=f"/lumina/{recorded.agent}",
            subject=recorded.stream,
            causationid=recorded.causation,
            digest=recorded.digest,
            late=late,
            data=recorded.event,
        )
    )
