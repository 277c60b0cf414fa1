"""A recorded event: the fact, its envelope, and its place in its writer's chain.

The envelope travels in CloudEvents 1.0 attributes (binary mode, `ce-*` headers of the NATS binding, working draft
1.0.3) and the extensions `correlationid`, `causationid`, `traceparent`. Attributes of our own make every writer's
records of one stream a hash chain: `luminaposition` (from 1), `luminaprevious` and `luminadigest`, and commit each
record to its body: `luminabody` (SHA-256 of its bytes) and `luminafields` (see `fields_digest`).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Annotated, Any, Final, Generic, TypeVar, get_args

import msgspec
from msgspec import Meta

from lumina.events.base import Event, category_of, type_of
from lumina.events.codec import decode, encode
from lumina.events.errors import InvalidEvent
from lumina.events.ids import AnyEventId, AnyStreamId, EventId, StreamId, event_id
from lumina.events.values import Digest, Milliseconds, Name

NO_DIGEST: Final = "0" * 64
"""What the first record of a chain names as its predecessor."""

E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)


class Draft(msgspec.Struct, Generic[E_co], frozen=True, kw_only=True):
    """An event with the envelope that its writer decides on; the log adds the chain and the sequence.

    Attributes:
        event: The fact.
        id: The slot that it fills.
        stream: A run id or a node name.
        agent: Who writes.
        time_ms: A keeper writes its trigger's time, a worker the time at which its effect ended.
        causation: The event that it answers; None for a root.
    """

    event: E_co
    id: EventId
    stream: StreamId
    agent: str
    time_ms: int
    causation: EventId | None

    @property
    def category(self) -> str:
        """The first token of the type."""
        return category_of(type_of(self.event))


class Recorded(msgspec.Struct, Generic[E_co], frozen=True, kw_only=True, gc=False):
    """An event as it stands in the log.

    Attributes:
        seq: Its place in the one total order; 0 while its writer still waits for the acknowledgement. Nothing may
            be decided from it.
        position: Its place in its writer's chain, from 1.
        previous: Digest of the record before it in that chain, or `NO_DIGEST`.
        digest: Over the whole record but `seq`; see `chain_digest`.
        body: SHA-256 of the bytes of the body.
        fields: What `fields_digest` says of the body.
    """

    event: E_co
    id: EventId
    stream: StreamId
    agent: str
    time_ms: int
    causation: EventId | None
    position: int
    previous: str
    digest: str
    body: str = NO_DIGEST
    fields: str = NO_DIGEST
    seq: int = 0

    @property
    def type(self) -> str:
        """The tag, for instance `run.submitted.v1`."""
        return type_of(self.event)

    @property
    def category(self) -> str:
        """The first token of the type."""
        return category_of(self.type)


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The end of one writer's chain in one stream; `seq` 0 and `position` 0 for an empty one."""

    seq: int = 0
    position: int = 0
    digest: str = NO_DIGEST


def draft_answer(event: E, *, to: Recorded[Event], agent: str, ordinal: int, time_ms: int | None = None) -> Draft[E]:
    """Return the draft of the `ordinal`-th answer of `agent` to the record `to`, in the same stream.

    Without `time_ms` it carries the time of `to`, as all that keepers write does.
    """
    return Draft(
        event=event,
        id=event_id(to.id, agent=agent, ordinal=ordinal),
        stream=to.stream,
        agent=agent,
        time_ms=to.time_ms if time_ms is None else time_ms,
        causation=to.id,
    )


class Sealed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a record's digest covers, its keys in this order; `causation` may be null. See `_checked`.

    Attributes:
        body: SHA-256 of the bytes of the body.
        fields: What `fields_digest` says of the body.
    """

    id: AnyEventId
    type: Name
    stream: AnyStreamId
    agent: Name
    time_ms: Milliseconds
    causation: AnyEventId | None
    position: Annotated[int, Meta(ge=1)]
    previous: Digest
    body: Digest
    fields: Digest


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SMALL_BYTES_MAX: Final = 64


@lru_cache(maxsize=4_096)
def _small_digest(value: bytes) -> str:
    """Return the digest of a short value: numbers, names and verdicts come again and again."""
    return sha256(value).hexdigest()


def _value_digest(value: msgspec.Raw) -> str:
    content = bytes(value)
    return _small_digest(content) if len(content) <= _SMALL_BYTES_MAX else sha256(content).hexdigest()


def fields_digest(body: bytes, *, hidden: Mapping[str, str] | None = None) -> str:
    """Return SHA-256 over one line `name digest` per field of a body, in their order, each ended by a line feed.

    `digest` is SHA-256 of the field's bytes. So whoever has some of the fields, and for the others these digests (given
    as `hidden`, in place of what stands there), can still compute it: that is how an export leaves fields out.
    """
    hidden = hidden or {}
    lines = [f"{name} {hidden.get(name) or _value_digest(value)}\n" for name, value in _fields.decode(body).items()]
    return sha256("".join(lines).encode()).hexdigest()


def chain_digest(sealed: Sealed) -> str:
    """Return SHA-256 over the canonical JSON of the sealed envelope, which names the body's digests."""
    return sha256(encode(sealed)).hexdigest()


def chain(draft: Draft[E], *, after: Head) -> tuple[Recorded[E], bytes]:
    """Return the record that `draft` becomes as the successor of `after`, and the bytes of its body."""
    body = encode(draft.event)
    sealed = _checked(
        Sealed(
            id=draft.id,
            type=type_of(draft.event),
            stream=draft.stream,
            agent=draft.agent,
            time_ms=draft.time_ms,
            causation=draft.causation,
            position=after.position + 1,
            previous=after.digest,
            body=sha256(body).hexdigest(),
            fields=fields_digest(body),
        )
    )
    return recorded_as(sealed, event=draft.event, digest=chain_digest(sealed), seq=0), body


def is_successor(written: Recorded[Event], *, draft: Draft[Event], after: Head) -> bool:
    """Whether `written` is the record that `chain` made of such a draft as the successor of `after`."""
    return (
        written.event is draft.event
        and (written.id, written.stream, written.agent) == (draft.id, draft.stream, draft.agent)
        and (written.time_ms, written.causation) == (draft.time_ms, draft.causation)
        and (written.position, written.previous) == (after.position + 1, after.digest)
    )


def to_headers(recorded: Recorded[Event]) -> dict[str, str]:
    """Return the CloudEvents headers of a record. All values are printable ASCII."""
    return headers_of(recorded, digest=recorded.digest)


def headers_of(recorded: Recorded[Event] | Sealed, *, digest: str) -> dict[str, str]:
    """Return the headers of an envelope with this digest."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": recorded.id,
        "ce-type": recorded.type,
        "ce-source": f"/lumina/{recorded.agent}",
        "ce-time": rfc3339(recorded.time_ms),
        "ce-subject": recorded.stream,
        "ce-dataschema": f"urn:lumina:{recorded.type}",
        "ce-datacontenttype": "application/json",
        "ce-correlationid": recorded.stream,
        "ce-traceparent": traceparent(recorded),
        "ce-luminaposition": str(recorded.position),
        "ce-luminaprevious": recorded.previous,
        "ce-luminabody": recorded.body,
        "ce-luminafields": recorded.fields,
        "ce-luminadigest": digest,
    }
    if recorded.causation is not None:
        headers["ce-causationid"] = recorded.causation
    return headers


def from_headers(headers: dict[str, str], *, body: bytes, seq: int) -> Recorded[Event]:
    """Return the record that stands in `headers` and `body`. Its digests are recomputed, all but that of its fields.

    Raises:
        UnknownEvent: The type is of another version.
        InvalidEvent: A header is missing, malformed or not one of ours, the body does not fit, or a digest is wrong.
    """
    sealed = sealed_from(headers, seq=seq)
    if chain_digest(sealed) != headers.get("ce-luminadigest"):
        raise InvalidEvent(f"record {seq} ({sealed.type}): its envelope does not have the digest that it carries")
    if sha256(body).hexdigest() != sealed.body:
        raise InvalidEvent(f"record {seq} ({sealed.type}): its bytes do not have the digest that its envelope names")
    return recorded_as(sealed, event=decode(body, event_type=sealed.type), digest=headers["ce-luminadigest"], seq=seq)


def sealed_from(headers: dict[str, str], *, seq: int) -> Sealed:
    """Return the envelope that stands in `headers`, whose own digest is left to be checked.

    The `ce-*` headers are those of `headers_of`, to the letter, so that every reader in whatever language is told the
    same; others are the server's. Raises InvalidEvent for one that is incomplete, malformed or written otherwise.
    """
    try:
        sealed = _checked(
            Sealed(
                id=EventId(headers["ce-id"]),
                type=headers["ce-type"],
                stream=StreamId(headers["ce-subject"]),
                agent=headers["ce-source"].removeprefix("/lumina/"),
                time_ms=_as_written(headers["ce-time"]),
                causation=EventId(cause) if (cause := headers.get("ce-causationid")) else None,
                position=int(headers["ce-luminaposition"]),
                previous=headers["ce-luminaprevious"],
                body=headers["ce-luminabody"],
                fields=headers["ce-luminafields"],
            )
        )
        written = (
            _plain(headers) == _plain_of(sealed.type, sealed.agent, sealed.stream)
            and headers["ce-traceparent"] == traceparent(sealed)
            and headers["ce-luminaposition"] == str(sealed.position)
        )
    except (KeyError, ValueError, OverflowError, msgspec.ValidationError) as error:
        raise InvalidEvent(f"record {seq}: envelope: {error}") from error
    if not written or _own(tuple(headers)) != _HEADERS + (sealed.causation is not None):
        raise InvalidEvent(f"record {seq} ({sealed.type}): {_unlike(headers, sealed=sealed)}")
    return sealed


_HEADERS: Final = 15  # of a root; what has a cause has one more
_plain: Final = itemgetter("ce-specversion", "ce-source", "ce-dataschema", "ce-datacontenttype", "ce-correlationid")
"""Headers that are the same in all records of a type in a chain."""


@lru_cache(maxsize=1_024)
def _plain_of(event_type: str, agent: str, stream: str) -> tuple[str, ...]:
    return "1.0", f"/lumina/{agent}", f"urn:lumina:{event_type}", "application/json", stream


@lru_cache(maxsize=64)
def _own(names: tuple[str, ...]) -> int:
    """Return how many headers are ours; most records have the same names."""
    return sum(name.lower().startswith("ce-") for name in names)


def _unlike(headers: Mapping[str, str], *, sealed: Sealed) -> str:
    """Return which header is not what it is in this envelope."""
    own = {name: value for name, value in headers.items() if name.lower().startswith("ce-")}
    expected = headers_of(sealed, digest=headers.get("ce-luminadigest", ""))
    for name in sorted(own.keys() | expected.keys()):
        if own.get(name) != expected.get(name):
            standing = f"is {own[name]!r}" if name in own else "is missing"
            wanted = f"{expected[name]!r} belongs there" if name in expected else "it has no such header"
            return f"its envelope is not written as one is: {name} {standing}; {wanted}"
    return "its envelope is not written as one is"


def _pattern_of(kind: Any) -> str:
    """Return the pattern of a constrained text, without its ends."""
    pattern: str = get_args(kind)[1].pattern
    return pattern.removeprefix("^").removesuffix(r"$(?!\n)")


_TEXTS: Final = re.compile(
    "\n".join(_pattern_of(each) for each in (AnyEventId, Name, AnyStreamId, Name))
    + f"\n(?:{_pattern_of(AnyEventId)})?"
    + f"\n{_pattern_of(Digest)}" * 3
)
"""All texts of an envelope, one a line: one search instead of eight, and each record that is read needs it."""


def _checked(sealed: Sealed) -> Sealed:
    """Return the envelope. Raises ValidationError with the field that is wrong."""
    causation = sealed.causation or ""
    names = f"{sealed.id}\n{sealed.type}\n{sealed.stream}\n{sealed.agent}\n{causation}"
    texts = f"{names}\n{sealed.previous}\n{sealed.body}\n{sealed.fields}"
    if not (_TEXTS.fullmatch(texts) and 0 <= sealed.time_ms < 2**53 and sealed.position >= 1):
        msgspec.convert(msgspec.to_builtins(sealed), Sealed)
    return sealed


def recorded_as(sealed: Sealed, *, event: E, digest: str, seq: int) -> Recorded[E]:
    """Return the record of an envelope and its event."""
    return Recorded(
        event=event,
        id=EventId(sealed.id),
        stream=StreamId(sealed.stream),
        agent=sealed.agent,
        time_ms=sealed.time_ms,
        causation=None if sealed.causation is None else EventId(sealed.causation),
        position=sealed.position,
        previous=sealed.previous,
        digest=digest,
        body=sealed.body,
        fields=sealed.fields,
        seq=seq,
    )


def rfc3339(time_ms: int) -> str:
    """Return `2026-11-21T09:30:00.000Z` for milliseconds since 1970."""
    return f"{_second_text(time_ms // 1000)}.{time_ms % 1000:03d}Z"


def from_rfc3339(text: str) -> int:
    """Return milliseconds since 1970. Raises ValueError for anything that is not an RFC 3339 time."""
    if len(text) == _TIME_CHARACTERS and text[19] == "." and text[23] == "Z" and _is_digits(text[20:23]):
        return _milliseconds(f"{text[:19]}Z") + int(text[20:23])
    return _milliseconds(text)


def _as_written(text: str) -> int:
    """Return milliseconds since 1970. Raises ValueError for anything that `rfc3339` does not return."""
    if len(text) == _TIME_CHARACTERS and text[19] == "." and text[23] == "Z" and _is_digits(text[20:23]):
        return _whole_second(text[:19]) + int(text[20:23])
    raise ValueError(f"{text!r} is not written as a time is")


@lru_cache(maxsize=256)
def _whole_second(text: str) -> int:
    moment_ms = _milliseconds(f"{text}Z")
    if _second_text(moment_ms // 1000) != text:
        raise ValueError(f"{text!r} is not written as a second is")
    return moment_ms


_TIME_CHARACTERS: Final = len("2026-11-21T09:30:00.000Z")


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


@lru_cache(maxsize=256)
def _second_text(second: int) -> str:
    """Return the second; what is written or read one after the other mostly lies in the same one."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=256)
def _milliseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000


def traceparent(recorded: Recorded[Event] | Sealed) -> str:
    """Return the W3C trace context: the stream is the trace, the event the span; derived, so replay gives the same."""
    return f"00-{_trace(recorded.stream)}-{recorded.id[:16]}-01"


@lru_cache(maxsize=256)
def _trace(stream: StreamId) -> str:
    return sha256(stream.encode()).hexdigest()[:32]
