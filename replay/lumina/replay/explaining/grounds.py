"""What a record rests on, and the shortest way from one record of a run to another along that. Pure.

A record rests on its cause; on the records that it names; and on what its writer had in mind though it names none: a
deadline on the record that set it, the end of a run on the steps that failed, the rejection of a repeated answer on
what was wrong with that code the first time. All of these come before it.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from lumina.agents.orchestrator_state import PLAN_TIMER, RUN_TIMER
from lumina.events.base import Event
from lumina.events.generation import GenerationRequested
from lumina.events.ids import EventId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.replay.diffing.attempts import FaultKind, Finished, Ladders
from lumina.replay.diffing.slots import step_of


class Grounds:
    """The records of one run, in the order of `slots.place`, and what each rests on."""

    def __init__(self, records: Sequence[Recorded[Event]], *, ladders: Ladders) -> None:
        self.records: Mapping[EventId, Recorded[Event]] = {recorded.id: recorded for recorded in records}
        self._place = {name: index for index, name in enumerate(self.records)}
        self._ordered = tuple(self.records.values())
        self._asked = {one.id: step_of(one.event) for one in records if isinstance(one.event, GenerationRequested)}
        self._repeated = dict(_repeated(ladders))
        self._faults = dict(_faults(ladders))

    def of(self, recorded: Recorded[Event]) -> tuple[EventId, ...]:
        """Return what a record rests on, its cause first: only records of this run that come before it."""
        here = self._place[recorded.id]
        named = () if recorded.causation is None else (recorded.causation,)
        found = dict.fromkeys((*named, *self._named(recorded)))
        return tuple(one for one in found if self._place.get(one, here) < here)

    def path(self, start: EventId, *, to: EventId) -> tuple[EventId, ...]:
        """Return the shortest way from `start` to a later record that rests on it; empty when that does not."""
        if start not in self.records or to not in self.records:
            return ()
        after: dict[EventId, EventId | None] = {to: None}
        queue = deque([to])
        while queue and start not in after:
            here = queue.popleft()
            for ground in self.of(self.records[here]):
                if ground not in after:
                    after[ground] = here
                    queue.append(ground)
        if start not in after:
            return ()
        way: list[EventId] = []
        step: EventId | None = start
        while step is not None:
            way.append(step)
            step = after[step]
        return tuple(way)

    def _named(self, recorded: Recorded[Event]) -> Iterator[EventId]:
        event = recorded.event
        match event:
            case LeaseGranted(request=request) | LeaseRefused(request=request):
                yield request
            case LeaseReleased(lease=lease):
                yield lease
            case LeaseExpired(lease=lease, request=request):
                yield from (lease, request)
            case StepAccepted(validation=validation, execution=execution):
                yield from (validation, execution)
            case RunForked(at=at):
                yield at
            case RunClosed(results=results):
                failed = {result.number for result in results if not result.accepted}
                ends = (each for each in self._ordered if isinstance(each.event, StepFailed))
                yield from (
                    each.id for each in ends if isinstance(each.event, StepFailed) and each.event.step in failed
                )
            case TimerElapsed(timer=timer):
                yield from self._waited(recorded, timer=timer)
            case _ if isinstance(event, Finished):
                yield event.request
                yield from self._repeated.get(recorded.id, ())
            case _:
                return

    def _waited(self, recorded: Recorded[Event], *, timer: str) -> Iterator[EventId]:
        """Yield what set a deadline: for the run its first record, for an attempt the newest record about it."""
        earlier = self._ordered[: self._place[recorded.id]]
        if timer == RUN_TIMER:
            begun = [each for each in earlier if isinstance(each.event, RunSubmitted | RunForked)]
            yield from (each.id for each in begun[-1:])
            return
        yield from self._faults.get(timer, ())  # a pause began with the newest of them
        for each in reversed(earlier):
            where = self._about(each)
            if where is None:
                continue
            step, attempt = where
            if timer == (PLAN_TIMER if step == 0 else f"step-{step}.attempt-{attempt}"):
                yield each.id
                return

    def _about(self, recorded: Recorded[Event]) -> tuple[int, int] | None:
        match recorded.event:
            case LeaseGranted(request=request) | LeaseRefused(request=request) | LeaseExpired(request=request):
                return self._asked.get(request)
            case AttemptStarted():
                return None  # it asks nobody; its question follows
            case event:
                return step_of(event)


def _faults(ladders: Ladders) -> Iterator[tuple[str, tuple[EventId, ...]]]:
    """Yield the timer of each attempt with what went wrong in it, the newest first."""
    for step, story in ladders.steps.items():
        for number, attempt in story.attempts.items():
            yield f"step-{step}.attempt-{number}", tuple(fault.record.id for fault in reversed(attempt.faults))


def _repeated(ladders: Ladders) -> Iterator[tuple[EventId, tuple[EventId, ...]]]:
    """Yield each answer that repeats a code, with the record that had rejected that code."""
    for story in ladders.steps.values():
        for attempt in story.attempts.values():
            decisive = story.decisive(attempt)
            for fault in attempt.faults:
                if fault.kind is FaultKind.REPEATED and decisive is not None:
                    yield fault.record.id, (decisive.record.id,)
