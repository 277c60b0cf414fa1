"""The five agents, each put together from its core and its parts: the only place that knows them all."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import structlog

from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.sandbox import Sandbox
from lumina.agents.specialist_calls import specialist
from lumina.agents.validator import Validator
from lumina.agents.version import code_version
from lumina.agents.working import WorkerRunner
from lumina.bus.log import Blobs, EventLog, Live
from lumina.cli.errors import UsageProblem
from lumina.cli.following import now_ms
from lumina.cli.home import Home
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft
from lumina.models.node import NodeConfig, announcement, load_config
from lumina.models.registry import NodeModels
from lumina.replay.cast import node_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every agent is given."""

    events: EventLog
    blobs: Blobs
    live: Live
    home: Home
    node_file: Path

    def config(self) -> NodeConfig:
        """Return the node's configuration. Raises BadConfiguration with all that is wrong with it."""
        return load_config(self.node_file, environ=os.environ)


async def _orchestrate(given: Surroundings) -> None:
    await KeeperRunner(Orchestrator(), events=given.events, now_ms=now_ms).run()


async def _govern(given: Surroundings) -> None:
    """Announce this node as soon as the past is decided again, then keep its memory."""
    config = given.config()
    announced = announcement(config, code=await anyio.to_thread.run_sync(code_version))
    node = StreamId(config.name)
    first = await node_of(given.events)
    if first is not None and first != node:
        raise UsageProblem(
            f"this log belongs to the node {first!r}: set `name` in {given.node_file} back to it, "
            "or start with another data folder (--home)"
        )
    recovered = anyio.Event()
    async with anyio.create_task_group() as tasks:
        runner = KeeperRunner(Governor(node=node), events=given.events, now_ms=now_ms)
        tasks.start_soon(lambda: runner.run(started=recovered))
        await recovered.wait()
        time_ms = now_ms()
        await given.events.append(
            Draft(
                event=announced,
                id=root_event_id(node, name=f"node.announced/{time_ms}/{os.getpid()}"),
                stream=node,
                agent="node",
                time_ms=time_ms,
                causation=None,
            )
        )


async def _specialise(given: Surroundings) -> None:
    models = NodeModels(given.config(), folder=given.home.runtime, environ=os.environ)
    try:
        await WorkerRunner(specialist(models), events=given.events, blobs=given.blobs, live=given.live).run()
    finally:
        with anyio.CancelScope(shield=True):
            await models.aclose()


async def _validate(given: Surroundings) -> None:
    validator = Validator()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, validator.warm)  # Pylint needs a second to start: have it ready
        await WorkerRunner(validator, events=given.events, blobs=given.blobs, live=given.live).run()


async def _execute(given: Surroundings) -> None:
    sandbox = Sandbox()
    for report in await anyio.to_thread.run_sync(sandbox.check):
        if report.available:
            log.info("sandbox.ready", tier=report.tier, protections=len(report.protections))
        else:
            log.error("sandbox.missing", tier=report.tier, reason=report.reason, command=report.command)
    await WorkerRunner(sandbox, events=given.events, blobs=given.blobs, live=given.live).run()


ROLES: Final[dict[str, Callable[[Surroundings], Awaitable[None]]]] = {
    "orchestrator": _orchestrate,
    "governor": _govern,
    "specialist": _specialise,
    "validator": _validate,
    "sandbox": _execute,
}
