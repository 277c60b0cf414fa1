"""Reads what is left in the files of a JetStream stream, without its server and without its index. Pure.

The server gives up a whole block, or the whole stream, for one wrong byte. But a record of the log proves itself: if
its digests are right, it is what was written, wherever it is found. So its headers are looked for, and the rest
follows: a body is one JSON object, the subject follows from the envelope, and the sequence, which no digest covers,
from its place among its neighbours. Of the blobs, the name is the digest.

A block: see `tests/faults/blocks.py`, and nats-server, `server/filestore.go`.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from lumina.bus.s2 import decompressed, varint
from lumina.bus.stored import Stored
from lumina.bus.subjects import BLOB_CHUNK_PREFIX, LOG_PREFIX
from lumina.events.errors import InvalidEvent
from lumina.events.record import Sealed, chain_digest, sealed_from

RECORD_BYTES_MIN: Final = 200
"""An envelope alone is larger."""
_COMPRESSED: Final = b"cmp"
_HEADERS: Final = re.compile(rb"NATS/1\.0\r\n(.{1,16384}?)\r\n\r\n", re.DOTALL)
_CHUNK: Final = re.compile(re.escape(BLOB_CHUNK_PREFIX).encode() + rb"\.([0-9a-f]{64})((?:-[0-9])?)")
_CHUNK_START: Final = re.compile(re.escape(BLOB_CHUNK_PREFIX.rpartition(".")[0]).encode() + rb"\.[CM]\.")
_LENGTH_BYTES: Final = 4
_SEQ_BYTES: Final = 8
_TIME_BYTES: Final = 8
_SUBJECT_LENGTH_BYTES: Final = 2
_FIXED_BYTES: Final = _LENGTH_BYTES + _SEQ_BYTES + _TIME_BYTES + _SUBJECT_LENGTH_BYTES
_CHECKSUM_BYTES: Final = 8
_HEADERS_BIT: Final = 1 << 31

_json = json.JSONDecoder(strict=False)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A record whose digests are right, where it stands in its block, and the sequence that stands beside it."""

    start: int
    end: int
    seq: int
    stored: Stored


def plain(block: bytes) -> bytes:
    """Return the records of a block, decompressed if need be, as far as that is possible."""
    if not block.startswith(_COMPRESSED):
        return block
    _, at = varint(block, at=len(_COMPRESSED) + 1)
    return decompressed(block[at:-_CHECKSUM_BYTES])


def records(block: bytes) -> Iterator[Stored]:
    """Yield the sound records of a block of the log, in the order in which they stand there."""
    found = list(_found(plain(block)))
    last, end = 0, 0
    for group in _adjacent(found):
        # Records that touch each other have sequences in a row: one wrong number is put right by its neighbours.
        first = Counter(each.seq - number for number, each in enumerate(group)).most_common(1)[0][0]
        between = (group[0].start - end) // RECORD_BYTES_MIN
        if last and not last < first <= last + 1 + between:
            continue  # nothing says where it belongs
        last, end = first + len(group) - 1, group[-1].end
        for number, each in enumerate(group):
            stored = each.stored
            yield Stored(first + number, stored.subject, stored.headers, stored.payload)


def _found(content: bytes) -> Iterator[_Found]:
    for match in _HEADERS.finditer(content):
        sound = sound_record(_parsed(match[1]), body=_object_at(content, match.end()))
        if sound is None:
            continue
        start = match.start() - _LENGTH_BYTES - len(sound.subject) - _FIXED_BYTES
        at = start + _LENGTH_BYTES
        seq = int.from_bytes(content[max(at, 0) : max(at, 0) + _SEQ_BYTES], "little")
        yield _Found(start=start, end=match.end() + len(sound.payload) + _CHECKSUM_BYTES, seq=seq, stored=sound)


def _adjacent(found: Sequence[_Found]) -> Iterator[list[_Found]]:
    """Yield records that stand without anything between them."""
    group: list[_Found] = []
    for each in found:
        if group and group[-1].end != each.start:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _parsed(headers: bytes) -> dict[str, str]:
    lines = (line.partition(": ") for line in headers.decode("latin-1").split("\r\n"))
    return {name: value for name, _, value in lines}


def _object_at(content: bytes, at: int) -> bytes:
    """Return the bytes of the JSON object that begins at `at`; nothing when there is none."""
    window = content[at : at + 2**23].decode("latin-1")  # one byte is one character: places stay what they are
    try:
        _, end = _json.raw_decode(window)
    except ValueError:
        return b""
    return content[at : at + end]


def sound_record(headers: dict[str, str], *, body: bytes, seq: int = 0) -> Stored | None:
    """Return the message of a record whose digests are right, on the subject of its envelope; None for another."""
    sealed = envelope(headers)
    if sealed is None or sha256(body).hexdigest() != sealed.body:
        return None
    category, _, name = sealed.type.partition(".")
    subject = f"{LOG_PREFIX}.{category}.{sealed.stream}.{sealed.agent}.{name.replace('.', '-')}"
    return Stored(seq, subject, headers, body)


def envelope(headers: dict[str, str]) -> Sealed | None:
    """Return the envelope in these headers if it has the digest that it carries."""
    try:
        sealed = sealed_from(headers, seq=0)
    except InvalidEvent:
        return None
    return sealed if chain_digest(sealed) == headers.get("ce-luminadigest") else None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of a blob in a block.

    Attributes:
        digest: Of the blob.
        seq: Of the message.
        start: First byte of the piece, in the block without compression.
        ends: Where it may end: as its message says, and where the next message begins.
    """

    digest: str
    seq: int
    start: int
    ends: tuple[int, int]


def chunks(block: bytes) -> Iterator[Chunk]:
    """Yield the pieces of blobs in a block of the blobs' stream. Only the whole blob tells whether they are right."""
    content = plain(block)
    for match in _CHUNK.finditer(content):
        at = match.start() - _FIXED_BYTES
        if at < 0:
            continue
        length = int.from_bytes(content[at : at + _LENGTH_BYTES], "little") & ~_HEADERS_BIT
        named = int.from_bytes(content[match.start() - _SUBJECT_LENGTH_BYTES : match.start()], "little")
        # Where the subject ends: it may have a number at its end, or what follows only looks like one.
        start = match.end() if named == match.end() - match.start() else match.end(1)
        headers = _HEADERS.match(content, start + _LENGTH_BYTES)  # in a mirror there are none
        start = start if headers is None else headers.end()
        following = _CHUNK_START.search(content, start)
        end = len(content) if following is None else following.start() - _FIXED_BYTES
        yield Chunk(
            digest=match[1].decode(),
            seq=int.from_bytes(content[at + _LENGTH_BYTES : at + _LENGTH_BYTES + _SEQ_BYTES], "little"),
            start=start,
            ends=(at + length - _CHECKSUM_BYTES, end - _CHECKSUM_BYTES),
        )


def by_digest(found: Sequence[Chunk]) -> dict[str, list[Chunk]]:
    """Return the pieces of each blob, in their order."""
    pieces: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in found:
        pieces[chunk.digest].append(chunk)
    return pieces
