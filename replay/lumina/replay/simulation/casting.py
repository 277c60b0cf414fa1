"""How each process of a simulated machine is put together: production cores and runners, simulated parts under them.

A test that wants to see a defect found casts a defective part in the place of a sound one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import anyio

from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Keeper, Progress, Worker
from lumina.agents.specialist import Effect, Specialist, SpecialistRaw
from lumina.agents.specialist_calls import ModelCalls
from lumina.agents.working import WorkerRunner
from lumina.events.codec import encode
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.record import Draft
from lumina.replay.simulation.models import CONTEXT, SimulatedModels, SimulatedNode
from lumina.replay.simulation.script import Machine
from lumina.replay.simulation.tools import SimulatedSandbox, SimulatedValidator
from lumina.replay.simulation.tools import Troubles as ToolTroubles
from lumina.replay.simulation.view import View

NODE: Final = StreamId("local")


class Scene(ToolTroubles):
    """What a process needs of its world beside its view of the bus."""

    node: SimulatedNode
    bytes_max: int
    machine: Machine

    def now_ms(self) -> int:
        """Return the wall clock: milliseconds since 1970."""
        raise NotImplementedError

    def performs(self, effect: str) -> None:
        """Take note that an effect is being done."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Casting:
    """Who plays which part."""

    orchestrator: Callable[[], Keeper[Any]] = Orchestrator
    governor: Callable[[], Keeper[Any]] = field(default=lambda: Governor(node=NODE))
    keeper_runner: type[KeeperRunner] = KeeperRunner
    worker_runner: type[WorkerRunner] = WorkerRunner
    worker: Callable[[Worker[Any, Any]], Worker[Any, Any]] = lambda worker: worker


PRODUCTION: Final = Casting()

Part = Callable[[View, Scene, Casting], Awaitable[None]]


async def orchestrate(view: View, scene: Scene, casting: Casting) -> None:
    """Be the orchestrator."""
    await casting.keeper_runner(casting.orchestrator(), events=view, now_ms=scene.now_ms).run()


async def govern(view: View, scene: Scene, casting: Casting) -> None:
    """Be the governor: announce the node as soon as the past is decided again."""
    recovered = anyio.Event()
    async with anyio.create_task_group() as tasks:
        runner = casting.keeper_runner(casting.governor(), events=view, now_ms=scene.now_ms)
        tasks.start_soon(lambda: runner.run(started=recovered))
        await recovered.wait()
        time_ms = scene.now_ms()
        await view.append(
            Draft(
                event=announcement(scene.machine, bytes_max=scene.bytes_max),
                id=root_event_id(NODE, name=f"node.announced/{time_ms}/{view.process}/{view.ops}"),
                stream=NODE,
                agent="node",
                time_ms=time_ms,
                causation=None,
            )
        )


async def specialise(view: View, scene: Scene, casting: Casting) -> None:
    """Be a specialist."""
    models = SimulatedModels(scene.node, user=view.process)
    calls = ModelCalls(models, now_ms=scene.now_ms)

    async def perform(effect: Effect, *, progress: Progress) -> SpecialistRaw:
        scene.performs(sha256(encode(effect)).hexdigest())
        return await calls(effect, progress=progress)

    try:
        await _work(Specialist(perform=perform), view=view, scene=scene, casting=casting)
    finally:
        await models.aclose()


async def validate(view: View, scene: Scene, casting: Casting) -> None:
    """Be a validator."""
    worker = SimulatedValidator(scene, now_ms=scene.now_ms)
    await _work(worker, view=view, scene=scene, casting=casting)


async def execute(view: View, scene: Scene, casting: Casting) -> None:
    """Be a sandbox."""
    worker = SimulatedSandbox(scene, now_ms=scene.now_ms)
    await _work(worker, view=view, scene=scene, casting=casting)


async def _work(worker: Worker[Any, Any], *, view: View, scene: Scene, casting: Casting) -> None:
    runner = casting.worker_runner(casting.worker(worker), events=view, blobs=view, live=view, now_ms=scene.now_ms)
    await runner.run()


PARTS: Final[dict[str, Part]] = {
    "orchestrator": orchestrate,
    "governor": govern,
    "specialist": specialise,
    "validator": validate,
    "sandbox": execute,
}


def announcement(machine: Machine, *, bytes_max: int) -> NodeAnnounced:
    """Return what the node says of itself."""
    offers = tuple(
        ModelOffer(
            model=name,
            backend=Backend.LLAMA_CPP,
            bytes_estimated=size,
            context=CONTEXT,
            slots=machine.slots,
            instances_max=2 if machine.specialists > 1 else 1,
            plans=name in machine.plans,
            pinned=name in machine.pinned,
        )
        for name, size in machine.models.items()
    )
    return NodeAnnounced(
        node=NODE,
        bytes_max=bytes_max,
        models=offers,
        idle_ms=machine.idle_ms,
        configuration=sha256(f"{bytes_max}".encode()).hexdigest(),
    )
