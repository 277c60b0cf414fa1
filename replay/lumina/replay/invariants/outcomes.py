"""Invariants of workers: each request has one outcome, in its one slot, and an outcome answers what was asked."""

from collections import Counter
from typing import Final, cast

from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.generation import GenerationFinished
from lumina.events.ids import EventId, StreamId, event_id
from lumina.events.lease import LeaseGranted
from lumina.events.node import ModelUnloaded, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.validation import ValidationFinished, ValidationRequested
from lumina.replay.invariants.law import CAUSE, SLOT, Fault

Outcome = GenerationFinished | ValidationFinished | ExecutionFinished | ModelUnloaded
Request = LeaseGranted | ValidationRequested | ExecutionRequested | UnloadRequested
_REQUESTS: Final = frozenset(Request.__args__)
_ANSWERED_BY: Final[dict[type[Event], type[Event]]] = {
    GenerationFinished: LeaseGranted,
    ValidationFinished: ValidationRequested,
    ExecutionFinished: ExecutionRequested,
    ModelUnloaded: UnloadRequested,
}


class OutcomeLaws:
    """What is asked of workers and not answered yet."""

    def __init__(self) -> None:
        self.requests: dict[EventId, Recorded[Event]] = {}
        self._waiting: Counter[StreamId] = Counter()

    def waited_for(self, stream: StreamId) -> bool:
        """Whether a request in `stream` has no outcome yet."""
        return stream in self._waiting

    def take(self, recorded: Recorded[Event], *, faults: list[Fault]) -> None:
        """Fold a record and add what it breaks."""
        event = recorded.event
        if type(event) in _REQUESTS:
            self.requests[recorded.id] = recorded
            self._waiting[recorded.stream] += 1
        elif type(event) in _ANSWERED_BY:
            self._answer(recorded, cast("Outcome", event), faults=faults)

    def _answer(self, recorded: Recorded[Event], event: Outcome, *, faults: list[Fault]) -> None:
        cause = recorded.causation
        request = None if cause is None else self.requests.get(cause)
        if cause is None or request is None or type(request.event) is not _ANSWERED_BY[type(event)]:
            faults.append((SLOT, f"nothing waits for it: {cause} was answered before, or never asked"))
            return
        del self.requests[cause]
        self._waiting[request.stream] -= 1
        if not self._waiting[request.stream]:
            del self._waiting[request.stream]
        slot = event_id(cause, agent=recorded.agent, ordinal=0)
        if recorded.id != slot:
            faults.append((SLOT, f"it stands in the slot {recorded.id}; that of the outcome is {slot}"))
        if request.stream != recorded.stream:
            faults.append((CAUSE, f"its request {cause} stands in {request.stream}"))
        match event, request.event:
            case GenerationFinished(), LeaseGranted(request=asked):
                if event.lease != cause or event.request != asked:
                    faults.append((CAUSE, f"it speaks of request {event.request} and lease {event.lease}, not its own"))
            case ValidationFinished() | ExecutionFinished(), _:
                if event.request != cause:
                    faults.append((CAUSE, f"it speaks of request {event.request}, and answers {cause}"))
            case _:
                pass  # an unload names its instance only
