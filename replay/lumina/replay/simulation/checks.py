"""What is asked of every history when a simulation is over."""

from typing import Final

from lumina.bus.errors import LogDamaged
from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.events.run import RunForked
from lumina.projections.catalogue import PROJECTIONS
from lumina.projections.fold import MemoryRows, fold
from lumina.replay.report import Status
from lumina.replay.simulation.script import Jump, Outage, Pause
from lumina.replay.simulation.view import View
from lumina.replay.simulation.world import World
from lumina.replay.verifying.verify import verify_all

SLACK_MS: Final = 20_000
"""What a run may take beyond its timeout when nothing is wrong any more: a poll, a restart, an append."""


async def check(world: World) -> None:
    """Ask all of it. What is wrong is added to the failures of the world."""
    world.over = False
    if not world.damaged:
        _ends(world)
        _lateness(world)
    await _proof(world)
    _projections(world)


def _ends(world: World) -> None:
    """Ask that every run ends and every lease is released or expires."""
    for job in world.script.jobs:
        if job.run not in world.ledger.submitted and job.run not in world.given_up:
            world.fails("open: submission", f"{job.run} was never submitted")
    for broken in world.invariants.unsettled():
        world.fails(f"open: {broken.invariant}", f"record {broken.at.seq}: {broken.reason}")


def _lateness(world: World) -> None:
    """Ask that a run which could go on is over within its timeout and some slack."""
    for run, closed in world.ledger.closed.items():
        submitted = world.ledger.submitted.get(run)
        if submitted is None:
            continue
        timeouts = {job.run: job.timeout_ms for job in world.script.jobs}
        if isinstance(submitted.event, RunForked) and submitted.event.options is None:
            timeouts[run] = max(timeouts.values())
        began_ms = world.landed_at_s[submitted.seq - 1] * 1000
        took_ms = world.landed_at_s[closed.seq - 1] * 1000 - began_ms
        allowed_ms = timeouts[run] + SLACK_MS + _hindered_ms(world)
        if took_ms > allowed_ms:
            reason = f"{run} took {took_ms / 1000:.0f} s, and was allowed {allowed_ms / 1000:.0f} s"
            world.fails("late: run", reason)


def _hindered_ms(world: World) -> int:
    """Return for how long faults may have held up a run: what stood still, and clocks that were put back."""
    total = 0
    for fault in world.script.faults:
        total += getattr(fault, "down_ms", 0) + getattr(fault, "for_ms", 0)
        total += 0 if not isinstance(fault, Jump) else abs(fault.by_ms)
        total += 15_000 if isinstance(fault, Outage | Pause) else 1_000
    return total


async def _proof(world: World) -> None:
    """Ask that verify proves the whole log, or names the record that was damaged, and no other."""
    world.calm = True
    auditor = View(world, process="auditor", first_op=0)
    report = await verify_all(auditor, world.blobs, invariants=True)
    if world.damaged:
        first = min(world.damaged)
        if report.status is not Status.DAMAGED or report.damage is None or report.damage.seq != first:
            world.fails("damage: missed", f"record {first} was changed; verify says {' '.join(report.lines())}")
        for process, error in world.stopped.items():
            if not isinstance(error, LogDamaged) or error.seq not in world.damaged:
                world.fails("damage: misplaced", f"{process} stopped with {error}")
        return
    if report.status is not Status.OK or report.broken:
        world.fails(f"verify: {report.status.value}", " ".join(report.lines())[:600])
    if report.pending:
        world.fails("verify: pending", f"{report.pending} decisions were made and never written")


def _projections(world: World) -> None:
    """Ask that what was built record by record is what is built from the start."""
    records: list[Recorded[Event]] = world.records
    for projection in PROJECTIONS:
        rows = MemoryRows()
        for recorded in records:
            rows.change(projection.apply(rows, recorded))
        if rows.all() != fold(projection, records).all():
            world.fails("projections", f"{projection.name} depends on more than the records")
