"""Projection `runs`: what was asked, how far it is, and what became of each step."""

from enum import Enum
from typing import ClassVar, assert_never

from lumina.events.base import Event
from lumina.events.generation import GenerationFinished
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.values import BlobRef, FileRef
from lumina.projections.fold import Change, Row, Rows

Seen = (
    RunSubmitted
    | RunPlanned
    | RunCancelRequested
    | AttemptStarted
    | GenerationFinished
    | StepAccepted
    | StepFailed
    | RunClosed
)


class RunPhase(Enum):
    """How far a run is; the last six are `RunStatus`."""

    PLANNING = "planning"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def closed(self) -> bool:
        """Whether nothing more will be decided."""
        return self not in {RunPhase.PLANNING, RunPhase.RUNNING, RunPhase.CANCELLING}


class StepPhase(Enum):
    """How far a step is."""

    WAITING = "waiting"
    RUNNING = "running"
    ACCEPTED = "accepted"
    FAILED = "failed"


class RunRow(Row, frozen=True, kw_only=True):
    """One run.

    Attributes:
        seq: Of its first record: runs are listed by it.
        closed_ms: None while it goes on.
        planner: Who made the plan; empty before it is there.
        steps: Planned.
        attempts: Of all steps.
        prompt_tokens: Sent to models, late answers included.
        generated_tokens: Received from models, late answers included.
        models: That answered, in the order of their first answer.
    """

    table: ClassVar[str] = "run"
    key: ClassVar[tuple[str, ...]] = ("run",)
    indexed: ClassVar[tuple[str, ...]] = ("seq",)

    run: str
    seq: int
    request: str
    phase: RunPhase
    submitted_ms: int
    closed_ms: int | None = None
    reason: str = ""
    planner: str = ""
    steps: int = 0
    accepted: int = 0
    failed: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    models: tuple[str, ...] = ()


class StepRow(Row, frozen=True, kw_only=True):
    """One step of a run's plan.

    Attributes:
        code: The accepted program.
        validation: Id of the `validation.finished` that speaks for it.
        execution: Id of the `execution.finished` that speaks for it.
    """

    table: ClassVar[str] = "step"
    key: ClassVar[tuple[str, ...]] = ("run", "number")

    run: str
    number: int
    kind: str
    specialist: str
    brief: str
    rule: str
    phase: StepPhase = StepPhase.WAITING
    attempts: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    code: BlobRef | None = None
    validation: str = ""
    execution: str = ""
    artifacts: tuple[FileRef, ...] = ()
    reason: str = ""


class Runs:
    """The fold."""

    name = "runs"
    version = 1
    kinds: tuple[type[Row], ...] = (RunRow, StepRow)

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes."""
        event = recorded.event
        if not isinstance(event, Seen):
            return ()
        if isinstance(event, RunSubmitted):
            return (_submitted(recorded, event),)
        run = rows.get(RunRow, recorded.stream)
        if run is None:
            return ()  # a record of a stream that no submission opened: it belongs to no run
        match event:
            case RunPlanned():
                return _planned(run, event)
            case RunCancelRequested():
                return () if run.phase.closed else (run.but(phase=RunPhase.CANCELLING, reason=event.reason),)
            case GenerationFinished():
                return (_generated(run, event),)
            case AttemptStarted() | StepAccepted() | StepFailed():
                step = rows.get(StepRow, run.run, event.step)
                return () if step is None else _stepped(event, run=run, step=step, now=recorded.time_ms)
            case RunClosed():
                phase = RunPhase(event.status.value)
                return (run.but(phase=phase, closed_ms=recorded.time_ms, reason=event.reason),)
            case _:
                assert_never(event)


def _submitted(recorded: Recorded[Event], event: RunSubmitted) -> RunRow:
    return RunRow(
        run=recorded.stream,
        seq=recorded.seq,
        request=event.request,
        phase=RunPhase.PLANNING,
        submitted_ms=recorded.time_ms,
    )


def _planned(run: RunRow, event: RunPlanned) -> tuple[Change, ...]:
    phase = RunPhase.RUNNING if run.phase is RunPhase.PLANNING else run.phase
    steps = tuple(
        StepRow(
            run=run.run,
            number=step.number,
            kind=step.kind,
            specialist=step.specialist,
            brief=step.brief,
            rule=step.rule,
        )
        for step in event.steps
    )
    return (run.but(phase=phase, planner=event.planner.value, steps=len(steps)), *steps)


def _generated(run: RunRow, event: GenerationFinished) -> RunRow:
    return run.but(
        prompt_tokens=run.prompt_tokens + event.usage.prompt_tokens,
        generated_tokens=run.generated_tokens + event.usage.generated_tokens,
        models=run.models if event.model in run.models else (*run.models, event.model),
    )


def _stepped(
    event: AttemptStarted | StepAccepted | StepFailed, *, run: RunRow, step: StepRow, now: int
) -> tuple[Change, ...]:
    match event:
        case AttemptStarted():
            started = now if step.started_ms is None else step.started_ms
            step = step.but(phase=StepPhase.RUNNING, attempts=step.attempts + 1, started_ms=started)
            return (run.but(attempts=run.attempts + 1), step)
        case StepAccepted():
            step = step.but(
                phase=StepPhase.ACCEPTED,
                ended_ms=now,
                code=event.code,
                validation=event.validation,
                execution=event.execution,
                artifacts=event.artifacts,
            )
            return (run.but(accepted=run.accepted + 1), step)
        case StepFailed():
            return (run.but(failed=run.failed + 1), step.but(phase=StepPhase.FAILED, ended_ms=now, reason=event.reason))
        case _:
            assert_never(event)
