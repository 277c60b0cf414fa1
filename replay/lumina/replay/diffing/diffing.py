"""Two runs side by side: where they first part, on which field, and what led to it on both sides. Pure.

Records are aligned by their causal slot (`slots.py`) and compared by their facts (`facts.py`). What was asked
differently is told apart, since it explains the rest and is no divergence itself. A run that is still open may lack
what has not been said yet; that is no difference either.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished
from lumina.events.generation import GenerationFinished
from lumina.events.lease import LeaseExpired, LeaseRefused
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunSubmitted
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished
from lumina.replay.diffing.facts import FieldDifference, differences, facts
from lumina.replay.diffing.slots import Placed, place, step_of
from lumina.replay.words import say

RESULTS = (
    GenerationFinished,
    ValidationFinished,
    ExecutionFinished,
    LeaseRefused,
    LeaseExpired,
    RunCancelRequested,
)
"""What the world said, as opposed to what was asked of it and decided from it."""
END: Final = "end"
"""Names the slot of `run.closed` when two runs are compared."""
FIRST: Final = " #1"
SECOND: Final = " #2"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be compared: its records in the order of the log, and what it shares with its parents, if it is a fork.

    `history` is in the order of `ancestry.history_of`.
    """

    run: str
    records: tuple[Recorded[Event], ...]
    history: tuple[Recorded[Event], ...] = ()

    def placed(self) -> tuple[Placed, ...]:
        """Return all records that make up the run, in decision order."""
        return place(self.records, history=self.history)

    def submitted(self) -> RunSubmitted | None:
        """Return what was asked of it, with all that forks changed."""
        return submitted_of(self.placed())


class Because(msgspec.Struct, frozen=True, kw_only=True):
    """A record on the way from where two runs were still alike. `common` marks the last slot that both have."""

    seq: int
    id: str
    stream: str
    agent: str
    type: str
    words: str
    common: bool = False


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One run's record in a slot that differs; `because` leads from the record's cause back to the last common slot."""

    seq: int
    id: str
    stream: str
    agent: str
    type: str
    words: str
    because: tuple[Because, ...]


class SlotDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A slot that only one run has, or whose facts differ.

    Attributes:
        slot: Its name; `end` for the end of both runs, wherever each of them ends.
        label: Writer and type; a number where there are several.
        step: And `attempt`: what it is about; None for the run.
        a: None when only the other run has it.
        fields: What differs; empty when one side is missing.
        instead: What the other run says first, differently, in answer to the same cause, when this slot is missing.
    """

    slot: str
    label: str
    step: int | None
    attempt: int | None
    a: Side | None
    b: Side | None
    fields: tuple[FieldDifference, ...] = ()
    instead: str = ""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a comparison: how it ended, None while it is open, and what it forks."""

    run: str
    request: str
    status: str | None
    reason: str
    forks: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What two runs have in common and what not.

    Attributes:
        asked: What was asked differently: request, options, models, specialists, files, cases.
        first: The first slot, in decision order, that differs in what matters; None when none does.
        result: The first thing that the world said differently, when `first` is only a question or a decision.
        differing: All slots that differ, in decision order; `different` says how many.
        equal: How many slots are equal in what matters.
        pending: How many slots an open run may still come to fill.
    """

    a: Named
    b: Named
    asked: tuple[FieldDifference, ...]
    first: SlotDifference | None
    result: SlotDifference | None
    differing: tuple[SlotDifference, ...]
    different: int
    equal: int
    pending: int

    @property
    def differs(self) -> bool:
        """Whether anything that matters is different."""
        return bool(self.asked) or self.different > 0


def submitted_of(records: Iterable[Placed]) -> RunSubmitted | None:
    """Return what was asked of a run, with all that forks changed in it."""
    found: RunSubmitted | None = None
    for each in records:
        match each.recorded.event:
            case RunSubmitted() as event if found is None:
                found = event
            case RunForked() as event if found is not None:
                named = {specialist.name: specialist for specialist in event.specialists}
                found = msgspec.structs.replace(
                    found,
                    request=found.request if event.request is None else event.request,
                    options=found.options if event.options is None else event.options,
                    models=event.models or found.models,
                    specialists=tuple(named.get(one.name, one) for one in found.specialists),
                )
            case _:
                pass
    return found


def compare(a: Told, b: Told) -> Comparison:
    """Return how two runs differ."""
    one, other = _Indexed(a), _Indexed(b)
    pending = one.pending(other) | other.pending(one)
    found: dict[str, SlotDifference] = {}
    equal = 0
    for slot in _in_order(one, other):
        if slot in pending or slot in one.told_apart or slot in other.told_apart:
            continue
        fields: tuple[FieldDifference, ...] = ()
        if slot in one.placed and slot in other.placed:
            fields = () if one.body(slot) == other.body(slot) else differences(one.facts(slot), other.facts(slot))
            if not fields:
                equal += 1
                continue
        found[slot] = _difference(slot, one, other, fields=fields)
    differing = tuple(found.values())
    first = differing[0] if differing else None
    results = (each for each in differing if _is_result(each.slot, one, other))
    result = next(results, None)
    return Comparison(
        a=one.named,
        b=other.named,
        asked=differences(one.asked, other.asked),
        first=first,
        result=None if result is None or result is first else result,
        differing=differing,
        different=len(differing),
        equal=equal,
        pending=len(pending),
    )


class _Indexed:
    """A run by its slots."""

    def __init__(self, told: Told) -> None:
        records = told.placed()
        # A run has one end, wherever it is: two runs that end at different places still end both.
        end = next((each.slot.name for each in records if isinstance(each.recorded.event, RunClosed)), None)
        self.placed: Mapping[str, Placed] = {END if each.slot.name == end else each.slot.name: each for each in records}
        self.several = {
            (each.slot.above, each.slot.label[: -len(SECOND)]) for each in records if each.slot.label.endswith(SECOND)
        }
        told_apart = RunSubmitted | RunForked | TimerElapsed
        self.told_apart = {each.slot.name for each in records if isinstance(each.recorded.event, told_apart)}
        self.names: Mapping[str, str] = {each.recorded.id: f"slot {each.slot.name}" for each in records}
        self.submitted = submitted_of(records)
        self.asked = {} if self.submitted is None else facts(self.submitted, slots=self.names)
        self.answered = {(each.slot.above, each.recorded.agent) for each in records}
        self.named = _named(told, records, submitted=self.submitted)

    def facts(self, slot: str) -> dict[str, str]:
        """Return what matters of the record in a slot."""
        return facts(self.placed[slot].recorded.event, slots=self.names)

    def body(self, slot: str) -> str:
        """Return the digest of a record's bytes: with equal ones there is nothing to compare."""
        return self.placed[slot].recorded.body

    def pending(self, other: "_Indexed") -> set[str]:
        """Return the slots of `other` that this run, being open, may still fill."""
        if self.named.status is not None:
            return set()
        found: set[str] = set()
        for slot, each in other.placed.items():
            above = each.slot.above
            if slot in self.placed:
                continue
            said_nothing = above in self.placed and (above, each.recorded.agent) not in self.answered
            if slot == END or above is None or above in found or said_nothing:
                found.add(slot)
        return found


def _named(told: Told, records: Sequence[Placed], *, submitted: RunSubmitted | None) -> Named:
    own = [each.recorded.event for each in records if not each.shared]
    closed = next((event for event in own if isinstance(event, RunClosed)), None)
    forked = next((event for event in own if isinstance(event, RunForked)), None)
    forks = ""
    if forked is not None:
        at = next((f"@{recorded.seq}" for recorded in told.history if recorded.id == forked.at), "")
        forks = f"{forked.parent}{at}: {forked.reason or 'as it was'}"
        forks += "".join(f"; step {step.number}: {step.brief}" for step in forked.steps)
    return Named(
        run=told.run,
        request="" if submitted is None else submitted.request,
        status=None if closed is None else closed.status.value,
        reason="" if closed is None else closed.reason,
        forks=forks,
    )


def _in_order(one: _Indexed, other: _Indexed) -> list[str]:
    """Return the slots of both in decision order; those of the second alone follow what precedes them there."""
    after: dict[str | None, list[str]] = {}
    last: str | None = None
    for slot in other.placed:
        if slot in one.placed:
            last = slot
        else:
            after.setdefault(last, []).append(slot)
    merged = list(after.get(None, ()))
    for slot in one.placed:
        merged.append(slot)
        merged += after.get(slot, ())
    return merged


def _difference(slot: str, one: _Indexed, other: _Indexed, *, fields: tuple[FieldDifference, ...]) -> SlotDifference:
    held = one.placed.get(slot) or other.placed[slot]
    where = step_of(held.recorded.event)
    lacking = other if slot not in other.placed else one
    instead = (
        ""
        if slot in one.placed and slot in other.placed
        else _instead(held, lacking, unlike=one if lacking is other else other)
    )
    return SlotDifference(
        slot=slot,
        label=_label(held, one, other),
        step=None if where is None else where[0],
        attempt=None if where is None else where[1],
        a=_side(slot, one, other),
        b=_side(slot, other, one),
        fields=fields,
        instead=instead,
    )


def _label(held: Placed, one: _Indexed, other: _Indexed) -> str:
    """Return what stands in a slot; its number only where there are several, or where it is not the first."""
    words = held.slot.label.removesuffix(FIRST)
    return held.slot.label if (held.slot.above, words) in one.several | other.several else words


def _instead(held: Placed, lacking: _Indexed, *, unlike: _Indexed) -> str:
    """Return what a run says, and the other one does not, where that one has a record that it lacks."""
    for slot, each in lacking.placed.items():
        same = (each.slot.above, each.recorded.agent) == (held.slot.above, held.recorded.agent)
        elsewhere = slot not in unlike.placed or unlike.placed[slot].slot.above != each.slot.above
        if same and elsewhere:
            return f"record {each.recorded.seq} {each.recorded.type}: {say(each.recorded)}"
    return ""


def _side(slot: str, mine: _Indexed, theirs: _Indexed) -> Side | None:
    if slot not in mine.placed:
        return None
    recorded = mine.placed[slot].recorded
    because: list[Because] = []
    above = mine.placed[slot].slot.above
    while above is not None and above in mine.placed:
        cause = mine.placed[above]
        common = above in theirs.placed
        because.append(_because(cause.recorded, common=common))
        if common:
            break
        above = cause.slot.above
    return Side(
        seq=recorded.seq,
        id=recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        type=recorded.type,
        words=say(recorded),
        because=tuple(because),
    )


def _because(recorded: Recorded[Event], *, common: bool) -> Because:
    return Because(
        seq=recorded.seq,
        id=recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        type=recorded.type,
        words=say(recorded),
        common=common,
    )


def _is_result(slot: str, one: _Indexed, other: _Indexed) -> bool:
    held = one.placed.get(slot) or other.placed[slot]
    return isinstance(held.recorded.event, RESULTS)
