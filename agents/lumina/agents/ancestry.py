"""The history that a fork shares with its parents: found in the log, in the order in which it was decided."""

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Final

from lumina.agents.ports import Origin
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId
from lumina.events.record import Recorded
from lumina.events.run import RunForked

GENERATIONS_MAX: Final = 32
"""Of forks of forks."""


async def history_of(origin: Origin, *, events: Records, before: int) -> tuple[Recorded[Event], ...]:
    """Return the records that a fork begins with, those of its parents' parents first.

    Args:
        origin: As the fork's first record names it.
        events: Where the parents' records stand.
        before: The sequence of the fork's first record: what it shares must stand before it.

    Returns nothing when the parent does not have such a record there, or descends from too many forks; then there is
    nothing that the fork could be a fork of.

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
    earlier: list[Recorded[Event]] = []
    match records[0].event:
        case RunForked(parent=parent, at=at, without=without):
            further = Origin(parent=parent, at=at, without=without)
            shared = await _history(further, events=events, before=records[0].seq, generations=generations - 1)
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
        if recorded.agent == "orchestrator" and recorded.causation in known:
            answers.setdefault(recorded.causation, []).append(recorded)
        else:
            inputs.append(recorded)
    return [each for recorded in inputs for each in (recorded, *answers.get(recorded.id, ()))]


def kept(records: Iterable[Recorded[Event]], *, without: EventId | None) -> list[Recorded[Event]]:
    """Return the records that are neither `without` nor descend from it."""
    gone: set[EventId] = set() if without is None else {without}
    left: list[Recorded[Event]] = []
    for recorded in records:
        if recorded.id in gone or recorded.causation in gone:
            gone.add(recorded.id)
        else:
            left.append(recorded)
    return left
