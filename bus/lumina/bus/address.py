"""Where the embedded server of a data folder can be found, and which log it keeps. Files, no connections."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import msgspec
import psutil

from lumina.bus.credentials import load_endpoint, nats_folder, write_private
from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import ServerFailed

POLL_S: Final = 0.25
SAME_START_S: Final = 2.0
"""Start times of one process, read twice, differ by less; a process that got the same number later started later."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """What `address.json` holds while a server runs.

    Attributes:
        url: For instance `nats://127.0.0.1:41234`.
        port: The same port as a number.
        pid: The server's process.
        started_s: When that process started, in seconds since 1970; with `pid` it names one process.
        log_id: Which log it keeps.
    """

    url: str
    port: int
    pid: int
    started_s: float
    log_id: str


class KnownLog(msgspec.Struct, frozen=True, kw_only=True):
    """What `log.json` holds for as long as the data folder lives."""

    log_id: str


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that runs on a data folder, whoever started it.

    Attributes:
        home: The data folder.
        url: Where it listens.
        pid: Its process.
        log_id: Which log it keeps.
    """

    home: Path
    url: str
    pid: int
    log_id: str

    def endpoint(self, role: str) -> Endpoint:
        """Return how `role` connects to it.

        Raises:
            CredentialsMissing: There is no such role in this data folder.
        """
        return load_endpoint(self.home, role=role, url=self.url)

    async def wait(self) -> int | None:
        """Wait until it has exited; return its status, or None where only its parent could know that."""
        while True:
            now = find_running(self.home)
            if now is None or now.pid != self.pid:
                return None
            await anyio.sleep(POLL_S)


def find_running(home: Path) -> Running | None:
    """Return the server that runs on `home`, or None when there is none; a stale address is no server."""
    address = read_address(home)
    if address is None:
        return None
    started_s = process_started_s(address.pid)
    if started_s is None or abs(started_s - address.started_s) > SAME_START_S:
        return None
    return Running(home=home, url=address.url, pid=address.pid, log_id=address.log_id)


def read_address(home: Path) -> Address | None:
    """Return what `address.json` says, true or stale; None when there is no readable one."""
    try:
        return msgspec.json.decode(_address_file(home).read_bytes(), type=Address)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def publish_address(home: Path, address: Address) -> None:
    """Let others find the server, and remember its log for good. Both files are replaced at once."""
    write_private(nats_folder(home) / "log.json", content=msgspec.json.encode(KnownLog(log_id=address.log_id)))
    write_private(_address_file(home), content=msgspec.json.encode(address))


def known_log(home: Path) -> str | None:
    """Return the id of the log that this data folder has held before, None for a new folder.

    Raises:
        ServerFailed: The file that says so is damaged.
    """
    path = nats_folder(home) / "log.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=KnownLog).log_id
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ServerFailed(
            f"{path} is damaged ({error}): restore it, or delete it if you trust the log as it is"
        ) from error


def process_started_s(pid: int) -> float | None:
    """Return when the process started, in seconds since 1970; None when it does not live (any more)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except psutil.NoSuchProcess:
        return None


def _address_file(home: Path) -> Path:
    return nats_folder(home) / "address.json"
