"""The data folder of the embedded server: made, checked for room, and locked for one server at a time."""

import fcntl
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import msgspec

from lumina.bus.address import SAME_START_S, process_started_s
from lumina.bus.credentials import nats_folder
from lumina.bus.errors import ServerFailed
from lumina.bus.topology import STORE_BYTES_MAX

ROOM_BYTES_MIN: Final = 64 * 2**20
STORE_SHARE_MAX: Final = 0.8
ORPHAN_STOP_S_MAX: Final = 10.0
_POLL_S: Final = 0.05


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a folder, as the lock file tells it.

    Attributes:
        starter: The process that started the server.
        starter_s: When that process started, in seconds since 1970.
        server: The server's process; 0 until it is started.
    """

    starter: int
    starter_s: float
    server: int = 0


class FolderLock:
    """A held lock. The server inherits `descriptor`, so the folder stays locked for as long as either lives."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.tell(server=0)

    def tell(self, *, server: int) -> None:
        """Write down who holds the folder, for the one who is refused."""
        me = os.getpid()
        holder = Holder(starter=me, starter_s=process_started_s(me) or 0.0, server=server)
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, msgspec.json.encode(holder), 0)


def make_folder(home: Path) -> Path:
    """Make `<home>/nats` for the owner only and return its absolute path.

    Raises:
        ServerFailed: It can't be made or written.
    """
    folder = nats_folder(home.absolute())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        probe = folder / f".writable.{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise ServerFailed(f"the data folder {home} can't be written: {error}; choose another or repair it") from error
    return folder


def check_room(folder: Path, *, bytes_min: int = ROOM_BYTES_MIN) -> None:
    """Check that a server has room to start in.

    Raises:
        ServerFailed: The disk is full.
    """
    free = shutil.disk_usage(folder).free
    if free < bytes_min:
        raise ServerFailed(
            f"the disk of {folder} is full: {free / 2**20:.0f} MiB are free and "
            f"{bytes_min / 2**20:.0f} MiB are needed; make room and start again, nothing is lost"
        )


def new_store_bytes(folder: Path) -> int:
    """Return how much a new log and its blobs may take, so that they are full before the disk is.

    A full stream refuses with a clear answer; on a full disk the server only falls silent.
    """
    return min(STORE_BYTES_MAX, int(shutil.disk_usage(folder).free * STORE_SHARE_MAX))


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[FolderLock]:
    """Hold the folder. A server whose starter was killed is stopped first: nobody is left to answer for it.

    Raises:
        ServerFailed: Somebody else holds it; the message names them.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try(descriptor):
            await _take_over(descriptor, folder=folder)
        yield FolderLock(descriptor)
    finally:
        os.close(descriptor)


async def _take_over(descriptor: int, *, folder: Path) -> None:
    holder = _holder(descriptor)
    if holder is None or holder.server == 0 or _lives(holder):
        who = "another process" if holder is None else f"process {holder.starter}"
        raise ServerFailed(
            f"{who} runs the NATS server of the data folder {folder.parent} already: "
            "use that system, stop it with `lumina down`, or choose another folder"
        )
    with suppress(ProcessLookupError):
        os.kill(holder.server, signal.SIGTERM)
    with anyio.move_on_after(ORPHAN_STOP_S_MAX):
        while True:
            if _try(descriptor):
                return
            await anyio.sleep(_POLL_S)
    raise ServerFailed(
        f"the NATS server of {folder.parent} (process {holder.server}) lost its starter and does not stop: kill it"
    )


def _lives(holder: Holder) -> bool:
    started_s = process_started_s(holder.starter)
    return started_s is not None and abs(started_s - holder.starter_s) < SAME_START_S


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=Holder)
    except msgspec.DecodeError:
        return None
