"""Projection `queue`: which requests wait, at which counter, and since when."""

from enum import Enum
from typing import ClassVar, assert_never

from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.events.validation import ValidationFinished, ValidationRequested
from lumina.projections.fold import Change, Gone, Row, Rows

Asked = GenerationRequested | ValidationRequested | ExecutionRequested
Answered = GenerationFinished | ValidationFinished | ExecutionFinished | LeaseRefused
Seen = Asked | Answered | LeaseGranted | LeaseExpired | RunClosed


class Counter(Enum):
    """Who has to do something next."""

    GOVERNOR = "governor"
    SPECIALIST = "specialist"
    VALIDATOR = "validator"
    SANDBOX = "sandbox"


class WaitingRow(Row, frozen=True, kw_only=True):
    """One request without an outcome.

    Attributes:
        request: Its id.
        counter: Where it waits.
        asked_ms: When it was made.
        since_ms: Since when it waits at this counter.
        instance: Whose lease it holds; empty before.
    """

    table: ClassVar[str] = "waiting"
    key: ClassVar[tuple[str, ...]] = ("request",)
    indexed: ClassVar[tuple[str, ...]] = ("run",)

    request: str
    run: str
    step: int
    attempt: int
    counter: Counter
    asked_ms: int
    since_ms: int
    seq: int
    model: str = ""
    node: str = ""
    instance: str = ""
    load: bool = False


class Queue:
    """The fold."""

    name = "queue"
    version = 1
    kinds: tuple[type[Row], ...] = (WaitingRow,)

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes."""
        event = recorded.event
        if not isinstance(event, Seen):
            return ()
        match event:
            case GenerationRequested() | ValidationRequested() | ExecutionRequested():
                return (_asked(recorded, event),)
            case GenerationFinished() | ValidationFinished() | ExecutionFinished() | LeaseRefused():
                return (Gone(kind=WaitingRow, key=(event.request,)),)
            case LeaseGranted() | LeaseExpired():
                return _leased(rows, recorded, event)
            case RunClosed():  # nobody waits for what is still under way
                waiting = rows.where(WaitingRow, run=recorded.stream)
                return tuple(Gone(kind=WaitingRow, key=row.key_of()) for row in waiting)
            case _:
                assert_never(event)


def _asked(recorded: Recorded[Event], event: Asked) -> WaitingRow:
    match event:
        case GenerationRequested(ask=ask):
            counter, step, attempt, model = Counter.GOVERNOR, ask.step, ask.attempt, ask.model
        case ValidationRequested():
            counter, step, attempt, model = Counter.VALIDATOR, event.step, event.attempt, ""
        case ExecutionRequested():
            counter, step, attempt, model = Counter.SANDBOX, event.step, event.attempt, ""
        case _:
            assert_never(event)
    return WaitingRow(
        request=recorded.id,
        run=recorded.stream,
        step=step,
        attempt=attempt,
        counter=counter,
        asked_ms=recorded.time_ms,
        since_ms=recorded.time_ms,
        seq=recorded.seq,
        model=model,
    )


def _leased(rows: Rows, recorded: Recorded[Event], event: LeaseGranted | LeaseExpired) -> tuple[Change, ...]:
    row = rows.get(WaitingRow, event.request)
    if row is None:
        return ()
    row = row.but(since_ms=recorded.time_ms)
    match event:
        case LeaseGranted():
            return (row.but(counter=Counter.SPECIALIST, node=event.node, instance=event.instance, load=event.load),)
        case LeaseExpired():
            return (row.but(counter=Counter.GOVERNOR, node="", instance="", load=False),)
        case _:
            assert_never(event)
