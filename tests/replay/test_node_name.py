"""A node may have any name: what its governor decided is decided again under that name."""

from typing import Any

import anyio
import pytest
from tests.agents.run_scene import ROCK, SMALL, START_MS, submitted

from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Keeper
from lumina.agents.specialist_folders import load_folders
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import NodeAnnounced
from lumina.events.record import NO_DIGEST, Draft
from lumina.events.run import RunClosed, RunOptions
from lumina.replay.cast import node_of
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all, verify_run

pytestmark = pytest.mark.anyio

RUN, DESK = StreamId("r-desk"), StreamId("desk")


async def appended(log: MemoryLog, event: Event, *, stream: StreamId, agent: str) -> None:
    """Append a root record."""
    slot = root_event_id(stream, name=agent)
    await log.append(Draft(event=event, id=slot, stream=stream, agent=agent, time_ms=START_MS, causation=None))


async def desk_log() -> tuple[MemoryLog, MemoryBlobs]:
    """Return the log of the node `desk`, with a run that has ended, since its governor refuses an unknown model."""
    log, blobs = MemoryLog(), MemoryBlobs()
    for file in load_folders():
        await blobs.put(file.content)
    announced = NodeAnnounced(node=DESK, bytes_max=1, models=(), idle_ms=1, configuration=NO_DIGEST)
    asked = submitted(ROCK, models=(SMALL,), options=RunOptions(plan=False))
    for event, stream, agent in ((announced, DESK, "node"), (asked, RUN, "client")):
        await appended(log, event, stream=stream, agent=agent)
    keepers: tuple[Keeper[Any], ...] = (Orchestrator(), Governor(node=DESK))
    async with anyio.create_task_group() as tasks:
        for keeper in keepers:
            tasks.start_soon(KeeperRunner(keeper, events=log, now_ms=lambda: START_MS).run)
        with anyio.fail_after(5):
            async for recorded in log.follow():
                if isinstance(recorded.event, RunClosed):
                    break
        tasks.cancel_scope.cancel()
    return log, blobs


async def test_a_node_with_a_name_of_its_own() -> None:
    """A run on the node `desk` is proved like any other."""
    log, blobs = await desk_log()
    assert any(record.agent == "governor" for record in log.records)
    assert (await verify_all(log, blobs)).status is Status.OK
    assert (await verify_run(log, blobs, RUN)).status is Status.OK


async def test_another_node_in_one_log_is_named() -> None:
    """The first announcement says whose the log is; the announcement of another node is where the proof ends."""
    log, blobs = await desk_log()
    assert await node_of(log) == DESK
    later = NodeAnnounced(node="shelf", bytes_max=1, models=(), idle_ms=1, configuration=NO_DIGEST)
    await appended(log, later, stream=StreamId("shelf"), agent="node")
    seq = log.records[-1].seq
    assert await node_of(log) == DESK
    report = await verify_all(log, blobs)
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert report.divergence.at.seq == seq
    assert report.divergence.difference.recorded == "shelf"
    assert "a log has one node" in report.divergence.difference.decided
    assert (await verify_run(log, blobs, RUN)).status is Status.OK, "the run ended before"
    asked = submitted(ROCK, models=(SMALL,), options=RunOptions(plan=False))
    await appended(log, asked, stream=StreamId("r-later"), agent="client")
    later_run = await verify_run(log, blobs, StreamId("r-later"))
    assert later_run.divergence is not None
    assert later_run.divergence.at.seq == seq
