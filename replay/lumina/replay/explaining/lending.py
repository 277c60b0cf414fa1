"""Why the governor lent a model as it did, or refused: what it was asked, what had to go for it, and who waited. Pure.

Told from the records of all runs and of the node between the question and the answer. The governor looks at one input
after the other: whoever asked after the record that it answered was not known to it yet.
"""

from collections.abc import Iterable

import msgspec

from lumina.events.base import Event
from lumina.events.generation import GenerationRequested
from lumina.events.ids import EventId
from lumina.events.lease import LeaseGranted, LeaseRefused
from lumina.events.node import ModelUnloaded, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.replay.words import size

WAITING_MAX = 8
"""Of those who waited too, how many are named."""


class Lending(msgspec.Struct, frozen=True, kw_only=True):
    """The story of one answer of the governor.

    Attributes:
        asked: Who asked for what and how long it took to be answered.
        trigger: The record that the governor looked at when it answered, when that is not the question itself.
        unloaded: What had to go, or went, between question and answer.
        waiting: Who else waited at that moment.
        memory: What was reserved, or what would have been needed.
    """

    asked: str
    trigger: str
    unloaded: tuple[str, ...]
    waiting: tuple[str, ...]
    memory: str

    def lines(self) -> tuple[str, ...]:
        """Return it for people."""
        unloaded = self.unloaded or ("nothing was unloaded for it",)
        waiting = self.waiting or ("nobody else waited",)
        return tuple(line for line in (self.asked, self.trigger, *unloaded, *waiting, self.memory) if line)


def lending_of(answer: Recorded[Event], *, between: Iterable[Recorded[Event]]) -> Lending | None:
    """Return why `answer` is as it is; None for a record that is not a granted or refused lease.

    `between` holds the records of the log around and before it, in order; the more, the more of those who waited.
    """
    event = answer.event
    if not isinstance(event, LeaseGranted | LeaseRefused):
        return None
    before = [recorded for recorded in between if recorded.seq < answer.seq]
    trigger = next((recorded for recorded in before if recorded.id == answer.causation), None)
    asked = next((recorded for recorded in before if recorded.id == event.request), None)
    horizon = answer.seq if trigger is None else trigger.seq
    return Lending(
        asked=_asked(answer, asked),
        trigger=_trigger(trigger, request=event.request),
        unloaded=tuple(_unloaded(before, after=0 if asked is None else asked.seq)),
        waiting=_waiting(before, horizon=horizon, request=event.request),
        memory=_memory(event),
    )


def _asked(answer: Recorded[Event], asked: Recorded[Event] | None) -> str:
    if asked is None or not isinstance(asked.event, GenerationRequested):
        return "its question stands too far back to be told"
    ask = asked.event.ask
    waited = max(0, answer.time_ms - asked.time_ms)
    where = "a plan" if ask.step == 0 else f"step {ask.step} attempt {ask.attempt}"
    return f"{asked.stream} asked for {ask.model} for {where} at record {asked.seq}, {waited / 1000:g} s before"


def _trigger(trigger: Recorded[Event] | None, *, request: EventId) -> str:
    if trigger is None or trigger.id == request:
        return ""
    return f"the governor decided it when record {trigger.seq} came, {trigger.type} of {trigger.stream}"


def _unloaded(before: Iterable[Recorded[Event]], *, after: int) -> Iterable[str]:
    for recorded in before:
        if recorded.seq <= after:
            continue
        match recorded.event:
            case UnloadRequested() as event:
                reason = f"{event.reason.value}: {event.detail}" if event.detail else event.reason.value
                yield f"{event.instance} had to go, record {recorded.seq} ({reason})"
            case ModelUnloaded() as event:
                yield f"{event.instance} was gone at record {recorded.seq}"
            case _:
                pass


def _waiting(before: Iterable[Recorded[Event]], *, horizon: int, request: EventId) -> tuple[str, ...]:
    """Return who else had asked and had no answer yet."""
    waiting: dict[EventId, Recorded[Event]] = {}
    for recorded in before:
        match recorded.event:
            case GenerationRequested() if recorded.seq <= horizon:
                waiting[recorded.id] = recorded
            case LeaseGranted(request=answered) | LeaseRefused(request=answered):
                waiting.pop(answered, None)
            case RunClosed() if recorded.seq <= horizon:
                waiting = {name: one for name, one in waiting.items() if one.stream != recorded.stream}
            case _:
                pass
    waiting.pop(request, None)
    told = [
        f"{one.stream} waited for {one.event.ask.model} since record {one.seq}"
        for one in waiting.values()
        if isinstance(one.event, GenerationRequested)
    ]
    more = len(told) - WAITING_MAX
    return (*told[:WAITING_MAX], *((f"{more} more waited",) if more > 0 else ()))


def _memory(event: LeaseGranted | LeaseRefused) -> str:
    if isinstance(event, LeaseGranted):
        load = "has to be loaded" if event.load else "was loaded already"
        return f"{event.instance} {load}; {size(event.bytes_reserved)} are reserved for it"
    if event.bytes_needed or event.bytes_max:
        return f"it needs {size(event.bytes_needed)}, and there are {size(event.bytes_max)} at most"
    return ""
