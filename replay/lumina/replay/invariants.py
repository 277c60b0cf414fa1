"""What must hold on every prefix of every history: generated, simulated, recorded or live. Written once.

A pure fold: hand it the records in order, it returns what each of them breaks. What must come true some day (leases
end, runs close) is asked for with `unsettled` when a history is over.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from lumina.events.base import Event
from lumina.events.catalogue import WRITERS
from lumina.events.execution import ExecutionFinished, ExecutionVerdict
from lumina.events.generation import GenerationFinished
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseEvent, LeaseExpired, LeaseGranted, LeaseReleased
from lumina.events.node import ModelUnloaded, NodeAnnounced
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationVerdict
from lumina.replay.comparing import link_of
from lumina.replay.report import Broken

EVIDENCE: Final = "a step is accepted only with a passed validation and a passed execution of the same code"
BUDGET: Final = "the memory of a node is never over-committed"
SLOTS: Final = "a model instance serves no more calls at once than it has slots"
LEASE: Final = "a lease is granted once for a request, and ends once"
SLOT: Final = "a slot is filled once, and a request has one outcome per worker"
CAUSE: Final = "causes precede effects"
END: Final = "only late outcomes, lease events and timers follow the end of a run"
ATTEMPTS: Final = "attempts count from 1 up to the limit of their run"
WRITER: Final = "each event is written by one who may write it"
OPEN_LEASE: Final = "every lease is released or runs out"
OPEN_RUN: Final = "every run ends"

Outcome = GenerationFinished | ValidationFinished | ExecutionFinished
_LATE = (*Outcome.__args__, *LeaseEvent.__args__, TimerElapsed, RunCancelRequested)
"""A cancellation may cross the end: whoever asks for it can't know."""


class _Run(msgspec.Struct, kw_only=True):
    """What is remembered of a run."""

    attempts_max: int
    submitted: Recorded[Event]
    attempts: dict[int, int] = {}
    passed: dict[EventId, tuple[type[Event], str]] = {}
    closed: bool = False


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    granted: Recorded[Event]
    node: str
    instance: str
    request: EventId


class Invariants:
    """The fold. With `run`, the records are those of one run and what its governor saw: other runs have gaps."""

    def __init__(self, *, run: StreamId | None = None) -> None:
        self._only = run
        self._seen: set[EventId] = set()
        self._answered: set[tuple[EventId, str]] = set()
        self._runs: dict[StreamId, _Run] = {}
        self._leases: dict[EventId, _Lease] = {}
        self._nodes: dict[str, NodeAnnounced] = {}
        self._bytes: dict[tuple[str, str], int] = {}

    def take(self, recorded: Recorded[Event]) -> tuple[Broken, ...]:
        """Return what the next record breaks."""
        at = link_of(recorded)
        checks = (
            *self._envelope(recorded),
            *self._run(recorded),
            *self._evidence(recorded),
            *self._lease(recorded),
            *self._memory(recorded),
        )
        self._seen.add(recorded.id)
        return tuple(Broken(invariant=invariant, at=at, reason=reason) for invariant, reason in checks)

    def unsettled(self) -> tuple[Broken, ...]:
        """Return the leases and runs that have not ended; a history that is over has none."""
        leases = (
            Broken(invariant=OPEN_LEASE, at=link_of(lease.granted), reason=f"{lease.instance} is still held")
            for lease in self._leases.values()
        )
        runs = (
            Broken(invariant=OPEN_RUN, at=link_of(run.submitted), reason=f"{name} is still open")
            for name, run in self._runs.items()
            if not run.closed
        )
        return (*leases, *runs)

    def _envelope(self, recorded: Recorded[Event]) -> Iterator[tuple[str, str]]:
        event = recorded.event
        if recorded.id in self._seen:
            yield SLOT, f"slot {recorded.id} was filled before"
        if isinstance(event, Outcome):
            if (event.request, recorded.agent) in self._answered:
                yield SLOT, f"request {event.request} was answered before"
            self._answered.add((event.request, recorded.agent))
        in_view = self._only in {None, recorded.stream} or recorded.agent == "governor"
        if in_view and recorded.causation is not None and recorded.causation not in self._seen:
            yield CAUSE, f"nothing with its cause's id {recorded.causation} stands before it"
        if recorded.agent not in WRITERS[type(event)]:
            yield WRITER, f"{recorded.agent} may not write {recorded.type}"

    def _run(self, recorded: Recorded[Event]) -> Iterator[tuple[str, str]]:
        event = recorded.event
        run = self._runs.get(recorded.stream)
        if isinstance(event, RunSubmitted) and run is None:
            self._runs[recorded.stream] = _Run(attempts_max=event.options.attempts_max, submitted=recorded)
        if run is None:
            return
        if run.closed and not isinstance(event, _LATE):
            yield END, f"{recorded.type} by {recorded.agent} follows it"
        if isinstance(event, RunClosed):
            run.closed = True
        if isinstance(event, AttemptStarted):
            expected = run.attempts.get(event.step, 0) + 1
            run.attempts[event.step] = event.attempt
            if event.attempt != expected:
                yield ATTEMPTS, f"attempt {event.attempt} of step {event.step} stands where {expected} should"
            if event.attempt > run.attempts_max:
                yield ATTEMPTS, f"attempt {event.attempt} of step {event.step}; at most {run.attempts_max}"

    def _evidence(self, recorded: Recorded[Event]) -> Iterator[tuple[str, str]]:
        event = recorded.event
        run = self._runs.get(recorded.stream)
        passed = run.passed if run is not None else {}
        match event:
            case ValidationFinished(verdict=ValidationVerdict.PASSED):
                passed[recorded.id] = (ValidationFinished, event.code)
            case ExecutionFinished(verdict=ExecutionVerdict.PASSED):
                passed[recorded.id] = (ExecutionFinished, event.code)
            case StepAccepted():
                if passed.get(event.validation) != (ValidationFinished, event.code.digest):
                    yield EVIDENCE, f"{event.validation} is no passed validation of {event.code.digest}"
                if passed.get(event.execution) != (ExecutionFinished, event.code.digest):
                    yield EVIDENCE, f"{event.execution} is no passed execution of {event.code.digest}"
            case _:
                pass  # nothing else is evidence

    def _lease(self, recorded: Recorded[Event]) -> Iterator[tuple[str, str]]:
        event = recorded.event
        match event:
            case LeaseGranted():
                if any(lease.request == event.request for lease in self._leases.values()):
                    yield LEASE, f"request {event.request} has a lease already"
                self._leases[recorded.id] = _Lease(
                    granted=recorded, node=event.node, instance=event.instance, request=event.request
                )
                held = sum((one.node, one.instance) == (event.node, event.instance) for one in self._leases.values())
                slots = self._slots(event)
                if held > slots:
                    yield SLOTS, f"{event.instance} has {held} leases and {slots} slots"
            case LeaseReleased() | LeaseExpired():
                if self._leases.pop(event.lease, None) is None:
                    yield LEASE, f"lease {event.lease} was never granted, or has ended before"
            case _:
                pass  # all the rest leaves leases as they are

    def _slots(self, event: LeaseGranted) -> int:
        announced = self._nodes.get(event.node)
        offers = () if announced is None else announced.models
        return next((offer.slots for offer in offers if offer.model == event.ask.model), 0)

    def _memory(self, recorded: Recorded[Event]) -> Iterator[tuple[str, str]]:
        event = recorded.event
        match event:
            case NodeAnnounced():
                self._nodes[event.node] = event
            case ModelUnloaded():
                self._bytes.pop((event.node, event.instance), None)
            case LeaseGranted():
                place = (event.node, event.instance)
                fresh = place not in self._bytes
                self._bytes[place] = event.bytes_reserved
                announced = self._nodes.get(event.node)
                used = sum(size for (node, _), size in self._bytes.items() if node == event.node)
                limit = 0 if announced is None else announced.bytes_max
                # A smaller budget may be announced at any time; only taking more is the governor's doing.
                if fresh and event.bytes_reserved and used > limit:
                    yield BUDGET, f"{event.instance} brings {event.node} to {used:,} of {limit:,} bytes"
            case _:
                pass  # all the rest leaves memory as it is
