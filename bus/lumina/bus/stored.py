"""Reads stored messages of a JetStream stream without a consumer: one, the last, or a batch (direct get, ADR-31)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from lumina.bus.errors import LogDamaged, LogUnavailable
from lumina.bus.subjects import direct_get_subject, stream_facts_subject
from lumina.bus.transport import NOBODY, NOBODY_LISTENS, REQUEST_S_MAX, Message, Transport

BATCH_MESSAGES_MAX: Final = 512
BATCH_BYTES_MAX: Final = 8 * 2**20

FULL_CODES: Final = frozenset({10002, 10023, 10047, 10077, 10122})
"""With which JetStream says that a stream, an account or the disk has no room."""

ADDED_WHEN_READ: Final = frozenset(
    {"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending", "Nats-Last-Sequence"}
    | {"Nats-UpTo-Sequence"}
)
"""Headers that a direct get adds to those of the message."""

_NOT_FOUND: Final = 404
_END_OF_BATCH: Final = 204


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it stands in a stream."""

    seq: int
    subject: str
    headers: dict[str, str]
    payload: bytes


def published(stored: Stored) -> Stored:
    """Return a message with the headers that it was published with."""
    headers = {name: value for name, value in stored.headers.items() if name not in ADDED_WHEN_READ}
    return replace(stored, headers=headers)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some messages in order, and how many more match after them."""

    messages: list[Stored]
    pending: int


class ApiError(msgspec.Struct, frozen=True):
    """How JetStream refuses."""

    code: int
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True):
    """What JetStream answers to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class StreamState(msgspec.Struct, frozen=True):
    """How far a stream goes. `num_deleted` above 0 means that messages inside it can't be read."""

    messages: int
    first_seq: int
    last_seq: int
    num_deleted: int = 0


class StreamConfig(msgspec.Struct, frozen=True):
    """What is looked at of a stream's configuration."""

    metadata: dict[str, str] = {}


class StreamFacts(msgspec.Struct, frozen=True):
    """A stream's answer about itself."""

    config: StreamConfig
    state: StreamState


class _FactsOrError(msgspec.Struct):
    config: StreamConfig | None = None
    state: StreamState | None = None
    error: ApiError | None = None


class StoredMessages:
    """The messages of one stream."""

    def __init__(self, transport: Transport, *, stream: str) -> None:
        self._transport = transport
        self._stream = stream
        self._subject = direct_get_subject(stream)
        self._facts = msgspec.json.Decoder(_FactsOrError)

    async def facts(self) -> StreamFacts:
        """Return its state and metadata.

        Raises:
            LogUnavailable: The server can't be reached, or has no such stream.
        """
        answer = await self._transport.request(stream_facts_subject(self._stream))
        facts = self._facts.decode(answer.payload)
        if facts.config is None or facts.state is None:
            reason = facts.error.description if facts.error else "no answer"
            raise LogUnavailable(f"stream {self._stream}: {reason}; it is created when the server is set up")
        return StreamFacts(config=facts.config, state=facts.state)

    async def at(self, seq: int) -> Stored | None:
        """Return the message at `seq`, or None."""
        return await self._one({"seq": seq})

    async def last(self, pattern: str) -> Stored | None:
        """Return the newest message whose subject `pattern` matches, or None."""
        return await self._one({"last_by_subj": pattern})

    async def batch(self, pattern: str, *, seq: int, messages_max: int = BATCH_MESSAGES_MAX) -> Batch:
        """Return the next messages that `pattern` matches, the first one at `seq` or later.

        Raises:
            LogUnavailable: The server can't be reached, or stopped in the middle.
            LogDamaged: The server can't read some message from there on.
        """
        wanted = {"batch": messages_max, "max_bytes": BATCH_BYTES_MAX, "seq": seq, "next_by_subj": pattern}
        replies = await self._transport.open(self._subject, payload=msgspec.json.encode(wanted))
        messages: list[Stored] = []
        try:
            while True:
                arrived = await replies.take(timeout_s=REQUEST_S_MAX)
                if not arrived:
                    await self._look_for_damage(messages[-1].seq + 1 if messages else seq)
                    raise LogUnavailable(f"{self._subject}: nothing came for {REQUEST_S_MAX} s in a batch")
                for message in arrived:
                    if not message.status:
                        messages.append(_stored(message))
                    elif message.status in {_NOT_FOUND, _END_OF_BATCH}:
                        return Batch(messages, int(message.headers.get("Nats-Num-Pending", "0")))
                    else:
                        raise self._refused(message)
        finally:
            replies.close()

    async def _look_for_damage(self, seq: int) -> None:
        """Find out why a batch does not come: when a block of its file can't be decompressed, the server says nothing.

        One by one its messages are answered for, those that can't be read with "not found".
        """
        facts = await self.facts()
        for number in range(seq, facts.state.last_seq + 1):
            if await self.at(number) is None:
                reason = f"the server has {facts.state.last_seq:,} messages in {self._stream} and can't read this one"
                raise LogDamaged(reason, seq=number)

    async def _one(self, wanted: Mapping[str, int | str]) -> Stored | None:
        answer = await self._transport.request(self._subject, payload=msgspec.json.encode(wanted))
        if not answer.status:
            return _stored(answer)
        if answer.status == _NOT_FOUND:
            return None
        raise self._refused(answer)

    def _refused(self, message: Message) -> LogUnavailable:
        if message.status == NOBODY:
            return LogUnavailable(f"{self._subject}: {NOBODY_LISTENS}")
        return LogUnavailable(f"{self._subject}: {message.status} {message.description.split(chr(10))[0]}".rstrip())


def _stored(message: Message) -> Stored:
    headers = message.headers
    return Stored(int(headers["Nats-Sequence"]), headers["Nats-Subject"], headers, message.payload)
