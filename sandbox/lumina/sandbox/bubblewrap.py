"""The bubblewrap tier: runs a job in namespaces of its own, without network, on a read-only root.

Order: bubblewrap builds the walls and starts a script of ours, which sets the limits and says `ready`; the parent
takes hold of the sandbox's folders and its `/proc`; only then it says `go`, and the foreign program starts. The clock,
the output caps and the watchdog run outside. Process 1 of the namespace is killed in every case, and with it
everything that was started in it, before the first artifact is read.
"""

import os
import selectors
import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event as Flag
from threading import Lock

from lumina.sandbox import policy, roots, selftest
from lumina.sandbox.cage import Cage, await_ready, drain, end, learn_first, start
from lumina.sandbox.collection import collect
from lumina.sandbox.errors import TierMissing
from lumina.sandbox.policy import Layout
from lumina.sandbox.port import Ended, Job, Report, RunResult
from lumina.sandbox.rendering import sentence
from lumina.sandbox.watch import Held, transgression


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
            sandbox = start(job, layout=self._layout(), stack=stack)
            stack.callback(end, sandbox)
            broken = await_ready(sandbox)
            if broken is not None:
                return broken
            try:
                held = stack.enter_context(Held(learn_first(sandbox)))
            except OSError as error:
                return RunResult(ended=Ended.BROKEN, exit_code=None, detail=sentence(f"can't look inside: {error}"))
            started = time.monotonic()
            os.write(sandbox.go, policy.GO)
            ended, peak = _watch(sandbox, held=held, job=job, stop=stop)
            wall_ms = round((time.monotonic() - started) * 1000)
            end(sandbox)
            drain(sandbox)
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


def _watch(sandbox: Cage, *, held: Held, job: Job, stop: Flag) -> tuple[Ended, int]:
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


def _flooded(sandbox: Cage, *, limit: int) -> bool:
    printed = sandbox.stdout.total_bytes + sandbox.stderr.total_bytes
    return printed > limit or (sandbox.results is not None and sandbox.results.total_bytes > limit)
