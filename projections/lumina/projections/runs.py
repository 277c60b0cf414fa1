"""Projection `runs`: what was asked, how far it is, and what became of each step.

A fork begins with the steps that its parent had at the place where it forks. Its figures are its own.
"""

from enum import Enum
from typing import ClassVar, assert_never

from lumina.events.base import Event
from lumina.events.generation import GenerationFinished
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.values import BlobRef, FileRef
from lumina.projections.fold import Change, Row, Rows

Seen = (
    RunSubmitted
    | RunForked
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
        planned_at: Place of the plan in the orchestrator's chain; 0 for a plan that a fork took over.
        parent: The run that it is a fork of; empty for a run of its own.
        forked_at: Id of the last record that it shares.
        different: How it differs from its parent, for people.
        superseded_by: The run that takes its place; empty for a result that counts.
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
    planned_at: int = 0
    parent: str = ""
    forked_at: str = ""
    different: str = ""
    superseded_by: str = ""


class StepRow(Row, frozen=True, kw_only=True):
    """One step of a run's plan.

    Attributes:
        code: The accepted program.
        validation: Id of the `validation.finished` that speaks for it.
        execution: Id of the `execution.finished` that speaks for it.
        ended_at: Place of its end in the orchestrator's chain; 0 before, and for an end that a fork took over.
        shared_from: The run that accepted it, when that is an ancestor of this one.
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
    ended_at: int = 0
    shared_from: str = ""


class Runs:
    """The fold."""

    name = "runs"
    version = 2
    kinds: tuple[type[Row], ...] = (RunRow, StepRow)

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes."""
        event = recorded.event
        if not isinstance(event, Seen):
            return ()
        if isinstance(event, RunSubmitted):
            return (_submitted(recorded, event),)
        run = rows.get(RunRow, recorded.stream)
        if isinstance(event, RunForked):
            return _forked(rows, recorded, event=event) if run is None else ()
        if run is None:
            return ()  # a record of a stream that no submission opened: it belongs to no run
        match event:
            case RunPlanned():
                return _planned(run, event, at=recorded.position)
            case RunCancelRequested():
                return () if run.phase.closed else (run.but(phase=RunPhase.CANCELLING, reason=event.reason),)
            case GenerationFinished():
                return (_generated(run, event),)
            case AttemptStarted() | StepAccepted() | StepFailed():
                step = rows.get(StepRow, run.run, event.step)
                return () if step is None else _stepped(recorded, event, run=run, step=step)
            case RunClosed():
                return _closed(rows, recorded, event, run=run)
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


def _planned(run: RunRow, event: RunPlanned, *, at: int) -> tuple[Change, ...]:
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
    return (run.but(phase=phase, planner=event.planner.value, steps=len(steps), planned_at=at), *steps)


def _generated(run: RunRow, event: GenerationFinished) -> RunRow:
    return run.but(
        prompt_tokens=run.prompt_tokens + event.usage.prompt_tokens,
        generated_tokens=run.generated_tokens + event.usage.generated_tokens,
        models=run.models if event.model in run.models else (*run.models, event.model),
    )


def _stepped(
    recorded: Recorded[Event], event: AttemptStarted | StepAccepted | StepFailed, *, run: RunRow, step: StepRow
) -> tuple[Change, ...]:
    now = recorded.time_ms
    match event:
        case AttemptStarted():
            run, step = _begun_anew(run, step)
            started = now if step.started_ms is None else step.started_ms
            step = step.but(phase=StepPhase.RUNNING, attempts=step.attempts + 1, started_ms=started)
            return (run.but(attempts=run.attempts + 1), step)
        case StepAccepted():
            step = step.but(
                phase=StepPhase.ACCEPTED,
                ended_ms=now,
                ended_at=recorded.position,
                code=event.code,
                validation=event.validation,
                execution=event.execution,
                artifacts=event.artifacts,
            )
            return (run.but(accepted=run.accepted + 1), step)
        case StepFailed():
            run, step = _begun_anew(run, step)
            step = step.but(phase=StepPhase.FAILED, ended_ms=now, ended_at=recorded.position, reason=event.reason)
            return (run.but(failed=run.failed + 1), step)
        case _:
            assert_never(event)


def _forked(rows: Rows, recorded: Recorded[Event], *, event: RunForked) -> tuple[Change, ...]:
    """Return the row of a fork with its steps as they stood at its place, and the parent's when that is superseded."""
    parent = rows.get(RunRow, event.parent)
    seen = next((head.count for head in event.chains if head.agent == "orchestrator"), 0)
    planned = parent is not None and parent.steps > 0 and parent.planned_at <= seen
    # What descends from a record that is left out is not known here; `run.closed` says what counts in the end.
    whole = event.without is None
    edited = {step.number: step.brief for step in event.steps}
    steps = tuple(
        _taken_over(step, run=recorded.stream, kept=whole and step.ended_at <= seen)
        if step.number not in edited
        else _taken_over(step, run=recorded.stream, kept=False).but(brief=edited[step.number])
        for step in (rows.where(StepRow, run=event.parent) if planned else ())
    )
    row = RunRow(
        run=recorded.stream,
        seq=recorded.seq,
        request=event.request or ("" if parent is None else parent.request),
        phase=RunPhase.RUNNING if planned else RunPhase.PLANNING,
        submitted_ms=recorded.time_ms,
        planner="" if parent is None or not planned else parent.planner,
        steps=len(steps),
        accepted=sum(step.phase is StepPhase.ACCEPTED for step in steps),
        failed=sum(step.phase is StepPhase.FAILED for step in steps),
        parent=event.parent,
        forked_at=event.at,
        different=event.reason,
    )
    superseded = parent is not None and event.supersedes
    return (row, *steps, *((parent.but(superseded_by=recorded.stream),) if parent is not None and superseded else ()))


def _taken_over(step: StepRow, *, run: str, kept: bool) -> StepRow:
    """Return a parent's step as that of its fork: with its end, when that is kept, or open."""
    if kept and step.phase in {StepPhase.ACCEPTED, StepPhase.FAILED}:
        return step.but(run=run, ended_at=0, shared_from=step.shared_from or step.run)
    return StepRow(
        run=run, number=step.number, kind=step.kind, specialist=step.specialist, brief=step.brief, rule=step.rule
    )


def _begun_anew(run: RunRow, step: StepRow) -> tuple[RunRow, StepRow]:
    """Return both without the end that a fork took over, now that the step is done again."""
    if step.phase not in {StepPhase.ACCEPTED, StepPhase.FAILED}:
        return run, step
    gone = step.phase is StepPhase.ACCEPTED
    return (
        run.but(accepted=run.accepted - gone, failed=run.failed - (not gone)),
        _taken_over(step, run=run.run, kept=False),
    )


def _closed(rows: Rows, recorded: Recorded[Event], event: RunClosed, *, run: RunRow) -> tuple[Change, ...]:
    """Return the end of a run, and for a fork what it says of steps that it took over or left open."""
    run = run.but(phase=RunPhase(event.status.value), closed_ms=recorded.time_ms, reason=event.reason)
    if not run.parent:
        return (run,)
    steps: list[Change] = []
    for result in event.results:
        step = rows.get(StepRow, run.run, result.number)
        if step is None or result.accepted == (step.phase is StepPhase.ACCEPTED):
            continue
        if not result.accepted:
            run, step = _begun_anew(run, step)
        else:
            step = step.but(phase=StepPhase.ACCEPTED, code=result.code, artifacts=result.artifacts)
            step = step.but(execution=result.evidence or "", shared_from=run.parent)
            run = run.but(accepted=run.accepted + 1)
        steps.append(step)
    return (run, *steps)
