"""One started bubblewrap: building the walls, waiting for them, taking hold of what is inside, and ending it.

Process 1 of the namespace is held by a pidfd from the moment that it is known; killing it kills everything in there.
"""

import os
import selectors
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from lumina.sandbox import policy
from lumina.sandbox.capture import Capture
from lumina.sandbox.policy import Descriptors, Layout
from lumina.sandbox.port import CODE, RESULTS_VARIABLE, Ended, Job, RunResult
from lumina.sandbox.rendering import sentence
from lumina.sandbox.seccomp import program

START_TIMEOUT_S: Final = 20.0
STATUS_TIMEOUT_S: Final = 2.0
"""It is written before anything is started, so that it is there when the script is ready."""
DRAIN_TIMEOUT_S: Final = 2.0


class _Status(msgspec.Struct):
    """The first line of bubblewrap's `--json-status-fd`."""

    child: int = msgspec.field(name="child-pid")


@dataclass(kw_only=True)
class Cage:
    """One started bubblewrap and everything that the parent holds of it."""

    process: "subprocess.Popen[bytes]"
    go: int
    stdout: Capture
    stderr: Capture
    status: int
    results: Capture | None = None
    first: int = -1
    """Pidfd of the namespace's process 1, -1 before it is known."""
    captures: list[Capture] = field(default_factory=list)


def start(job: Job, *, layout: Layout, stack: ExitStack) -> Cage:
    """Start bubblewrap. What the parent keeps open is closed by `stack`."""
    environment = policy.environment(layout, language=job.language, limits=job.limits) | dict(job.environment)
    ours: list[int] = []
    theirs: list[int] = []

    def pipe() -> tuple[int, int]:
        reading, writing = os.pipe()
        ours.append(reading)
        theirs.append(writing)
        return reading, writing

    try:
        status, status_theirs = pipe()
        results = None
        if job.reports:
            reading, writing = pipe()
            environment[RESULTS_VARIABLE] = str(writing)
            results = Capture(reading)
        system = tuple((content.encode(), target) for target, content in policy.SYSTEM_FILES.items())
        given = tuple((file.content, f"{CODE}/{file.name}") for file in job.files)
        seccomp = _in_memory(program(), into=theirs)
        placed = tuple((_in_memory(content, into=theirs), target) for content, target in system + given)
        words = policy.arguments(
            layout,
            limits=job.limits,
            descriptors=Descriptors(seccomp=seccomp, status=status_theirs, placed=placed),
            environment=environment,
            given_bytes=policy.placed_bytes(job.files),
        )
        stdin = "/dev/null" if job.stdin is None else str(Path(CODE, job.stdin))
        script = policy.start_script(job.limits, language=job.language)
        process = subprocess.Popen(
            [shutil.which("bwrap") or "bwrap", *words, "--", "/bin/sh", "-c", script, "sh", stdin, *job.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=theirs,
            env={},
        )
    finally:
        for descriptor in theirs:
            os.close(descriptor)
        for descriptor in ours:
            stack.callback(os.close, descriptor)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    for opened in (process.stdin, process.stdout, process.stderr):
        stack.callback(opened.close)
    captures = [Capture(process.stdout.fileno()), Capture(process.stderr.fileno())]
    return Cage(
        process=process,
        go=process.stdin.fileno(),
        stdout=captures[0],
        stderr=captures[1],
        status=status,
        results=results,
        captures=captures + ([] if results is None else [results]),
    )


def _in_memory(content: bytes, *, into: list[int]) -> int:
    """Return a descriptor from which `content` can be read, and note it in `into`."""
    descriptor = os.memfd_create("lumina")
    into.append(descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as opened:
        opened.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def await_ready(sandbox: Cage) -> RunResult | None:
    """Wait until the script says that everything stands; otherwise say what broke."""
    said = b""
    deadline = time.monotonic() + START_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(sandbox.stdout.descriptor, selectors.EVENT_READ)
        while said != policy.READY and time.monotonic() < deadline:
            if not selector.select(deadline - time.monotonic()):
                break
            chunk = os.read(sandbox.stdout.descriptor, len(policy.READY) - len(said))
            if not chunk:
                break
            said += chunk
    if said == policy.READY:
        return None
    sandbox.process.kill()
    sandbox.process.wait()
    sandbox.stderr.take()
    reason = sandbox.stderr.content().decode("utf-8", "replace").strip() or "no answer"
    return RunResult(ended=Ended.BROKEN, exit_code=None, detail=sentence(f"bubblewrap did not start: {reason}"))


def send(cage: Cage, content: bytes, *, timeout_s: float) -> None:
    """Write to the program's standard input.

    Raises:
        TimeoutError: It does not read.
        BrokenPipeError: It is dead.
    """
    deadline = time.monotonic() + timeout_s
    os.set_blocking(cage.go, False)
    with selectors.DefaultSelector() as selector:
        selector.register(cage.go, selectors.EVENT_WRITE)
        while content:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError("the program does not read its input")
            content = content[os.write(cage.go, content) :]


def learn_first(sandbox: Cage) -> int:
    """Return the process id of the namespace's process 1 and take hold of it. Raises OSError when there is none."""
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(sandbox.status, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            chunk = os.read(sandbox.status, 1) if selector.select(STATUS_TIMEOUT_S) else b""
            if not chunk:
                raise ProcessLookupError("bubblewrap did not say which process it started")
            line += chunk
    process = msgspec.json.decode(line, type=_Status).child
    sandbox.first = os.pidfd_open(process)
    return process


def end(sandbox: Cage) -> None:
    """Kill what is left and wait until it is gone. Safe to call again."""
    if sandbox.first >= 0:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(sandbox.first, signal.SIGKILL)
        with selectors.DefaultSelector() as selector:
            selector.register(sandbox.first, selectors.EVENT_READ)
            selector.select(START_TIMEOUT_S)  # readable when the whole namespace is dead
        os.close(sandbox.first)
        sandbox.first = -1
    if sandbox.process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            sandbox.process.wait(DRAIN_TIMEOUT_S)
            return
        sandbox.process.kill()
    sandbox.process.wait()


def drain(sandbox: Cage) -> None:
    """Read what the dead have left in the pipes, no more than fits into them."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for capture in sandbox.captures:
            selector.register(capture.descriptor, selectors.EVENT_READ, capture)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                if not key.data.take():
                    selector.unregister(key.fd)
