"""Each invariant is broken once, at the record that breaks it, and by nothing in what took place."""

import msgspec
import pytest
from tests.replay.law_scene import RUN, Story, another_asks, submission

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.generation import GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.late import is_late
from lumina.events.lease import LeaseRefused, Refusal
from lumina.events.run import RunCancelRequested, RunClosed, RunStatus
from lumina.events.step import StepFailed
from lumina.replay.invariants import invariants as law
from lumina.replay.invariants.invariants import Invariants


def test_what_took_place_breaks_nothing(history: tuple[MemoryLog, MemoryBlobs]) -> None:
    """Three runs of the real agents keep every invariant, and leave nothing open and nothing remembered."""
    fold = Invariants()
    assert [one for recorded in history[0].records for one in fold.take(recorded)] == []
    assert fold.unsettled() == ()
    assert (fold.remembered.runs, fold.remembered.requests, fold.remembered.leases) == (0, 0, 0)


def test_open_runs_and_leases_are_unsettled(history: tuple[MemoryLog, MemoryBlobs]) -> None:
    """A history that stops after the first grant leaves one run and one lease open."""
    records = history[0].records
    fold = Invariants()
    for recorded in records[: next(each.seq for each in records if each.type == "lease.granted.v1")]:
        assert fold.take(recorded) == ()
    assert {one.invariant for one in fold.unsettled()} == {law.OPEN_RUN, law.OPEN_LEASE}


def test_a_run_written_by_hand_is_good() -> None:
    """The story that the other tests break is one that breaks nothing."""
    story = Story()
    story.completed()
    assert story.broken() == []


@pytest.mark.parametrize(
    ("validation", "execution", "count"),
    [
        ({"passed": False}, {}, 1),
        ({}, {"passed": False}, 1),
        ({"code": "a" * 64}, {}, 1),
        ({}, {"code": "a" * 64}, 1),
        ({"passed": False}, {"code": "a" * 64}, 2),
    ],
)
def test_an_acceptance_without_evidence(validation: dict[str, bool], execution: dict[str, bool], count: int) -> None:
    """A failed check, or one of other code, is no evidence."""
    story = Story()
    story.coded()
    first = story.validated(**validation)  # type: ignore[arg-type]  # drawn from a table
    second = story.executed(**execution)  # type: ignore[arg-type]  # drawn from a table
    last = story.accepted(first.id, second.id)
    assert story.broken() == [(law.EVIDENCE, last.seq)] * count


def test_evidence_that_was_mixed_up() -> None:
    """A validation is no execution; an event of nowhere is neither."""
    story = Story()
    story.coded()
    last = story.accepted(EventId("9" * 32), story.validated().id)
    assert story.broken() == [(law.EVIDENCE, last.seq)] * 2


def test_evidence_of_another_attempt() -> None:
    """What the first attempt's code passed proves nothing about the second, though its digest is the same."""
    story = Story()
    story.coded()
    first, second = story.validated(), story.executed()
    story.coded(2)
    last = story.accepted(first.id, second.id, attempt=2)
    assert story.broken() == [(law.EVIDENCE, last.seq)] * 2


def test_evidence_of_another_run() -> None:
    """What passed in one run proves nothing in another."""
    story = Story()
    story.coded()
    first, second = story.validated(), story.executed()
    story.run = "r-b"
    story.begin(submission())
    story.plan()
    last = story.accepted(first.id, second.id)
    assert story.broken() == [(law.EVIDENCE, last.seq)] * 2


def test_a_slot_is_filled_once() -> None:
    """Two records of one id are broken, whatever they say."""
    story = Story()
    story.started()
    first = story.requested()
    second = story.say(GenerationRequested(ask=first.event.ask), ordinal=2)  # type: ignore[attr-defined]  # it is a request
    assert first.id == second.id
    assert (law.SLOT, second.seq) in story.broken()
    assert (law.ATTEMPTS, second.seq) in story.broken()


def test_an_answer_is_numbered_without_a_gap() -> None:
    """A keeper's second answer to an input is number 1, not 7."""
    story = Story()
    last = story.say(StepFailed(step=1, attempts=None, refused=True, reason=""), ordinal=7)
    assert story.broken() == [(law.SLOT, last.seq)]


def test_a_request_has_one_outcome() -> None:
    """A second verdict on one request is broken, even in another slot."""
    story = Story()
    story.coded()
    first = story.validated()
    asked = next(one for one in story.records if one.id == first.causation)
    other = msgspec.structs.replace(first.event, detail="once more")
    second = story.hear(other, to=asked, agent="validator", ordinal=7)
    assert story.broken() == [(law.SLOT, second.seq)]


def test_an_outcome_stands_in_its_slot_and_speaks_of_its_request() -> None:
    """An outcome in another slot, or of another request, is broken."""
    story = Story()
    story.started()
    lease = story.granted(story.requested())
    wrong = story.generated(lease, ordinal=1)
    assert story.broken() == [(law.SLOT, wrong.seq)]
    forged = msgspec.structs.replace(wrong.event, request=EventId("7" * 32))
    story.records[-1] = msgspec.structs.replace(wrong, event=forged)
    assert story.broken() == [(law.SLOT, wrong.seq), (law.CAUSE, wrong.seq)]


def test_an_effect_without_its_cause() -> None:
    """A record names a cause that stands nowhere before it, or one that its keeper has passed by."""
    story = Story()
    submitted = story.cause
    story.coded()
    story.validated(passed=False)
    failed = StepFailed(step=1, attempts=1, refused=False, reason="")
    back = story.scribe.answer(failed, to=submitted, agent="orchestrator")
    stray = Story().scribe.root(RunCancelRequested(reason="elsewhere"), stream="r-x", agent="client")
    refused = LeaseRefused(request=EventId("1" * 32), refusal=Refusal.NEVER_FITS, detail="no")
    last = story.scribe.answer(refused, to=stray, agent="governor", stream=RUN)
    assert story.broken() == [(law.CAUSE, back.seq), (law.CAUSE, last.seq), (law.LEASE, last.seq)]


def test_gaps_of_other_runs_are_no_fault_of_the_one_in_view() -> None:
    """With one run in view, only what the governor reads of others is there; the view has no gap of its own."""
    story = Story()
    story.started()
    story.requested()
    other = another_asks(story, "r-b")
    seen = [one for one in story.records if one.stream != "r-b" or one.id == other.id]
    fold = Invariants(run=StreamId(RUN))
    assert [one for recorded in seen for one in fold.take(recorded)] == []
    missing = [one for one in seen if one.stream != RUN or one.position != 1 or one.agent != "orchestrator"]
    again = Invariants(run=StreamId(RUN))
    assert [one.invariant for recorded in missing for one in again.take(recorded)]


def test_late_outcomes_leases_and_timers_may_follow_the_end() -> None:
    """What was under way when the run ended may still arrive, and a cancellation may cross the end; all are late."""
    story = Story()
    story.started()
    lease = story.granted(story.requested())
    end = story.closed()
    story.generated(lease)
    story.released(lease, to=end)
    story.elapse(1)
    story.scribe.root(RunCancelRequested(reason="too late"), stream=RUN, agent="client")
    assert story.broken() == []
    assert isinstance(end.event, RunClosed)
    late = [one.type for one in story.records if one.stream == RUN and is_late(one, closed=end.event)]
    assert late == ["generation.finished.v1", "lease.released.v1", "timer.elapsed.v1", "run.cancel_requested.v1"]


def test_no_decision_follows_the_end() -> None:
    """A step that fails after the end, a second end, or a run that begins again, is broken."""
    story = Story()
    story.closed()
    first = story.say(StepFailed(step=1, attempts=1, refused=False, reason=""))
    second = story.closed()
    third = story.begin(submission())
    assert story.broken() == [(law.END, first.seq), (law.END, second.seq), (law.BEGIN, third.seq)]


def test_an_end_counts_what_stands_before_it() -> None:
    """An end that counts records which come later would make late outcomes part of the run."""
    story = Story()
    story.started()
    lease = story.granted(story.requested())
    end = story.closed()
    assert isinstance(end.event, RunClosed)
    more = tuple(
        msgspec.structs.replace(head, count=head.count + 1) if head.agent == "governor" else head
        for head in end.event.chains
    )
    story.records[-1] = msgspec.structs.replace(end, event=msgspec.structs.replace(end.event, chains=more))
    released = story.released(lease, to=end)
    assert story.broken() == [(law.END, end.seq), (law.END, released.seq)]


def test_what_was_never_begun_says_nothing() -> None:
    """The orchestrator's words in a run without a submission are broken."""
    story = Story()
    story.started()
    story.records.pop(1)
    assert {invariant for invariant, _ in story.broken()} == {law.END}


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
def test_a_run_that_has_to_end_ends(how: str) -> None:
    """After a cancellation or its last moment the next word in a run is its end."""
    story = Story()
    story.started()
    if how == "cancelled":
        story.cause = story.scribe.root(RunCancelRequested(reason="enough"), stream=RUN, agent="client")
    else:
        story.elapse(story.records[1].time_ms + 300_000)
    last = story.requested()
    assert story.broken() == [(law.ENDS, last.seq)]


def test_the_end_says_what_became_of_the_steps() -> None:
    """A run is not completed with nothing accepted, and its result is the evidence that stands in it."""
    story = Story()
    last = story.closed(status=RunStatus.COMPLETED)
    assert story.broken() == [(law.RESULT, last.seq)]
    other = Story()
    other.completed()
    end = other.records[-1].event
    assert isinstance(end, RunClosed)
    nothing = tuple(msgspec.structs.replace(result, accepted=False, evidence=None) for result in end.results)
    other.records[-1] = msgspec.structs.replace(other.records[-1], event=msgspec.structs.replace(end, results=nothing))
    assert other.broken() == [(law.RESULT, other.records[-1].seq)]


def test_a_step_ends_once() -> None:
    """A step that was accepted does not fail, nor is it tried again; one that nobody planned does neither."""
    story = Story()
    story.coded()
    story.accepted(story.validated().id, story.executed().id)
    first = story.say(StepFailed(step=1, attempts=1, refused=False, reason=""))
    second = story.started(2)
    third = story.say(StepFailed(step=2, attempts=1, refused=False, reason=""))
    assert story.broken() == [(law.STEP, first.seq), (law.STEP, second.seq), (law.STEP, third.seq)]


def test_attempts_count_up_to_their_limit() -> None:
    """1, 2, 3 of 3 hold; a fourth is one too many."""
    story = Story(attempts_max=3)
    for attempt in (1, 2, 3):
        story.started(attempt)
    assert story.broken() == []
    last = story.started(4)
    assert story.broken() == [(law.ATTEMPTS, last.seq)]


def test_attempts_leave_none_out() -> None:
    """A number that is left out, or comes twice, is broken; so is a question about another attempt."""
    story = Story()
    story.started(1)
    skipped, again, question = story.started(3), story.started(3), story.requested(2)
    assert story.broken() == [(law.ATTEMPTS, one.seq) for one in (skipped, again, question)]


def test_one_attempt_asks_a_bounded_number_of_times() -> None:
    """One question to a model per attempt, and two readings of the same code."""
    story = Story()
    story.coded()
    again = story.requested()
    story.validated(passed=False)
    story.validated(passed=False)
    story.validated()
    third = story.records[-2]
    assert story.broken() == [(law.ATTEMPTS, again.seq), (law.ATTEMPTS, third.seq)]


def test_nobody_writes_what_is_not_theirs() -> None:
    """The sandbox can't end a run."""
    story = Story()
    end = story.closed().event
    story.records.pop()
    story.scribe.answer(end, to=story.cause, agent="sandbox")
    last = story.records[-1]
    assert (law.WRITER, last.seq) in story.broken()


def test_one_moment_has_one_slot() -> None:
    """A timer in another slot than that of its moment is broken."""
    story = Story()
    timer = story.elapse(5, timer="plan")
    story.records[-1] = msgspec.structs.replace(timer, id=EventId("5" * 32))
    assert story.broken() == [(law.SLOT, timer.seq)]
