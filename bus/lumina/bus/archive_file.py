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
_LISTED: Final = struct.Struct("<4s6H3L3H")
"""A member in the list as far as its lengths of name, extra fields, and comment."""
_HEADER_BYTES: Final = 46
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
    if end[0] != b"PK\x05\x06" or end[7] != SEAL_BYTES:
        raise ArchiveBroken("its list of members is not where it should be")
    listed, ends_at = end[5], size - SEAL_BYTES - _END.size
    if _is_long(file, end_at=ends_at):  # what the short list says is not looked at then, here and in `zipfile`
        listed = _listed_64(file, end_at=ends_at)
        ends_at -= _LOCATOR_64.size + _END_64.size
    if listed > DIRECTORY_BYTES_MAX:
        raise ArchiveBroken(f"its list of members has {listed:,} bytes; it may have {DIRECTORY_BYTES_MAX:,}")
    if listed > ends_at:
        raise ArchiveBroken("its list of members is not where it should be")
    file.seek(ends_at - listed)
    _check_list(file.read(listed))
    try:
        return ZipFile(file)
    except (*_BAD_ZIP, OSError) as error:
        raise ArchiveBroken(f"its list of members can't be read: {error}") from error


def _is_long(file: BinaryIO, *, end_at: int) -> bool:
    """Return whether the list is of the kind for large archives."""
    file.seek(max(0, end_at - _LOCATOR_64.size))
    return file.read(4) == b"PK\x06\x07"


def _check_list(listed: bytes) -> None:
    """Check the names of all members before anything is kept of them; `zipfile` keeps much of each, whatever it is.

    Raises:
        ArchiveBroken: One has a name that no export writes, or the list is none.
    """
    at = 0
    while at < len(listed):
        if len(listed) - at < _LISTED.size:
            raise ArchiveBroken("its list of members ends in the middle of one")
        magic, *_, name_bytes, extra_bytes, comment_bytes = _LISTED.unpack_from(listed, at)
        if magic != b"PK\x01\x02":
            raise ArchiveBroken("its list of members can't be read")
        name = listed[at + _HEADER_BYTES : at + _HEADER_BYTES + name_bytes].decode(errors="replace")
        if not MEMBER.fullmatch(name):
            raise ArchiveBroken(f"it has a member {name[:120]!r}, which no export writes")
        at += _HEADER_BYTES + name_bytes + extra_bytes + comment_bytes


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
