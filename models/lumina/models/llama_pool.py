"""Starts, shares and ends the worker processes of a node's models.

Each process of the node that uses models has a pool on the same folder. A worker's socket is there under the hash of
its instance; a lock file beside it makes starts single-flight over all processes. A pool holds one connection to each
worker that it has asked for: when the last holder is gone, however it died, the worker ends by itself.
"""

import fcntl
import os
import signal
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from socket import SO_PEERCRED, SOL_SOCKET
from typing import Final

import anyio
import anyio.abc
import msgspec
import psutil

from lumina.models.backend import Loaded, OnLoad, ignore_load
from lumina.models.errors import CorruptModel, ModelTimedOut, ModelUnavailable
from lumina.models.llama_client import GONE, LlamaBackend, Talk, error_of, open_talk, talk
from lumina.models.llama_frames import Failed, Hold, LlamaSpec, Loading, Ready, Unload

START_S_MAX: Final = 60.0
LOAD_S_MAX: Final = 600.0
UNLOAD_S_MAX: Final = 15.0
ENSURE_TRIES_MAX: Final = 4
POLL_S: Final = 0.02
CRASHES: Final = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class Child:
    """A worker process that this process started. A thread waits for it, so that it does not stay as a zombie."""

    def __init__(self, command: list[str], *, log: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        self.pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)
        self.exit_code: int | None = None
        threading.Thread(target=self._wait, daemon=True, name=f"llama-worker-{self.pid}").start()

    def _wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)


class LlamaPool:
    """The worker processes in one folder, as seen by one of the processes that use them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holds: dict[str, Talk] = {}
        self._turns: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def ensure(
        self, instance: str, spec: LlamaSpec, *, on_load: OnLoad = ignore_load
    ) -> tuple[LlamaBackend, Loaded | None]:
        """Return the backend of a resident instance; start it first where it is not, and then say what that took.

        A worker that was loaded in another way (the configuration changed) is unloaded first.

        Raises:
            CorruptModel: The file is truncated, not a GGUF, or makes llama.cpp crash.
            ModelUnavailable: There is no such file, no memory, or the process can't be started.
            ModelTimedOut: Loading takes longer than `LOAD_S_MAX`.
        """
        if not await anyio.Path(spec.path).is_file():
            raise ModelUnavailable(f"{spec.path} does not exist; correct the path of the model or download it")
        try:
            with anyio.fail_after(LOAD_S_MAX):
                async with self._turns[instance]:
                    return await self._ensure(instance, spec, on_load=on_load)
        except TimeoutError as error:
            raise ModelTimedOut(f"{spec.path} was not loaded within {LOAD_S_MAX:g} s") from error

    async def unload(self, instance: str) -> bool:
        """End the worker of an instance and wait until its process has ended; return whether there was one.

        Raises:
            ModelUnavailable: It does not end, even killed.
        """
        async with self._turns[instance]:
            await self._let_go(instance)
            return await self._end(self._socket(instance))

    async def clear(self) -> int:
        """End every worker of this folder, whoever uses it; return how many there were."""
        sockets = [Path(path) async for path in anyio.Path(self._folder).glob("llama-*.sock")]
        return sum([await self._end(socket) for socket in sockets])

    async def aclose(self) -> None:
        """Let go of all workers; those without other users end by themselves."""
        for instance in tuple(self._holds):
            await self._let_go(instance)

    async def _ensure(self, instance: str, spec: LlamaSpec, *, on_load: OnLoad) -> tuple[LlamaBackend, Loaded | None]:
        socket = self._socket(instance)
        for _ in range(ENSURE_TRIES_MAX):
            hold, child = await self._connect_or_start(socket, spec)
            try:
                ready = await self._wait_until_ready(hold, on_load=on_load)
            except GONE as error:  # it ended on its own account, or crashed while loading
                await anyio.aclose_forcefully(hold.stream)
                if child is not None:
                    raise await self._crash(child, spec) from error
                continue
            except BaseException:
                await anyio.aclose_forcefully(hold.stream)
                raise
            if ready.spec != spec:
                await anyio.aclose_forcefully(hold.stream)
                await self._end(socket)
                continue
            await self._let_go(instance)
            self._holds[instance] = hold
            loaded = None if child is None else Loaded(load_ms=ready.load_ms, bytes_measured=ready.rss_after)
            return LlamaBackend(instance=instance, socket=socket, spec=spec), loaded
        raise ModelUnavailable(f"the process that serves {instance} ends again and again; its log: {_log_of(socket)}")

    async def _connect_or_start(self, socket: Path, spec: LlamaSpec) -> tuple[Talk, Child | None]:
        """Return a `Hold` on the worker, and the child when this call started it."""
        hold = await _try_hold(socket)
        if hold is not None:
            return hold, None
        await anyio.Path(self._folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _locked(socket.with_suffix(".lock")):
            hold = await _try_hold(socket)
            if hold is not None:
                return hold, None
            await anyio.Path(socket).unlink(missing_ok=True)
            spec_json = msgspec.json.encode(spec).decode()
            command = [sys.executable, "-P", "-m", "lumina.models.llama_worker", str(socket), spec_json]
            child = Child(command, log=_log_of(socket))
            with anyio.move_on_after(START_S_MAX):
                while child.exit_code is None:
                    hold = await _try_hold(socket)
                    if hold is not None:
                        return hold, child
                    await anyio.sleep(POLL_S)
            if child.exit_code is not None and -child.exit_code in CRASHES:  # before anybody could connect
                raise await self._crash(child, spec)
            raise ModelUnavailable(f"the process for {spec.path} did not start; its log: {_log_of(socket)}")

    @staticmethod
    async def _wait_until_ready(hold: Talk, *, on_load: OnLoad) -> Ready:
        """Return once the model is loaded. Raises the worker's failure, or one of `GONE`."""
        while True:
            frame = await hold.next()
            match frame:
                case Loading(fraction=fraction):
                    await on_load(fraction)
                case Ready():
                    return frame
                case Failed():
                    raise error_of(frame)
                case _:
                    raise ModelUnavailable(f"the worker process answered a hold with {type(frame).__name__}")

    @staticmethod
    async def _crash(child: Child, spec: LlamaSpec) -> CorruptModel | ModelUnavailable:
        for _ in range(50):  # the thread that waits for it may be a moment behind
            if child.exit_code is not None:
                break
            await anyio.sleep(POLL_S)
        if child.exit_code is not None and -child.exit_code in CRASHES:
            name = signal.Signals(-child.exit_code).name
            return CorruptModel(f"{spec.path} crashes llama.cpp ({name}) while it is loaded; download or copy it again")
        return ModelUnavailable(
            f"the process that loaded {spec.path} was ended (exit code {child.exit_code}), perhaps for want of memory"
        )

    async def _let_go(self, instance: str) -> None:
        hold = self._holds.pop(instance, None)
        if hold is not None:
            await anyio.aclose_forcefully(hold.stream)

    async def _end(self, socket: Path) -> bool:
        """Ask a worker to end and wait for its process; kill it when it does not listen."""
        if not await anyio.Path(socket).exists():
            return False
        async with _locked(socket.with_suffix(".lock")):
            process = await _process_of(socket)
            if process is None:
                return False
            for wait_s in (UNLOAD_S_MAX, UNLOAD_S_MAX):
                if await _wait_for_end(process, wait_s=wait_s):
                    return True
                process.kill()
        raise ModelUnavailable(f"the model's process {process.pid} does not end, even killed; its memory is not free")

    def _socket(self, instance: str) -> Path:
        return self._folder / f"llama-{sha256(instance.encode()).hexdigest()[:16]}.sock"


def _log_of(socket: Path) -> Path:
    return socket.with_suffix(".log")


async def _try_hold(socket: Path) -> Talk | None:
    try:
        return await open_talk(socket, Hold())
    except GONE:
        return None


async def _process_of(socket: Path) -> psutil.Process | None:
    """Tell the worker at `socket` to end and return its process, or None when it has ended already.

    The kernel says who listens there, so that this also holds for a process that answers nothing any more.
    """
    try:
        async with talk(socket, Unload()) as told:
            peer = told.stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 -- not Django
            pid, _, _ = struct.unpack("3i", peer.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i")))
            return psutil.Process(pid)
    except (*GONE, psutil.NoSuchProcess):
        return None


async def _wait_for_end(process: psutil.Process, *, wait_s: float) -> bool:
    """Return whether the process ended within `wait_s`; a zombie has, its memory is free."""
    with anyio.move_on_after(wait_s):
        while True:
            try:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            await anyio.sleep(POLL_S)
    return False


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock file `path` against other processes and other tasks of this one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            if _try_lock(descriptor):
                break
            await anyio.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
