"""Orchestration overhead: runs of one step through all agents, whose effects take no time."""

import time
from collections import defaultdict
from contextlib import aclosing

import anyio
from tests.bench.canned import CASES, MODEL, REQUEST
from tests.bench.figures import Figure, latency
from tests.bench.stage import KEEPERS, WORKERS, messages, processes, served, wait_announced

from lumina.agents.specialist_folders import load_folders
from lumina.bus.startup import Sync
from lumina.bus.subjects import Filter
from lumina.cli.following import build_submission, new_run_id, submit
from lumina.cli.place import Bus, bus
from lumina.cli.run import choose_models, offered
from lumina.events.run import RunClosed, RunOptions, RunStatus, RunSubmitted

PART = "step"
WARM_UP_RUNS = 5
AT_ONCE = 8

Hops = dict[str, list[float]]


async def measure(sync: Sync, *, runs: int, raw_ms: float) -> list[Figure]:
    """Return the overhead of single-step runs one after the other and several at once. `raw_ms`: one raw publish."""
    async with served(sync) as place:
        with processes(place, (*KEEPERS, *WORKERS)) as clock:
            await wait_announced(place)
            async with bus(place, role="client") as connected:
                submission = await _submission(connected)
                hops: Hops = defaultdict(list)
                for _ in range(WARM_UP_RUNS):
                    await _one(connected, submission, hops=defaultdict(list))
                first = await connected.events.last_seq()
                said, before = await messages(place), clock.cpu_ms()
                samples = [await _one(connected, submission, hops=hops) for _ in range(runs)]
                cpu_ms = {name: (ms - before[name]) / runs for name, ms in clock.cpu_ms().items()}
                said = (await messages(place) - said) // runs
                events = (await connected.events.last_seq() - first) / runs
                per_s = await _at_once(connected, submission, runs=runs)
    what = "one run after the other"
    note = f"{events:.0f} events, {said} NATS messages a run"
    cpu = ", ".join(f"{name} {ms:.1f}" for name, ms in cpu_ms.items())
    return [
        latency(PART, what, samples=samples, sync=sync, raw=events * raw_ms, note=note),
        Figure(
            part=PART, what="  processor time of it, ms", sync=sync, count=runs, p50_ms=sum(cpu_ms.values()), note=cpu
        ),
        Figure(
            part=PART,
            what=f"{AT_ONCE} runs at once",
            sync=sync,
            count=runs,
            per_s=per_s,
            note=f"{per_s * events:.0f} events/s",
        ),
        *(latency(PART, f"  … until {name}", samples=each, sync=sync) for name, each in hops.items()),
    ]


async def _submission(connected: Bus) -> RunSubmitted:
    return await build_submission(
        request=REQUEST,
        options=RunOptions(plan=False, kind="function"),
        models=choose_models(await offered(connected), wanted=[MODEL], own=True),
        specialists=[file for file in load_folders() if file.definition and file.definition.kind == "function"],
        files={},
        cases=CASES,
        blobs=connected.blobs,
    )


async def _one(connected: Bus, submission: RunSubmitted, *, hops: Hops) -> float:
    """Do one run and return its milliseconds; `hops` gets those from each fact to the next."""
    run = new_run_id()
    started = time.perf_counter()
    submitted = await submit(submission, events=connected.events, run=run)
    last = time.perf_counter()
    hops["run.submitted stands"].append((last - started) * 1000)
    async with aclosing(connected.events.follow((Filter(stream=run),), after=submitted.seq)) as records:
        async for recorded in records:
            now = time.perf_counter()
            hops[recorded.type.rpartition(".")[0]].append((now - last) * 1000)
            last = now
            if isinstance(recorded.event, RunClosed):
                assert recorded.event.status is RunStatus.COMPLETED, f"{run}: {recorded.event.status}"
                return (now - started) * 1000
    raise AssertionError("following ended before the run did")


async def _at_once(connected: Bus, submission: RunSubmitted, *, runs: int) -> float:
    """Return runs per second with several clients, each with one run after the other."""
    numbers = iter(range(runs))

    async def client() -> None:
        for _ in numbers:
            await _one(connected, submission, hops=defaultdict(list))

    started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(client)
    return runs / (time.perf_counter() - started)
