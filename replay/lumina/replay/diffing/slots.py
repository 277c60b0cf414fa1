"""Where each record of a run stands in the causal order, under a name that every run of one request shares.

An event id names a slot, but it hangs from the run's id. Here the same place is named by what was caused by what: a
root by its type (a timer also by its name), an answer by the slot of what it answers, its writer, its type, and how
many of these there were before it. So two runs of one request, on two machines, can be laid side by side.

What the governor says hangs from the request or lease that it speaks of, not from its cause: which record made it look
at its queue again, maybe one of another run, is a matter of timing.

A fork is laid beside its parent. What it shares with it stands in the parent's slots; what it asks again takes the slot
of what the parent had asked; all else that it decides on its first record hangs from where the parent stood.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from lumina.agents.ancestry import in_decision_order
from lumina.agents.orchestrator import NAME as ORCHESTRATOR
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.orchestrator_state import Waiting
from lumina.events.base import Event, type_of
from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested

SLOT_CHARACTERS: Final = 16
TIMER: Final = type_of(TimerElapsed)


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the causal order.

    Attributes:
        name: Derived from the path; the same in every run that has this place.
        label: The last part of the path, for instance `specialist generation.finished.v1 #1`.
        above: The name of the slot that it answers; None for a root.
    """

    name: str
    label: str
    above: str | None


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A record and its slot. `shared` says that it stands in the log of the run's parent."""

    recorded: Recorded[Event]
    slot: Slot
    shared: bool = False


def place(records: Sequence[Recorded[Event]], *, history: Iterable[Recorded[Event]] = ()) -> tuple[Placed, ...]:
    """Return the records of one run in the order in which they were decided, each in its slot; no slot occurs twice.

    `history` is what a fork shares with its parents, as `ancestry.history_of` returns it. Of what the fork
    says again only its own words are returned.
    """
    layout = _Layout()
    for recorded in history:
        layout.put(recorded, shared=True)
    for recorded in in_decision_order(records):
        layout.put(recorded, shared=False)
    return layout.placed()


def answered_by(recorded: Recorded[Event]) -> EventId | None:
    """Return what a record answers: for leases the request or lease that they speak of, else the cause."""
    match recorded.event:
        case LeaseGranted(request=request) | LeaseRefused(request=request):
            return request
        case LeaseReleased(lease=lease) | LeaseExpired(lease=lease):
            return lease
        case _:
            return recorded.causation


def step_of(event: Event) -> tuple[int, int] | None:
    """Return step and attempt that an event is about; step 0 is the plan. None for events about the run."""
    match event:
        case GenerationRequested(ask=ask):
            return ask.step, ask.attempt
        case ValidationRequested() | ExecutionRequested() | AttemptStarted():
            return event.step, event.attempt
        case GenerationFinished() | ValidationFinished() | ExecutionFinished():
            return event.step, event.attempt
        case _:
            return None


class _Layout:
    """Puts records into slots, one after the other."""

    def __init__(self) -> None:
        self._placed: dict[EventId, Placed] = {}
        self._answers: Counter[tuple[EventId, str, str]] = Counter()
        self._roots: Counter[str] = Counter()
        self._fork: EventId | None = None
        self._before: frozenset[EventId] = frozenset()
        self._anchor: EventId | None = None
        self._pause: Slot | None = None
        self._resumed: Counter[str] = Counter()
        self._void: dict[tuple[str, int, int], Slot] = {}

    def put(self, recorded: Recorded[Event], *, shared: bool) -> None:
        """Place one record."""
        if isinstance(recorded.event, RunForked):
            self._begin_fork(recorded)
        slot = self._again(recorded) or self._after_pause(recorded) or self._slot(recorded)
        self._placed[recorded.id] = Placed(recorded=recorded, slot=slot, shared=shared)

    def placed(self) -> tuple[Placed, ...]:
        """Return what was placed, the newest for each slot."""
        return tuple({each.slot.name: each for each in reversed(self._placed.values())}.values())[::-1]

    def _slot(self, recorded: Recorded[Event]) -> Slot:
        to = self._counted(recorded)
        above = None if to is None else self._placed.get(to)
        if to is None or above is None:
            timer = f" {recorded.event.timer}" if isinstance(recorded.event, TimerElapsed) else ""
            elsewhere = "" if to is None else " (caused elsewhere)"
            key = f"{recorded.agent} {recorded.type}{timer}{elsewhere}"
            self._roots[key] += 1
            return _named(f"{key} #{self._roots[key]}", above=None)
        key_of_answer = (to, recorded.agent, recorded.type)
        self._answers[key_of_answer] += 1
        label = f"{recorded.agent} {recorded.type} #{self._answers[key_of_answer]}"
        return _named(label, above=above.slot.name)

    def _counted(self, recorded: Recorded[Event]) -> EventId | None:
        """Return what a record counts as an answer to; what a fork decides first, to where its parent stood."""
        to = answered_by(recorded)
        return self._anchor if to is not None and to == self._fork and self._anchor is not None else to

    def _begin_fork(self, forked: Recorded[Event]) -> None:
        """Note where the parent stood. Its end is its own."""
        self._fork = forked.id
        for name in [name for name, each in self._placed.items() if isinstance(each.recorded.event, RunClosed)]:
            self._drop(name)
        self._before, self._void = frozenset(self._placed), {}
        inputs = [each.recorded for each in self._placed.values() if each.recorded.agent != ORCHESTRATOR]
        if inputs and isinstance(inputs[-1].event, RunForked):
            return  # the parent had only begun, as a fork itself: it stood where its own parent did
        self._anchor = inputs[-1].id if inputs else None
        self._pause, self._resumed = None, Counter()
        if (timer := self._paused()) is not None:
            key = f"clock {TIMER} {timer}"
            self._pause = _named(f"{key} #{self._roots[key] + 1}", above=None)

    def _paused(self) -> str | None:
        """Return the timer that the parent waited for before it would have tried again; the fork doesn't wait."""
        orchestrator = Orchestrator()
        state = orchestrator.initial(StreamId("r-parent"))
        for each in self._placed.values():
            state = orchestrator.evolve(state, each.recorded)
        return next((step.timer for step in state.steps if isinstance(step.stage, Waiting)), None)

    def _after_pause(self, recorded: Recorded[Event]) -> Slot | None:
        """Return the slot of what a fork decides where its parent paused, None for anything else."""
        if self._pause is None or recorded.causation != self._fork or recorded.agent != ORCHESTRATOR:
            return None
        self._resumed[recorded.type] += 1
        return _named(f"{recorded.agent} {recorded.type} #{self._resumed[recorded.type]}", above=self._pause.name)

    def _again(self, recorded: Recorded[Event]) -> Slot | None:
        """Return the slot of what the parent said and the fork says again in its place, None for anything else."""
        where = step_of(recorded.event)
        if recorded.causation != self._fork or recorded.agent != ORCHESTRATOR or where is None or self._fork is None:
            return None
        if (slot := self._void.get((recorded.type, *where))) is not None:
            return slot
        for name, each in reversed(self._placed.items()):
            old = each.recorded
            if name not in self._before or old.type != recorded.type or step_of(old.event) != where:
                continue
            if isinstance(old.event, AttemptStarted):
                self._void_from(*where)
            elif self._is_open(old):
                self._drop_with_answers(name)
            else:
                return None
            return each.slot
        return None

    def _void_from(self, step: int, attempt: int) -> None:
        """Take back what the parent did for a step from an attempt on: the fork makes that attempt itself."""
        for name, each in list(self._placed.items()):
            where = step_of(each.recorded.event)
            of_attempt = where is not None and where[0] == step and where[1] >= attempt
            ended = isinstance(each.recorded.event, StepAccepted | StepFailed) and each.recorded.event.step == step
            if name in self._placed and name in self._before and (of_attempt or ended):
                if where is not None and each.recorded.agent == ORCHESTRATOR:
                    self._void[(each.recorded.type, *where)] = each.slot
                self._drop_with_answers(name)

    def _is_open(self, asked: Recorded[Event]) -> bool:
        """Whether a question was not answered."""
        over = (GenerationFinished, ValidationFinished, ExecutionFinished, LeaseRefused, LeaseExpired)
        events = (each.recorded.event for name, each in self._placed.items() if name in self._before)
        return not any(isinstance(event, over) and event.request == asked.id for event in events)

    def _drop_with_answers(self, root: EventId) -> None:
        """Take back a record of the parent and what others than the orchestrator said to it, and to that, and so on."""
        gone = {root}
        for name, each in self._placed.items():
            if name in self._before and answered_by(each.recorded) in gone and each.recorded.agent != ORCHESTRATOR:
                gone.add(name)
        for name in gone:
            self._drop(name)

    def _drop(self, name: EventId) -> None:
        recorded = self._placed.pop(name).recorded
        to = self._counted(recorded)
        if to is not None:
            self._answers[to, recorded.agent, recorded.type] -= 1


def _named(label: str, *, above: str | None) -> Slot:
    name = sha256(f"{above}\n{label}".encode()).hexdigest()[:SLOT_CHARACTERS]
    return Slot(name=name, label=label, above=above)
