"""Blobs on a JetStream object store: a standard bucket that any NATS client reads (ADR-20).

A blob's name is its SHA-256, and so is the subject of its chunks. Each chunk is published behind the one before it or
not at all, so a put that was cut off is continued by the next one, and two puts of the same bytes make one blob.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from functools import partial
from hashlib import sha256
from typing import Final

import msgspec

from lumina.bus.errors import BlobMissing, BlobsFull, LogDamaged, LogUnavailable, PayloadTooLarge
from lumina.bus.stored import FULL_CODES, Ack, Batch, StoredMessages
from lumina.bus.subjects import BLOB_BUCKET, BLOB_CHUNK_PREFIX, BLOB_META_PREFIX, BLOB_STREAM
from lumina.bus.together import both
from lumina.bus.transport import Transport, patiently

CHUNK_BYTES: Final = 128 * 1024
BLOB_BYTES_MAX: Final = 256 * 2**20
SMALL_BYTES_MAX: Final = 2_048
"""What is no larger is nearly always new (raw results, code), and is sent without a look whether it is there."""
RETRY_S_MAX: Final = 15.0
PLACES_MAX: Final = 4
"""How many subjects are tried for the chunks, should somebody have put other bytes on the first."""

_WRONG_LAST_SEQUENCE: Final = 10071
_DIGEST_PREFIX: Final = "SHA-256="
_NO_TIME: Final = "0001-01-01T00:00:00Z"


class _Options(msgspec.Struct, frozen=True):
    max_chunk_size: int = CHUNK_BYTES


class ObjectMeta(msgspec.Struct, frozen=True):
    """What an object store keeps about an object, as far as it is looked at here."""

    name: str
    bucket: str
    nuid: str
    size: int = 0
    chunks: int = 0
    digest: str = ""
    deleted: bool = False
    mtime: str = _NO_TIME
    options: _Options | None = None


class JetStreamBlobs:
    """See `Blobs`.

    Args:
        transport: The connection.
        retry_s_max: How long a put or get tries through an outage.
    """

    def __init__(self, transport: Transport, *, retry_s_max: float = RETRY_S_MAX) -> None:
        self._transport = transport
        self._retry_s_max = retry_s_max
        self._messages = StoredMessages(transport, stream=BLOB_STREAM)
        self._ack = msgspec.json.Decoder(Ack)

    async def put(self, content: bytes) -> str:
        """See `Blobs`.

        Raises:
            PayloadTooLarge: `content` is over `BLOB_BYTES_MAX`; nothing was stored.
        """
        if len(content) > BLOB_BYTES_MAX:
            raise PayloadTooLarge(f"a blob of {len(content):,} bytes; the limit is {BLOB_BYTES_MAX:,}")
        digest = sha256(content)
        name = digest.hexdigest()
        if len(content) > SMALL_BYTES_MAX and await self._meta(name) is not None:
            return name
        place = await self._put_chunks(content, name=name)
        meta = ObjectMeta(
            name=name,
            bucket=BLOB_BUCKET,
            nuid=place,
            size=len(content),
            chunks=len(_chunks(content)),
            digest=_DIGEST_PREFIX + urlsafe_b64encode(digest.digest()).decode(),
            options=_Options(),
        )
        # A conflict here means that another put of the same bytes was first.
        await self._publish(_meta_subject(name), payload=msgspec.json.encode(meta), after=0)
        return name

    async def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        # Nearly always the chunks stand under the digest, so both questions can be asked at once.
        meta, first = await both(partial(self._meta, digest), partial(self._batch, digest, seq=1))
        if meta is None or meta.deleted:
            raise BlobMissing(f"no blob {digest}")
        content, chunks = await self._content(meta, first=first) if meta.nuid == digest else (b"", -1)
        if chunks != meta.chunks:  # They stand elsewhere, or were still being written when they were read.
            content, chunks = await self._content(meta, first=await self._batch(meta.nuid, seq=1))
        if sha256(content).hexdigest() != digest:
            found = f"{chunks} of {meta.chunks} chunks, {len(content):,} of {meta.size:,} bytes"
            raise BlobMissing(f"blob {digest}: what is stored has another digest ({found})")
        return content

    async def _content(self, meta: ObjectMeta, *, first: Batch) -> tuple[bytes, int]:
        """Return what the chunks hold, and how many there are."""
        content, chunks, batch = bytearray(), 0, first
        while chunks < meta.chunks:
            for stored in batch.messages:
                content += stored.payload
                chunks += 1
            if not batch.pending or not batch.messages:
                break
            batch = await self._batch(meta.nuid, seq=batch.messages[-1].seq + 1)
        return bytes(content), chunks

    async def _meta(self, name: str) -> ObjectMeta | None:
        subject = _meta_subject(name)
        stored = await patiently(self._transport, lambda: self._messages.last(subject), retry_s_max=self._retry_s_max)
        if stored is None:
            return None
        try:
            meta = msgspec.json.decode(stored.payload, type=ObjectMeta)
            written = urlsafe_b64decode(meta.digest.removeprefix(_DIGEST_PREFIX)).hex()
        except (msgspec.MsgspecError, Base64Error) as error:
            raise BlobMissing(f"blob {name}: its description can't be read: {error}") from error
        if written != name:
            raise BlobMissing(f"blob {name}: its description names the digest {written}")
        return meta

    async def _batch(self, place: str, *, seq: int) -> Batch:
        """Return the next chunks at a place."""
        look = partial(self._messages.batch, _chunk_subject(place), seq=seq)
        try:
            return await patiently(self._transport, look, retry_s_max=self._retry_s_max)
        except LogDamaged as error:
            raise BlobMissing(f"blob {place}: its store is damaged: {error}") from error

    async def _put_chunks(self, content: bytes, *, name: str) -> str:
        """Store the chunks and return the token of their subject."""
        for number in range(PLACES_MAX):
            place = name if number == 0 else f"{name}-{number}"
            if await self._put_chunks_at(place, content):
                return place
        raise LogUnavailable(f"blob {name}: other bytes stand at all {PLACES_MAX} places where it belongs")

    async def _put_chunks_at(self, place: str, content: bytes) -> bool:
        subject, after = _chunk_subject(place), 0
        for chunk in _chunks(content):
            seq = await self._publish(subject, payload=chunk, after=after)
            if seq is None:
                standing = await self._messages.batch(subject, seq=after + 1, messages_max=1)
                if not standing.messages or standing.messages[0].payload != chunk:
                    return False
                seq = standing.messages[0].seq
            after = seq
        return True

    async def _publish(self, subject: str, *, payload: bytes, after: int) -> int | None:
        """Publish behind the message `after` of that subject, and return the sequence; None if that is taken."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        answer = await patiently(
            self._transport,
            lambda: self._transport.request(subject, payload=payload, headers=headers),
            retry_s_max=self._retry_s_max,
        )
        ack = self._ack.decode(answer.payload)
        if ack.error is None:
            return ack.seq
        if ack.error.err_code == _WRONG_LAST_SEQUENCE:
            return None
        reason = f"{ack.error.description} ({ack.error.err_code})"
        if ack.error.err_code in FULL_CODES:
            advice = f"raise the limit of the stream {BLOB_STREAM}, or free disk space under the server's data folder"
            raise BlobsFull(f"no room for {len(payload):,} bytes: {reason}; {advice}")
        raise LogUnavailable(f"{subject}: {reason}")


def _chunks(content: bytes) -> list[bytes]:
    return [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]


def _chunk_subject(place: str) -> str:
    return f"{BLOB_CHUNK_PREFIX}.{place}"


def _meta_subject(name: str) -> str:
    return f"{BLOB_META_PREFIX}.{urlsafe_b64encode(name.encode()).decode()}"
