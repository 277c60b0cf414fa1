"""Writes an exported file (see `archive_format`): in a stream, atomically, equal bytes for equal content."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, BinaryIO, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

from lumina.bus.appearing import appearing
from lumina.bus.archive_file import sealed_digest
from lumina.bus.archive_format import BLOBS_MAX, MANIFEST, RECORDS, SEAL, SEAL_BYTES, Line, Manifest
from lumina.bus.errors import BlobMissing, BlobsFull
from lumina.bus.stored import Stored

LEVEL: Final = 6
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_MODE: Final = 0o100644 << 16


class ArchiveWriter:
    """One file under way: first all records, then the rest, `finish` at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zip = ZipFile(file, "w", compression=ZIP_DEFLATED, compresslevel=LEVEL)
        self._records: IO[bytes] | None = self._zip.open(_member(RECORDS), "w", force_zip64=True)
        self._encoder = msgspec.json.Encoder()
        self.records = 0
        self.first_seq = 0
        self.last_seq = 0
        self.hidden_records = 0
        self.blobs: list[str] = []

    def record(self, line: Line) -> None:
        """Write the next record."""
        assert self._records is not None, "records come first"
        assert line.seq > self.last_seq, "records come in order"
        self._records.write(self._encoder.encode(line) + b"\n")
        self.records += 1
        self.first_seq = self.first_seq or line.seq
        self.last_seq = line.seq
        self.hidden_records += bool(line.hidden)

    def blob(self, digest: str, *, content: bytes) -> None:
        """Write a blob; they come in the order of their digests.

        Raises:
            BlobMissing: It is another than its digest says.
            BlobsFull: There are too many for one file.
        """
        if len(self.blobs) == BLOBS_MAX:
            raise BlobsFull(f"one file takes {BLOBS_MAX:,} blobs: export single runs, or --without-blobs")
        if sha256(content).hexdigest() != digest:
            raise BlobMissing(f"blob {digest}: what is stored has another digest")
        assert not self.blobs or digest > self.blobs[-1], "blobs come in order"
        self._write(f"blobs/{digest}", content)
        self.blobs.append(digest)

    def schema(self, event_type: str, *, content: bytes) -> None:
        """Write the JSON Schema of a type."""
        self._write(f"schemas/{event_type}.json", content)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and the seal."""
        self._write(MANIFEST, msgspec.json.format(self._encoder.encode(manifest), indent=1) + b"\n")
        self._zip.comment = SEAL + b"0" * (SEAL_BYTES - len(SEAL))
        self._zip.close()
        self._file.flush()
        digest = sealed_digest(self._file)
        self._file.seek(-64, os.SEEK_END)
        self._file.write(digest.encode())

    def abandon(self) -> None:
        """Let go of a file that is not going to be finished."""
        with suppress(OSError):  # the disk is full, perhaps; the file is removed anyway
            if self._records is not None:
                self._records.close()
            self._zip.close()

    def _write(self, name: str, content: bytes) -> None:
        if self._records is not None:
            self._records.close()
            self._records = None
        self._zip.writestr(_member(name), content, compresslevel=LEVEL)


def line_of(stored: Stored) -> Line:
    """Return the line of a message."""
    return Line(seq=stored.seq, headers=dict(sorted(stored.headers.items())), body=stored.payload.decode())


@contextmanager
def written(path: Path, *, replace: bool = False) -> Iterator[ArchiveWriter]:
    """Write a file for the time of the block. It appears under its name when it is whole, or not at all.

    Raises:
        FileExistsError: There is one of this name, and `replace` is false.
        OSError: It can't be written; the error names the file.
    """
    with appearing(path, replace=replace) as file:
        writer = ArchiveWriter(file)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise


def _member(name: str) -> ZipInfo:
    member = ZipInfo(name, date_time=_EPOCH)
    member.compress_type = ZIP_DEFLATED
    member.create_system = _UNIX
    member.external_attr = _MODE
    return member
