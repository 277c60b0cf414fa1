"""The bubblewrap tier: runs a job in namespaces of its own, without network, on a read-only root.

Order: bubblewrap builds the walls and starts a script of ours, which sets the limits and says `ready`; the parent
takes hold of the sandbox's folders and its `/proc`; only then it says `go`, and the foreign program starts. The clock,
the output caps and the watchdog run outside. Process 1 of the namespace is killed in every case, and with it
everything that was started in it, before the first artifact is read.
"""

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Lock
from typing import Final

import msgspec

from lumina.sandbox import policy, roots, selftest
from lumina.sandbox.capture import Capture
from lumina.sandbox.collection import collect
from lumina.sandbox.errors import TierMissing
from lumina.sandbox.policy import Descriptors, Layout
from lumina.sandbox.port import CODE, RESULTS_VARIABLE, Ended, Job, Report, RunResult
from lumina.sandbox.rendering import sentence
from lumina.sandbox.seccomp import program
from lumina.sandbox.watch import Held, transgression

START_TIMEOUT_S: Final = 20.0
STATUS_TIMEOUT_S: Final = 2.0
"""It is written before anything is started, so that it is there when the script is ready."""
DRAIN_TIMEOUT_S: Final = 2.0


class _Status(msgspec.Struct):
    """The first line of bubblewrap's `--json-status-fd`."""

    child: int = msgspec.field(name="child-pid")


@dataclass(kw_only=True)
class _Sandbox:
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


class Bubblewrap:
    """Runs jobs, several at once if need be, each in a sandbox of its own."""

    name = "bubblewrap"

    def __init__(self, *, layout: Callable[[], Layout] = roots.program_layout) -> None:
        self._layout = layout
        self._lock = Lock()
        self._report: Report | None = None

    def check(self) -> Report:
        """Test the walls from inside, once per object; see `Tier.check`."""
        with self._lock:
            if self._report is None:
                self._report = self._test()
            return self._report

    def _test(self) -> Report:
        obstacle = selftest.obstacle() or self._shown_to_all()
        if obstacle is not None:
            return Report(tier=self.name, available=False, reason=obstacle[0], command=obstacle[1])
        with selftest.canary() as (listener, secret):
            result = self._run(selftest.job(listener), stop=Flag())
        return selftest.report(self.name, result, secret=secret)

    def _shown_to_all(self) -> tuple[str, str] | None:
        exposed = roots.writable_by_others(self._layout())
        if exposed is None:
            return None
        return f"{exposed} would be shown to programs and anybody can change it", f"chmod o-w {exposed}"

    def run(self, job: Job, *, stop: Flag) -> RunResult:
        """Run a job; see `Tier.run`."""
        report = self.check()
        if not report.available:
            raise TierMissing(report.reason, command=report.command)
        return self._run(job, stop=stop)

    def _run(self, job: Job, *, stop: Flag) -> RunResult:
        with ExitStack() as stack:
            sandbox = _start(job, layout=self._layout(), stack=stack)
            stack.callback(_end, sandbox)
            broken = _await_ready(sandbox)
            if broken is not None:
                return broken
            try:
                held = stack.enter_context(Held(_learn_first(sandbox)))
            except OSError as error:
                return RunResult(ended=Ended.BROKEN, exit_code=None, detail=sentence(f"can't look inside: {error}"))
            started = time.monotonic()
            os.write(sandbox.go, policy.GO)
            ended, peak = _watch(sandbox, held=held, job=job, stop=stop)
            wall_ms = round((time.monotonic() - started) * 1000)
            _end(sandbox)
            _drain(sandbox)
            given = frozenset(file.name for file in job.files)
            artifacts, refused = collect(held.code, given=given, limits=job.limits) if job.collects else ((), ())
            return RunResult(
                ended=ended,
                exit_code=sandbox.process.returncode if ended is Ended.EXITED else None,
                stdout=sandbox.stdout.content(),
                stderr=sandbox.stderr.content(),
                results=b"" if sandbox.results is None else sandbox.results.content(),
                output_bytes=sandbox.stdout.total_bytes + sandbox.stderr.total_bytes,
                wall_ms=wall_ms,
                memory_bytes_peak=peak,
                artifacts=artifacts,
                refused=refused,
            )


def _start(job: Job, *, layout: Layout, stack: ExitStack) -> _Sandbox:
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
        stdin = "/dev/null" if job.stdin is None else f"{CODE}/{job.stdin}"
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
    return _Sandbox(
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


def _await_ready(sandbox: _Sandbox) -> RunResult | None:
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


def _learn_first(sandbox: _Sandbox) -> int:
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


def _watch(sandbox: _Sandbox, *, held: Held, job: Job, stop: Flag) -> tuple[Ended, int]:
    """Read what comes out until the program ends or breaks a limit. Returns which, and the highest memory seen."""
    deadline = time.monotonic() + job.limits.wall_ms / 1000
    look = time.monotonic() + policy.WATCH_INTERVAL_S
    peak = 0
    over = os.pidfd_open(sandbox.process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(over, selectors.EVENT_READ)
            for capture in sandbox.captures:
                selector.register(capture.descriptor, selectors.EVENT_READ, capture)
            while True:
                for key, _ in selector.select(max(0.0, min(look, deadline) - time.monotonic())):
                    if key.data is None:
                        return Ended.EXITED, peak
                    if not key.data.take():
                        selector.unregister(key.fd)
                    elif _flooded(sandbox, limit=job.limits.output_bytes_max):
                        return Ended.OUTPUT, peak
                now = time.monotonic()
                if now >= deadline:
                    return Ended.WALL, peak
                if stop.is_set():
                    return Ended.STOPPED, peak
                if now >= look:
                    usage = held.usage(tasks_max=job.limits.processes_max)
                    peak = max(peak, usage.memory_bytes)
                    broken = transgression(usage, limits=job.limits)
                    if broken is not None:
                        return broken, peak
                    look = time.monotonic() + policy.WATCH_INTERVAL_S
    finally:
        os.close(over)


def _flooded(sandbox: _Sandbox, *, limit: int) -> bool:
    printed = sandbox.stdout.total_bytes + sandbox.stderr.total_bytes
    return printed > limit or (sandbox.results is not None and sandbox.results.total_bytes > limit)


def _end(sandbox: _Sandbox) -> None:
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


def _drain(sandbox: _Sandbox) -> None:
    """Read what the dead have left in the pipes, no more than fits into them."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for capture in sandbox.captures:
            selector.register(capture.descriptor, selectors.EVENT_READ, capture)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                if not key.data.take():
                    selector.unregister(key.fd)
