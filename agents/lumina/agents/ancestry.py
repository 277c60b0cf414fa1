"""The history that a fork shares with its parents: found in the log, in the order in which it was decided."""

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Final

from lumina.agents.closing import chain_heads
from lumina.agents.orchestrator_state import attempt_timer
from lumina.agents.ports import Origin
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.record import Head, Recorded
from lumina.events.run import RunForked
from lumina.events.step import AttemptStarted
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested

GENERATIONS_MAX: Final = 32
"""Of forks of forks."""


async def history_of(origin: Origin, *, events: Records, before: int) -> tuple[Recorded[Event], ...]:
    """Return the records that a fork begins with, those of its parents' parents first.

    Args:
        origin: As the fork's first record names it.
        events: Where the parents' records stand.
        before: The sequence of the fork's first record: what it shares must stand before it.

    Returns nothing when the parent does not have such a record there or its chains are others than the origin names,
    up to that record, or when it descends from too many forks; then there is nothing that it could be a fork of.

    Raises:
        LogDamaged: The parent's part of the log is not whole.
        LogUnavailable: The log can't be reached.
    """
    history = await _history(origin, events=events, before=before, generations=GENERATIONS_MAX)
    return () if history is None else tuple(history)


async def _history(origin: Origin, *, events: Records, before: int, generations: int) -> list[Recorded[Event]] | None:
    records: list[Recorded[Event]] = []
    async with aclosing(events.read((Filter(stream=origin.parent),), until=before - 1)) as found:
        async for recorded in found:
            records.append(recorded)
            if recorded.id == origin.at:
                break
    if not records or records[-1].id != origin.at or generations == 0:
        return None
    heads = {recorded.agent: Head(position=recorded.position, digest=recorded.digest) for recorded in records}
    if chain_heads(heads) != origin.chains:
        return None
    earlier: list[Recorded[Event]] = []
    first = next((recorded for recorded in records if recorded.agent == "client"), records[0])
    match first.event:
        case RunForked(parent=parent, at=at, chains=chains, without=without) if first.position == 1:
            further = Origin(parent=parent, at=at, chains=chains, without=without)
            shared = await _history(further, events=events, before=first.seq, generations=generations - 1)
            if shared is None:
                return None
            earlier = shared
        case _:
            pass  # the parent is no fork
    return kept([*earlier, *in_decision_order(records)], without=origin.without)


def in_decision_order(records: Sequence[Recorded[Event]]) -> list[Recorded[Event]]:
    """Return the records of one run with each answer of its keeper right behind the input that it answers.

    In the log other inputs may have landed in between; the keeper had not looked at them yet.
    """
    answers: dict[EventId, list[Recorded[Event]]] = {}
    inputs: list[Recorded[Event]] = []
    known = {recorded.id for recorded in records}
    for recorded in records:
        if recorded.agent == "orchestrator" and recorded.causation is not None and recorded.causation in known:
            answers.setdefault(recorded.causation, []).append(recorded)
        else:
            inputs.append(recorded)
    return [each for recorded in inputs for each in (recorded, *answers.get(recorded.id, ()))]


def kept(records: Iterable[Recorded[Event]], *, without: EventId | None) -> list[Recorded[Event]]:
    """Return the records that are neither `without` nor descend from it; causes stand before their effects.

    A record descends from its cause. It also descends from the request or lease that it is about, since a governor
    answers a waiting request when another run makes room; an orchestrator's decision from the one that it made just
    before, on the same input; and an attempt's timer from all that happened in that attempt. What a fork decided
    descends from all that it shares; the wish to fork, its first record, stays.
    """
    if without is None:
        return list(records)
    lost = _Lost(without)
    return [recorded for recorded in records if not lost.holds(recorded)]


class _Lost:
    """What descends from one record, as far as the records were shown."""

    def __init__(self, origin: EventId) -> None:
        self._gone: set[EventId] = {origin}
        self._redecided: set[EventId] = set()  # inputs of which some answer is gone
        self._timers: set[tuple[StreamId, str]] = set()
        self._shown = False  # whether any of them was among the records

    def holds(self, recorded: Recorded[Event]) -> bool:
        """Return whether the next record is one of them."""
        decided = recorded.agent == "orchestrator" and recorded.causation is not None
        gone = (
            not self._gone.isdisjoint(named_by(recorded))
            or (decided and recorded.causation in self._redecided)
            or (isinstance(recorded.event, TimerElapsed) and (recorded.stream, recorded.event.timer) in self._timers)
        )
        if gone:
            self._shown = True
            self._gone.add(recorded.id)
            if decided and recorded.causation is not None:
                self._redecided.add(recorded.causation)
            if (place := attempt_of(recorded.event)) is not None:
                self._timers.add((recorded.stream, attempt_timer(place[0], attempt=place[1])))
        elif self._shown and isinstance(recorded.event, RunForked):
            self._gone.add(recorded.id)  # itself it stays, but what follows from it does not
        return gone


def named_by(recorded: Recorded[Event]) -> tuple[EventId, ...]:
    """Return the record's own id and those of its cause and of the request and lease that it is about."""
    about: tuple[EventId, ...] = ()
    match recorded.event:
        case GenerationFinished(request=request, lease=lease) | LeaseExpired(request=request, lease=lease):
            about = (request, lease)
        case (
            LeaseGranted(request=request)
            | LeaseRefused(request=request)
            | ValidationFinished(request=request)
            | ExecutionFinished(request=request)
        ):
            about = (request,)
        case LeaseReleased(lease=lease):
            about = (lease,)
        case _:
            pass  # all the rest is about nothing but its cause
    return (recorded.id, *(() if recorded.causation is None else (recorded.causation,)), *about)


def attempt_of(event: Event) -> tuple[int, int] | None:
    """Return step and attempt that a record is about, None when it is about none."""
    match event:
        case GenerationRequested(ask=ask) | LeaseGranted(ask=ask):
            return ask.step, ask.attempt
        case (
            AttemptStarted()
            | GenerationFinished()
            | ValidationRequested()
            | ValidationFinished()
            | ExecutionRequested()
            | ExecutionFinished()
        ):
            return event.step, event.attempt
        case _:
            return None
