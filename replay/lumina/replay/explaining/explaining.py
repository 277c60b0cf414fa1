"""Why a run came out as it did: what was asked and planned, each attempt with its faults, and what decided. Pure.

For a run that was not completed, `chain` is the shortest way from the decisive fault to the end of the run along what
each record rests on (`grounds.py`), and `evidence` shows that fault. The decisive fault is that of the last attempt of
the first step that failed; where that attempt only repeated a code, it is what was wrong with that code. For a run that
was stopped it is what stopped it.
"""

from collections.abc import Mapping, Sequence

import msgspec

from lumina.agents.orchestrator_state import RUN_TIMER
from lumina.agents.step_models import models_for
from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunPlanned, RunStatus, RunSubmitted
from lumina.events.step import StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.replay.diffing.attempts import Attempt, Ladders, StepStory
from lumina.replay.diffing.diffing import Told
from lumina.replay.explaining.evidence import Evidence, evidence_of, headline
from lumina.replay.explaining.grounds import Grounds
from lumina.replay.explaining.sentences import tell


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A record of a chain and what it says, as one sentence."""

    seq: int
    id: str
    stream: str
    agent: str
    type: str
    words: str


class ModelTold(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a step's fallback chain, and how it fared."""

    model: str
    cloud: bool
    words: str


class AttemptTold(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt.

    Attributes:
        reason: Why this rung.
        repeats: The attempt that had brought the same code.
        first: What went wrong first, in one line; empty when nothing did.
        decisive: What really ended it, when that is not the same.
        record: Of the fault that ended it; of the acceptance, when it was accepted.
        evidence: For `decisive`, or else for `first`.
    """

    attempt: int
    rung: str
    model: str
    reason: str
    code: str | None
    accepted: bool
    repeats: int | None = None
    first: str = ""
    decisive: str = ""
    record: str | None = None
    evidence: tuple[Evidence, ...] = ()


class StepTold(msgspec.Struct, frozen=True, kw_only=True):
    """One step: `models` in the order in which they are tried, `end` in words."""

    number: int
    kind: str
    specialist: str
    brief: str
    models: tuple[ModelTold, ...]
    attempts: tuple[AttemptTold, ...]
    end: str


class RunExplained(msgspec.Struct, frozen=True, kw_only=True):
    """A run explained.

    Attributes:
        status: None while it is open.
        asked: Who asked for what, and of what it is a fork.
        plan: The plan and its reason; empty before there is one.
        plan_faults: Why a model's plan was not used.
        end: How it ended, or what it waits for.
        chain: For a run that was not completed: from the decisive fault to `run.closed`.
        evidence: For the first link of that chain.
    """

    run: str
    status: str | None
    asked: tuple[str, ...]
    plan: str
    plan_faults: tuple[str, ...]
    steps: tuple[StepTold, ...]
    end: str
    chain: tuple[Link, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def link(recorded: Recorded[Event]) -> Link:
    """Return a record as a link of a chain."""
    return Link(
        seq=recorded.seq,
        id=recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        type=recorded.type,
        words=tell(recorded),
    )


def explain_run(told: Told, *, ladders: Ladders, blobs: Mapping[str, bytes]) -> RunExplained:
    """Return why a run came out as it did. `blobs` holds the code of its attempts, as far as it is there."""
    placed = told.placed()
    records = [each.recorded for each in placed]
    begun = [one for one in records if isinstance(one.event, RunSubmitted | RunForked)]
    planned = [one for one in records if isinstance(one.event, RunPlanned)]
    closed = next((each.recorded for each in placed if isinstance(each.recorded.event, RunClosed)), None)
    submitted = told.submitted()
    chain, evidence = ((), ()) if closed is None else _failure(records, closed, ladders=ladders, blobs=blobs)
    return RunExplained(
        run=told.run,
        status=closed.event.status.value if closed is not None and isinstance(closed.event, RunClosed) else None,
        asked=tuple(tell(one) for one in begun),
        plan=tell(planned[-1]) if planned else "",
        plan_faults=tuple(headline(fault) for fault in ladders.plan_faults),
        steps=tuple(_step(story, submitted=submitted, blobs=blobs) for story in ladders.steps.values()),
        end=_waits(ladders) if closed is None else tell(closed),
        chain=tuple(_told(link(one), ladders=ladders) for one in chain),
        evidence=evidence,
    )


def _told(one: Link, *, ladders: Ladders) -> Link:
    """Return a link that also says when an answer repeats an earlier one."""
    for story in ladders.steps.values():
        for attempt in story.attempts.values():
            if attempt.repeats is not None and attempt.answer is not None and attempt.answer.id == one.id:
                again = f"{one.words}, which is the code of attempt {attempt.repeats}"
                return msgspec.structs.replace(one, words=again)
    return one


def _waits(ladders: Ladders) -> str:
    """Return what an open run waits for."""
    waits = [f"record {asked.seq}, {tell(asked)}" for asked in ladders.outstanding.values()]
    return f"it is open, and waits for the answer to {'; '.join(waits)}" if waits else "it is open"


def _failure(
    records: Sequence[Recorded[Event]], closed: Recorded[Event], *, ladders: Ladders, blobs: Mapping[str, bytes]
) -> tuple[tuple[Recorded[Event], ...], tuple[Evidence, ...]]:
    """Return the chain that explains why a run was not completed, with the evidence; nothing when it was."""
    assert isinstance(closed.event, RunClosed)
    if closed.event.status is RunStatus.COMPLETED:
        return (), ()
    decisive, evidence = _decisive(records, closed, ladders=ladders, blobs=blobs)
    grounds = Grounds(records, ladders=ladders)
    path = grounds.path(decisive.id, to=closed.id)
    if not path:  # nothing that is known leads from there to the end; what the end answers does
        cause = None if closed.causation is None else grounds.records.get(closed.causation)
        return (closed,) if cause is None else (cause, closed), evidence
    return tuple(grounds.records[name] for name in path), evidence


def _decisive(
    records: Sequence[Recorded[Event]], closed: Recorded[Event], *, ladders: Ladders, blobs: Mapping[str, bytes]
) -> tuple[Recorded[Event], tuple[Evidence, ...]]:
    """Return the record that decided how a run ended, and what it shows."""
    assert isinstance(closed.event, RunClosed)
    for one in reversed(records[: records.index(closed)]):
        match closed.event.status, one.event:
            case RunStatus.CANCELLED, RunCancelRequested(reason=reason):
                return one, (_words(one, reason), *_waiting(ladders))
            case RunStatus.TIMED_OUT, TimerElapsed(timer=timer) if timer == RUN_TIMER:
                elapsed = Evidence(record=one.id, seq=one.seq, what="timer", text=closed.event.reason)
                return one, (elapsed, *_waiting(ladders))
            case _:
                pass
    for story in ladders.steps.values():
        if story.ended is not None and isinstance(story.ended.event, StepFailed):
            last = story.attempts[max(story.attempts)] if story.attempts else None
            fault = None if last is None else story.decisive(last)
            if fault is None:
                return story.ended, (_words(story.ended, story.ended.event.reason),)
            return fault.record, evidence_of(fault, blobs=blobs)
    cause = next((one for one in records if one.id == closed.causation), closed)
    return cause, (_words(closed, closed.event.reason),)


def _waiting(ladders: Ladders) -> tuple[Evidence, ...]:
    """Return what was asked and not answered when a run was stopped."""
    return tuple(
        Evidence(record=asked.id, seq=asked.seq, what="waiting", text=f"not answered then: {tell(asked)}")
        for asked in ladders.outstanding.values()
    )


def _words(recorded: Recorded[Event], text: str) -> Evidence:
    return Evidence(record=recorded.id, seq=recorded.seq, what="detail", text=text)


def _step(story: StepStory, *, submitted: RunSubmitted | None, blobs: Mapping[str, bytes]) -> StepTold:
    attempts = tuple(_attempt(story, attempt, blobs=blobs) for _, attempt in sorted(story.attempts.items()))
    return StepTold(
        number=story.planned.number,
        kind=story.planned.kind,
        specialist=story.planned.specialist,
        brief=story.planned.brief,
        models=_models(story, submitted=submitted),
        attempts=attempts,
        end="not finished" if story.ended is None else tell(story.ended),
    )


def _attempt(story: StepStory, attempt: Attempt, *, blobs: Mapping[str, bytes]) -> AttemptTold:
    accepted = None
    if story.ended is not None and isinstance(story.ended.event, StepAccepted):
        accepted = story.ended if story.ended.event.attempt == attempt.event.attempt else None
    first = attempt.faults[0] if attempt.faults else None
    decisive = story.decisive(attempt)
    ended_by = accepted or (None if decisive is None else decisive.record)
    return AttemptTold(
        attempt=attempt.event.attempt,
        rung=attempt.event.rung.value,
        model=attempt.event.model,
        reason=attempt.event.reason,
        code=None if attempt.code is None else attempt.code.digest,
        accepted=accepted is not None,
        repeats=attempt.repeats,
        first="" if first is None else headline(first),
        decisive="" if decisive is None or decisive is first else headline(decisive),
        record=None if ended_by is None else ended_by.id,
        evidence=() if decisive is None else evidence_of(decisive, blobs=blobs),
    )


def _models(story: StepStory, *, submitted: RunSubmitted | None) -> tuple[ModelTold, ...]:
    """Return the models that a step may use, in order, and what became of each: its fallback chain."""
    tried: dict[str, list[Attempt]] = {}
    for _, attempt in sorted(story.attempts.items()):
        tried.setdefault(attempt.event.model, []).append(attempt)
    named = {} if submitted is None else {one.name: one for one in submitted.specialists}
    specialist = named.get(story.planned.specialist)
    choices = () if submitted is None or specialist is None else models_for(specialist, submitted=submitted)
    cloud = {choice.model: choice.cloud for choice in choices}
    ended = story.ended.event if story.ended is not None else None
    told: list[ModelTold] = []
    for model in dict.fromkeys((*cloud, *tried)):
        attempts = tried.get(model, [])
        words = f"{len(attempts)} attempt(s)" if attempts else "not tried"
        if attempts and isinstance(ended, StepAccepted) and ended.attempt == attempts[-1].event.attempt:
            words += ", the last one accepted"
        elif attempts and (fault := story.decisive(attempts[-1])) is not None:
            words += f", last: {headline(fault)}"
        told.append(ModelTold(model=model, cloud=cloud.get(model, False), words=words))
    return tuple(told)
