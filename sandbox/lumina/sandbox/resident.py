"""Keeps a slow validation tool ready in a sandbox of its own: Pylint and ESLint take seconds to start, not to read.

One thread owns the sandbox, since bubblewrap dies with the thread that started it. What exceeds a limit costs the
sandbox its life, and the next request starts another one. It also ends when nobody needs it for a while.
"""

import queue
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from threading import Event as Flag
from threading import Lock, Thread
from typing import Final

import msgspec

from lumina.sandbox import policy
from lumina.sandbox.cage import Cage, await_ready, end, learn_first, send, start
from lumina.sandbox.policy import Layout
from lumina.sandbox.port import Ended, Job, RunResult
from lumina.sandbox.rendering import sentence
from lumina.sandbox.watch import Held, transgression

IDLE_S: Final = 120.0
WARM_TIMEOUT_MS: Final = 60_000
ANSWER_BYTES_MAX: Final = 4 * 2**20


class _Answer(msgspec.Struct):
    """What a resident driver says about one program."""

    exit_code: int
    stdout: str
    stderr: str


class _Reading(msgspec.Struct, kw_only=True):
    """One program on its way through the tool."""

    code: str
    timeout_s: float
    stop: Flag
    result: "Future[RunResult]"


class Resident:
    """One tool, kept ready. Safe to use from several threads; they take turns."""

    def __init__(self, job: Job, *, layout: Callable[[], Layout]) -> None:
        """Keep the tool that `job` starts; nothing is started before the first program."""
        self._job = job
        self._layout = layout
        self._waiting: queue.Queue[_Reading] = queue.Queue()
        self._lock = Lock()
        self._thread: Thread | None = None

    def read(self, code: str, *, timeout_ms: int, stop: Flag) -> RunResult:
        """Return what the tool says about a program, in the form of a run of its own. Blocks."""
        return self._enqueue(code, timeout_ms=timeout_ms, stop=stop).result()

    def warm(self) -> None:
        """Have the tool started without waiting for it, so that the first program is read as fast as the others."""
        self._enqueue("", timeout_ms=WARM_TIMEOUT_MS, stop=Flag())

    def _enqueue(self, code: str, *, timeout_ms: int, stop: Flag) -> "Future[RunResult]":
        reading = _Reading(code=code, timeout_s=timeout_ms / 1000, stop=stop, result=Future())
        with self._lock:
            self._waiting.put(reading)
            self._ensure_thread()
        return reading.result

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._live, daemon=True, name="lumina-resident")
            self._thread.start()

    def _live(self) -> None:
        """Answer until nobody asks any more; start again after a sandbox was lost."""
        try:
            while (reading := self._next()) is not None:
                while reading is not None:
                    reading = self._serve(reading)
        finally:
            with self._lock:
                self._thread = None
                if not self._waiting.empty():  # somebody asked at the very last moment
                    self._ensure_thread()

    def _serve(self, first: _Reading) -> _Reading | None:
        """Start a sandbox and answer in it, until an answer costs its life or nobody asks any more.

        `first` is answered in any case. Returns a later program that the sandbox did not answer since it had died: it
        is worth another one.
        """
        reading: _Reading | None = first
        try:
            with ExitStack() as stack:
                cage = start(self._job, layout=self._layout(), stack=stack)
                stack.callback(end, cage)
                broken = await_ready(cage)
                if broken is not None:
                    first.result.set_result(broken)
                    return None
                held = stack.enter_context(Held(learn_first(cage)))
                send(cage, policy.GO, timeout_s=first.timeout_s)
                while reading is not None:
                    result = _ask(cage, reading, held=held, job=self._job)
                    if result.ended is Ended.BROKEN and reading is not first:
                        return reading
                    reading.result.set_result(result)
                    reading = self._next() if result.ended is Ended.EXITED else None
        except OSError as error:
            if reading is None or reading is not first:
                return reading
            reading.result.set_result(_broken(str(error)))
        except BaseException as error:
            if reading is not None and not reading.result.done():
                reading.result.set_exception(error)  # a bug; whoever waits learns of it too
            raise
        return None

    def _next(self) -> _Reading | None:
        """Return the next program, None when there is none for a while: then whoever asks next starts anew."""
        try:
            return self._waiting.get(timeout=IDLE_S)
        except queue.Empty:
            return None


def _broken(why: str) -> RunResult:
    return RunResult(ended=Ended.BROKEN, exit_code=None, detail=sentence(f"the tool's sandbox broke: {why}"))


def _ask(cage: Cage, reading: _Reading, *, held: Held, job: Job) -> RunResult:
    """Hand one program over and wait for the answer, with the clock and the watchdog outside."""
    assert cage.results is not None
    started = time.monotonic()
    deadline = started + reading.timeout_s
    try:
        send(cage, msgspec.json.encode({"code": reading.code}) + b"\n", timeout_s=reading.timeout_s)
    except TimeoutError:
        return RunResult(ended=Ended.WALL, exit_code=None, wall_ms=round(reading.timeout_s * 1000))
    answer, ended = b"", None
    with selectors.DefaultSelector() as selector:
        for capture in cage.captures:
            selector.register(capture.descriptor, selectors.EVENT_READ, capture)
        while ended is None and not answer.endswith(b"\n"):
            for key, _ in selector.select(policy.WATCH_INTERVAL_S):
                if key.data is cage.results:
                    chunk = cage.results.chunk()
                    answer += chunk
                    ended = None if chunk else Ended.BROKEN
                elif not key.data.take():
                    selector.unregister(key.fd)
            ended = ended or _exceeded(answer, reading, deadline=deadline)
            ended = ended or transgression(held.usage(tasks_max=job.limits.processes_max), limits=job.limits)
    wall_ms = round((time.monotonic() - started) * 1000)
    if not answer.endswith(b"\n"):
        detail = cage.stderr.content().decode("utf-8", "replace")
        return RunResult(ended=ended or Ended.BROKEN, exit_code=None, wall_ms=wall_ms, detail=sentence(detail))
    try:
        said = msgspec.json.decode(answer, type=_Answer)
    except msgspec.DecodeError as error:
        return _broken(str(error))
    return RunResult(
        ended=Ended.EXITED,
        exit_code=said.exit_code,
        stdout=said.stdout.encode("utf-8", "replace"),
        stderr=said.stderr.encode("utf-8", "replace"),
        output_bytes=len(said.stdout) + len(said.stderr),
        wall_ms=wall_ms,
    )


def _exceeded(answer: bytes, reading: _Reading, *, deadline: float) -> Ended | None:
    if answer.endswith(b"\n"):
        return None
    if len(answer) > ANSWER_BYTES_MAX:
        return Ended.OUTPUT
    if reading.stop.is_set():
        return Ended.STOPPED
    return Ended.WALL if time.monotonic() >= deadline else None
