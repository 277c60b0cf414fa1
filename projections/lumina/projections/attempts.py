"""Projection `attempts`: what was tried for each step, with what result, and what the next attempt was told.

A fork's attempts are those in which it asked something itself; an attempt that its parent began is continued there.
"""

from enum import Enum
from typing import ClassVar, assert_never

from lumina.events.base import Event
from lumina.events.execution import Check, ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, GenerationRequested, Purpose, Usage
from lumina.events.late import counted
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused
from lumina.events.record import Recorded
from lumina.events.run import ChainHead, RunClosed
from lumina.events.step import AttemptStarted, Rung, StepAccepted
from lumina.events.validation import Finding, ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef, FileRef
from lumina.projections.fold import Change, Row, Rows

OfStep = (
    AttemptStarted
    | GenerationFinished
    | ValidationRequested
    | ValidationFinished
    | ExecutionRequested
    | ExecutionFinished
    | StepAccepted
)
OfLease = LeaseGranted | LeaseRefused | LeaseExpired
OfWorker = GenerationFinished | ValidationFinished | ExecutionFinished
Seen = GenerationRequested | OfStep | OfLease | RunClosed


class Stage(Enum):
    """Where an attempt is, or where it ended."""

    STARTED = "started"
    QUEUED = "queued"
    GENERATING = "generating"
    GENERATED = "generated"
    VALIDATING = "validating"
    VALIDATED = "validated"
    EXECUTING = "executing"
    EXECUTED = "executed"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class AttemptRow(Row, frozen=True, kw_only=True):
    """One attempt at one step; step 0 is the plan of the run.

    Attributes:
        model: Empty when the code was there already.
        rung: Of the repair ladder; None for a plan, and for an attempt that the parent of a fork began.
        reason: Why this rung.
        request: Id of its `generation.requested`.
        feedback: What the model was told about the faulty code.
        instance: Which model instance answered.
        code: What it wrote.
        ended_ms: Time of the last record that concerns it.
        worker: Who spoke last about it.
        heard: The place of that word among all of that worker's in this run.
        late: It came too late for the run, and nothing followed from it (`lumina.events.late`).
    """

    table: ClassVar[str] = "attempt"
    key: ClassVar[tuple[str, ...]] = ("run", "step", "attempt")
    indexed: ClassVar[tuple[str, ...]] = ("request",)

    run: str
    step: int
    attempt: int
    model: str
    stage: Stage
    started_ms: int
    ended_ms: int
    rung: Rung | None = None
    reason: str = ""
    request: str = ""
    purpose: Purpose | None = None
    temperature: float = 0.0
    feedback: tuple[str, ...] = ()
    instance: str = ""
    outcome: GenerationOutcome | None = None
    usage: Usage | None = None
    code: BlobRef | None = None
    detail: str = ""
    validation: ValidationVerdict | None = None
    findings: tuple[Finding, ...] = ()
    execution: ExecutionVerdict | None = None
    exit_code: int | None = None
    checks: tuple[Check, ...] = ()
    stdout: str = ""
    stderr: str = ""
    artifacts: tuple[FileRef, ...] = ()
    worker: str = ""
    heard: int = 0
    late: bool = False

    @property
    def verdict(self) -> str:
        """What came of it, in one or two words: `accepted`, `validation failed`, `timed out`, `executing`."""
        if self.stage in {Stage.ACCEPTED, Stage.REFUSED}:
            words: str = self.stage.value
        elif self.execution is not None:
            words = f"execution {self.execution.value}"
        elif self.validation is not None and self.stage is not Stage.EXECUTING:
            words = f"validation {self.validation.value}"
        elif self.outcome is not None and self.outcome is not GenerationOutcome.ANSWERED:
            words = self.outcome.value
        else:
            words = self.stage.value
        return words.replace("_", " ") + (", late" if self.late else "")


class EndRow(Row, frozen=True, kw_only=True):
    """How many records of each writer belong to a run that has ended."""

    table: ClassVar[str] = "attempt_end"
    key: ClassVar[tuple[str, ...]] = ("run",)

    run: str
    chains: tuple[ChainHead, ...]


class Attempts:
    """The fold."""

    name = "attempts"
    version = 3
    kinds: tuple[type[Row], ...] = (AttemptRow, EndRow)

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes."""
        event = recorded.event
        if not isinstance(event, Seen):
            return ()
        if isinstance(event, GenerationRequested):
            return (_requested(rows, recorded, event),)
        if isinstance(event, RunClosed):
            return _ended(rows, recorded, event)
        if isinstance(event, OfLease):
            return tuple(_leased(row, recorded, event) for row in rows.where(AttemptRow, request=event.request))
        row = rows.get(AttemptRow, recorded.stream, event.step, event.attempt)
        if isinstance(event, AttemptStarted):
            return (_started(recorded, event),)
        if row is None and isinstance(event, ValidationRequested | ExecutionRequested):
            row = _continued(recorded, event)
        if row is None:
            return ()
        row = _went_on(row, recorded, event)
        return (_heard(rows, row, recorded) if isinstance(event, OfWorker) else row,)


def _ended(rows: Rows, recorded: Recorded[Event], event: RunClosed) -> tuple[Change, ...]:
    """Mark what landed before the end, but after the decision to end."""
    late = (
        row.but(late=True)
        for row in rows.where(AttemptRow, run=recorded.stream)
        if row.worker and row.heard > counted(event.chains, agent=row.worker)
    )
    return (EndRow(run=recorded.stream, chains=event.chains), *late)


def _heard(rows: Rows, row: AttemptRow, recorded: Recorded[Event]) -> AttemptRow:
    end = rows.get(EndRow, recorded.stream)
    late = end is not None and recorded.position > counted(end.chains, agent=recorded.agent)
    return row.but(worker=recorded.agent, heard=recorded.position, late=late)


def _started(recorded: Recorded[Event], event: AttemptStarted) -> AttemptRow:
    return AttemptRow(
        run=recorded.stream,
        step=event.step,
        attempt=event.attempt,
        model=event.model,
        stage=Stage.STARTED,
        started_ms=recorded.time_ms,
        ended_ms=recorded.time_ms,
        rung=event.rung,
        reason=event.reason,
    )


def _continued(recorded: Recorded[Event], event: ValidationRequested | ExecutionRequested) -> AttemptRow:
    """Return the attempt of a fork that begins with the code of its parent."""
    return AttemptRow(
        run=recorded.stream,
        step=event.step,
        attempt=event.attempt,
        model="",
        stage=Stage.GENERATED,
        started_ms=recorded.time_ms,
        ended_ms=recorded.time_ms,
        reason="with the code that its parent had",
        code=event.code,
    )


def _requested(rows: Rows, recorded: Recorded[Event], event: GenerationRequested) -> AttemptRow:
    ask, now = event.ask, recorded.time_ms
    row = rows.get(AttemptRow, recorded.stream, ask.step, ask.attempt) or AttemptRow(
        run=recorded.stream,
        step=ask.step,
        attempt=ask.attempt,
        model=ask.model,
        stage=Stage.QUEUED,
        started_ms=now,
        ended_ms=now,
    )
    return row.but(
        model=ask.model,
        stage=Stage.QUEUED,
        ended_ms=now,
        request=recorded.id,
        purpose=ask.purpose,
        temperature=ask.sampling.temperature,
        feedback=ask.feedback,
    )


def _leased(row: AttemptRow, recorded: Recorded[Event], event: OfLease) -> AttemptRow:
    now = recorded.time_ms
    match event:
        case LeaseGranted():
            return row.but(stage=Stage.GENERATING, instance=event.instance, ended_ms=now)
        case LeaseRefused():
            return row.but(stage=Stage.REFUSED, detail=event.detail, ended_ms=now)
        case LeaseExpired():
            # An outcome may have landed before the lease ran out; then there is nothing to wait for again.
            return row.but(stage=Stage.QUEUED, ended_ms=now) if row.stage is Stage.GENERATING else row
        case _:
            assert_never(event)


def _went_on(row: AttemptRow, recorded: Recorded[Event], event: OfStep) -> AttemptRow:
    now = recorded.time_ms
    match event:
        case GenerationFinished():
            return row.but(
                stage=Stage.GENERATED,
                ended_ms=now,
                outcome=event.outcome,
                usage=event.usage,
                code=event.code,
                detail=event.detail,
            )
        case ValidationRequested():
            return row.but(stage=Stage.VALIDATING, ended_ms=now)
        case ValidationFinished():
            row = row.but(stage=Stage.VALIDATED, ended_ms=now, validation=event.verdict, findings=event.findings)
            return row.but(detail=event.detail or row.detail)
        case ExecutionRequested():
            return row.but(stage=Stage.EXECUTING, ended_ms=now)
        case ExecutionFinished():
            return _executed(row, recorded, event)
        case StepAccepted():
            return row.but(stage=Stage.ACCEPTED, ended_ms=now)
        case AttemptStarted():
            return row
        case _:
            assert_never(event)


def _executed(row: AttemptRow, recorded: Recorded[Event], event: ExecutionFinished) -> AttemptRow:
    return row.but(
        stage=Stage.EXECUTED,
        ended_ms=recorded.time_ms,
        execution=event.verdict,
        exit_code=event.exit_code,
        checks=event.checks,
        stdout=event.stdout,
        stderr=event.stderr,
        artifacts=event.artifacts,
        detail=event.detail or row.detail,
    )
