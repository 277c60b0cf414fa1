"""Keeps child processes running: starts them, restarts what dies, gives up on what dies too often.

Erlang's rule: at most `RESTARTS_MAX` restarts of one child within `WINDOW_S`; after that it is left down and reported,
with the last line that it wrote.
"""

import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.abc
import structlog

RESTARTS_MAX = 5
WINDOW_S = 60.0
BACKOFF_S_MAX = 5.0
STOP_S_MAX = 8.0
LOG_BYTES_MAX = 5 * 2**20
PERMANENT = frozenset({2, 3, 5})
"""Exit codes that a restart can't mend: usage, divergence, damage."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """A process to keep running.

    Attributes:
        name: For people and for its log file.
        command: What to start.
        log_file: Where its standard error goes.
    """

    name: str
    command: Sequence[str]
    log_file: Path


@dataclass(kw_only=True)
class Child:
    """A child as it is now. `state` is one of starting, running, restarting, stopped, failed.

    `exit_code` and `said`, its last words, are those of its last end.
    """

    spec: ChildSpec
    state: str = "starting"
    pid: int = 0
    restarts: int = 0
    since: float = field(default_factory=time.time)
    reason: str = ""
    exit_code: int | None = None
    said: str = ""


class Supervisor:
    """Runs a set of children inside a task group until it is cancelled; then stops them."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        changed: Callable[[Sequence[Child]], None],
        restarts_max: int = RESTARTS_MAX,
    ) -> None:
        self._restarts_max = restarts_max
        self.children = [Child(spec=spec) for spec in specs]
        self._changed = changed

    async def run(self) -> None:
        """Keep all children running; returns only when every one of them has failed for good."""
        async with anyio.create_task_group() as tasks:
            for child in self.children:
                tasks.start_soon(self._keep, child)

    @property
    def failed(self) -> list[Child]:
        """The children that were given up."""
        return [child for child in self.children if child.state == "failed"]

    def _set(self, child: Child, state: str, *, reason: str = "") -> None:
        child.state, child.reason, child.since = state, reason, time.time()
        self._changed(self.children)

    async def _keep(self, child: Child) -> None:
        deaths: deque[float] = deque()
        while True:
            code = await self._run_once(child)
            now = time.monotonic()
            deaths.append(now)
            while deaths and deaths[0] < now - WINDOW_S:
                deaths.popleft()
            child.exit_code, child.said = code, last_line(child.spec.log_file)
            if code in PERMANENT or len(deaths) > self._restarts_max:
                log.error("child.failed", name=child.spec.name, exit_code=code, said=child.said)
                self._set(child, "failed", reason=f"exit code {code}: {child.said}")
                return
            child.restarts += 1
            log.warning("child.restarts", name=child.spec.name, exit_code=code, restarts=child.restarts)
            self._set(child, "restarting", reason=f"exit code {code}")
            await anyio.sleep(min(BACKOFF_S_MAX, 0.1 * 2 ** (len(deaths) - 1)))

    async def _run_once(self, child: Child) -> int:
        """Start a child and wait for its end; when cancelled, stop it first. Returns its exit code."""
        with _open_log(child.spec.log_file) as stderr:
            process = await anyio.open_process(
                list(child.spec.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops its children in order
            )
        child.pid = process.pid
        self._set(child, "running")
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await _stop(process)
                self._set(child, "stopped")


async def _stop(process: anyio.abc.Process) -> None:
    """End a process: ask, wait, then make sure."""
    with anyio.CancelScope(shield=True):
        process.terminate()
        with anyio.move_on_after(STOP_S_MAX) as waited:
            await process.wait()
        if waited.cancelled_caught:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _open_log(path: Path) -> BinaryIO:
    """Open a log file for appending; one that has grown too large is moved aside once."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".old"))
    return path.open("ab")


def last_line(path: Path) -> str:
    """Return what the last line of a log file says, cut to 300 characters; empty when there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 65_536))
        # Without the frame that Python draws around the tracebacks of exception groups.
        lines = [line.strip(" |") for line in file.read().decode(errors="replace").splitlines() if line.strip(" |+-")]
    return _said(lines[-1])[:300] if lines else ""


def _said(line: str) -> str:
    """Return the reason in a line of structured logging, or the line itself."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    return str(fields.get("reason") or fields.get("event") or line) if isinstance(fields, dict) else line
