"""Plays a script to its end and says what came of it."""

from hashlib import sha256
from typing import Final

import anyio
import msgspec

from lumina.events.run import RunClosed
from lumina.replay.simulation.casting import PRODUCTION, Casting
from lumina.replay.simulation.checks import check
from lumina.replay.simulation.clients import be_client, specialists
from lumina.replay.simulation.loop import Stuck, play
from lumina.replay.simulation.scenarios import processes
from lumina.replay.simulation.script import Damage, Kill, Reconfigured, Script, Twin
from lumina.replay.simulation.world import Failure, World

SETTLED_S: Final = 12.0
"""After so long without a record nothing is under way any more."""
GLANCE_S: Final = 2.0
HORIZON_S: Final = 2 * 3600.0
FAILED_S: Final = 30.0
"""What goes on when something has failed already is of less interest."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a simulation.

    Attributes:
        failures: What must not happen, and did.
        digest: SHA-256 over all records in order: equal histories have equal digests.
        records: How many.
        virtual_ms: How long it took on its own clock.
        restarts: Of processes.
        statuses: How runs ended: status by run.
    """

    failures: tuple[Failure, ...]
    digest: str
    records: int
    virtual_ms: int
    restarts: int
    statuses: dict[str, str]


def simulate(script: Script, *, casting: Casting = PRODUCTION) -> Outcome:
    """Play a script. Neither the clock of this machine nor chance has a part in it."""
    worlds: list[World] = []
    try:
        return play(_simulate(script, casting=casting, worlds=worlds))
    except Stuck as error:
        world = worlds[0]
        failure = Failure(kind="stuck", reason=str(error), at_ms=0, seq=len(world.records))
        return _outcome(world, failures=(*world.failures, failure), virtual_ms=0)


async def _simulate(script: Script, *, casting: Casting, worlds: list[World]) -> Outcome:
    virtual_ms = 0
    async with anyio.create_task_group() as tasks:
        world = World(script, casting=casting, tasks=tasks)
        worlds.append(world)
        for content in (each for each, _ in specialists()):
            await world.blobs.put(content)
        for process in processes(script.machine):
            tasks.start_soon(world.keep, process)
        for job in script.jobs:
            tasks.start_soon(be_client, world, job)
        for number, fault in enumerate(script.faults):
            if isinstance(fault, Kill | Twin | Reconfigured | Damage):
                tasks.start_soon(_strike, world, fault, number)
        try:
            await _until_settled(world)
        finally:
            virtual_ms = world.at_ms
            world.over = True
        tasks.cancel_scope.cancel()
    world = worlds[-1]
    await check(world)
    return _outcome(world, failures=tuple(world.failures), virtual_ms=virtual_ms)


def _outcome(world: World, *, failures: tuple[Failure, ...], virtual_ms: int) -> Outcome:
    digest = sha256()
    for recorded in world.records:
        digest.update(f"{recorded.seq} {recorded.digest}\n".encode())
    return Outcome(
        failures=failures,
        digest=digest.hexdigest(),
        records=len(world.records),
        virtual_ms=virtual_ms,
        restarts=sum(world.restarts.values()),
        statuses={run: _status(world, run) for run in sorted(world.ledger.closed)},
    )


def _status(world: World, run: str) -> str:
    closed = world.ledger.closed[run].event
    assert isinstance(closed, RunClosed), run
    return closed.status.value


async def _strike(world: World, fault: Kill | Twin | Reconfigured | Damage, number: int) -> None:
    """Let a fault with a moment happen."""
    await anyio.sleep(fault.at_ms / 1000)
    match fault:
        case Kill(process=process, down_ms=down_ms):
            world.kill_for(process, down_ms=down_ms)
        case Twin(keeper=keeper, for_ms=for_ms):
            twin = f"{keeper}-twin-{number}"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: world.keep(twin, times=1))
                await anyio.sleep(for_ms / 1000)
                world.kill(twin)
        case Reconfigured(bytes_max=bytes_max):
            world.kill_for("governor", down_ms=200)
            world.bytes_max = bytes_max
        case Damage():
            world.damage(fault)


async def _until_settled(world: World) -> None:
    """Wait until nothing happens any more, or until it is clear that something never ends."""
    faults_end_s = _faults_end_ms(world.script) / 1000
    while True:
        wanted = {job.run for job in world.script.jobs} - world.given_up
        await anyio.sleep(GLANCE_S)
        now_s = anyio.current_time()
        if now_s > faults_end_s + (FAILED_S if world.failures else HORIZON_S):
            return
        quiet = not world.landed_at_s or now_s - world.landed_at_s[-1] > SETTLED_S
        if now_s < max(faults_end_s, world.held_up_until_s + SETTLED_S) or not quiet:
            continue
        if world.damaged or (wanted <= set(world.ledger.closed) and not world.invariants.unsettled()):
            return


def _faults_end_ms(script: Script) -> int:
    """Return when the last fault with a known end is over."""
    ends = [0]
    for fault in script.faults:
        at_ms = getattr(fault, "at_ms", 0)
        ends.append(at_ms + getattr(fault, "for_ms", 0) + getattr(fault, "down_ms", 0))
    return max(ends)
