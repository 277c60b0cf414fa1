"""Runs validation tools, and only those, where there is no bubblewrap: they read hostile text, they do not run it.

A process group of its own in an empty folder, without the environment, with limits on time, file size and memory.
Weaker than a sandbox: a hole in a linter would be a hole in this machine. Results say which of the two it was.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as Flag
from typing import Final

from lumina.events.contract import Language
from lumina.sandbox import node_tools, roots
from lumina.sandbox.port import DRIVERS, Ended, Job, RunResult

POLL_S: Final = 0.01
NODE_RESERVE_BYTES: Final = 2**36
_LIMITS: Final = 'ulimit -c 0; ulimit -f {blocks}; ulimit -v {kibibytes}; exec "$@"'


def run_tool(job: Job, *, stop: Flag) -> RunResult:
    """Run the job of a linter. Its paths below `/lumina` become real ones; `collects` and `reports` do not exist."""
    with TemporaryDirectory(prefix="lumina-lint-") as folder, _started(job, root=Path(folder)) as process:
        started = time.monotonic()
        ended = _wait(process, deadline=started + job.limits.wall_ms / 1000, stop=stop)
        _kill(process)
        code = process.returncode
        limit = job.limits.output_bytes_max
        stdout, stderr = (Path(folder, name).read_bytes()[:limit] for name in ("stdout", "stderr"))
        return RunResult(
            ended=ended,
            exit_code=(code if code >= 0 else 128 - code) if ended is Ended.EXITED else None,
            stdout=stdout,
            stderr=stderr,
            output_bytes=len(stdout) + len(stderr),
            wall_ms=round((time.monotonic() - started) * 1000),
        )


@contextmanager
def _started(job: Job, *, root: Path) -> Iterator["subprocess.Popen[bytes]"]:
    code = root / "code"
    code.mkdir()
    for file in job.files:
        (code / file.name).write_bytes(file.content)
    drivers = root / "lumina"
    drivers.mkdir()
    (drivers / "harness").symlink_to(Path(__file__).parent / "harness")
    if job.language is Language.JAVASCRIPT:
        (drivers / "node_modules").symlink_to(node_tools.node_modules())
        shutil.copy(node_tools.CONFIGURATION, drivers)
    programs = {"python": sys.executable, "node": shutil.which("node") or "node", "ruff": roots.find_ruff() or "ruff"}
    first, *rest = job.command
    command = [programs.get(first, first), *(_real(word, drivers=drivers) for word in rest)]
    memory = job.limits.memory_bytes_max + (NODE_RESERVE_BYTES if job.language is Language.JAVASCRIPT else 0)
    script = _LIMITS.format(blocks=job.limits.output_bytes_max // 512, kibibytes=memory // 1024)
    stdin = os.devnull if job.stdin is None else code / job.stdin
    with Path(stdin).open("rb") as given, (root / "stdout").open("wb") as out, (root / "stderr").open("wb") as err:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *command],
            stdin=given,
            stdout=out,
            stderr=err,
            cwd=code,
            env={"PATH": os.defpath, "HOME": str(root), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _kill(process)


def _real(word: str, *, drivers: Path) -> str:
    return str(drivers) + word.removeprefix(DRIVERS) if word.startswith(f"{DRIVERS}/") else word


def _wait(process: "subprocess.Popen[bytes]", *, deadline: float, stop: Flag) -> Ended:
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return Ended.WALL
        if stop.wait(POLL_S):
            return Ended.STOPPED
    return Ended.EXITED


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the whole group, also what outlived its first process."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
