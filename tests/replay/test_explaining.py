"""`lumina explain`, the pure part: the real fault behind every end, the shortest chain to it, and its evidence."""

from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agents.fork_scene import World, fork, lived
from tests.agents.run_scene import DEMO, LARGE, LAYERS, ROCK, SMALL, Scene, error, submitted
from tests.agents.test_orchestrator_laws import Workers
from tests.replay.test_slots import MODELS, PLAN, THREE, WORLDS, told

from lumina.events.base import Event
from lumina.events.execution import Check, ExecutionVerdict
from lumina.events.generation import GenerationOutcome, GenerationRequested
from lumina.events.ids import EventId
from lumina.events.lease import LeaseGranted, LeaseRefused, Refusal
from lumina.events.record import Recorded
from lumina.events.run import ModelChoice, RunCancelRequested, RunClosed, RunOptions, RunStatus
from lumina.events.validation import ValidationVerdict
from lumina.replay.diffing.attempts import ladders_of
from lumina.replay.explaining.explaining import RunExplained, explain_run
from lumina.replay.explaining.grounds import Grounds
from lumina.replay.explaining.tracing import explain_event

LATER = f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'."


def explained(scene: Scene, *, blobs: Mapping[str, bytes] | None = None) -> RunExplained:
    """Return a scene explained."""
    run = told(scene)
    return explain_run(run, ladders=ladders_of(each.recorded for each in run.placed()), blobs=blobs or {})


def grounds_of(scene: Scene) -> Grounds:
    """Return what the records of a scene rest on."""
    records = [each.recorded for each in told(scene).placed()]
    return Grounds(records, ladders=ladders_of(records))


def texts(explanation: RunExplained) -> list[tuple[str, str]]:
    """Return the evidence."""
    return [(piece.what, piece.text) for piece in explanation.evidence]


def types(explanation: RunExplained) -> list[str]:
    """Return the types in the chain."""
    return [link.type for link in explanation.chain]


def begun(*, attempts: int = 8, models: tuple[ModelChoice, ...] = (DEMO,)) -> Scene:
    """Return a run that asks its model."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=models, options=RunOptions(attempts_max=attempts, plan=False)))
    return scene


def check_chain(scene: Scene, explanation: RunExplained) -> None:
    """Check that the chain is a shortest way to the end of the run, and that its evidence exists."""
    records = {record.id: record for record in (*scene.shared, *scene.records)}
    if scene.closed is None or scene.closed.status is RunStatus.COMPLETED:
        assert not explanation.chain
        return
    ends = [record for record in scene.records if isinstance(record.event, RunClosed)]
    assert explanation.chain[-1].id == ends[0].id
    assert len(explanation.chain) > 1, "an end has a reason"
    grounds = grounds_of(scene)
    ids = [EventId(link.id) for link in explanation.chain]
    for index, (one, other) in enumerate(pairwise(ids)):
        assert one in grounds.of(records[other]), "each link rests on the one before it"
        for later in ids[index + 2 :]:
            assert one not in grounds.of(records[later]), "no link can be left out"
    assert explanation.evidence, "there is evidence"
    for piece in explanation.evidence:
        assert piece.record in records
        assert records[EventId(piece.record)].seq == piece.seq
    assert explanation.evidence[0].record in (ids[0], ids[-1])


def test_the_real_fault_behind_a_repeated_answer() -> None:
    """The step failed since the model repeated itself: told is what was wrong with that code, with its line."""
    code = "def f():\n    return rows\n"
    scene = begun(attempts=2)
    scene.answer(code)
    scene.validate(ValidationVerdict.FAILED, findings=(error("Undefined name `rows`", line=2),))
    scene.answer(code)
    assert scene.closed is not None
    assert "same code" in scene.closed.reason
    explanation = explained(scene, blobs={sha256(code.encode()).hexdigest(): code.encode()})
    assert types(explanation) == ["validation.finished.v1", "generation.finished.v1", "run.closed.v1"]
    assert texts(explanation) == [
        ("finding", "line 2: F821 Undefined name `rows` (ruff)"),
        ("source", "   2 |     return rows"),
    ]
    assert "the code of attempt 1" in explanation.chain[1].words
    first, second = explanation.steps[0].attempts
    assert first.first.startswith("its code did not pass validation: line 2: F821")
    assert second.repeats == 1
    assert second.decisive == first.first
    check_chain(scene, explanation)


def test_the_end_of_a_traceback_and_the_failed_check() -> None:
    """A program that fails shows the demand of the contract that it did not meet, and the end of its traceback."""
    scene = begun(attempts=1)
    scene.answer("code")
    scene.validate()
    stderr = "Traceback (most recent call last):\n" + "  noise\n" * 20 + "NameError: name 'one' is not defined\n"
    check = Check(name="play('rock')", passed=False, detail="NameError: name 'one' is not defined")
    scene.execute(ExecutionVerdict.FAILED, stderr=stderr, checks=(Check(name="loads", passed=True), check))
    explanation = explained(scene)
    assert types(explanation) == ["execution.finished.v1", "run.closed.v1"]
    evidence = dict(texts(explanation))
    assert evidence["check"] == "play('rock'): NameError: name 'one' is not defined"
    assert evidence["stderr"].endswith("NameError: name 'one' is not defined")
    assert len(evidence["stderr"].splitlines()) < 10
    check_chain(scene, explanation)


def test_a_refused_lease_with_its_bytes() -> None:
    """A model that never fits is told with the memory that it needs and that there is."""
    scene = begun()
    refused = LeaseRefused(
        request=scene.asked().id,
        refusal=Refusal.NEVER_FITS,
        detail="model demo needs 4.29 GB, node local has 1.07 GB for it",
        bytes_needed=4 * 2**30,
        bytes_max=2**30,
    )
    scene.hear(refused, agent="governor", to=scene.asked())
    explanation = explained(scene)
    assert explanation.status == "refused"
    assert types(explanation) == ["lease.refused.v1", "run.closed.v1"]
    assert ("memory", "needs 4.0 GiB, there are 1.0 GiB") in texts(explanation)
    check_chain(scene, explanation)


def test_a_model_that_nobody_reaches() -> None:
    """After all pauses the last call is the reason; the pause is a link, since the end was decided when it was over."""
    scene = begun(attempts=2)
    scene.answer(outcome=GenerationOutcome.UNAVAILABLE, detail="127.0.0.1:9 refuses: start the server")
    scene.elapse("step-1.attempt-1")
    scene.answer(outcome=GenerationOutcome.UNAVAILABLE, detail="127.0.0.1:9 refuses: start the server")
    scene.elapse("step-1.attempt-2")
    explanation = explained(scene)
    assert types(explanation) == ["generation.finished.v1", "timer.elapsed.v1", "run.closed.v1"]
    assert texts(explanation) == [("detail", "127.0.0.1:9 refuses: start the server")]
    check_chain(scene, explanation)


def test_a_recorded_cause_is_told_where_the_story_goes_on_elsewhere() -> None:
    """A lease that the governor granted when another record came: its cause is that one, what it answers is said so."""
    scene = begun()
    request, submission = scene.asked(), scene.records[0]
    assert isinstance(request.event, GenerationRequested)
    scene.hear(RunCancelRequested(reason="no"), agent="client")
    refused = LeaseRefused(request=request.id, refusal=Refusal.NEVER_FITS, detail="x")
    cause = scene.records[-1]
    scene.hear(refused, agent="governor", to=cause)
    lease = next(one for one in scene.records if one.type == "lease.refused.v1")
    story = explain_event(lease, grounds=grounds_of(scene), elsewhere={})
    assert story.cause is not None
    assert story.cause.id == cause.id
    event, answered = story.why[:2]
    assert event.caused_by is not None
    assert (event.by, event.caused_by.id) == ("event", cause.id)
    assert (answered.by, answered.id, answered.caused_by) == ("answers", request.id, None)
    assert {one.by for one in story.why[2:]} == {"cause"}
    assert story.why[-1].id == submission.id


def test_a_worker_that_never_answers() -> None:
    """Two deadlines of one name: the first one is the fault, the second one the end of the pause after it."""
    scene = begun(attempts=1)
    request = scene.asked()
    assert isinstance(request.event, GenerationRequested)
    granted = LeaseGranted(
        request=request.id,
        ask=request.event.ask,
        node="local",
        instance="demo#1",
        load=False,
        bytes_reserved=0,
        context=1024,
        expires_at=scene.now_ms + 1000,
    )
    scene.hear(granted, agent="governor", to=request)
    scene.elapse("step-1.attempt-1")
    scene.elapse("step-1.attempt-1")
    explanation = explained(scene)
    assert types(explanation) == ["timer.elapsed.v1", "timer.elapsed.v1", "run.closed.v1"]
    assert texts(explanation) == [("timer", "the timer step-1.attempt-1 elapsed: nobody had answered")]
    check_chain(scene, explanation)


def test_a_missing_sandbox_with_its_command() -> None:
    """What would provide the sandbox stands in the evidence."""
    scene = begun()
    scene.answer("code")
    scene.validate()
    scene.execute(ExecutionVerdict.REFUSED, detail="bubblewrap is missing; provide it by: apt install bubblewrap")
    explanation = explained(scene)
    assert explanation.status == "refused"
    assert texts(explanation) == [("detail", "bubblewrap is missing; provide it by: apt install bubblewrap")]
    check_chain(scene, explanation)


def test_a_validator_that_breaks_twice() -> None:
    """The first fault of an attempt and the one that ended it are two; both are told."""
    scene = begun()
    scene.answer("code")
    scene.validate(ValidationVerdict.ERROR, detail="ruff is gone")
    scene.validate(ValidationVerdict.ERROR, detail="pylint is gone")
    explanation = explained(scene)
    (attempt,) = explanation.steps[0].attempts
    assert "ruff is gone" in attempt.first
    assert "pylint is gone" in attempt.decisive
    assert texts(explanation) == [("detail", "pylint is gone")]
    check_chain(scene, explanation)


def test_a_run_out_of_time_names_what_it_waited_for() -> None:
    """The deadline is the reason, what nobody had answered the evidence; an answer that comes late changes nothing."""
    scene = begun()
    scene.elapse("run")
    explanation = explained(scene)
    assert types(explanation) == ["timer.elapsed.v1", "run.closed.v1"]
    assert [what for what, _ in texts(explanation)] == ["timer", "waiting"]
    check_chain(scene, explanation)
    scene.answer("late", to=next(one for one in scene.records if isinstance(one.event, GenerationRequested)))
    assert explained(scene) == explanation


def test_a_cancelled_run() -> None:
    """Who stopped it, and why."""
    scene = begun()
    scene.hear(RunCancelRequested(reason="enough"), agent="client")
    explanation = explained(scene)
    assert types(explanation) == ["run.cancel_requested.v1", "run.closed.v1"]
    assert texts(explanation)[0] == ("detail", "enough")
    check_chain(scene, explanation)


def test_a_request_that_no_plan_can_be_made_for() -> None:
    """Refused at once: the submission itself leads to the end."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=()))
    explanation = explained(scene)
    assert types(explanation) == ["run.submitted.v1", "run.closed.v1"]
    check_chain(scene, explanation)


def test_the_fallback_chain() -> None:
    """Each step names its models in their order, and how each fared (K2)."""
    scene = begun(models=(SMALL, LARGE), attempts=2)
    scene.answer(None, outcome=GenerationOutcome.UNUSABLE, detail="no code in it")
    scene.answer("code")
    scene.validate()
    scene.execute()
    (step,) = explained(scene).steps
    assert [(model.model, model.words) for model in step.models] == [
        ("small", "1 attempt(s), last: the model gave no usable answer: no code in it"),
        ("large", "1 attempt(s), the last one accepted"),
    ]


def test_the_first_failed_step_explains_a_partial_run() -> None:
    """A later step that could not begin is not the reason, nor do accepted steps stand in the way."""
    scene = Scene()
    scene.submit(submitted(THREE, models=(SMALL,), options=RunOptions(attempts_max=1, plan=False)))
    scene.answer("one")
    scene.validate(ValidationVerdict.FAILED, findings=(error("first trouble"),))
    for code in ("two", "three"):
        scene.answer(code)
        scene.validate()
        scene.execute()
    explanation = explained(scene)
    assert explanation.status == "partial"
    assert types(explanation) == ["validation.finished.v1", "step.failed.v1", "run.closed.v1"]
    assert "first trouble" in texts(explanation)[0][1]
    check_chain(scene, explanation)


def test_an_open_run_says_what_it_waits_for() -> None:
    """No chain yet; the open question is named."""
    explanation = explained(begun())
    assert explanation.status is None
    assert not explanation.chain
    assert "waits for the answer to" in explanation.end


@settings(max_examples=25, deadline=None)
@given(request=st.sampled_from([ROCK, THREE, LATER]), models=MODELS, world=WORLDS, end=st.floats(0, 1))
def test_every_failed_run_is_explained(request: str, models: tuple[ModelChoice, ...], world: World, end: float) -> None:
    """Run or fork: the chain ends at its end, each link rests on the one before, none can be left out."""
    parent = lived(request, models=models, world=world, attempts_max=3)
    check_chain(parent, explained(parent))
    child = fork(parent, at=parent.records[int(end * (len(parent.records) - 1))], run="r-child", models=(LARGE,))
    World(seed=3, luck=2, plan=PLAN).finish(child)
    check_chain(child, explained(child))


def check_events(scene: Scene) -> None:
    """Check that each record can be explained, back to a root and forward to all that followed."""
    grounds = grounds_of(scene)
    for recorded in grounds.records.values():
        story = explain_event(recorded, grounds=grounds, elsewhere={}, depth=10_000)
        assert story.why[0].id == recorded.id
        last: Recorded[Event] = grounds.records[EventId(story.why[-1].id)]
        assert last.causation is None or last.causation not in grounds.records
        assert len(story.effects) == story.followed
        assert len({effect.link.id for effect in story.effects}) == story.followed


class Explained(Workers):
    """Arbitrary workers around one run, explained at every moment: garbage, late words, lost leases, timers."""

    def teardown(self) -> None:
        """Explain the run as it stands, then its end, then each of its records."""
        if not hasattr(self, "scene"):
            return
        check_chain(self.scene, explained(self.scene))
        if self.scene.closed is None:
            self.scene.elapse("run")
        check_chain(self.scene, explained(self.scene))
        check_events(self.scene)


TestExplained = Explained.TestCase
TestExplained.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_followed_is_folded(depth: int) -> None:
    """Only so many generations are told; what is left out is counted."""
    scene = begun(attempts=3)
    for number in range(3):
        scene.answer(f"code {number}")
        scene.validate(ValidationVerdict.FAILED, findings=(error("wrong"),))
    story = explain_event(scene.records[0], grounds=grounds_of(scene), elsewhere={}, depth=depth)
    assert max(effect.generation for effect in story.effects) == depth
    assert len(story.effects) + sum(effect.hidden for effect in story.effects) == story.followed
