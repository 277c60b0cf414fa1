"""The only place where NATS subjects are built and read.

    lumina.log.<category>.<stream>.<agent>.<type>        the log; <type> is the tag without its category
    lumina.tail.<category>.<stream>.<agent>.<type>       each record again as it lands (republish); only ever a hint
    lumina.live.<stream>.<agent>.<what>                  chatter; nothing is ever decided from it

`<stream>` is a run id or a node name. Because the writer is a token, the server can enforce who may say what.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from lumina.events.base import Event, type_of
from lumina.events.ids import StreamId

LOG_STREAM: Final = "LUMINA_LOG"
LOG_PREFIX: Final = "lumina.log"
LOG_ALL: Final = f"{LOG_PREFIX}.>"
TAIL_PREFIX: Final = "lumina.tail"
"""The log's stream republishes `LOG_ALL` to `TAIL_ALL`, to wake those who follow it."""
TAIL_ALL: Final = f"{TAIL_PREFIX}.>"
LIVE_PREFIX: Final = "lumina.live"
LIVE_ALL: Final = f"{LIVE_PREFIX}.>"
LOG_ID_METADATA: Final = "lumina-log-id"
"""Key in the metadata of the log's stream: drawn when it is created, so that another log is noticed."""

BLOB_BUCKET: Final = "LUMINA_BLOBS"
"""A standard JetStream object store; any NATS client reads it."""
BLOB_STREAM: Final = f"OBJ_{BLOB_BUCKET}"
BLOB_CHUNK_PREFIX: Final = f"$O.{BLOB_BUCKET}.C"
BLOB_META_PREFIX: Final = f"$O.{BLOB_BUCKET}.M"

JS_API: Final = "$JS.API"
JS_ACK: Final = "$JS.ACK"


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


def tail_subject(which: Filter) -> str:
    """Return the subject on which records that `which` matches are announced as they land."""
    return TAIL_PREFIX + which.subject().removeprefix(LOG_PREFIX)


def worker_consumer(role: str) -> str:
    """Return the name of the durable consumer that all instances of a worker role share."""
    return f"worker-{role}"


def direct_get_subject(stream: str) -> str:
    """Return where to ask for stored messages of a JetStream stream, one or a batch, without a consumer."""
    return f"{JS_API}.DIRECT.GET.{stream}"


def stream_facts_subject(stream: str) -> str:
    """Return where to ask for a JetStream stream's state and configuration."""
    return f"{JS_API}.STREAM.INFO.{stream}"


def next_request_subject(role: str) -> str:
    """Return where an instance of a worker role asks for its next requests."""
    return f"{JS_API}.CONSUMER.MSG.NEXT.{LOG_STREAM}.{worker_consumer(role)}"


def ack_subjects(role: str) -> str:
    """Return the filter of the subjects on which a worker role acknowledges."""
    return f"{JS_ACK}.{LOG_STREAM}.{worker_consumer(role)}.>"


def live_subject(stream: StreamId, *, agent: str, what: str) -> str:
    """Return the subject of unlogged progress."""
    return f"{LIVE_PREFIX}.{stream}.{agent}.{what}"


def live_filter(stream: StreamId) -> str:
    """Return the filter for all unlogged progress of one run."""
    return f"{LIVE_PREFIX}.{stream}.>"


def live_agent(subject: str) -> str:
    """Return who speaks on a subject of `live_subject`."""
    return subject.split(".")[3]


def subject_matches(subject: str, *, pattern: str) -> bool:
    """Return whether the NATS `pattern` (`*` one token, `>` all the rest) matches `subject`."""
    tokens = subject.split(".")
    wanted = pattern.split(".")
    for number, want in enumerate(wanted):
        if want == ">":
            return len(tokens) > number
        if number >= len(tokens) or want not in {"*", tokens[number]}:
            return False
    return len(wanted) == len(tokens)


def any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """Return what `fullmatch`es the subjects that one of these NATS patterns matches: for whoever asks often."""
    tokens = {"*": "[^.]+", ">": ".+"}
    return re.compile(
        "|".join(r"\.".join(tokens.get(each, re.escape(each)) for each in one.split(".")) for one in patterns)
    )


@cache
def _category_and_name(kind: type[Event]) -> tuple[str, str]:
    category, name, version = type_of(kind).split(".")
    return category, f"{name}-{version}"
