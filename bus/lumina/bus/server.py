"""The embedded NATS server: one per data folder, on a loopback port, with credentials per agent.

<home>/nats/lock           held (flock) for as long as the server lives, also by the server itself
<home>/nats/keys/          see `credentials.py`
<home>/nats/server.json    the server's configuration, mode 0600
<home>/nats/server.log     what the server says; rotated
<home>/nats/address.json   where it listens and which log it keeps, while it runs; see `address.py`
<home>/nats/log.json       which log the folder keeps, for good
<home>/nats/js/            JetStream's files
"""

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import structlog

from lumina.bus.address import (
    Address,
    Running,
    find_running,
    known_log,
    process_started_s,
    publish_address,
    read_address,
)
from lumina.bus.credentials import (
    ADMIN,
    CURATOR,
    consumer_role,
    keys_folder,
    load_endpoint,
    make_consumer_key,
    nats_folder,
)
from lumina.bus.errors import Forbidden, LogUnavailable, ServerFailed, TopologyRefused
from lumina.bus.folder import FolderLock, check_room, locked, make_folder, new_store_bytes
from lumina.bus.nats_transport import connect
from lumina.bus.permissions import CONSUMER_PREFIX
from lumina.bus.startup import (
    ADVICE,
    LOOPBACK,
    READY_S_MAX,
    Sync,
    command,
    explain_exit,
    pick_port,
    rewrite_accounts,
    trouble_in_log,
    wait_ready,
    write_configuration,
)
from lumina.bus.topology import ensure_mirrors, ensure_topology

STOP_S_MAX: Final = 10.0
RELOAD_S_MAX: Final = 10.0
MEMORY_LIMIT: Final = "512MiB"
"""Where the server's garbage collector begins to save; after many random reads it would keep a gigabyte."""
_POLL_S: Final = 0.1

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class EmbeddedServer(Running):
    """A server that this process started; leaving `embedded_server` stops it."""

    process: anyio.abc.Process

    async def wait(self) -> int | None:
        """Wait until the server has exited and return its status."""
        return await self.process.wait()


@asynccontextmanager
async def embedded_server(
    home: Path,
    *,
    sync: Sync = "always",
    die_with_parent: bool = False,
    port: int | None = None,
    store_bytes_max: int | None = None,
    stop_s_max: float = STOP_S_MAX,
    ready_s_max: float = READY_S_MAX,
    new_log_id: str | None = None,
) -> AsyncIterator[EmbeddedServer]:
    """Run a NATS server with Lumina's streams on the data folder `home` until the end of the block.

    Args:
        home: The data folder; made if need be.
        sync: `always` has every record on disk before it is acknowledged; `default` may lose two minutes of records
            when the power fails, and none when only processes die.
        die_with_parent: Have the kernel stop the server when this process is killed.
        port: Where to listen on 127.0.0.1; by default where it did the last time, or any free port.
        store_bytes_max: Room for the log and the blobs together; can be raised later, never lowered. By default 8 GiB,
            or 80 % of what is free on the disk when they are made.
        stop_s_max: How long it may take to stop at the end before it is killed.
        ready_s_max: How long it may take to start.
        new_log_id: What the log is called if it is made now; for a log that is restored.

    Raises:
        ServerFailed: It runs already, or can't start; one sentence says why and what to do.
        TopologyRefused: The streams in the folder are damaged or are not as they must be.
        CredentialsMissing: A key file is damaged.
    """
    folder = make_folder(home)
    home = folder.parent
    async with locked(folder) as lock:
        check_room(folder)
        listen = port or pick_port(_last_port(home))
        configuration = write_configuration(home, folder=folder, port=listen, sync=sync)
        log_from = _size(folder / "server.log")
        parent = os.getpid() if die_with_parent else None
        line = command(configuration, die_with_parent=parent)
        async with _process(line, folder=folder, lock=lock, stop_s_max=stop_s_max) as process:
            await wait_ready(process, folder=folder, port=listen, log_from=log_from, ready_s_max=ready_s_max)
            url = f"nats://{LOOPBACK}:{listen}"
            try:
                log_id = await _set_up(home, url=url, store_bytes_max=store_bytes_max, new_log_id=new_log_id)
            except LogUnavailable as error:
                if process.returncode is None:
                    raise ServerFailed(f"the NATS server started and does not answer: {error}") from error
                why = explain_exit(folder, status=process.returncode, log_from=log_from)
                raise ServerFailed(why) from error
            started_s = process_started_s(process.pid) or 0.0
            address = Address(url=url, port=listen, pid=process.pid, started_s=started_s, log_id=log_id)
            publish_address(home, address)
            log.info("server.started", url=url, pid=process.pid, log=log_id, sync=sync)
            yield EmbeddedServer(home=home, url=url, pid=process.pid, log_id=log_id, process=process)


def find_trouble(home: Path) -> str | None:
    """Return in one sentence why the running server of `home` can't store anything; None when nothing shows.

    For whoever gets no answer (`LogUnavailable`): on a full disk the server falls silent, and stays so until it is
    started again with room.
    """
    folder = nats_folder(home.absolute())
    try:
        check_room(folder)
    except ServerFailed as full:
        return str(full)
    return trouble_in_log(folder)


async def create_consumer_credentials(home: Path, *, name: str) -> Path:
    """Make the key of a read-only external consumer and return its file; a running server knows it at once.

    The key's user may only read: see `permissions.consumer_permissions`. The first one costs the disk space of a
    mirror of the log and of the blobs.

    Raises:
        ValueError: The name is not 1 to 40 lower-case letters, digits and hyphens.
        ServerFailed: The running server did not take it; stop it, start it again, and the key will be known.
    """
    home = make_folder(home).parent
    path = make_consumer_key(home, name=name)
    running = find_running(home)
    if running is None:
        return path
    rewrite_accounts(home, folder=nats_folder(home))
    os.kill(running.pid, signal.SIGHUP)
    await _wait_known(running, role=consumer_role(name))
    await ensure_mirrors(running.endpoint(CURATOR))
    return path


async def _wait_known(running: Running, *, role: str) -> None:
    with anyio.move_on_after(RELOAD_S_MAX):
        while True:
            try:
                async with connect(running.endpoint(role)):
                    return
            except (Forbidden, LogUnavailable):
                await anyio.sleep(_POLL_S)
    raise ServerFailed(
        f"the NATS server (process {running.pid}) did not take the new key of {role} within {RELOAD_S_MAX:.0f} s; "
        f"start it again, and see {nats_folder(running.home) / 'server.log'}"
    )


async def _set_up(home: Path, *, url: str, store_bytes_max: int | None, new_log_id: str | None) -> str:
    try:
        log_id = await ensure_topology(
            load_endpoint(home, role=ADMIN, url=url),
            log_id=known_log(home),
            store_bytes_max=store_bytes_max,
            new_store_bytes_max=new_store_bytes(nats_folder(home)),
            new_log_id=new_log_id,
        )
    except TopologyRefused as error:
        advice = "" if ADVICE in str(error) else f"; if nobody changed a setting, the store is damaged: {ADVICE}"
        raise TopologyRefused(f"data folder {home}: {error}{advice}") from error
    if any(keys_folder(home).glob(f"{CONSUMER_PREFIX}*.nk")):
        await ensure_mirrors(load_endpoint(home, role=CURATOR, url=url))
    return log_id


@asynccontextmanager
async def _process(
    line: list[str], *, folder: Path, lock: FolderLock, stop_s_max: float
) -> AsyncIterator[anyio.abc.Process]:
    """Start the server in a session of its own, so that Ctrl-C in a terminal stops the agents before it."""
    environment = {"GOMEMLIMIT": MEMORY_LIMIT, **os.environ}
    with (folder / "server.err").open("wb") as errors:
        process = await anyio.open_process(
            line,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            start_new_session=True,
            pass_fds=(lock.descriptor,),
        )
    try:
        lock.tell(server=process.pid)
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process, stop_s_max=stop_s_max)


async def _stop(process: anyio.abc.Process, *, stop_s_max: float) -> None:
    """Ask it to stop, and make it after a while; JetStream's files survive both."""
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(stop_s_max):
            await process.wait()
    if process.returncode is None:
        log.warning("server.killed", pid=process.pid, after_s=stop_s_max)
        process.kill()
    await process.aclose()


def _last_port(home: Path) -> int | None:
    address = read_address(home)
    return None if address is None else address.port


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
