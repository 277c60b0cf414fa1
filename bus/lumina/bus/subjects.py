"""The only place where NATS subjects are built and read.

    lumina.log.<category>.<stream>.<agent>.<type>        the log; <type> is the tag without its category
    lumina.live.<stream>.<agent>.<what>                  chatter; nothing is ever decided from it

`<stream>` is a run id or a node name. Because the writer is a token, the server can enforce who may say what.
"""

from dataclasses import dataclass
from typing import Final

from lumina.events.base import Event, type_of
from lumina.events.ids import StreamId

LOG_STREAM: Final = "LUMINA_LOG"
LOG_PREFIX: Final = "lumina.log"
LOG_ALL: Final = f"{LOG_PREFIX}.>"
LIVE_PREFIX: Final = "lumina.live"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which records to read; None means any. `event` restricts to one type of event."""

    stream: StreamId | None = None
    agent: str | None = None
    event: type[Event] | None = None

    def subject(self) -> str:
        """Return the NATS filter, for instance `lumina.log.*.r-1.sandbox.>`."""
        category, name = "*", None
        if self.event is not None:
            category, name = _category_and_name(self.event)
        if self.stream is None and self.agent is None and name is None:
            return LOG_ALL
        return f"{LOG_PREFIX}.{category}.{self.stream or '*'}.{self.agent or '*'}.{name or '>'}"


def subject_of(event: Event, *, stream: StreamId, agent: str) -> str:
    """Return the subject of a record, for instance `lumina.log.run.r-1.client.submitted-v1`."""
    category, name = _category_and_name(type(event))
    return f"{LOG_PREFIX}.{category}.{stream}.{agent}.{name}"


def chain_filter(stream: StreamId, *, agent: str) -> str:
    """Return the filter that covers exactly what `agent` writes in `stream`: the fence of every append."""
    return Filter(stream=stream, agent=agent).subject()


def live_subject(stream: StreamId, *, agent: str, what: str) -> str:
    """Return the subject of unlogged progress."""
    return f"{LIVE_PREFIX}.{stream}.{agent}.{what}"


def _category_and_name(kind: type[Event]) -> tuple[str, str]:
    category, name, version = type_of(kind).split(".")
    return category, f"{name}-{version}"
