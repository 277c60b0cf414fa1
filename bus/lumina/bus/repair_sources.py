"""Where what a damaged log has lost may still be found: its own files, the mirror's, and an exported file."""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Final, Protocol

import msgspec

from lumina.bus.accounts import CONSUMERS_ACCOUNT, LOG_ACCOUNT
from lumina.bus.archive import Archive
from lumina.bus.archive_format import stored_from
from lumina.bus.errors import BlobMissing
from lumina.bus.salvage import Chunk, by_digest, chunks, plain, records, sound_record
from lumina.bus.stored import Stored
from lumina.bus.subjects import BLOB_STREAM, LOG_STREAM

BLOCKS_KEPT: Final = 4
WAYS_MAX: Final = 6
"""Of a blob in more pieces than this, where a piece ends is taken from its message only."""


class Source(Protocol):
    """Something that may still have what was lost."""

    def records(self) -> Iterator[Stored]:
        """Yield the sound records that it has, in order."""
        ...

    def blobs(self) -> frozenset[str]:
        """Return the digests of which it has something."""
        ...

    async def blob(self, digest: str) -> bytes | None:
        """Return a blob, None when it does not have it whole."""
        ...


class StoreFiles:
    """The files of a JetStream store, read without a server, however damaged they are.

    Args:
        store: The server's store folder.
        account: Whose streams.
    """

    def __init__(self, store: Path, *, account: str) -> None:
        streams = store / "jetstream" / account / "streams"
        self.log = streams / LOG_STREAM
        self._blobs = streams / BLOB_STREAM
        self._chunks: dict[str, list[tuple[Path, Chunk]]] | None = None
        self._plain = lru_cache(maxsize=BLOCKS_KEPT)(_plain)

    @property
    def exists(self) -> bool:
        """Whether there is any such stream."""
        return (self.log / "msgs").is_dir()

    def max_bytes(self) -> int | None:
        """Return the limit in the stream's configuration, None when that can't be read."""
        try:
            return msgspec.json.decode((self.log / "meta.inf").read_bytes(), type=_Limit).max_bytes
        except (OSError, msgspec.MsgspecError):
            return None

    def records(self) -> Iterator[Stored]:
        """See `Source`. Blocks come in the order of what is in them, whatever they are called."""
        firsts = {path: first.seq for path in _blocks(self.log) if (first := next(_sound(path), None)) is not None}
        waiting = sorted(firsts, key=lambda path: firsts[path])
        pending: list[Stored] = []
        while waiting or pending:
            if waiting:
                pending += _sound(waiting.pop(0))
                pending.sort(key=lambda stored: stored.seq)
            limit = firsts[waiting[0]] if waiting else None
            ready = [stored for stored in pending if limit is None or stored.seq < limit]
            pending = pending[len(ready) :]
            yield from ready

    def blobs(self) -> frozenset[str]:
        """See `Source`."""
        return frozenset(self._pieces())

    async def blob(self, digest: str) -> bytes | None:
        """See `Source`."""
        pieces = self._pieces().get(digest, [])
        ways = product((0, 1), repeat=len(pieces)) if len(pieces) <= WAYS_MAX else iter([(0,) * len(pieces)])
        for ends in ways:
            content = b"".join(
                self._plain(path)[chunk.start : chunk.ends[end]]
                for (path, chunk), end in zip(pieces, ends, strict=True)
            )
            if pieces and sha256(content).hexdigest() == digest:
                return content
        return None

    def _pieces(self) -> dict[str, list[tuple[Path, Chunk]]]:
        if self._chunks is None:
            self._chunks = {}
            for path in _blocks(self._blobs):
                for digest, found in by_digest(list(chunks(path.read_bytes()))).items():
                    self._chunks.setdefault(digest, []).extend((path, chunk) for chunk in found)
        return self._chunks


class ArchiveSource:
    """An exported file: of the whole log, or of some run."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def records(self) -> Iterator[Stored]:
        """See `Source`. Records of which fields are hidden are of no use."""
        for line in self._archive.lines():
            if not line.hidden:
                stored = stored_from(line)
                sound = sound_record(stored.headers, body=stored.payload, seq=stored.seq)
                if sound is not None:
                    yield sound

    def blobs(self) -> frozenset[str]:
        """See `Source`."""
        return frozenset(self._archive.manifest.blobs)

    async def blob(self, digest: str) -> bytes | None:
        """See `Source`."""
        try:
            return await self._archive.get(digest)
        except BlobMissing:
            return None


class _Limit(msgspec.Struct):
    max_bytes: int | None = None


def own_files(store: Path) -> StoreFiles:
    """Return the log's own files."""
    return StoreFiles(store, account=LOG_ACCOUNT)


def mirror_files(store: Path) -> StoreFiles:
    """Return the files of the mirror that external consumers read."""
    return StoreFiles(store, account=CONSUMERS_ACCOUNT)


def _blocks(stream: Path) -> list[Path]:
    found = [path for path in (stream / "msgs").glob("*.blk") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def _plain(path: Path) -> bytes:
    return plain(path.read_bytes())


def _sound(path: Path) -> Iterator[Stored]:
    return records(path.read_bytes())
