"""Invariants of runs: how they begin, what their orchestrator may say and in which order, and how they end."""

from typing import Final, assert_never

import msgspec

from lumina.agents.orchestrator_fold import CHECK_TRIES_MAX
from lumina.agents.orchestrator_state import RUN_TIMER
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.ids import EventId, StreamId, event_id
from lumina.events.late import is_late
from lumina.events.lease import LeaseEvent
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunOptions, RunPlanned, RunStatus, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.replay.comparing import link_of
from lumina.replay.invariants.law import (
    ATTEMPTS,
    BEGIN,
    CAUSE,
    CLOUD,
    END,
    ENDS,
    EVIDENCE,
    FORK,
    RESULT,
    SLOT,
    STEP,
    Fault,
)
from lumina.replay.report import Link

NAME: Final = "orchestrator"
CLIENT_WORDS_MAX: Final = 2
"""A client begins a run, and may cancel it."""
LATE: Final = (
    GenerationFinished,
    ValidationFinished,
    ExecutionFinished,
    *LeaseEvent.__args__,
    TimerElapsed,
    RunCancelRequested,
)
"""What may follow the end of a run. A cancellation may cross it: whoever asks for one can't know."""

_PLAN: Final = 0
_BEGINS: Final = (RunSubmitted, RunForked)
_UNMARKED: Final = frozenset((*LeaseEvent.__args__, GenerationFinished))
"""What leaves no mark on what is remembered of a run."""

Proof = tuple[type[Event], int, int, str]
"""What kind of check passed, for which step and attempt, and of which code."""


class Run(msgspec.Struct, kw_only=True):
    """What is remembered of a run until it has ended and nothing is waited for in it any more.

    Attributes:
        begun: Its first record.
        options: Its limits and permissions.
        cloud: Which of its models run on machines of others.
        ids: Its records by id, while it is open: the sequence of an input, 0 for the orchestrator's own.
        positions: How many records of each writer there are.
        answered: The input that the orchestrator answered last (id and sequence), and the number of that answer.
        steps: The planned ones.
        tries: By step, the newest attempt.
        asked: How often each worker was asked for the newest attempt of a step.
        passed: The checks that passed.
        accepted: By step, the execution that is its evidence.
        failed: The steps that were given up.
        inherited: What a fork took over and has not touched yet: by step, the evidence, if it was accepted there.
        due_ms: When it is out of time.
        must_end: The record that demands its end: a cancellation, or its time.
        guessed: It is a fork, and nobody said what it inherits.
        closed: How it ended.
    """

    begun: Link
    options: RunOptions = RunOptions()
    cloud: frozenset[str] = frozenset()
    ids: dict[EventId, int] = {}
    positions: dict[str, int] = {}
    answered: tuple[EventId, int, int] | None = None
    steps: frozenset[int] = frozenset()
    tries: dict[int, int] = {}
    asked: dict[tuple[int, type[Event]], int] = {}
    passed: dict[EventId, Proof] = {}
    accepted: dict[int, EventId] = {}
    failed: set[int] = set()
    inherited: dict[int, EventId | None] = {}
    due_ms: int = 0
    must_end: Link | None = None
    guessed: bool = False
    closed: RunClosed | None = None


class RunLaws:
    """All runs that are open, or in which something is still to come."""

    def __init__(self) -> None:
        self.open: dict[StreamId, Run] = {}

    def find(self, stream: StreamId) -> Run | None:
        """Return what is known of a run."""
        return self.open.get(stream)

    def forget(self, stream: StreamId) -> None:
        """Drop a run that is closed and settled."""
        del self.open[stream]

    def take(
        self, recorded: Recorded[Event], *, history: tuple[Recorded[Event], ...] | None, faults: list[Fault]
    ) -> None:
        """Fold a record of a run and add what it breaks."""
        run = self.open.get(recorded.stream)
        event = recorded.event
        if isinstance(event, _BEGINS):
            self._begin(recorded, event, run=run, history=history, faults=faults)
            return
        if isinstance(event, RunCancelRequested) and recorded.position > CLIENT_WORDS_MAX:
            faults.append((SLOT, "its run was cancelled before"))
        if run is None or run.closed is not None:
            _after_the_end(recorded, run=run, faults=faults)
            return
        if recorded.id in run.ids:
            faults.append((SLOT, f"slot {recorded.id} was filled before"))
        if recorded.agent == NAME:
            _check_order(run, recorded, faults=faults)
            _check(run, recorded, faults=faults)
        run.ids[recorded.id] = 0 if recorded.agent == NAME else recorded.seq
        run.positions[recorded.agent] = recorded.position
        if type(event) not in _UNMARKED:
            _fold(run, recorded)

    def _begin(
        self,
        recorded: Recorded[Event],
        event: RunSubmitted | RunForked,
        *,
        run: Run | None,
        history: tuple[Recorded[Event], ...] | None,
        faults: list[Fault],
    ) -> None:
        law = FORK if isinstance(event, RunForked) else BEGIN
        if run is not None or recorded.position != 1:
            faults.append((law, f"{recorded.stream} has begun before"))
            return
        run = Run(begun=link_of(recorded))
        self.open[recorded.stream] = run
        run.ids[recorded.id] = recorded.seq
        run.positions[recorded.agent] = recorded.position
        if isinstance(event, RunForked):
            run.guessed = history is None
            if history == ():
                faults.append(
                    (FORK, f"no record {event.at} of {event.parent}, behind the chains that it names, stands before it")
                )
            for before in history or ():
                if not isinstance(before.event, RunClosed):
                    _fold(run, before)
            run.asked, run.must_end = {}, None  # what is unanswered is asked again, and time begins anew
            run.inherited = {step: run.accepted.pop(step, None) for step in run.steps}
            run.failed = set()
        _fold(run, recorded)


def _after_the_end(recorded: Recorded[Event], *, run: Run | None, faults: list[Fault]) -> None:
    if not isinstance(recorded.event, LATE):
        ended = "its run has ended, or was never begun" if run is None else "it follows the end of its run"
        faults.append((END, f"{recorded.type} by {recorded.agent}: {ended}"))
    elif run is not None and run.closed is not None and not is_late(recorded, closed=run.closed):
        faults.append((END, f"{recorded.type} by {recorded.agent}: run.closed counts it, and stands before it"))


def _check_order(run: Run, recorded: Recorded[Event], *, faults: list[Fault]) -> None:
    """Check that an answer of the orchestrator is the next one to the same input, or the first to a later one."""
    cause, last = recorded.causation, run.answered
    seq = 0 if cause is None else run.ids.get(cause, 0)
    if cause is None or not seq:
        faults.append((CAUSE, f"no input of its run with its cause's id {cause} stands before it"))
        return
    if last is not None and seq < last[1]:
        faults.append((CAUSE, f"it answers record {seq}; record {last[1]} was answered before"))
        return
    ordinal = last[2] + 1 if last is not None and last[0] == cause else 0
    slot = event_id(cause, agent=NAME, ordinal=ordinal)
    if recorded.id != slot:
        faults.append((SLOT, f"it stands in the slot {recorded.id}; the next one of its cause is {slot}"))
    run.answered = (cause, seq, ordinal)
    if run.must_end is not None and seq >= run.must_end.seq and not isinstance(recorded.event, RunClosed):
        faults.append((ENDS, f"record {run.must_end.seq} ({run.must_end.type}) demands it"))


def _check(run: Run, recorded: Recorded[Event], *, faults: list[Fault]) -> None:
    """Add what a word of the orchestrator breaks, on what stands before it."""
    event = recorded.event
    match event:
        case AttemptStarted():
            _check_attempt(run, event, faults=faults)
        case GenerationRequested(ask=ask):
            _check_asked(run, type(event), step=ask.step, attempt=ask.attempt, faults=faults)
            if ask.model in run.cloud and not (run.options.cloud and ask.cloud):
                why = "its run does not permit it" if not run.options.cloud else "it does not say why"
                faults.append((CLOUD, f"{ask.model} is asked, and {why}"))
        case ValidationRequested() | ExecutionRequested():
            _check_asked(run, type(event), step=event.step, attempt=event.attempt, faults=faults)
        case StepAccepted() | StepFailed():
            _check_open(run, event.step, faults=faults)
            if isinstance(event, StepAccepted) and not run.guessed:
                _check_evidence(run, event, faults=faults)
        case RunClosed():
            _check_end(run, recorded, event, faults=faults)
        case _:
            pass  # a plan is judged by whoever re-decides it


def _check_open(run: Run, step: int, *, faults: list[Fault]) -> None:
    if step in run.accepted or step in run.failed or (step not in run.steps and not run.guessed):
        faults.append((STEP, f"step {step} is not planned, or has ended before"))


def _check_attempt(run: Run, event: AttemptStarted, *, faults: list[Fault]) -> None:
    _check_open(run, event.step, faults=faults)
    expected = run.tries.get(event.step, 0) + 1
    # What differs in a fork may let a step go on, begin anew, or make the attempt again that was under way.
    as_fork = event.step in run.inherited and event.attempt <= expected
    if event.attempt != expected and not as_fork and not (run.guessed and event.step not in run.tries):
        faults.append((ATTEMPTS, f"attempt {event.attempt} of step {event.step} stands where {expected} should"))
    if event.attempt > run.options.attempts_max:
        limit = run.options.attempts_max
        faults.append((ATTEMPTS, f"attempt {event.attempt} of step {event.step}; at most {limit}"))


def _check_asked(run: Run, kind: type[Event], *, step: int, attempt: int, faults: list[Fault]) -> None:
    """Check that a worker is asked for the newest attempt, and not too often."""
    newest = 1 if step == _PLAN else run.tries.get(step)
    if attempt != newest and not (run.guessed and newest is None):
        faults.append((ATTEMPTS, f"it is about attempt {attempt} of step {step}; the newest is {newest}"))
    limit = 1 if kind is GenerationRequested else CHECK_TRIES_MAX
    if run.asked.get((step, kind), 0) >= limit:
        faults.append((ATTEMPTS, f"attempt {attempt} of step {step} has asked {limit} time(s) already"))


def _check_evidence(run: Run, event: StepAccepted, *, faults: list[Fault]) -> None:
    where = (event.step, event.attempt, event.code.digest)
    if run.passed.get(event.validation) != (ValidationFinished, *where):
        faults.append((EVIDENCE, f"{event.validation} is no passed validation of {event.code.digest} in this attempt"))
    if run.passed.get(event.execution) != (ExecutionFinished, *where):
        faults.append((EVIDENCE, f"{event.execution} is no passed execution of {event.code.digest} in this attempt"))


def _check_end(run: Run, recorded: Recorded[Event], event: RunClosed, *, faults: list[Fault]) -> None:
    for head in event.chains:
        stand = recorded.position - 1 if head.agent == NAME else run.positions.get(head.agent, 0)
        if head.count > stand:
            faults.append((END, f"it counts {head.count} records by {head.agent}; {stand} stand before it"))
    if run.guessed:
        return
    told = {result.number: result.evidence for result in event.results if result.accepted}
    taken_over = {step: evidence for step, evidence in told.items() if run.inherited.get(step) == evidence}
    accepted = run.accepted | taken_over
    if told != accepted:
        faults.append((RESULT, f"it says that the steps {sorted(told)} were accepted; {sorted(accepted)} were"))
    if {result.number for result in event.results} != run.steps:
        faults.append((RESULT, f"it speaks of other steps than the planned ones, {sorted(run.steps)}"))
    done = len(accepted)
    fits = {
        RunStatus.COMPLETED: 0 < done == len(run.steps),
        RunStatus.PARTIAL: 0 < done < len(run.steps),
        RunStatus.FAILED: done == 0,
        RunStatus.REFUSED: done == 0,
    }
    if not fits.get(event.status, True):
        faults.append((RESULT, f"it is {event.status.value} with {done} of {len(run.steps)} steps accepted"))


def _fold(run: Run, recorded: Recorded[Event]) -> None:  # noqa: C901, PLR0912 - one branch per event
    event = recorded.event
    match event:
        case RunSubmitted() | RunForked():
            _fold_begin(run, recorded, event)
        case RunPlanned():
            run.steps = frozenset(step.number for step in event.steps)
        case AttemptStarted():
            run.tries[event.step] = event.attempt
            run.inherited.pop(event.step, None)
            for kind in (GenerationRequested, ValidationRequested, ExecutionRequested):
                run.asked.pop((event.step, kind), None)
        case GenerationRequested() | ValidationRequested() | ExecutionRequested():
            where = (event.ask.step if isinstance(event, GenerationRequested) else event.step, type(event))
            run.asked[where] = run.asked.get(where, 0) + 1
        case ValidationFinished(verdict=ValidationVerdict.PASSED):
            run.passed[recorded.id] = (ValidationFinished, event.step, event.attempt, event.code)
        case ExecutionFinished(verdict=ExecutionVerdict.PASSED):
            run.passed[recorded.id] = (ExecutionFinished, event.step, event.attempt, event.code)
        case StepAccepted():
            run.accepted[event.step] = event.execution
        case StepFailed():
            run.failed.add(event.step)
        case RunCancelRequested():
            run.must_end = run.must_end or link_of(recorded)
        case TimerElapsed(timer=timer, due=due) if timer == RUN_TIMER and due == run.due_ms:
            run.must_end = run.must_end or link_of(recorded)
        case RunClosed():
            run.closed = event
            run.ids, run.passed = {}, {}  # nothing is decided about it any more
        case _:
            pass  # other outcomes and leases leave no mark on a run


def _fold_begin(run: Run, recorded: Recorded[Event], event: RunSubmitted | RunForked) -> None:
    match event:
        case RunSubmitted():
            run.options = event.options
        case RunForked():
            run.options = event.options or run.options
        case _:
            assert_never(event)
    run.due_ms = recorded.time_ms + run.options.timeout_ms
    if event.models:
        run.cloud = frozenset(choice.model for choice in event.models if choice.cloud)
