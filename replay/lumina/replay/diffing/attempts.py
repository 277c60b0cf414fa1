"""What each attempt of a run came to: its code, all that went wrong with it, and the fault behind a repeated answer.

A pure fold over the records of a run, in the order in which they were decided. Only what was waited for counts, as it
does for the orchestrator: a late outcome is no fault.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final, assert_never

import msgspec

from lumina.agents.orchestrator_state import PLAN_TIMER
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, GenerationRequested
from lumina.events.ids import EventId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused
from lumina.events.record import Recorded
from lumina.events.run import PlannedStep, RunClosed, RunForked, RunPlanned
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef

Requested = GenerationRequested | ValidationRequested | ExecutionRequested
Finished = GenerationFinished | ValidationFinished | ExecutionFinished


class FaultKind(Enum):
    """What went wrong.

    LINT: the code did not pass validation. RUN: it ran and failed. ANSWER: the model gave no program. REPEATED: it gave
    the code of an earlier attempt. CALL: it could not be reached, was too slow or spoke nonsense. NOT_ADMITTED: the
    governor refused. SANDBOX: nothing may be run. TOOL: a validator or sandbox broke. LATE: no outcome came in time.
    """

    LINT = "lint"
    RUN = "run"
    ANSWER = "answer"
    REPEATED = "repeated"
    CALL = "call"
    NOT_ADMITTED = "not_admitted"
    SANDBOX = "sandbox"
    TOOL = "tool"
    LATE = "late"

    @property
    def words(self) -> str:
        """It in a few words."""
        return _WORDS[self]


_WORDS: Final = {
    FaultKind.LINT: "its code did not pass validation",
    FaultKind.RUN: "its code failed when it ran",
    FaultKind.ANSWER: "the model gave no usable answer",
    FaultKind.REPEATED: "the model gave the same code as in an earlier attempt",
    FaultKind.CALL: "the model call failed",
    FaultKind.NOT_ADMITTED: "the model was not admitted",
    FaultKind.SANDBOX: "nothing may be run",
    FaultKind.TOOL: "a part broke that judges code",
    FaultKind.LATE: "no answer came in time",
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went wrong in an attempt, and the record that says so. `code` is what it speaks about."""

    kind: FaultKind
    record: Recorded[Event]
    code: BlobRef | None = None


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt. `faults` stand in their order; the last one ended it, unless it was accepted."""

    started: Recorded[Event]
    event: AttemptStarted
    code: BlobRef | None = None
    answer: Recorded[Event] | None = None
    repeats: int | None = None
    faults: list[Fault] = []
    validation: Recorded[Event] | None = None
    execution: Recorded[Event] | None = None


class StepStory(msgspec.Struct, kw_only=True):
    """One step: what was planned, its attempts by number, and the record that ended it."""

    planned: PlannedStep
    attempts: dict[int, Attempt] = {}
    ended: Recorded[Event] | None = None

    def decisive(self, attempt: Attempt) -> Fault | None:
        """Return what really is wrong with an attempt: for repeated code, what was wrong with it the first time."""
        if not attempt.faults:
            return None
        last = attempt.faults[-1]
        if last.kind is not FaultKind.REPEATED or attempt.repeats is None:
            return last
        earlier = self.attempts[attempt.repeats]
        found = [fault for fault in earlier.faults if fault.kind is not FaultKind.REPEATED]
        return found[-1] if found else last


class Ladders(msgspec.Struct, kw_only=True):
    """All steps of a run by number; for the plan, what was asked for and went wrong before the rules took over.

    Attributes:
        outstanding: The open question per step; 0 is the plan.
        latest: The newest record about each attempt, by step and number.
        closed: What comes now is late.
    """

    steps: dict[int, StepStory] = {}
    plan_faults: list[Fault] = []
    outstanding: dict[int, Recorded[Event]] = {}
    latest: dict[tuple[int, int], Recorded[Event]] = {}
    closed: bool = False


def ladders_of(records: Iterable[Recorded[Event]]) -> Ladders:
    """Return what the records tell, of a run in the order of `slots.place`."""
    told = Ladders()
    for recorded in records:
        told.closed = (told.closed or isinstance(recorded.event, RunClosed)) and not isinstance(
            recorded.event, RunForked
        )
        if not told.closed:
            _fold(told, recorded)
    return told


def _fold(told: Ladders, recorded: Recorded[Event]) -> None:
    match recorded.event:
        case RunPlanned(steps=steps):
            told.steps = {step.number: StepStory(planned=step) for step in steps}
        case RunForked(steps=steps):
            told.outstanding = {}
            for step in steps:
                told.steps[step.number] = StepStory(planned=step)
        case AttemptStarted() as event if event.step in told.steps:
            story = told.steps[event.step]
            story.attempts = {number: one for number, one in story.attempts.items() if number < event.attempt}
            story.attempts[event.attempt] = Attempt(started=recorded, event=event)
            story.ended = None
            told.latest[event.step, event.attempt] = recorded
        case StepAccepted() | StepFailed() as event if event.step in told.steps:
            told.steps[event.step].ended = recorded
        case GenerationRequested() | ValidationRequested() | ExecutionRequested():
            told.outstanding[_step(recorded.event)] = recorded
            _note(told, recorded, step=_step(recorded.event))
        case GenerationFinished() | ValidationFinished() | ExecutionFinished() | LeaseRefused() | LeaseExpired():
            _answered(told, recorded, request=recorded.event.request)
        case LeaseGranted(request=request):
            for number, asked in told.outstanding.items():
                if asked.id == request:
                    _note(told, recorded, step=number)
        case TimerElapsed(timer=timer):
            _elapsed(told, recorded, timer=timer)
        case _:
            return


def _step(event: Requested) -> int:
    return event.ask.step if isinstance(event, GenerationRequested) else event.step


def _attempt(told: Ladders, step: int) -> Attempt | None:
    """Return the attempt of a step that is under way."""
    story = told.steps.get(step)
    return story.attempts[max(story.attempts)] if story is not None and story.attempts else None


def _note(told: Ladders, recorded: Recorded[Event], *, step: int) -> None:
    attempt = _attempt(told, step)
    if attempt is not None:
        told.latest[step, attempt.event.attempt] = recorded


def _answered(told: Ladders, recorded: Recorded[Event], *, request: EventId) -> None:
    """Fold an answer to the question that is waited for; any other one is late."""
    step = next((step for step, asked in told.outstanding.items() if asked.id == request), None)
    if step is None:
        return
    asked = told.outstanding.pop(step)
    _note(told, recorded, step=step)
    attempt = _attempt(told, step)
    if step == 0:
        if (kind := _kind(recorded.event)) is not None:
            told.plan_faults.append(Fault(kind=kind, record=recorded))
        return
    if attempt is None:
        return
    event = recorded.event
    if isinstance(event, GenerationFinished):
        attempt.answer = recorded
        _take_code(told.steps[step], attempt, recorded=recorded, event=event)
    elif isinstance(event, ValidationFinished):
        attempt.validation = recorded
    elif isinstance(event, ExecutionFinished):
        attempt.execution = recorded
    kind = _kind(event)
    if isinstance(event, ValidationFinished | ExecutionFinished) and _about_another(event, asked=asked.event):
        kind = FaultKind.TOOL
    if kind is not None:
        attempt.faults.append(Fault(kind=kind, record=recorded, code=attempt.code))


def _about_another(event: ValidationFinished | ExecutionFinished, *, asked: Event) -> bool:
    return isinstance(asked, ValidationRequested | ExecutionRequested) and event.code != asked.code.digest


def _take_code(story: StepStory, attempt: Attempt, *, recorded: Recorded[Event], event: GenerationFinished) -> None:
    """Note the code of an answer, and whether an earlier attempt brought the same."""
    if event.outcome is not GenerationOutcome.ANSWERED or event.code is None:
        return
    attempt.code = event.code
    for number, earlier in sorted(story.attempts.items()):
        if earlier is not attempt and earlier.code is not None and earlier.code.digest == event.code.digest:
            attempt.repeats = number
            attempt.faults.append(Fault(kind=FaultKind.REPEATED, record=recorded, code=event.code))
            return


def _elapsed(told: Ladders, recorded: Recorded[Event], *, timer: str) -> None:
    """Fold a deadline: one for a question means that nobody answered; one for a pause is no fault."""
    if timer == PLAN_TIMER and 0 in told.outstanding:
        del told.outstanding[0]
        told.plan_faults.append(Fault(kind=FaultKind.LATE, record=recorded))
    for step in list(told.outstanding):
        attempt = _attempt(told, step)
        if attempt is not None and timer == f"step-{step}.attempt-{attempt.event.attempt}":
            del told.outstanding[step]
            told.latest[step, attempt.event.attempt] = recorded
            attempt.faults.append(Fault(kind=FaultKind.LATE, record=recorded, code=attempt.code))


def _kind(event: Event) -> FaultKind | None:
    """Return what kind of fault an outcome is, None for none."""
    match event:
        case GenerationFinished(outcome=outcome):
            return _kind_of_answer(outcome, empty=event.code is None and not event.plan)
        case ValidationFinished(verdict=verdict):
            return {ValidationVerdict.FAILED: FaultKind.LINT, ValidationVerdict.ERROR: FaultKind.TOOL}.get(verdict)
        case ExecutionFinished(verdict=verdict):
            return _kind_of_run(verdict)
        case LeaseRefused():
            return FaultKind.NOT_ADMITTED
        case LeaseExpired():
            return FaultKind.LATE
        case _:
            return None


def _kind_of_answer(outcome: GenerationOutcome, *, empty: bool) -> FaultKind | None:
    match outcome:
        case GenerationOutcome.ANSWERED:
            return FaultKind.ANSWER if empty else None
        case GenerationOutcome.UNUSABLE | GenerationOutcome.LENGTH | GenerationOutcome.DOES_NOT_FIT:
            return FaultKind.ANSWER
        case GenerationOutcome.TIMED_OUT | GenerationOutcome.UNAVAILABLE | GenerationOutcome.GARBAGE:
            return FaultKind.CALL
        case _:
            assert_never(outcome)


def _kind_of_run(verdict: ExecutionVerdict) -> FaultKind | None:
    match verdict:
        case ExecutionVerdict.PASSED:
            return None
        case ExecutionVerdict.REFUSED:
            return FaultKind.SANDBOX
        case ExecutionVerdict.UNAVAILABLE:
            return FaultKind.TOOL
        case (
            ExecutionVerdict.FAILED
            | ExecutionVerdict.TIMED_OUT
            | ExecutionVerdict.OUT_OF_MEMORY
            | ExecutionVerdict.OUTPUT_LIMIT
        ):
            return FaultKind.RUN
        case _:
            assert_never(verdict)
