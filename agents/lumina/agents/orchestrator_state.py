"""What the orchestrator knows about one run: the request, the plan, where each step stands, every chain's head.

A step is always in exactly one stage. `orchestrator_fold.py` moves it, `orchestrator.py` says what follows.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from lumina.events.generation import PlanItem
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Head
from lumina.events.run import ModelChoice, PlannedStep, RunPlanned, RunSubmitted, SpecialistRef, StepResult
from lumina.events.step import Rung
from lumina.events.values import BlobRef, FileRef

RUN_TIMER: Final = "run"
PLAN_TIMER: Final = "plan"


def attempt_timer(step: int, *, attempt: int) -> str:
    """Return the name of the timer that an attempt waits for; step 0 is the plan."""
    return f"step-{step}.attempt-{attempt}" if step else PLAN_TIMER


class TroubleKind(Enum):
    """Why an attempt did not count.

    FAULT: its code is wrong. REPEATED: it is the code of an earlier attempt. NO_CODE: the model answered without a
    program. OUTAGE: no answer, which may pass. UNFIT: this model can't be used for this step. BLOCKED: a part that
    everything must pass said no or is broken, so that no other model helps.
    """

    FAULT = "fault"
    REPEATED = "repeated"
    NO_CODE = "no_code"
    OUTAGE = "outage"
    UNFIT = "unfit"
    BLOCKED = "blocked"


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """How the last attempt ended.

    Attributes:
        reason: For people, one sentence without a full stop.
        code: The faulty program.
        feedback: What to tell the model about it.
        repairable: The fault is of a class that small models can mend when told.
        mended: For an outage in a repair, what was to be mended.
    """

    kind: TroubleKind
    reason: str
    code: BlobRef | None = None
    feedback: tuple[str, ...] = ()
    repairable: bool = False
    mended: "Trouble | None" = None


class Resting(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is under way; the ladder says what comes next. `after` is None before the first attempt."""

    after: Trouble | None = None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A pause until `due` (milliseconds since 1970) before the same rung is tried again."""

    after: Trouble
    due: int


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A rung is chosen; the model is to be asked. For a repair, `mend` is what to mend."""

    mend: Trouble | None = None


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A model is asked. `due` is None until a lease is granted, since the queue may be long."""

    request: EventId
    timeout_ms: int
    due: int | None = None
    mend: Trouble | None = None


class Coded(msgspec.Struct, frozen=True, kw_only=True):
    """There is code; it is to be validated, for the `tries`-th time."""

    code: BlobRef
    tries: int = 1


class Validating(msgspec.Struct, frozen=True, kw_only=True):
    """The validator is asked."""

    request: EventId
    code: BlobRef
    tries: int
    due: int


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """Validation passed, by the event `validation`; the code is to be executed, for the `tries`-th time."""

    code: BlobRef
    validation: EventId
    tries: int = 1


class Executing(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox is asked."""

    request: EventId
    code: BlobRef
    validation: EventId
    tries: int
    due: int


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """The same code digest passed validation and execution; the step is to be accepted."""

    code: BlobRef
    validation: EventId
    execution: EventId
    artifacts: tuple[FileRef, ...]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The step has ended."""

    result: StepResult
    refused: bool = False


Stage = Resting | Waiting | Started | Asking | Coded | Validating | Validated | Executing | Proven | Done


class StepState(msgspec.Struct, frozen=True, kw_only=True):
    """One planned step.

    Attributes:
        models: Those that it may use, best first.
        model: Index of the one in use.
        rung: Of the latest attempt; None before the first.
        attempts: Started so far.
        repairs: Tried on this model.
        samples: Tried on this model.
        outages: Of this model in a row.
        seen: Digests of all code that attempts brought.
        answered: Whether any model ever answered; a step that no model could take is refused, not failed.
    """

    planned: PlannedStep
    specialist: SpecialistRef
    models: tuple[ModelChoice, ...]
    stage: Stage = Resting()
    model: int = 0
    rung: Rung | None = None
    attempts: int = 0
    repairs: int = 0
    samples: int = 0
    outages: int = 0
    seen: tuple[str, ...] = ()
    answered: bool = False

    @property
    def timer(self) -> str:
        """The name of the timer that this attempt waits for."""
        return attempt_timer(self.planned.number, attempt=self.attempts)


class PlanOpen(msgspec.Struct, frozen=True, kw_only=True):
    """No plan yet, no model asked."""


class PlanAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A model is asked for a plan."""

    request: EventId
    timeout_ms: int
    due: int | None = None


class PlanAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """A model made a plan, not yet checked."""

    items: tuple[PlanItem, ...]
    model: str


class PlanMissed(msgspec.Struct, frozen=True, kw_only=True):
    """A model was asked for a plan and made none."""

    reason: str


Planning = PlanOpen | PlanAsked | PlanAnswered | PlanMissed


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        submitted: None until the run exists; also for records that come after a closed run is forgotten.
        submitted_ms: When, in milliseconds since 1970.
        heads: The end of each writer's chain in this run, by agent.
        tokens: Generated so far.
        cancelled: Why somebody wants it to stop.
        timed_out: Its deadline has come.
        closed: `run.closed` is written.
        unfounded: Why a fork has nothing to go on from.
    """

    stream: StreamId
    submitted: RunSubmitted | None = None
    submitted_ms: int = 0
    heads: Mapping[str, Head] = {}
    tokens: int = 0
    planning: Planning = PlanOpen()
    planned: RunPlanned | None = None
    steps: tuple[StepState, ...] = ()
    cancelled: str | None = None
    timed_out: bool = False
    closed: bool = False
    unfounded: str | None = None


def with_step(state: RunState, step: StepState) -> RunState:
    """Return `state` with the step of that number replaced."""
    number = step.planned.number
    steps = tuple(step if other.planned.number == number else other for other in state.steps)
    return msgspec.structs.replace(state, steps=steps)


def step_numbered(state: RunState, number: int) -> StepState | None:
    """Return the step of that number, None when there is none."""
    return next((step for step in state.steps if step.planned.number == number), None)


def run_due(state: RunState) -> int | None:
    """Return the moment at which the run is out of time, None before it exists."""
    return None if state.submitted is None else state.submitted_ms + state.submitted.options.timeout_ms
