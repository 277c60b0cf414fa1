"""Agents and the NATS server are killed at random moments; nothing is lost and nothing is done twice in the log."""

import os
import random
import signal
from collections import Counter
from contextlib import aclosing, suppress
from pathlib import Path

import anyio
import pytest
from tests.system.openai_server import openai_server

from lumina.bus.address import find_running
from lumina.bus.subjects import Filter
from lumina.cli.following import build_submission, new_run_id, submit
from lumina.cli.home import Home
from lumina.cli.place import Bus, bus
from lumina.cli.run import choose_models, offered, specialists_of
from lumina.cli.session import Plan, started
from lumina.cli.supervise import Supervisor
from lumina.events.contract import Case
from lumina.events.ids import StreamId
from lumina.events.run import RunClosed, RunOptions, RunStatus
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all

pytestmark = pytest.mark.anyio

RUNS = 50
AT_ONCE = 10
KILLS_MIN = 15
RECORDS_BETWEEN_KILLS = 20
SEED = 20261121


async def _chaos(
    home: Home, connected: Bus, supervisor: Supervisor, *, lots: random.Random, kills: Counter[str]
) -> None:
    """Kill a random process after every few records, so that a fast machine meets as many deaths as a slow one."""
    left = RECORDS_BETWEEN_KILLS
    async with aclosing(connected.events.follow((Filter(),))) as records:
        async for _ in records:
            left -= 1
            if left > 0:
                continue
            left = lots.randint(RECORDS_BETWEEN_KILLS // 2, RECORDS_BETWEEN_KILLS * 2)
            await anyio.sleep(lots.uniform(0, 0.05))
            victims = {child.spec.name: child.pid for child in supervisor.children if child.state == "running"}
            server = find_running(home.root)
            if server is not None and lots.random() < 0.2:
                victims = {"nats-server": server.pid}
            if victims:
                name = lots.choice(sorted(victims))
                with suppress(ProcessLookupError):
                    os.kill(victims[name], signal.SIGKILL)
                    kills[name] += 1


async def _one_run(connected: Bus, home: Home, *, number: int) -> RunStatus:
    """Submit one run and return how it ended."""
    submission = await build_submission(
        request=f"Write a Python function called add_{number} that takes a and b and returns their sum.",
        options=RunOptions(timeout_ms=120_000, plan=False, kind="function"),
        models=choose_models(await offered(connected), wanted=["test"], own=True),
        specialists=specialists_of(home, kind="function"),
        files={},
        cases=(Case(arguments="[2, 3]", one_of=("5",)),),
        blobs=connected.blobs,
    )
    run = new_run_id()
    await submit(submission, events=connected.events, run=run)
    async for recorded in connected.events.follow((Filter(stream=run),)):
        if isinstance(recorded.event, RunClosed):
            return recorded.event.status
    raise AssertionError("following ended before the run did")


@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_doubled_under_kill_9(tmp_path: Path) -> None:
    """50 runs complete while agents and the server die at random; the whole log verifies, invariants included."""
    home = Home(root=tmp_path)
    home.ensure()
    kills: Counter[str] = Counter()
    statuses: Counter[RunStatus] = Counter()
    with openai_server(delay_s=0.05) as url:
        home.node_file.write_text(f'[[models]]\nid = "test"\nurl = "{url}"\nslots = 4\n')
        plan = Plan(specialists=2, restarts_max=1000)
        async with started(home, plan=plan) as (place, supervisor), bus(place, role="client") as connected:
            async with anyio.create_task_group() as chaos:
                chaos.start_soon(lambda: _chaos(home, connected, supervisor, lots=random.Random(SEED), kills=kills))
                numbers = iter(range(RUNS))

                async def submit_runs() -> None:
                    for number in numbers:
                        statuses[await _one_run(connected, home, number=number)] += 1

                async with anyio.create_task_group() as clients:
                    for _ in range(AT_ONCE):
                        clients.start_soon(submit_runs)
                chaos.cancel_scope.cancel()
            report = await verify_all(connected.events, connected.blobs, invariants=True)
            closed: Counter[StreamId] = Counter()
            slots: Counter[str] = Counter()
            async for recorded in connected.events.read():
                slots[recorded.id] += 1
                closed[recorded.stream] += isinstance(recorded.event, RunClosed)
    assert sum(kills.values()) >= KILLS_MIN, f"chaos did not reach the system: {kills}"
    assert statuses == {RunStatus.COMPLETED: RUNS}
    assert report.status is Status.OK, report.lines()
    assert not report.broken, report.lines()
    assert set(slots.values()) == {1}
    assert sum(closed.values()) == RUNS
    assert set(closed.values()) <= {0, 1}
