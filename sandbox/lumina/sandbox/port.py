"""A tier is one way to run foreign code so that it can do no harm. `bubblewrap.py` is one; others fit the same port.

A job names no path of the host. Inside every tier, the program's files lie in `/code`, which is its working folder,
and Lumina's own drivers in `/lumina`; `python` and `node` are in the path.
"""

from enum import Enum
from threading import Event as Flag
from typing import Protocol

import msgspec

from lumina.events.contract import Language, Limits

CODE = "/code"
DRIVERS = "/lumina"
TEMPORARY = "/tmp"  # noqa: S108 - inside a sandbox; nobody else is there
SHARED = "/dev/shm"  # noqa: S108 - likewise
TALK = "/proc/self/fd/0"
"""As a job's `stdin`: the pipe by which the parent lets the program go remains its standard input."""
RESULTS_VARIABLE = "LUMINA_RESULTS"
"""Environment variable with the number of the descriptor on which a driver reports."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file by name and content."""

    name: str
    content: bytes


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one command.

    Attributes:
        command: The program and its arguments; the first word is found in the path: `python`, `node`.
        language: Whose runtime it needs.
        files: Put into `/code` before it starts.
        limits: What it may use.
        stdin: Name of the file in `/code` that it reads as its standard input; None for nothing to read, `TALK` for
            what the parent writes.
        reports: Whether a driver reports on the descriptor named by `RESULTS_VARIABLE`.
        collects: Whether the files that it leaves in `/code` are wanted.
        environment: Variables beside the usual ones.
    """

    command: tuple[str, ...]
    language: Language
    files: tuple[File, ...]
    limits: Limits
    stdin: str | None = None
    reports: bool = False
    collects: bool = False
    environment: tuple[tuple[str, str], ...] = ()


class Ended(Enum):
    """Why a run was over.

    EXITED: by itself. WALL, MEMORY, PROCESSES, FILES, OUTPUT: it was killed at that limit. STOPPED: the caller did
    not want it any more. BROKEN: the tier did not get as far as starting the program.
    """

    EXITED = "exited"
    WALL = "wall"
    MEMORY = "memory"
    PROCESSES = "processes"
    FILES = "files"
    OUTPUT = "output"
    STOPPED = "stopped"
    BROKEN = "broken"


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run left behind, unjudged.

    Attributes:
        ended: Why it was over.
        exit_code: 0 to 255, 128 + n for signal n; None when it was killed at a limit or never started.
        stdout: Head and tail of what it printed, with a mark where bytes were left out.
        stderr: Likewise.
        results: What a driver reported; never more than `output_bytes_max`.
        output_bytes: Printed on both streams in all.
        wall_ms: From the start of the program to its end.
        memory_bytes_peak: As the watchdog saw it; 0 for runs shorter than its interval.
        artifacts: Files that it left, by name.
        refused: Names that were left and not taken, each with the reason.
        detail: For BROKEN, what the tier said.
    """

    ended: Ended
    exit_code: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    results: bytes = b""
    output_bytes: int = 0
    wall_ms: int = 0
    memory_bytes_peak: int = 0
    artifacts: tuple[File, ...] = ()
    refused: tuple[str, ...] = ()
    detail: str = ""


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the tier keeps a program from, and whether the self-test saw that it does."""

    name: str
    holds: bool
    detail: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier offers on this machine.

    Attributes:
        tier: Its name.
        available: Whether programs may be run in it. False is a refusal.
        protections: What the self-test found; empty when it could not start.
        reason: When not available: one sentence.
        command: When not available: what would provide it.
    """

    tier: str
    available: bool
    protections: tuple[Protection, ...] = ()
    reason: str = ""
    command: str = ""


class Tier(Protocol):
    """One way to run foreign code."""

    @property
    def name(self) -> str:
        """How steps ask for it, for instance `bubblewrap`."""
        ...

    def check(self) -> Report:
        """Test the walls from inside and say what holds. Takes some 100 ms; the answer is kept."""
        ...

    def run(self, job: Job, *, stop: Flag) -> RunResult:
        """Run a job to its end, or until `stop` is set; nothing of it is alive afterwards. Blocks the thread.

        Raises:
            TierMissing: `check` found the tier unavailable; nothing was run.
        """
        ...
