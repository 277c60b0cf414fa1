"""How long the commands take until they are of use, and what a system costs that has nothing to do."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec
import psutil
from tests.bench.canned import REQUEST
from tests.bench.figures import Figure, latency
from tests.bench.stage import ROOT, fresh_home

from lumina.cli.home import Home
from lumina.cli.session import read_system
from lumina.events.base import type_of
from lumina.events.run import RunSubmitted

PART = "boot"
SETTLE_S = 3.0
WAIT_S_MAX = 60.0


class _Line(msgspec.Struct):
    type: str


def measure(*, repetitions: int, idle_s: float) -> list[Figure]:
    """Return boot times on a fresh and on a used data folder, and the idle load."""
    fresh, again, ups, idle = [], [], [], []
    for _ in range(repetitions):
        with fresh_home() as home:
            fresh.append(_run(home))
            again.append(_run(home))
            ups.append(_timed(home, "up", "--detach"))
            if len(ups) == repetitions:
                idle = [_idle(home, seconds=idle_s)]
            _timed(home, "down")
    return [
        latency(PART, "lumina run, until run.submitted", samples=again, note="used folder"),
        latency(PART, "lumina run, until run.submitted", samples=fresh, note="fresh folder"),
        latency(PART, "lumina up --detach", samples=ups),
        *idle,
    ]


def _command(home: Home, *words: str) -> Sequence[str]:
    return (sys.executable, "-m", "lumina.cli", *words, "--home", str(home.root))


def _run(home: Home) -> float:
    """Return the milliseconds until the first line of a run; it is cancelled then."""
    started = time.perf_counter()
    with subprocess.Popen(
        _command(home, "run", "--json", "--no-plan", REQUEST), cwd=home.root, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            assert msgspec.json.decode(line, type=_Line).type == type_of(RunSubmitted)
            taken = (time.perf_counter() - started) * 1000
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            process.wait(WAIT_S_MAX)
            return taken
    raise AssertionError(f"`lumina run` ended with {process.returncode} and said nothing")


def _timed(home: Home, *words: str) -> float:
    started = time.perf_counter()
    subprocess.run(_command(home, *words), cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=WAIT_S_MAX)
    return (time.perf_counter() - started) * 1000


def _idle(home: Home, *, seconds: float) -> Figure:
    """Return the share of a core that all processes of an idle system take together."""
    running = read_system(home)
    assert running is not None, "`lumina up` came back"
    top = psutil.Process(running.pid)
    tree = [top, *top.children(recursive=True)]
    time.sleep(SETTLE_S)
    before = {process.pid: _cpu_s(process) for process in tree}
    time.sleep(seconds)
    used = {process.pid: _cpu_s(process) - before[process.pid] for process in tree}
    memory = sum(process.memory_full_info().pss for process in tree) / 2**20
    share = sum(used.values()) / seconds
    return Figure(
        part=PART,
        what="idle system, percent of one core",
        count=len(tree),
        per_s=share * 100,
        note=f"{len(tree)} processes, {memory:.0f} MiB, {seconds:.0f} s",
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
