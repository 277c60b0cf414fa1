"""Each invariant is broken once, at the record that breaks it, and by nothing in what took place."""

from collections.abc import Callable

import msgspec
import pytest

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.base import Event
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionVerdict
from lumina.events.generation import Ask, GenerationRequested, Purpose, Sampling
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseReleased
from lumina.events.node import Backend, ModelOffer, ModelUnloaded, NodeAnnounced
from lumina.events.record import NO_DIGEST, Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunOptions, RunStatus, RunSubmitted
from lumina.events.step import AttemptStarted, Rung, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationVerdict
from lumina.events.values import BlobRef
from lumina.replay import invariants as law
from lumina.replay.invariants import Invariants
from lumina.replay.scribe import Scribe

RUN = "r-a"
CODE = BlobRef(digest="c" * 64, size=10, media_type="text/x-python")
RAW = BlobRef(digest="d" * 64, size=10, media_type="application/json")
CONTRACT = OutputContract(language=Language.PYTHON, form=Form.SCRIPT)
Break = Callable[[Scribe], Recorded[Event]]


def ask(attempt: int = 1) -> Ask:
    """Return a question to the model `demo`."""
    return Ask(
        purpose=Purpose.CODE,
        step=1,
        attempt=attempt,
        model="demo",
        brief="print 1",
        sampling=Sampling(temperature=0.0, seed=1, tokens_max=10),
    )


def announced(*, bytes_max: int = 10_000, slots: int = 1) -> NodeAnnounced:
    """Return a node that offers the model `demo`."""
    offer = ModelOffer(model="demo", backend=Backend.LLAMA_CPP, bytes_estimated=4000, context=2048, slots=slots)
    return NodeAnnounced(node="local", bytes_max=bytes_max, models=(offer,), idle_ms=1000, configuration=NO_DIGEST)


def opened(*, attempts_max: int = 3, slots: int = 1, bytes_max: int = 10_000) -> Scribe:
    """Write a node and a run."""
    scribe = Scribe()
    scribe.root(announced(bytes_max=bytes_max, slots=slots), stream="local", agent="node")
    options = RunOptions(attempts_max=attempts_max)
    submitted = RunSubmitted(request="print 1", options=options, specialists=(), models=())
    scribe.root(submitted, stream=RUN, agent="client")
    return scribe


def requested(scribe: Scribe) -> Recorded[Event]:
    """Ask for code."""
    return scribe.answer(GenerationRequested(ask=ask()), to=scribe.records[1], agent="orchestrator")


def granted(scribe: Scribe, request: Recorded[Event], *, instance: str = "demo#1", size: int = 4000) -> Recorded[Event]:
    """Grant a lease."""
    event = LeaseGranted(
        request=request.id,
        ask=ask(),
        node="local",
        instance=instance,
        load=True,
        bytes_reserved=size,
        context=2048,
        expires_at=2_000_000_000_000,
    )
    return scribe.answer(event, to=request, agent="governor")


def validated(scribe: Scribe, *, code: str = CODE.digest, passed: bool = True) -> Recorded[Event]:
    """Let the validator speak."""
    cause = scribe.records[-1]
    event = ValidationFinished(
        request=cause.id,
        step=1,
        attempt=1,
        code=code,
        verdict=ValidationVerdict.PASSED if passed else ValidationVerdict.FAILED,
        findings=(),
        effect=NO_DIGEST,
        raw=RAW,
    )
    return scribe.answer(event, to=cause, agent="validator")


def executed(scribe: Scribe, *, code: str = CODE.digest, passed: bool = True) -> Recorded[Event]:
    """Let the sandbox speak."""
    cause = scribe.records[-1]
    event = ExecutionFinished(
        request=cause.id,
        step=1,
        attempt=1,
        code=code,
        verdict=ExecutionVerdict.PASSED if passed else ExecutionVerdict.FAILED,
        tier="bubblewrap",
        exit_code=0,
        stdout="",
        stderr="",
        checks=(),
        artifacts=(),
        wall_ms=1,
        effect=NO_DIGEST,
        raw=RAW,
    )
    return scribe.answer(event, to=cause, agent="sandbox")


def accepted(scribe: Scribe, *, validation: EventId, execution: EventId) -> Recorded[Event]:
    """Accept the code on this evidence."""
    event = StepAccepted(step=1, attempt=1, code=CODE, validation=validation, execution=execution)
    return scribe.answer(event, to=scribe.records[-1], agent="orchestrator")


def closed(scribe: Scribe) -> Recorded[Event]:
    """End the run."""
    event = RunClosed(status=RunStatus.FAILED, reason="", results=(), tokens=0, records=0, chains=(), root=NO_DIGEST)
    return scribe.answer(event, to=scribe.records[-1], agent="orchestrator")


def started(scribe: Scribe, attempt: int) -> Recorded[Event]:
    """Start an attempt."""
    event = AttemptStarted(step=1, attempt=attempt, attempts_max=3, rung=Rung.SAMPLE, model="demo", reason="")
    return scribe.answer(event, to=scribe.records[-1], agent="orchestrator")


def broken(scribe: Scribe) -> list[tuple[str, int]]:
    """Return the invariants that a history breaks, and where."""
    fold = Invariants()
    return [(one.invariant, one.at.seq) for recorded in scribe.records for one in fold.take(recorded)]


def test_what_took_place_breaks_nothing(history: tuple[MemoryLog, MemoryBlobs]) -> None:
    """Three runs of the real agents keep every invariant, and leave nothing open."""
    fold = Invariants()
    assert [one for recorded in history[0].records for one in fold.take(recorded)] == []
    assert fold.unsettled() == ()


def test_open_runs_and_leases_are_unsettled(history: tuple[MemoryLog, MemoryBlobs]) -> None:
    """A history that stops after the first grant leaves one run and one lease open."""
    records = history[0].records
    fold = Invariants()
    for recorded in records[: next(each.seq for each in records if each.type == "lease.granted.v1")]:
        assert fold.take(recorded) == ()
    assert {one.invariant for one in fold.unsettled()} == {law.OPEN_RUN, law.OPEN_LEASE}


def test_evidence_of_the_same_code_is_enough() -> None:
    """Both passed, both of the accepted digest."""
    scribe = opened()
    accepted(scribe, validation=validated(scribe).id, execution=executed(scribe).id)
    assert broken(scribe) == []


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
def test_an_acceptance_without_evidence_is_broken(
    validation: dict[str, bool], execution: dict[str, bool], count: int
) -> None:
    """A failed check, or one of other code, is no evidence."""
    scribe = opened()
    first = validated(scribe, **validation)  # type: ignore[arg-type]  # drawn from a table
    second = executed(scribe, **execution)  # type: ignore[arg-type]  # drawn from a table
    last = accepted(scribe, validation=first.id, execution=second.id)
    assert broken(scribe) == [(law.EVIDENCE, last.seq)] * count


def test_evidence_that_was_mixed_up_is_broken() -> None:
    """A validation is no execution; an event of nowhere is neither."""
    scribe = opened()
    first = validated(scribe)
    last = accepted(scribe, validation=EventId("9" * 32), execution=first.id)
    assert broken(scribe) == [(law.EVIDENCE, last.seq)] * 2


def test_evidence_of_another_run_is_broken() -> None:
    """What passed in one run proves nothing in another."""
    scribe = opened()
    first, second = validated(scribe), executed(scribe)
    submitted = RunSubmitted(request="print 1", options=RunOptions(), specialists=(), models=())
    scribe.root(submitted, stream="r-b", agent="client")
    last = accepted(scribe, validation=first.id, execution=second.id)
    assert last.stream == "r-b"
    assert broken(scribe) == [(law.EVIDENCE, last.seq)] * 2


def test_memory_is_not_given_twice() -> None:
    """Three instances of 4,000 bytes don't fit into 10,000; two do, and one that was unloaded makes room."""
    scribe = opened()
    granted(scribe, requested(scribe), instance="demo#1")
    granted(scribe, requested(scribe), instance="demo#2")
    assert broken(scribe) == []
    third = granted(scribe, requested(scribe), instance="demo#3")
    assert broken(scribe) == [(law.BUDGET, third.seq)]


def test_memory_that_was_given_back_is_free() -> None:
    """After `node.model_unloaded` its bytes may go to another instance."""
    scribe = opened()
    granted(scribe, requested(scribe), instance="demo#1")
    granted(scribe, requested(scribe), instance="demo#2")
    gone = ModelUnloaded(node="local", instance="demo#1", was_loaded=True, effect=NO_DIGEST, raw=RAW)
    scribe.answer(gone, to=scribe.records[-1], agent="specialist", stream="local")
    granted(scribe, requested(scribe), instance="demo#3")
    assert broken(scribe) == []


def test_a_smaller_budget_is_no_fault_of_the_governor() -> None:
    """What stands in memory when a node announces less may stay; nothing may be added."""
    scribe = opened()
    first = granted(scribe, requested(scribe), instance="demo#1")
    scribe.root(announced(bytes_max=1000), stream="local", agent="node")
    scribe.answer(LeaseReleased(lease=first.id), to=first, agent="governor")
    granted(scribe, requested(scribe), instance="demo#1")
    assert broken(scribe) == []
    last = granted(scribe, requested(scribe), instance="demo#2", size=1)
    assert broken(scribe) == [(law.BUDGET, last.seq)]


@pytest.mark.parametrize(("slots", "faults"), [(1, 1), (2, 0)])
def test_an_instance_serves_as_many_as_it_has_slots(slots: int, faults: int) -> None:
    """A second lease on an instance needs a second slot."""
    scribe = opened(slots=slots)
    granted(scribe, requested(scribe))
    last = granted(scribe, requested(scribe))
    assert broken(scribe) == [(law.SLOTS, last.seq)] * faults


def test_a_request_has_one_lease_at_a_time() -> None:
    """A second grant for one request is broken, unless the first has run out."""
    scribe = opened()
    request = requested(scribe)
    first = granted(scribe, request, instance="demo#1")
    last = granted(scribe, request, instance="demo#2")
    assert broken(scribe) == [(law.LEASE, last.seq)]
    again = opened()
    request = requested(again)
    first = granted(again, request, instance="demo#1")
    again.answer(LeaseExpired(lease=first.id, request=request.id), to=request, agent="governor")
    granted(again, request, instance="demo#1")
    assert broken(again) == []


def test_a_lease_ends_once() -> None:
    """A second release is broken, and so is one of a lease that nobody granted."""
    scribe = opened()
    lease = granted(scribe, requested(scribe))
    scribe.answer(LeaseReleased(lease=lease.id), to=lease, agent="governor")
    second = scribe.answer(LeaseReleased(lease=lease.id), to=lease, agent="governor")
    unknown = scribe.answer(LeaseReleased(lease=EventId("1" * 32)), to=lease, agent="governor")
    assert broken(scribe) == [(law.LEASE, second.seq), (law.LEASE, unknown.seq)]


def test_a_slot_is_filled_once() -> None:
    """Two records of one id are broken, whatever they say."""
    scribe = opened()
    first = scribe.answer(GenerationRequested(ask=ask()), to=scribe.records[1], agent="orchestrator")
    second = scribe.answer(GenerationRequested(ask=ask(2)), to=scribe.records[1], agent="orchestrator", ordinal=0)
    assert first.id == second.id
    assert broken(scribe) == [(law.SLOT, second.seq)]


def test_a_request_has_one_outcome() -> None:
    """A second verdict on one request is broken, even in another slot."""
    scribe = opened()
    first = validated(scribe)
    other = msgspec.structs.replace(first.event, detail="once more")
    second = scribe.answer(other, to=scribe.records[-2], agent="validator", ordinal=7)
    assert broken(scribe) == [(law.SLOT, second.seq)]


def test_an_effect_without_its_cause_is_broken() -> None:
    """A record names a cause that stands nowhere before it."""
    scribe = opened()
    stray = Scribe().root(RunCancelRequested(reason="elsewhere"), stream="r-x", agent="client")
    last = scribe.answer(GenerationRequested(ask=ask()), to=stray, agent="orchestrator", stream=RUN)
    assert broken(scribe) == [(law.CAUSE, last.seq)]


def test_gaps_of_other_runs_are_no_fault_of_the_one_in_view() -> None:
    """With one run in view, a cause in another run may be missing; in this one it may not."""
    scribe = opened()
    stray = Scribe().root(RunCancelRequested(reason="elsewhere"), stream="r-x", agent="client")
    scribe.answer(GenerationRequested(ask=ask()), to=stray, agent="orchestrator", stream="r-x")
    fold = Invariants(run=StreamId(RUN))
    assert [one for recorded in scribe.records for one in fold.take(recorded)] == []
    last = scribe.answer(GenerationRequested(ask=ask(2)), to=stray, agent="orchestrator", stream=RUN)
    assert [one.at.seq for one in fold.take(last)] == [last.seq]


def test_late_outcomes_leases_and_timers_may_follow_the_end() -> None:
    """What was under way when the run ended may still arrive, and a cancellation may cross the end."""
    scribe = opened()
    lease = granted(scribe, requested(scribe))
    closed(scribe)
    validated(scribe)
    executed(scribe)
    scribe.answer(LeaseReleased(lease=lease.id), to=lease, agent="governor")
    scribe.root(TimerElapsed(timer="run", due=1), stream=RUN, agent="clock")
    scribe.root(RunCancelRequested(reason="too late"), stream=RUN, agent="client")
    assert broken(scribe) == []


def test_no_decision_follows_the_end() -> None:
    """A step that fails after the end, or a second end, is broken."""
    scribe = opened()
    closed(scribe)
    failed = StepFailed(step=1, attempts=1, refused=False, reason="")
    first = scribe.answer(failed, to=scribe.records[-1], agent="orchestrator")
    second = closed(scribe)
    assert broken(scribe) == [(law.END, first.seq), (law.END, second.seq)]


def test_attempts_count_up_to_their_limit() -> None:
    """1, 2, 3 of 3 hold; a fourth is one too many."""
    scribe = opened(attempts_max=3)
    for attempt in (1, 2, 3):
        started(scribe, attempt)
    assert broken(scribe) == []
    last = started(scribe, 4)
    assert broken(scribe) == [(law.ATTEMPTS, last.seq)]


def test_attempts_leave_none_out() -> None:
    """A number that is left out, or comes twice, is broken."""
    scribe = opened()
    started(scribe, 1)
    skipped = started(scribe, 3)
    again = started(scribe, 3)
    assert broken(scribe) == [(law.ATTEMPTS, skipped.seq), (law.ATTEMPTS, again.seq)]


def test_nobody_writes_what_is_not_theirs() -> None:
    """The sandbox can't end a run."""
    scribe = opened()
    event = RunClosed(status=RunStatus.COMPLETED, reason="", results=(), tokens=0, records=0, chains=(), root=NO_DIGEST)
    last = scribe.answer(event, to=scribe.records[-1], agent="sandbox")
    assert broken(scribe) == [(law.WRITER, last.seq)]
