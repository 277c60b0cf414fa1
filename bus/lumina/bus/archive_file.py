"""An exported file as a ZIP archive that nobody trusts: sealed, its list bounded, every member read in a stream.

A file that anybody may have sent is opened here. It is sealed with the SHA-256 of its bytes against accidents; against
intent, names are compared with the few that there can be, sizes are bounded before memory is taken, and nothing is
ever unpacked to a disk.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipExtFile, ZipFile, ZipInfo

from lumina.bus.archive_format import DIRECTORY_BYTES_MAX, MEMBER, SEAL, SEAL_BYTES
from lumina.bus.errors import ArchiveBroken

CHUNK_BYTES: Final = 2**20
_BAD_ZIP: Final = (BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What `zipfile` raises on an archive that is broken, encrypted, or made by means that are not used here."""
_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64: Final = struct.Struct("<4sLQL")
_ENCRYPTED: Final = 1


class ArchiveFile:
    """The members of one file. Close it.

    Raises:
        ArchiveBroken: It is no exported file, or not the one that was written.
        OSError: It can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        try:
            self.changed = not _is_sealed(self._file)
            self._zip = _opened(self._file)
            self._members = _members(self._zip)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(self._members)

    @contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member for the time of the block. What is wrong with it is found, at the latest, at its end.

        Raises:
            ArchiveBroken: There is none of this name, or it can't be unpacked.
        """
        if name not in self._members:
            raise ArchiveBroken(f"it has no {name}")
        try:
            stream = self._zip.open(self._members[name])
            assert isinstance(stream, ZipExtFile), "it is opened for reading"
            with stream, io.BufferedReader(stream, CHUNK_BYTES) as buffered:
                yield buffered
        except _BAD_ZIP as error:
            raise ArchiveBroken(f"{name} can't be unpacked: {error}") from error

    def content(self, name: str, *, bytes_max: int) -> bytes:
        """Return a small member. Raises ArchiveBroken, also for one that is larger than `bytes_max`."""
        with self.member(name) as stream:
            content = stream.read(bytes_max + 1)
        if len(content) > bytes_max:
            raise ArchiveBroken(f"{name} is larger than the {bytes_max:,} bytes that it may have")
        return content


def sealed_digest(file: BinaryIO) -> str:
    """Return the SHA-256 of everything before the seal."""
    left = file.seek(0, io.SEEK_END) - SEAL_BYTES
    file.seek(0)
    digest = sha256()
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _is_sealed(file: BinaryIO) -> bool:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise ArchiveBroken("it is no file that `lumina export` wrote")
    if size < SEAL_BYTES + _END.size:
        raise ArchiveBroken("its end is missing")
    file.seek(size - SEAL_BYTES)
    seal = file.read(SEAL_BYTES)
    if not seal.startswith(SEAL):
        raise ArchiveBroken("its end is missing, or it was packed again by other means")
    return seal == SEAL + sealed_digest(file).encode()


def _opened(file: BinaryIO) -> ZipFile:
    """Return the archive, once its list of members, which is read into memory, is known to be of bearable size."""
    size = file.seek(0, io.SEEK_END)
    file.seek(size - SEAL_BYTES - _END.size)
    end = _END.unpack(file.read(_END.size))
    listed = end[5]
    if end[0] != b"PK\x05\x06" or end[7] != SEAL_BYTES:
        raise ArchiveBroken("its list of members is not where it should be")
    if listed == 0xFFFFFFFF or end[3] == 0xFFFF or end[6] == 0xFFFFFFFF:
        listed = _listed_64(file, end_at=size - SEAL_BYTES - _END.size)
    if listed > DIRECTORY_BYTES_MAX:
        raise ArchiveBroken(f"its list of members has {listed:,} bytes; it may have {DIRECTORY_BYTES_MAX:,}")
    try:
        return ZipFile(file)
    except (*_BAD_ZIP, OSError) as error:
        raise ArchiveBroken(f"its list of members can't be read: {error}") from error


def _listed_64(file: BinaryIO, *, end_at: int) -> int:
    start = end_at - _LOCATOR_64.size - _END_64.size
    if start < 0:
        raise ArchiveBroken("its list of members is not where it should be")
    file.seek(start)
    end = _END_64.unpack(file.read(_END_64.size))
    if end[0] != b"PK\x06\x06":
        raise ArchiveBroken("its list of members is not where it should be")
    return int(end[8])


def _members(archive: ZipFile) -> dict[str, ZipInfo]:
    members: dict[str, ZipInfo] = {}
    for member in archive.infolist():
        if not MEMBER.fullmatch(member.filename):
            raise ArchiveBroken(f"it has a member {member.filename[:120]!r}, which no export writes")
        if member.filename in members:
            raise ArchiveBroken(f"it has {member.filename} twice")
        if member.flag_bits & _ENCRYPTED or member.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
            raise ArchiveBroken(f"{member.filename} is encrypted, or packed in a way that no export uses")
        members[member.filename] = member
    return members
