"""One reader of a whole log as a process of its own, with a memory of its own: `python -m tests.bench.reading WHAT`."""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import msgspec
import structlog

from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.orchestrator_state import RunState
from lumina.bus.log import Records
from lumina.cli.following import now_ms
from lumina.cli.home import find_home
from lumina.cli.place import Bus, Place, bus
from lumina.events.ids import StreamId
from lumina.projections.catalogue import PROJECTIONS
from lumina.projections.catch_up import catch_up
from lumina.projections.store import Store
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass over the log cost."""

    events: int
    seconds: float
    cpu_s: float
    memory_bytes: int


async def _read(connected: Bus) -> int:
    count = 0
    async for _ in connected.events.read():
        count += 1
    return count


async def _state(connected: Bus) -> int:
    return await folded_states(connected.events)


async def folded_states(events: Records) -> int:
    """Fold what the orchestrator knows of every run that is open, as others fold a conversation. Return the count."""
    orchestrator = Orchestrator()
    states: dict[StreamId, RunState] = {}
    count = 0
    async for recorded in events.read():
        count += 1
        shard = orchestrator.shard(recorded)
        if shard is None:
            continue
        state = states.get(shard)
        state = orchestrator.evolve(orchestrator.initial(shard) if state is None else state, recorded)
        if orchestrator.finished(state):
            states.pop(shard, None)
        else:
            states[shard] = state
    return count


async def _verify(connected: Bus) -> int:
    return await _verified(connected, invariants=False)


async def _invariants(connected: Bus) -> int:
    return await _verified(connected, invariants=True)


async def _verified(connected: Bus, *, invariants: bool) -> int:
    report = await verify_all(connected.events, connected.blobs, invariants=invariants)
    assert report.status is Status.OK, report.lines()
    assert not report.broken, report.lines()
    return report.records


async def _fold(connected: Bus) -> int:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "rows.sqlite", projections=PROJECTIONS) as store:
        return await catch_up(connected.events, store)


async def _orchestrator(connected: Bus) -> int:
    return await KeeperRunner(Orchestrator(), events=connected.events, now_ms=now_ms).recover()


async def _governor(connected: Bus) -> int:
    return await KeeperRunner(Governor(node=StreamId("local")), events=connected.events, now_ms=now_ms).recover()


READERS: dict[str, tuple[str, Callable[[Bus], Awaitable[int]]]] = {
    "read": ("client", _read),
    "verify": ("client", _verify),
    "invariants": ("client", _invariants),
    "state": ("client", _state),
    "fold": ("client", _fold),
    "orchestrator": ("orchestrator", _orchestrator),
    "governor": ("governor", _governor),
}
"""By name: in which role, and what."""


async def measure(place: Place, *, what: str, repeat: int) -> list[Pass]:
    """Do one pass; or, after one that does not count, several."""
    role, read = READERS[what]
    passes: list[Pass] = []
    async with bus(place, role=role, name=f"bench-{what}") as connected:
        if repeat > 1:
            await read(connected)
        for _ in range(repeat):
            before = memory_bytes()
            cpu_s, started = time.process_time(), time.perf_counter()
            events = await read(connected)
            passes.append(
                Pass(
                    events=events,
                    seconds=time.perf_counter() - started,
                    cpu_s=time.process_time() - cpu_s,
                    memory_bytes=memory_bytes() - before,
                )
            )
    return passes


def memory_bytes() -> int:
    """Return the most memory that this process has had (`ru_maxrss` would count its parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    """Do the passes and print what each cost as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(READERS))
    parser.add_argument("--url", required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    place = Place(home=find_home(options.home), url=options.url)
    result = anyio.run(lambda: measure(place, what=options.what, repeat=options.repeat))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
