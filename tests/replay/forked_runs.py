"""A run, a fork of it and a fork of that, which really took place: all agents at work, only the effects scripted."""

from collections.abc import Sequence

import anyio
from tests.replay.conftest import (
    NODE,
    ScriptedSandbox,
    ScriptedValidator,
    live_through,
    now_ms,
    scripted_call,
)

from lumina.agents.closing import chain_heads, root_of
from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.specialist import Specialist
from lumina.agents.working import WorkerRunner
from lumina.bus.memory import MemoryBlobs, MemoryLive, MemoryLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Head, Recorded
from lumina.events.run import RunClosed, RunForked

PARENT, CHILD, GRANDCHILD = StreamId("r-parent"), StreamId("r-child"), StreamId("r-grandchild")


def forked(records: Sequence[Recorded[Event]], *, at: Recorded[Event]) -> RunForked:
    """Return the first word of a fork at a record."""
    heads = {
        each.agent: Head(position=each.position, digest=each.digest)
        for each in records
        if each.stream == at.stream and each.seq <= at.seq
    }
    chains = chain_heads(heads)
    return RunForked(parent=at.stream, at=at.id, chains=chains, root=root_of(chains), reason="once more")


async def go_on(run: StreamId, event: Event, *, log: MemoryLog, blobs: MemoryBlobs) -> None:
    """Start all agents again, let a client begin a run with `event`, and stop when that has ended."""
    live = MemoryLive()
    workers = (Specialist(perform=scripted_call), ScriptedValidator(), ScriptedSandbox(tiers={}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(KeeperRunner(Orchestrator(), events=log, now_ms=now_ms).run)
        tasks.start_soon(KeeperRunner(Governor(node=NODE), events=log, now_ms=now_ms).run)
        for worker in workers:
            tasks.start_soon(WorkerRunner(worker, events=log, blobs=blobs, live=live).run)
        slot = root_event_id(run, name="begin")
        await log.append(Draft(event=event, id=slot, stream=run, agent="client", time_ms=now_ms(), causation=None))
        with anyio.fail_after(20):
            async for _ in log.follow((Filter(stream=run, event=RunClosed),)):
                break
        await anyio.sleep(0.1)  # what follows the end: leases come back
        tasks.cancel_scope.cancel()


async def family() -> tuple[MemoryLog, MemoryBlobs]:
    """Return the log and the blobs of three generations."""
    log, blobs = MemoryLog(), MemoryBlobs()
    await live_through((PARENT,), log=log, blobs=blobs)
    failed = next(each for each in log.records if each.type == "execution.finished.v1")
    await go_on(CHILD, forked(log.records, at=failed), log=log, blobs=blobs)
    asked = next(each for each in log.records if each.stream == CHILD and each.type == "validation.requested.v1")
    await go_on(GRANDCHILD, forked(log.records, at=asked), log=log, blobs=blobs)
    return log, blobs
