"""The `lumina` command as its user has it: a real process with a data folder of its own, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

T = TypeVar("T")

MARK = "LUMINA_TEST_MARK"
COMMAND_S_MAX = 90.0
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of standard output, each one JSON object."""
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in self.out.splitlines()]

    @property
    def types(self) -> list[str]:
        """The types of the events on standard output."""
        return [str(event["type"]) for event in self.events]


@dataclass(frozen=True, kw_only=True)
class Lumina:
    """The command with a data folder. Every process that comes of it carries a mark in its environment."""

    home: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    environ: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, merged: bool = False) -> subprocess.Popen[str]:
        """Start the command in a process group of its own, in a folder beside the data folder."""
        where = self.home.parent
        return subprocess.Popen(
            [sys.executable, "-m", "lumina.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            cwd=where,
            env={**os.environ, "LUMINA_HOME": str(self.home), MARK: self.mark, **self.environ},
            start_new_session=True,
        )

    def __call__(self, *arguments: str, timeout_s: float = COMMAND_S_MAX) -> Ended:
        """Run the command to its end. No command ever shows its user a traceback."""
        process = self.start(*arguments)
        return finished(process, timeout_s=timeout_s)

    def ps(self) -> dict[str, Any] | None:
        """Return what `lumina ps --json` reads, without the cost of the command; None when nothing runs."""
        file = self.home / "system.json"
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any]) if file.exists() else None

    def child(self, name: str) -> dict[str, Any]:
        """Return one agent's row."""
        system = self.ps()
        assert system is not None
        return next(child for child in system["children"] if child["name"] == name)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that came of this command and still run."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def family(self) -> list[psutil.Process]:
        """Return all processes that came of this command, with those whose environment a sandbox has emptied."""
        marked = self.processes()
        found = {one.pid: one for one in marked}
        for process in marked:
            try:
                found.update({one.pid: one for one in process.children(recursive=True)})
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def gone(self, *, within_s: float, family: Sequence[psutil.Process] = ()) -> bool:
        """Wait until no process is left, nor any of those in `family`; False when some still are."""

        def nobody() -> bool:
            return not self.processes() and not any(_lives(one) for one in family)

        return until(nobody, within_s=within_s)

    def end(self) -> None:
        """End whatever is left."""
        for process in self.processes():
            process.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def finished(process: subprocess.Popen[str], *, timeout_s: float = COMMAND_S_MAX) -> Ended:
    """Wait for the end of a command and check that it shows no traceback."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"not finished after {timeout_s} s: {out}\n{err}") from None
    assert "Traceback" not in f"{out}{err}", f"{out}\n{err}"
    return Ended(code=process.returncode, out=out, err=err or "")


def until(condition: Callable[[], T], *, within_s: float) -> T:
    """Return the first true value of `condition`, or its last value when time is up."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(POLL_S)


@contextmanager
def running(lumina: Lumina, *arguments: str) -> Iterator[Lumina]:
    """Have `lumina up` running for the time of the block."""
    up = lumina("up", "--detach", *arguments)
    try:
        assert up.code == 0, up
        yield lumina
        assert lumina("down").code == 0
    finally:
        lumina.end()


def sum_request(name: str) -> str:
    """Return a request that the models of `model_zoo` answer, each in its way."""
    return f"Write a Python function called {name} that takes a and b and returns their sum. {name}(2, 3) returns 5."
