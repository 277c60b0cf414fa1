"""Defects that are planted at the simulation's edge, to see that they are found."""

from collections.abc import Callable
from itertools import count
from typing import Any

from msgspec.structs import replace

from lumina.agents.governor import Governor
from lumina.agents.governor_state import State
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.orchestrator_state import RunState
from lumina.agents.ports import Answer, Progress, Worker
from lumina.agents.specialist import Specialist, SpecialistRaw, Unload
from lumina.agents.working import WorkerRunner
from lumina.bus.errors import LogUnavailable
from lumina.bus.log import Delivery
from lumina.events.base import Event
from lumina.events.execution import ExecutionRequested
from lumina.events.lease import LeaseReleased
from lumina.events.node import NodeAnnounced
from lumina.events.record import Draft, Recorded
from lumina.events.step import AttemptStarted, StepAccepted
from lumina.events.validation import ValidationFinished
from lumina.replay.simulation.casting import NODE, Casting

_starts = count()


class ForgetfulGovernor(Governor):
    """It never says that a lease is released."""

    def decide(self, state: State, recorded: Recorded[Event]) -> tuple[Answer, ...]:
        """Leave out what it should say."""
        return tuple(each for each in super().decide(state, recorded) if not isinstance(each.event, LeaseReleased))


class GreedyGovernor(Governor):
    """It believes that the node has ten times its memory."""

    def evolve(self, state: State, recorded: Recorded[Event]) -> State:
        """Read more into an announcement than it says."""
        if isinstance(recorded.event, NodeAnnounced):
            more = replace(recorded.event, bytes_max=recorded.event.bytes_max * 10)
            recorded = replace(recorded, event=more)
        return super().evolve(state, recorded)


class CredulousOrchestrator(Orchestrator):
    """It accepts code that passed validation, and does not have it executed."""

    def decide(self, state: RunState, recorded: Recorded[Event]) -> tuple[Answer, ...]:
        """Accept in place of asking the sandbox."""
        return tuple(_accepted(each, recorded) for each in super().decide(state, recorded))


def _accepted(answer: Answer, recorded: Recorded[Event]) -> Answer:
    event = answer.event
    if not isinstance(event, ExecutionRequested) or not isinstance(recorded.event, ValidationFinished):
        return answer
    accepted = StepAccepted(
        step=event.step, attempt=event.attempt, code=event.code, validation=recorded.id, execution=recorded.id
    )
    return Answer(event=accepted, stream=answer.stream)


class MoodyOrchestrator(Orchestrator):
    """What it says depends on when it was started: a clock, a random number, the order of a set."""

    def __init__(self) -> None:
        """Be in another mood each time."""
        self._mood = next(_starts)

    def decide(self, state: RunState, recorded: Recorded[Event]) -> tuple[Answer, ...]:
        """Let the mood show."""
        return tuple(self._moody(each) for each in super().decide(state, recorded))

    def _moody(self, answer: Answer) -> Answer:
        if not isinstance(answer.event, AttemptStarted):
            return answer
        return Answer(event=replace(answer.event, reason=f"mood {self._mood}"), stream=answer.stream)


class CarelessKeeperRunner(KeeperRunner):
    """It takes an append that was not acknowledged for one that stands."""

    async def _append(self, answer: Recorded[Event]) -> None:
        try:
            await self._events.append(_draft_of(answer))
        except LogUnavailable:
            return


def _draft_of(answer: Recorded[Event]) -> Draft[Event]:
    return Draft(
        event=answer.event,
        id=answer.id,
        stream=answer.stream,
        agent=answer.agent,
        time_ms=answer.time_ms,
        causation=answer.causation,
    )


class IdleKeeperRunner(KeeperRunner):
    """At its start it decides again, and does not write what is missing."""

    async def recover(self) -> int:
        """Forget what is missing."""
        append, self._append = self._append, _nothing  # type: ignore[method-assign]  # that is the defect
        try:
            return await super().recover()
        finally:
            self._append = append  # type: ignore[method-assign]  # likewise


async def _nothing(answer: Recorded[Event]) -> None:
    del answer


class HastyWorkerRunner(WorkerRunner):
    """It acknowledges a request before its outcome is recorded."""

    async def answer(self, delivery: Delivery) -> None:
        """Acknowledge first."""
        await delivery.ack()
        await super().answer(delivery)


class LyingSpecialist(Specialist):
    """It says that a model is unloaded, and leaves it where it is."""

    async def perform(self, effect: Any, *, progress: Progress) -> SpecialistRaw:
        """Do nothing for an unload."""
        if isinstance(effect, Unload):
            return SpecialistRaw(ended_at_ms=1_700_000_000_000, was_loaded=True)
        return await super().perform(effect, progress=progress)


def _lying(worker: Worker[Any, Any]) -> Worker[Any, Any]:
    return LyingSpecialist(perform=worker._perform) if isinstance(worker, Specialist) else worker


def governed_by(governor: Callable[..., Governor]) -> Casting:
    """Return a cast with another governor."""
    return Casting(governor=lambda: governor(node=NODE))


ALL: tuple[str, ...] | None = None
LOSSES = ("lost", "outage")

MUTANTS: dict[str, tuple[str, tuple[str, ...] | None, Casting]] = {
    "forgets leases": ("standard", ALL, governed_by(ForgetfulGovernor)),
    "over-commits memory": ("swap", ALL, governed_by(GreedyGovernor)),
    "accepts without execution": ("standard", ALL, Casting(orchestrator=CredulousOrchestrator)),
    "decides by its start": ("twins", ALL, Casting(orchestrator=MoodyOrchestrator)),
    "drops an answer that was not acknowledged": ("storm", LOSSES, Casting(keeper_runner=CarelessKeeperRunner)),
    "leaves out what is missing at its start": ("storm", ALL, Casting(keeper_runner=IdleKeeperRunner)),
    "acknowledges before it records": ("standard", ALL, Casting(worker_runner=HastyWorkerRunner)),
    "says that a model is unloaded": ("swap", ALL, Casting(worker=_lying)),
}
"""By what they do wrong: the scenario and the faults with which they are looked for, and the cast."""
