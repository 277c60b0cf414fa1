"""The repair ladder as given, when, then: what is tried after each kind of failure, and where it ends."""

import pytest
from tests.agents.run_scene import (
    DEMO,
    LARGE,
    ROCK,
    SMALL,
    Scene,
    blob,
    ended,
    error,
    failure,
    rungs,
    said,
    submitted,
)

from lumina.agents.ladder import OUTAGE_RETRIES_MAX, SAMPLES_PER_MODEL_MAX, derived_seed
from lumina.events.execution import Check, ExecutionVerdict
from lumina.events.generation import Ask, GenerationOutcome, GenerationRequested, Purpose
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, Refusal
from lumina.events.run import ModelChoice, RunOptions, RunStatus
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationVerdict


def begin(*models: ModelChoice, options: RunOptions | None = None) -> Scene:
    """Return a run of one step whose first question stands."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=models or (DEMO,), options=options))
    return scene


def ask_of(scene: Scene) -> Ask:
    """Return the newest question."""
    event = scene.asked().event
    assert isinstance(event, GenerationRequested)
    return event.ask


def fail_validation(scene: Scene, code: str, *, rule: str = "W123") -> None:
    """Let code be answered that the validator refuses."""
    scene.answer(code)
    scene.validate(ValidationVerdict.FAILED, findings=(error("it is wrong", rule=rule),))


def fail_execution(scene: Scene, code: str) -> None:
    """Let code be answered that gives a wrong result."""
    scene.answer(code)
    scene.validate()
    scene.execute(
        ExecutionVerdict.FAILED,
        checks=(Check(name='f("rock")', passed=False, detail='returned 1, wanted "win"'),),
    )


@pytest.mark.parametrize(
    "rule", ["syntax", "F821", "undefined-variable", "no-undef", "import-error", "missing-literal"]
)
def test_faults_that_small_models_can_mend_are_repaired_once(rule: str) -> None:
    """Syntax, names, imports and missing literals go back with the faulty code; the second time a sample is drawn."""
    scene = begin()
    fail_validation(scene, "one", rule=rule)
    ask = ask_of(scene)
    assert (ask.purpose, ask.previous, ask.sampling.temperature) == (Purpose.REPAIR, blob("one"), 0.0)
    assert ask.feedback == (f"line 3: {rule} it is wrong",)
    fail_validation(scene, "two", rule=rule)
    assert [rung for rung, _ in rungs(scene)] == ["greedy", "repair", "sample"]


def test_a_wrong_result_is_sampled_not_repaired() -> None:
    """Models repeat their own beliefs; a fresh answer at a higher temperature does more."""
    scene = begin()
    fail_execution(scene, "one")
    ask = ask_of(scene)
    assert (ask.purpose, ask.previous, ask.feedback) == (Purpose.CODE, None, ())
    assert ask.sampling.temperature == 0.7
    assert ask.sampling.seed == derived_seed(0, step=1, attempt=2)


def test_a_runtime_error_of_a_mendable_class_is_repaired() -> None:
    """The last line of the traceback goes back, without paths."""
    scene = begin()
    scene.answer("one")
    scene.validate()
    scene.execute(
        ExecutionVerdict.FAILED,
        stderr="Traceback:\n  File \"/code/main.py\", line 3\nNameError: name 'x' is not defined",
    )
    assert ask_of(scene).purpose is Purpose.REPAIR
    assert ask_of(scene).feedback == ("NameError: name 'x' is not defined",)


def test_after_several_samples_the_next_model_begins_afresh() -> None:
    """Greedy, samples, then the next model greedily; the last attempt is kept for it."""
    scene = begin(SMALL, LARGE, options=RunOptions(attempts_max=20))
    for number in range(1 + SAMPLES_PER_MODEL_MAX):
        fail_execution(scene, f"code {number}")
    assert rungs(scene)[-1] == ("larger_model", "large")
    assert ask_of(scene).sampling.temperature == 0.0
    assert [rung for rung, _ in rungs(scene)].count("sample") == SAMPLES_PER_MODEL_MAX


def test_the_last_attempt_belongs_to_the_next_model() -> None:
    """With two attempts and two models each gets one."""
    scene = begin(SMALL, LARGE, options=RunOptions(attempts_max=2))
    fail_validation(scene, "one", rule="syntax")
    assert rungs(scene) == [("greedy", "small"), ("larger_model", "large")]
    fail_validation(scene, "two", rule="syntax")
    assert ended(scene)[0] is RunStatus.FAILED
    assert failure(scene).reason == "2 of 2 attempts made; last: line 3: syntax it is wrong"


def test_attempts_are_bounded() -> None:
    """A step that never succeeds ends after `attempts_max`."""
    scene = begin(options=RunOptions(attempts_max=3))
    for number in range(3):
        fail_execution(scene, f"code {number}")
    assert len(rungs(scene)) == 3
    status, reason = ended(scene)
    assert status is RunStatus.FAILED
    assert reason == '3 of 3 attempts made; last: Wrong result: f("rock") returned 1, expected "win"'


def test_tokens_are_bounded() -> None:
    """No model is asked once the run's budget is spent, and no answer may be longer than what is left."""
    scene = begin(options=RunOptions(tokens_max=100))
    assert ask_of(scene).sampling.tokens_max == 100
    scene.answer("one", tokens=60)
    scene.validate(ValidationVerdict.FAILED, findings=(error("no"),))
    assert ask_of(scene).sampling.tokens_max == 40
    scene.answer("two", tokens=40)
    scene.validate(ValidationVerdict.FAILED, findings=(error("no"),))
    assert ended(scene)[0] is RunStatus.FAILED
    assert "100 of 100 tokens generated" in ended(scene)[1]


def test_the_same_code_again_is_not_validated_again() -> None:
    """It goes straight to the next rung, which says why."""
    scene = begin()
    fail_validation(scene, "one", rule="syntax")
    assert said(scene.answer("one")) == ["attempt_started", "requested"]
    attempt = scene.last[0].event
    assert "same code" in str(getattr(attempt, "reason", ""))
    assert rungs(scene)[-1][0] == "sample"


@pytest.mark.parametrize("outcome", [GenerationOutcome.UNUSABLE, GenerationOutcome.LENGTH])
def test_an_answer_without_code_is_sampled_again(outcome: GenerationOutcome) -> None:
    """There is nothing to repair."""
    scene = begin()
    scene.answer(outcome=outcome, detail="only prose")
    assert rungs(scene)[-1][0] == "sample"


@pytest.mark.parametrize(
    "outcome", [GenerationOutcome.TIMED_OUT, GenerationOutcome.UNAVAILABLE, GenerationOutcome.GARBAGE]
)
def test_outages_are_tried_again_after_growing_pauses_then_the_next_model(outcome: GenerationOutcome) -> None:
    """Pauses are timers; the same rung is tried again, and the fourth failure leads to another model."""
    scene = begin(SMALL, LARGE)
    pauses = []
    for _ in range(OUTAGE_RETRIES_MAX):
        assert scene.answer(outcome=outcome, detail="connection refused") == ()
        pauses.append(scene.timers()[scene.state.steps[0].timer] - scene.now_ms)
        assert said(scene.elapse(scene.state.steps[0].timer)) == ["attempt_started", "requested"]
    assert pauses == [1_000, 2_000, 4_000]
    assert said(scene.answer(outcome=outcome)) == ["attempt_started", "requested"]
    assert rungs(scene) == [("greedy", "small")] * 4 + [("larger_model", "large")]


def test_an_outage_in_a_repair_repeats_the_repair() -> None:
    """With the same faulty code and feedback, and without counting it as another repair."""
    scene = begin()
    fail_validation(scene, "one", rule="syntax")
    scene.answer(outcome=GenerationOutcome.UNAVAILABLE)
    scene.elapse(scene.state.steps[0].timer)
    ask = ask_of(scene)
    assert (ask.purpose, ask.previous) == (Purpose.REPAIR, blob("one"))
    assert ask.feedback == ("line 3: syntax it is wrong",)


def test_a_refused_lease_leads_to_the_next_model_or_refuses_the_step() -> None:
    """What can never fit is not asked for again."""
    scene = begin(SMALL, LARGE)
    for model in ("small", "large"):
        request = scene.asked()
        assert ask_of(scene).model == model
        refused = LeaseRefused(request=request.id, refusal=Refusal.NEVER_FITS, detail=f"{model} needs 90 GB")
        scene.hear(refused, agent="governor", to=request)
    assert ended(scene)[0] is RunStatus.REFUSED
    assert "large needs 90 GB" in ended(scene)[1]


def test_a_full_queue_may_pass() -> None:
    """That refusal is answered like an outage: a pause, then the same again."""
    scene = begin()
    request = scene.asked()
    refused = LeaseRefused(request=request.id, refusal=Refusal.QUEUE_FULL, detail="100 wait already")
    assert scene.hear(refused, agent="governor", to=request) == ()
    assert said(scene.elapse(scene.state.steps[0].timer)) == ["attempt_started", "requested"]


def test_a_prompt_that_does_not_fit_leads_to_the_next_model() -> None:
    """And refuses the step when there is none."""
    scene = begin(SMALL, LARGE)
    scene.answer(outcome=GenerationOutcome.DOES_NOT_FIT)
    assert rungs(scene)[-1] == ("larger_model", "large")
    scene.answer(outcome=GenerationOutcome.DOES_NOT_FIT, detail="the prompt has 9,000 tokens")
    assert ended(scene)[0] is RunStatus.REFUSED


def test_a_repair_that_does_not_fit_is_no_verdict_on_the_model() -> None:
    """The faulty code made the prompt long; a fresh sample is asked for."""
    scene = begin()
    fail_validation(scene, "one", rule="syntax")
    scene.answer(outcome=GenerationOutcome.DOES_NOT_FIT)
    assert rungs(scene)[-1] == ("sample", "demo")


def test_a_refused_execution_refuses_the_step_at_once() -> None:
    """A missing sandbox is a refusal, never a downgrade, and no attempt is wasted on it."""
    scene = begin(SMALL, LARGE)
    scene.answer()
    scene.validate()
    scene.execute(ExecutionVerdict.REFUSED, detail="bubblewrap is missing; provide it by: apt-get install bubblewrap")
    assert ended(scene)[0] is RunStatus.REFUSED
    assert "apt-get install bubblewrap" in ended(scene)[1]
    assert len(rungs(scene)) == 1


def test_a_broken_validator_is_asked_once_more_and_never_passes() -> None:
    """Then the step is refused: nothing is known about the code."""
    scene = begin()
    scene.answer()
    assert said(scene.validate(ValidationVerdict.ERROR, detail="ruff: exit 2")) == ["requested"]
    scene.validate(ValidationVerdict.ERROR, detail="ruff: exit 2")
    assert ended(scene)[0] is RunStatus.REFUSED
    assert "ruff: exit 2" in ended(scene)[1]


def test_a_broken_sandbox_is_asked_once_more() -> None:
    """And the code passes when it works then."""
    scene = begin()
    scene.answer()
    scene.validate()
    assert said(scene.execute(ExecutionVerdict.UNAVAILABLE, detail="no memory")) == ["requested"]
    assert said(scene.execute()) == ["accepted", "closed"]


@pytest.mark.parametrize("worker", ["validator", "sandbox"])
def test_an_outcome_about_other_code_is_no_pass(worker: str) -> None:
    """A worker that speaks about another digest is broken."""
    scene = begin()
    scene.answer()
    for _ in range(2):
        if worker == "validator":
            scene.validate(code="f" * 64)
        else:
            if said(scene.last) == ["requested"] and scene.asked().type.startswith("validation"):
                scene.validate()
            scene.execute(code="f" * 64)
    assert ended(scene)[0] is RunStatus.REFUSED


@pytest.mark.parametrize("worker", ["validator", "sandbox"])
def test_a_lost_worker_does_not_hang_a_run(worker: str) -> None:
    """Its deadline elapses, it is asked again, and then the step is refused."""
    scene = begin(options=RunOptions(timeout_ms=3_600_000))
    scene.answer()
    if worker == "sandbox":
        scene.validate()
    assert said(scene.elapse("step-1.attempt-1")) == ["requested"]
    scene.elapse("step-1.attempt-1")
    assert ended(scene)[0] is RunStatus.REFUSED
    assert f"the {worker} did not answer in time" in ended(scene)[1]


def test_a_lost_model_worker_is_an_outage() -> None:
    """The governor says that its lease ran out: the same is asked again after a pause. Its outcome, if any, is late."""
    scene = begin()
    request = scene.asked()
    granted = LeaseGranted(
        request=request.id,
        ask=ask_of(scene),
        node="local",
        instance="demo#1",
        load=True,
        bytes_reserved=1,
        context=1024,
        expires_at=scene.now_ms + 60_000,
    )
    lease = scene.hear(granted, agent="governor", to=request)
    assert lease == ()
    assert set(scene.timers()) == {"run", "step-1.attempt-1"}
    record = scene.records[-1]
    scene.hear(LeaseExpired(lease=record.id, request=request.id), agent="governor", to=record)
    assert said(scene.elapse("step-1.attempt-1")) == ["attempt_started", "requested"]


def test_a_timer_that_nobody_waits_for_any_more_changes_nothing() -> None:
    """It may be in the log already when the outcome arrives."""
    scene = begin()
    scene.answer()
    due = scene.timers()["step-1.attempt-1"]
    scene.validate()
    assert scene.hear(TimerElapsed(timer="step-1.attempt-1", due=due), agent="clock") == ()
    assert scene.hear(TimerElapsed(timer="run", due=1), agent="clock") == ()
    assert said(scene.execute()) == ["accepted", "closed"]
