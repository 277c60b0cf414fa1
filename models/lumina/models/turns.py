"""A conversation as a chain of small blobs, so that a call costs what is new in it, not what was said before.

Each turn names the texts that it adds by their digests, beside those of the turns before it: up to `PARTS_MAX` in one
blob. When that is full, the next turn names the blob before it and starts anew. So a turn is written in O(1), a text is
stored once however often it is sent, and a conversation of 100 calls is read in a few round trips.

Pure: `missing` says which blobs are still needed to read a conversation, `messages` reads it, `extended` goes on.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from lumina.events.codec import encode
from lumina.events.values import BlobRef, Bytes, Digest, Value
from lumina.models.backend import Message, Role
from lumina.models.errors import ConversationLost

PARTS_MAX: Final = 32
"""In one blob. A larger one would be written again with each call, a smaller one needs more round trips to read."""
LINKS_MAX: Final = 64
"""Blobs of one conversation: 2,048 texts."""
MEDIA_TYPE: Final = "application/json"


class Part(Value, frozen=True, kw_only=True):
    """One message: who said it, and where its text is."""

    role: Role
    text: Digest
    size: Bytes


class Turn(Value, frozen=True, kw_only=True):
    """The end of a conversation.

    Attributes:
        parts: Its newest texts, oldest first.
        earlier: The blob before, when the conversation is longer than that.
    """

    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=PARTS_MAX)]
    earlier: Digest | None = None


class Extended(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that went on: its new end, and the blobs to store for it (that of the end is the last one)."""

    turn: BlobRef
    blobs: tuple[bytes, ...]


def missing(turn: str, *, blobs: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the digests of what is still needed to read the conversation that ends with `turn`; empty when all is.

    Ask again with what was found: a turn names the one before it.

    Raises:
        ConversationLost: A blob is no turn, or there are too many of them.
    """
    needed: list[str] = []
    for _ in range(LINKS_MAX):
        content = blobs.get(turn)
        if content is None:
            return (*dict.fromkeys(needed), turn)
        read = _read(content, name=turn)
        needed += [part.text for part in read.parts if part.text not in blobs]
        if read.earlier is None:
            return tuple(dict.fromkeys(needed))
        turn = read.earlier
    raise ConversationLost(f"the conversation has more than {LINKS_MAX} links; begin a new one")


def messages(turn: str, *, blobs: Mapping[str, bytes]) -> tuple[Message, ...]:
    """Return all that was said, oldest first; `blobs` has all that `missing` asked for. Raises ConversationLost."""
    links: list[Turn] = []
    following: str | None = turn
    while following is not None:
        links.append(_read(blobs[following], name=following))
        following = links[-1].earlier
    return tuple(
        Message(part.role, blobs[part.text].decode("utf-8", "replace"))
        for link in reversed(links)
        for part in link.parts
    )


def extended(turn: str | None, *, blobs: Mapping[str, bytes], said: Sequence[Message]) -> Extended:
    """Return the conversation after `said`, which follows what ends with `turn` (None: it begins).

    `blobs` has the blob of `turn`.
    """
    last = None if turn is None else _read(blobs[turn], name=turn)
    texts = [message.text.encode("utf-8", "replace") for message in said]
    fresh = [
        Part(role=message.role, text=sha256(text).hexdigest(), size=len(text))
        for message, text in zip(said, texts, strict=True)
    ]
    written: list[bytes] = []
    earlier, parts = (None, []) if last is None else (last.earlier, list(last.parts))
    for part in fresh:
        if len(parts) == PARTS_MAX:
            full = encode(Turn(parts=tuple(parts), earlier=earlier))
            written += [] if last is not None and sha256(full).hexdigest() == turn else [full]
            earlier, parts = sha256(full).hexdigest(), []
        parts.append(part)
    end = encode(Turn(parts=tuple(parts), earlier=earlier))
    ref = BlobRef(digest=sha256(end).hexdigest(), size=len(end), media_type=MEDIA_TYPE)
    return Extended(turn=ref, blobs=(*texts, *written, end))


def _read(content: bytes, *, name: str) -> Turn:
    try:
        return msgspec.json.decode(content, type=Turn)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConversationLost(f"blob {name} is no turn of a conversation") from error  # it ends up in an event
