"""An exported file as a log that can be read: the records and the blobs, checked as those of a live log are.

Everything is read in streams: memory does not grow with the file, but for its list of blobs. Single records are
searched for from the start, so `find`, `head`, `last` and `at` take time in proportion to the file.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel
import anyio.to_thread

from lumina.bus.archive_file import ArchiveFile
from lumina.bus.archive_format import (
    BLOB_BYTES_MAX,
    LINE_BYTES_MAX,
    MANIFEST,
    MANIFEST_BYTES_MAX,
    RECORDS,
    Line,
    Manifest,
    check_hidden,
    line_from,
    manifest_from,
    stored_from,
    subject_from,
)
from lumina.bus.checks import Continuity, Scope, check_again
from lumina.bus.decoding import decoded
from lumina.bus.errors import ArchiveBroken, BlobMissing, BlobsFull, FieldsHidden, LogDamaged
from lumina.bus.stored import Stored
from lumina.bus.subjects import Filter, subject_matches
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Head, Recorded

BREATH_RECORDS: Final = 256
"""After so many records other tasks have their turn."""


class Archive:
    """See `Originals` and `Blobs`; nothing can be put into it.

    Attributes:
        path: The file.
        manifest: What it says about itself.
    """

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file
        self.path = file.path
        self.manifest: Manifest = manifest_from(file.content(MANIFEST, bytes_max=MANIFEST_BYTES_MAX))
        missing = {f"blobs/{digest}" for digest in self.manifest.blobs} ^ {
            name for name in file.names if name.startswith("blobs/")
        }
        if missing:
            raise ArchiveBroken(f"{min(missing)} is listed and not there, or there and not listed")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    @property
    def hides(self) -> bool:
        """Whether records hide fields: what is there can be proved whole, but nothing decided again.

        The manifest says so; one that says otherwise than the records is damage, which every reader meets.
        """
        return self.manifest.hidden_records > 0

    def lines(self) -> Iterator[Line]:
        """Yield the records as they stand in the file, in order, all of them. Digests are not looked at.

        Raises:
            ArchiveBroken: The file is not what was written.
        """
        manifest, count, seq, first, hidden = self.manifest, 0, 0, 0, 0
        try:
            with self._file.member(RECORDS) as stream:
                while text := stream.readline(LINE_BYTES_MAX + 1):
                    line = line_from(text, after=seq)
                    count, seq, first = count + 1, line.seq, first or line.seq
                    hidden += bool(line.hidden)
                    self._check_count(hidden, seq=seq)
                    yield line
        except ArchiveBroken as error:
            raise ArchiveBroken(error.reason, seq=error.seq or seq + 1) from error
        if (count, first, seq) != (manifest.records, manifest.first_seq, manifest.last_seq):
            reason = (
                f"it has {count:,} records from {first} to {seq}, and says that it has {manifest.records:,} "
                f"from {manifest.first_seq} to {manifest.last_seq}"
            )
            raise ArchiveBroken(reason, seq=seq + 1)
        if hidden != manifest.hidden_records:
            raise ArchiveBroken(f"{hidden:,} records hide fields; it says that {manifest.hidden_records:,} do")

    def _check_count(self, hidden: int, *, seq: int) -> None:
        """Check that not more records hide fields than the manifest says. Raises ArchiveBroken."""
        if hidden > self.manifest.hidden_records:
            said = f"{self.manifest.hidden_records:,} records do"
            raise ArchiveBroken(f"it hides fields; the file says that {said}", seq=seq)

    async def each_line(self) -> AsyncGenerator[Line, None]:
        """Yield what `lines` does, and let other tasks have their turn."""
        for number, line in enumerate(self.lines()):
            if number % BREATH_RECORDS == 0:
                await anyio.lowlevel.checkpoint()
            yield line

    async def originals(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]:
        """See `Originals`."""
        async for stored, _ in self._read(filters, after=after, until=until):
            yield stored

    async def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `Records`. Of one run's file, what is checked is that the chains which it covers are whole.

        Raises:
            FieldsHidden: At the first record, of those asked for, that hides something.
        """
        async for _, recorded in self._read(filters, after=after, until=until):
            yield recorded

    async def _read(
        self, filters: Sequence[Filter], *, after: int, until: int | None
    ) -> AsyncGenerator[tuple[Stored, Recorded[Event]], None]:
        scope = Scope(filters)
        scope.everything = scope.everything and self.manifest.whole
        continuity, pattern = Continuity(scope, after=after), scope.cover.subject()
        last_seq = self.manifest.last_seq
        if after > last_seq:
            reason = f"this reader has read up to {after}, and the file ends at {last_seq}"
            raise LogDamaged(reason, seq=last_seq + 1)
        end = last_seq if until is None else min(until, last_seq)
        async for line in self.each_line():
            if line.seq > end:
                break
            if line.seq <= after:
                continue
            subject = subject_from(line)
            if not subject_matches(subject, pattern=pattern):
                continue
            continuity.expect(line.seq)
            if not scope.wants(subject):
                continue
            stored, recorded = _record(line)
            if self.covers_chain_of(recorded) and not continuity.check(recorded):
                chain_ = (Filter(stream=recorded.stream, agent=recorded.agent),)
                await check_again(recorded, earlier=self.read(chain_, until=line.seq - 1))
            yield stored, recorded
        continuity.end(end)

    def covers_chain_of(self, recorded: Recorded[Event]) -> bool:
        """Whether everything that its writer wrote in its stream stands in the file."""
        return (
            self.manifest.whole
            or recorded.stream in self.manifest.runs
            or any(
                each.type is None and each.stream in {None, recorded.stream} and each.agent in {None, recorded.agent}
                for each in self.manifest.covers
            )
        )

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """See `Records`."""
        pattern = Filter(stream=stream, agent=agent).subject()
        line = await self._newest(lambda each: subject_matches(subject_from(each), pattern=pattern))
        if line is None:
            return Head()
        if line.hidden:
            sealed = check_hidden(line)
            return Head(seq=line.seq, position=sealed.position, digest=line.headers["ce-luminadigest"])
        recorded = _record(line)[1]
        return Head(seq=recorded.seq, position=recorded.position, digest=recorded.digest)

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """See `Records`."""
        pattern = Filter(stream=stream, agent=agent).subject()
        line = await self._newest(
            lambda each: each.headers.get("ce-id") == event and subject_matches(subject_from(each), pattern=pattern)
        )
        return None if line is None else _record(line)[1]

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """See `Records`."""
        pattern = which.subject()
        line = await self._newest(lambda each: subject_matches(subject_from(each), pattern=pattern))
        return None if line is None else _record(line)[1]

    async def last_seq(self) -> int:
        """See `Records`."""
        await anyio.lowlevel.checkpoint()
        return self.manifest.last_seq

    async def log_id(self) -> str:
        """Return the name of the log that it comes from."""
        await anyio.lowlevel.checkpoint()
        return self.manifest.log_id

    async def at(self, seq: int) -> Recorded[Event] | None:
        """Return the record at `seq`, None when the file has none there."""
        line = await self._newest(lambda each: each.seq == seq)
        return None if line is None else _record(line)[1]

    async def _newest(self, wanted: Callable[[Line], bool]) -> Line | None:
        found: Line | None = None
        async for line in self.each_line():
            if wanted(line):
                found = line
        return found

    async def put(self, content: bytes) -> str:
        """Raise BlobsFull: a file stays as it was written."""
        await anyio.lowlevel.checkpoint()
        raise BlobsFull(f"{self.path.name} is an exported file, and takes no blob of {len(content):,} bytes")

    async def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        await anyio.lowlevel.checkpoint()
        if f"blobs/{digest}" not in self._file.names:
            left_out = ", which was exported without some of its blobs" if self.manifest.blobs_left_out else ""
            raise BlobMissing(f"no blob {digest} in {self.path.name}{left_out}")
        try:
            content = self._file.content(f"blobs/{digest}", bytes_max=BLOB_BYTES_MAX)
        except ArchiveBroken as error:
            raise BlobMissing(f"blob {digest} in {self.path.name}: {error}") from error
        if sha256(content).hexdigest() != digest:
            raise BlobMissing(f"blob {digest} in {self.path.name} does not have that digest")
        return content


def _record(line: Line) -> tuple[Stored, Recorded[Event]]:
    """Return the message that a line is, and its record.

    Raises:
        LogDamaged: Its digests are not those of its bytes.
        FieldsHidden: They are, but it hides something.
        UnknownEvent: A newer version wrote it.
    """
    if line.hidden:
        sealed = check_hidden(line)
        names = ", ".join(line.hidden)
        reason = f"record {line.seq} ({sealed.type}) was exported without its {names}"
        raise FieldsHidden(f"{reason}; `lumina verify` can prove it, but nothing can be read or decided from it")
    stored = stored_from(line)
    return stored, decoded(stored)


@asynccontextmanager
async def open_archive(path: Path) -> AsyncIterator[Archive]:
    """Open an exported file for the time of the block, once its seal is checked.

    Raises:
        ArchiveBroken: It is no exported file, or changed since it was written; the message says where.
        ArchiveTooNew: A later version wrote it.
        OSError: It can't be read.
    """
    with await anyio.to_thread.run_sync(checked_archive, path) as archive:
        yield archive


def checked_archive(path: Path) -> Archive:
    """Return an exported file, open, once its seal is checked. See `open_archive`."""
    try:
        file = ArchiveFile(path)
        try:
            archive = Archive(file)
            _check_unchanged(archive, file=file)
        except BaseException:
            file.close()
            raise
    except ArchiveBroken as error:
        where = f"record {error.seq}: " if error.seq else ""
        raise ArchiveBroken(f"{path.name}: {where}{error.reason}", seq=error.seq) from error
    return archive


def _check_unchanged(archive: Archive, *, file: ArchiveFile) -> None:
    """Check that the bytes of the file are those that were written.

    Raises:
        ArchiveBroken: They are not; with the first record that is not whole, if there is one.
    """
    if not file.changed:
        return
    try:
        for line in archive.lines():
            if line.hidden:
                check_hidden(line)
            else:
                decoded(stored_from(line))
    except LogDamaged as error:
        reason = error.reason if isinstance(error, ArchiveBroken) else str(error).partition(": ")[2]
        raise ArchiveBroken(f"{reason}; the file was changed since it was written", seq=error.seq) from error
    raise ArchiveBroken("its bytes were changed since it was written; the records in it are whole")
