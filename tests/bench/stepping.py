"""`python -m tests.bench.stepping`: how long a run of 1,000 records takes to open for stepping, and a step in it.

All agents decide for real, in memory; the run fails its checks at every attempt, so that it goes on for long. Then
the same behind a log of other runs, whose governor's part has to be decided again.
"""

import logging
import os
import time
import tracemalloc
from typing import Any, Final

import anyio
import msgspec
import structlog
from tests.bench.figures import Figure, Results, machine, percentile, show
from tests.bench.history import CONTEXT, NODE, History

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.agents.ports import Raw
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.record import NO_DIGEST, Draft
from lumina.events.run import ModelChoice, RunOptions
from lumina.replay.cast import whole_cast
from lumina.replay.stepping.breakpoints import Breakpoint
from lumina.replay.stepping.moments import NO_STATES, Walk
from lumina.replay.stepping.timeline_reading import read_timeline
from lumina.sandbox.port import Ended, RunResult

PART: Final = "stepping"
MODELS: Final = 40
LONG: Final = StreamId("r-long")
OTHERS: Final = (0, 20_000)
FAILED: Final = RunResult(ended=Ended.EXITED, exit_code=1, stderr=b"ValueError: 4 is not 5\n")


class LongHistory(History):
    """A history whose last run tries as often as it may."""

    def __init__(self) -> None:
        """Begin as every history does."""
        self._failing = False
        super().__init__()

    def fail_long(self) -> None:
        """Let one run try 99 times in vain."""
        self._failing = True
        models = [f"bench-{number}" for number in range(MODELS)]
        announced = NodeAnnounced(
            node=NODE,
            bytes_max=2**32,
            models=tuple(
                ModelOffer(model=model, backend=Backend.OPENAI, bytes_estimated=0, context=CONTEXT, slots=16)
                for model in models
            ),
            idle_ms=300_000,
            configuration=NO_DIGEST,
        )
        slot = root_event_id(NODE, name="again")
        self._land(Draft(event=announced, id=slot, stream=NODE, agent="node", time_ms=self._tick(), causation=None))
        choices = tuple(ModelChoice(model=model, context=CONTEXT) for model in models)
        options = RunOptions(plan=False, kind="function", attempts_max=99, tokens_max=10_000_000)
        asked = msgspec.structs.replace(self._submission, models=choices, options=options)
        self._say(asked, stream=LONG, agent="client")

    def _raw(self, effect: Any) -> Raw:
        self._runs += 1  # another program each time
        raw = super()._raw(effect)
        if self._failing and isinstance(effect, ExecutionEffect):
            return ExecutionRaw(ended_at_ms=raw.ended_at_ms, runs=(FAILED,))
        return raw


async def measure(others: int) -> list[Figure]:
    """Return what stepping along the long run costs behind so many records of other runs."""
    history = LongHistory()
    history.extend(others)
    history.fail_long()
    log, blobs = MemoryLog(history.records), MemoryBlobs()
    blobs.contents.update(history.blobs)
    behind = f"behind {others:,} records of others" if others else "alone in its log"
    opened = await _timed(lambda: read_timeline(log, LONG), times=5)
    tracemalloc.start()
    timeline = await read_timeline(log, LONG)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    count = len(timeline)
    walk = Walk(timeline, blobs=blobs, cast=whole_cast())
    assert not [moment for moment in range(count) if await walk.difference(moment) is not None]
    fresh = Walk(timeline, blobs=blobs, cast=whole_cast())
    forward = [(await _timed(lambda at=at: fresh.moment(at, scope=NO_STATES), times=1))[0] for at in range(count)]
    back = [
        (await _timed(lambda at=at: fresh.moment(at, scope=NO_STATES), times=1))[0] for at in reversed(range(count))
    ]
    whole = [(await _timed(lambda at=at: fresh.moment(at), times=1))[0] for at in range(0, count, 7)]
    stop = Breakpoint("agent=='nobody' && event.verdict=='passed'")
    began = time.perf_counter()
    assert not any(stop.look(each.recorded).holds for each in timeline.stops)
    looked = (time.perf_counter() - began) * 1000
    return [
        Figure(
            part=PART, what=f"open, {behind}", count=count, p50_ms=percentile(opened, 0.5), note=f"{held / 1e6:.1f} MB"
        ),
        _steps(f"a step forward, {behind}", forward),
        _steps(f"a step back, {behind}", back),
        _steps(f"a leap with all states and rows, {behind}", whole),
        Figure(part=PART, what=f"a breakpoint that never holds, {behind}", count=count, p50_ms=looked),
    ]


def _steps(what: str, taken: list[float]) -> Figure:
    return Figure(part=PART, what=what, count=len(taken), p50_ms=percentile(taken, 0.5), p99_ms=percentile(taken, 0.99))


async def _timed(what: Any, *, times: int) -> list[float]:
    """Return how many milliseconds it took, each time."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await what()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def _all() -> list[Figure]:
    return [figure for others in OTHERS for figure in await measure(others)]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began, load = time.monotonic(), os.getloadavg()[0]
    measured = tuple(anyio.run(_all))
    show(Results(machine=machine(load_before=load, seconds=time.monotonic() - began), figures=measured))
