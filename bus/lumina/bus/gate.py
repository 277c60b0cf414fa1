"""Checkpoints, and the gate at the start: nobody writes to a log that is not the one that they wrote to before.

A file store that lost its tail gives out the same sequences again, and nobody on the server's side notices. So each
process keeps outside the log what it saw in it last: (log, sequence, event, digest). Before it writes again, one
direct get shows whether that record still stands there.
"""

import fcntl
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from errno import EAGAIN
from hashlib import sha256
from pathlib import Path
from threading import Event as Hurry
from threading import Lock
from typing import Annotated, Final, Protocol

import anyio
import anyio.to_thread
import msgspec
from msgspec import Meta

from lumina.bus.errors import CheckpointFailed, LogDamaged
from lumina.bus.log import Delivery, EventLog, Originals
from lumina.bus.stored import Stored
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import AnyEventId, EventId, StreamId
from lumina.events.record import Draft, Head, Recorded
from lumina.events.values import Digest, Value

SAVE_EVERY_S: Final = 0.25
CHECKPOINT_BYTES_MAX: Final = 4_096
LOCK_S_MAX: Final = 10.0
"""How long one waits for another process that writes the same checkpoint; a stopped one would hold it for ever."""
_POLL_S: Final = 0.005


class InspectedLog(EventLog, Originals, Protocol):
    """A log that can be asked which one it is, and for one record."""

    async def at(self, seq: int) -> Recorded[Event] | None:
        """Return the record at `seq`, None when there is none."""
        ...


class Checkpoint(Value, frozen=True, kw_only=True):
    """A record that was in the log.

    Attributes:
        log_id: Of which log.
        seq: Where it stood.
        event: Its id.
        digest: Of the whole record.
    """

    log_id: str
    seq: Annotated[int, Meta(ge=1)]
    event: AnyEventId
    digest: Digest


class CheckpointFile:
    """Where one process keeps its checkpoint, outside the log's own folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Checkpoint | None:
        """Return the checkpoint; None when there is none yet.

        Raises:
            CheckpointFailed: The file is there and can't be read.
        """
        try:
            with self.path.open("rb") as file:
                content, _, check = file.read(CHECKPOINT_BYTES_MAX).partition(b"\n")
            if check and check != _check(content):
                raise msgspec.DecodeError("it is not what was written")
            return msgspec.json.decode(content, type=Checkpoint)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            advice = "check the log with `lumina verify`, then remove this file"
            raise CheckpointFailed(f"{self.path}: the checkpoint can't be read: {error}; {advice}") from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; after a crash at any moment the file holds the old one or the new one.

        Several commands share one checkpoint: one further on in the same log stands, whoever comes last.

        Raises:
            CheckpointFailed: It could not be written, for instance because the disk is full; the old one stands.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self.path.with_name(f"{self.path.name}.lock")):
                standing = self.load()
                if standing is None or standing.log_id != checkpoint.log_id or standing.seq <= checkpoint.seq:
                    self._replace(checkpoint)
        except OSError as error:
            advice = "free disk space; what was appended is in the log"
            raise CheckpointFailed(f"{self.path}: the checkpoint can't be written: {error}; {advice}") from error

    def _replace(self, checkpoint: Checkpoint) -> None:
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        with fresh.open("wb") as file:
            content = msgspec.json.encode(checkpoint)
            file.write(content + b"\n" + _check(content))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        _sync_folder(self.path.parent)


async def pass_gate(log: InspectedLog, *files: CheckpointFile) -> None:
    """Check that the log still holds what the processes that keep these checkpoints saw last.

    Raises:
        LogDamaged: It does not; the message says how to repair it. Nothing may be written.
        CheckpointFailed: A checkpoint can't be read.
        LogUnavailable: The log can't be reached.
    """
    kept = [(file, checkpoint) for file in files if (checkpoint := await anyio.to_thread.run_sync(file.load))]
    if not kept:
        return
    found = await log.log_id()
    last_seq = await log.last_seq()  # after the checkpoints were read: what they name was in the log by then
    sound = 0
    for file, checkpoint in sorted(kept, key=lambda each: each[1].seq):
        advice = f"`lumina repair` says what can be restored; to accept the loss, remove {file.path}"
        who = f"{file.path.stem!r}"
        if found != checkpoint.log_id:
            raise LogDamaged(f"this is the log {found!r}, and {who} wrote to {checkpoint.log_id!r}; {advice}", seq=1)
        if last_seq < checkpoint.seq:
            reason = f"the log ends at {last_seq}, and {who} has seen {checkpoint.seq}: it lost its tail; {advice}"
            raise await _closed(log, LogDamaged(reason, seq=last_seq + 1))
        standing = await log.at(checkpoint.seq)
        if standing is None:
            raise await _closed(log, LogDamaged(f"it was written by {who} and is gone; {advice}", seq=checkpoint.seq))
        if (standing.id, standing.digest) != (checkpoint.event, checkpoint.digest):
            where = f"the log is another one somewhere between {sound + 1} and {checkpoint.seq}"
            reason = f"{who} wrote {checkpoint.event} there and {standing.id} stands there: {where}; {advice}"
            raise await _closed(log, LogDamaged(reason, seq=checkpoint.seq, stream=standing.stream))
        sound = checkpoint.seq


async def _closed(log: InspectedLog, found: LogDamaged) -> LogDamaged:
    """Return where the log is damaged first: a checkpoint only tells that it is, and at the latest where."""
    try:
        async for _ in log.read():
            pass
    except LogDamaged as earlier:
        if earlier.seq < found.seq:
            reason = f"{str(earlier).partition(': ')[2]}; later, {found}"
            return LogDamaged(reason, seq=earlier.seq, stream=earlier.stream)
    return found


def checkpoints_beside(path: Path) -> list[CheckpointFile]:
    """Return the checkpoint at `path` and those of the other processes, which stand in the same folder."""
    return [CheckpointFile(each) for each in sorted({path, *path.parent.glob(f"*{path.suffix}")})]


@asynccontextmanager
async def guarded(log: InspectedLog, path: Path, *, save_every_s: float = SAVE_EVERY_S) -> AsyncIterator["GuardedLog"]:
    """Pass the gate, and yield the log, which keeps the checkpoint at `path` from then on.

    What any process of this data folder saw last must be there: one who only reads has no checkpoint of its own, and
    would believe a log whose tail is lost. Raises as `pass_gate` does.
    """
    await pass_gate(log, *checkpoints_beside(path))
    guard = GuardedLog(log, file=CheckpointFile(path), log_id=await log.log_id(), save_every_s=save_every_s)
    try:
        yield guard
    finally:
        try:
            with anyio.CancelScope(shield=True):
                await guard.save()
        finally:
            guard.close()


class GuardedLog:
    """A log that remembers outside itself what was appended last; see `guarded`.

    The checkpoint is written by the first append, then `save_every_s` after one that came since, also when it came
    while an earlier one was being written, and at the end. So at most so much of the log's end is known to nobody when
    the machine dies. When the checkpoint could not be written, the next append says so.
    """

    def __init__(self, log: InspectedLog, *, file: CheckpointFile, log_id: str, save_every_s: float) -> None:
        self._log = log
        self._file = file
        self._log_id = log_id
        self._save_every_s = save_every_s
        self._newest: Recorded[Event] | None = None
        self._saved_seq = 0
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._hurry = Hurry()
        self._lock = Lock()
        """Guards `_busy`, `_closed` and `_writing`, so that no append falls between the last look and the rest."""
        self._busy = False
        self._closed = False

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """See `EventLog`.

        Raises:
            CheckpointFailed: The record is in the log, but it or an earlier one could not be noted; make room and
                append it again.
        """
        recorded = await self._log.append(draft)
        if self._newest is None or recorded.seq > self._newest.seq:
            self._newest = recorded
        writing = self._writing
        if writing is None or (writing.done() and writing.exception() is not None):
            await self.save()
        else:
            self._begin(after_s=self._save_every_s)
        return recorded

    def _begin(self, *, after_s: float = 0) -> None:
        """Have the thread write the checkpoint after a while, unless it is going to do so already."""
        with self._lock:
            if self._busy or self._newest is None or self._newest.seq == self._saved_seq:
                return
            self._hurry.clear()
            self._submit(after_s=after_s)

    def _submit(self, *, after_s: float) -> None:
        """Give the thread its next piece of work. With the lock held."""
        self._busy = not self._closed
        if self._busy:
            self._writing = self._writer.submit(self._write, after_s=after_s)

    def _write(self, *, after_s: float) -> None:
        """Write down what is newest by then, and go on if something came meanwhile. In the thread."""
        self._hurry.wait(after_s)
        newest = self._newest
        assert newest is not None, "something was appended"
        try:
            self._file.save(Checkpoint(log_id=self._log_id, seq=newest.seq, event=newest.id, digest=newest.digest))
        except BaseException:
            with self._lock:
                self._busy = False
            raise
        with self._lock:
            self._saved_seq = newest.seq
            self._busy = False
            if self._newest is not newest:
                self._submit(after_s=self._save_every_s)

    async def save(self) -> None:
        """Return when the checkpoint is written, if there is anything new.

        Raises:
            CheckpointFailed: It could not be written.
        """
        self._hurry.set()
        await self._failure()
        self._begin()
        failure = await self._failure()
        if failure is not None:
            raise failure

    async def _failure(self) -> BaseException | None:
        """Wait for what the thread writes now, and return why it could not."""
        writing = self._writing
        return None if writing is None else await anyio.to_thread.run_sync(writing.exception)

    def close(self) -> None:
        """End the thread. Safe to repeat; nothing is saved any more."""
        with self._lock:
            self._closed = True
        self._hurry.set()
        self._writer.shutdown(wait=False)

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """See `EventLog`."""
        return await self._log.head(stream, agent=agent)

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """See `EventLog`."""
        return await self._log.find(event, stream=stream, agent=agent)

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """See `EventLog`."""
        return await self._log.last(which)

    async def last_seq(self) -> int:
        """See `EventLog`."""
        return await self._log.last_seq()

    async def log_id(self) -> str:
        """See `InspectedLog`."""
        return self._log_id

    async def at(self, seq: int) -> Recorded[Event] | None:
        """See `InspectedLog`."""
        return await self._log.at(seq)

    def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        return self._log.read(filters, after=after, until=until)

    def originals(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]:
        """See `Originals`."""
        return self._log.originals(filters, after=after, until=until)

    def follow(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        return self._log.follow(filters, after=after)

    def work(self, worker: str) -> AsyncGenerator[Delivery, None]:
        """See `EventLog`."""
        return self._log.work(worker)


def _check(content: bytes) -> bytes:
    """Return by what a damaged checkpoint is told from a damaged log."""
    return sha256(content).hexdigest().encode()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock for the time of the block. Raises OSError when another process keeps it for too long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end_s = time.monotonic() + LOCK_S_MAX
        while not _try(descriptor):
            if time.monotonic() > end_s:
                raise OSError(EAGAIN, "another process has been writing it for too long", str(path))
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
