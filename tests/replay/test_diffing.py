"""`lumina diff`, the pure part: where two runs part, what led to it on both sides, and what is never a difference."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, get_type_hints

import msgspec
import pytest
from tests.agents.run_scene import DEMO, ROCK, SMALL, Scene, error, submitted
from tests.events.test_codec import GOLDEN
from tests.replay.test_slots import told

from lumina.events.base import Event
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.codec import decode
from lumina.events.execution import Check, ExecutionVerdict
from lumina.events.generation import GenerationOutcome
from lumina.events.ids import StreamId
from lumina.events.lease import LeaseGranted
from lumina.events.run import RunOptions, RunSubmitted
from lumina.events.validation import ValidationVerdict
from lumina.replay.diffing.attempts import ladders_of
from lumina.replay.diffing.codediffs import between_attempts, between_runs, codes_of
from lumina.replay.diffing.diffing import Comparison, compare
from lumina.replay.diffing.facts import NOT_COMPARED, differences, facts

ONE = StreamId("r-one")
OTHER = StreamId("r-other")


def begun(run: StreamId, submission: RunSubmitted | None = None) -> Scene:
    """Return a run that asks its first model."""
    scene = Scene(run)
    scene.submit(submission or submitted(ROCK))
    return scene


def pair() -> tuple[Scene, Scene]:
    """Return two runs of one request."""
    return begun(ONE), begun(OTHER)


def compared(a: Scene, b: Scene) -> Comparison:
    """Return how two scenes differ."""
    return compare(told(a), told(b))


def blobs_of(*codes: str) -> Mapping[str, bytes]:
    """Return blobs by digest."""
    return {sha256(code.encode()).hexdigest(): code.encode() for code in codes}


def finish(scene: Scene, *, code: str = "code") -> None:
    """Let all go well."""
    scene.answer(code)
    scene.validate()
    scene.execute()


def test_another_answer_is_the_first_difference() -> None:
    """The code digest differs first; both sides lead back to the question that both have."""
    a, b = pair()
    finish(a, code="return 1")
    finish(b, code="return 2")
    comparison = compared(a, b)
    assert comparison.differs
    first = comparison.first
    assert first is not None
    assert first.label == "specialist generation.finished.v1"
    assert (first.step, first.attempt) == (1, 1)
    assert "code.digest" in [each.field for each in first.fields]
    assert first.a is not None
    assert first.b is not None
    assert [(cause.type, cause.common) for cause in first.a.because] == [("generation.requested.v1", True)]
    assert first.b.stream == OTHER
    assert comparison.result is None, "the first difference is a result itself"
    labels = [each.label for each in comparison.differing]
    assert labels[0] == first.label
    assert len(labels) == comparison.different


def test_a_verdict_parts_two_runs() -> None:
    """One code passes, the same code fails: the verdict is first; what only one run has tells what stands instead."""
    a, b = pair()
    a.answer("code")
    a.validate()
    a.execute()
    b.answer("code")
    b.validate(ValidationVerdict.FAILED, findings=(error("wrong"),))
    b.answer("other")
    b.validate()
    b.execute()
    comparison = compared(a, b)
    assert comparison.first is not None
    assert {"verdict": ('"passed"', '"failed"')}.items() <= {
        each.field: (each.a, each.b) for each in comparison.first.fields
    }.items()
    only = next(each for each in comparison.differing if each.b is None)
    assert "execution.requested.v1" in only.label
    assert "step.attempt_started.v1" in only.instead
    assert only.a is not None
    assert only.a.because[-1].common


def test_a_question_first_then_the_result() -> None:
    """Another seed changes what is asked; the first result that differs is told, too."""
    a = begun(ONE)
    b = begun(OTHER, submitted(ROCK, options=RunOptions(seed=7)))
    finish(a, code="one")
    finish(b, code="two")
    comparison = compared(a, b)
    assert [(each.field, each.a, each.b) for each in comparison.asked] == [("options.seed", "0", "7")]
    assert comparison.first is not None
    assert [each.field for each in comparison.first.fields] == ["ask.sampling.seed"]
    assert comparison.result is not None
    assert "generation.finished.v1" in comparison.result.label


def test_other_models_and_words_are_told_first() -> None:
    """A submission that differs is the cause, and is told by its fields."""
    a = begun(ONE)
    b = begun(OTHER, submitted("Write a Python function add(a, b).", models=(SMALL,)))
    fields = [each.field for each in compared(a, b).asked]
    assert fields[0] == "request"
    assert {"models[0].model", "models[0].context", "models[0].bare"} <= set(fields)


def test_an_open_run_only_lacks_what_may_still_come() -> None:
    """Beside a run that is further, an open run does not differ; once it has said something else, it does."""
    a, b = pair()
    finish(a)
    b.answer("code")
    comparison = compared(a, b)
    assert not comparison.differs, comparison.first
    assert comparison.pending > 0
    assert comparison.b.status is None
    b.validate(ValidationVerdict.FAILED, findings=(error("wrong"),))
    assert compared(a, b).differs
    assert compared(b, a).differs


def test_a_closed_run_that_lacks_a_record_differs() -> None:
    """Only an open run may lack something."""
    a, b = pair()
    finish(a)
    b.answer(None, outcome=GenerationOutcome.UNUSABLE)
    for _ in range(20):
        if b.closed is not None:
            break
        b.answer(None, outcome=GenerationOutcome.UNUSABLE)
    comparison = compared(a, b)
    assert comparison.pending == 0
    assert any(each.b is None for each in comparison.differing)


def test_where_and_when_a_model_was_lent_does_not_matter() -> None:
    """Another instance, loaded or not, at another time, in another order: no difference. Another context is one."""

    def lent(run: StreamId, *, instance: str, load: bool, context: int) -> Scene:
        scene = begun(run)
        scene.now_ms += 5000 if load else 0
        request = scene.asked()
        ask = request.event.ask  # type: ignore[attr-defined]  # it is a question
        granted = LeaseGranted(
            request=request.id,
            ask=ask,
            node="local",
            instance=instance,
            load=load,
            bytes_reserved=10 if load else 0,
            context=context,
            expires_at=scene.now_ms + 99,
        )
        scene.hear(granted, agent="governor", to=request)
        scene.answer("code", to=request)
        scene.validate()
        scene.execute()
        return scene

    a = lent(ONE, instance="demo#1", load=True, context=1024)
    b = lent(OTHER, instance="demo#2", load=False, context=1024)
    assert not compared(a, b).differs
    c = lent(OTHER, instance="demo#2", load=False, context=512)
    assert compared(a, c).differs


def _changed(value: Any) -> Any:
    """Return another value of the same kind, None when there is none at hand."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str() if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return "5" * 64
        case str():
            return f"{value}x"
        case _:
            return None


@pytest.mark.parametrize("tag", sorted(EVENT_TYPES.keys() - {"run.forked.v1"}))
def test_each_field_either_matters_or_is_listed(tag: str) -> None:
    """A field that is changed makes a difference, unless the table says that it is not compared, with its reason."""
    kind = EVENT_TYPES[tag]
    event = decode((GOLDEN / f"{tag}.json").read_bytes().strip(), event_type=tag)
    left_out = NOT_COMPARED.get(kind, frozenset())
    for field in left_out:
        assert field.split(".")[0] in get_type_hints(kind), f"{tag} has no field {field}"
    for field in event.__struct_fields__:
        other = _changed(getattr(event, field))
        if other is None:
            continue
        try:
            changed: Event = msgspec.structs.replace(event, **{field: other})
        except msgspec.ValidationError:
            continue  # an id has no other value of its kind at hand; ids are compared as slots
        found = differences(facts(event, slots={}), facts(changed, slots={}))
        assert [each.field for each in found] == ([] if field in left_out else [field]), (tag, field)


def test_ids_are_compared_as_slots() -> None:
    """An event that names another one by its id says the same as one that names the record in the same slot."""
    a, b = pair()
    finish(a)
    finish(b)
    accepted = [next(one for one in scene.records if one.type == "step.accepted.v1") for scene in (a, b)]
    assert accepted[0].event != accepted[1].event
    assert not compared(a, b).differs


def test_code_diffs_between_runs_and_attempts() -> None:
    """Attempts of the same number are compared between runs, consecutive ones within a run, with the fault between."""
    a, b = pair()
    for scene, codes in ((a, ("x = 1\n", "x = 2\n")), (b, ("x = 1\n", "x = 3\n"))):
        scene.answer(codes[0])
        scene.validate(ValidationVerdict.FAILED, findings=(error("Undefined name `y`", line=1),))
        finish(scene, code=codes[1])
    blobs = blobs_of("x = 1\n", "x = 2\n", "x = 3\n")
    one, other = ladders_of(a.records), ladders_of(b.records)
    assert codes_of(one) == set(blobs_of("x = 1\n", "x = 2\n"))
    (between,) = between_runs(one, other, blobs=blobs)
    assert (between.step, between.attempt_a, between.attempt_b) == (1, 2, 2)
    assert [line for line in between.lines if line[0] in "+-"][2:] == ["-x = 2", "+x = 3"]
    (within,) = between_attempts(one, blobs=blobs)
    assert [line for line in within.lines if line[0] in "+-"][2:] == ["-x = 1", "+x = 2"]
    assert "did not pass validation" in within.between
    assert [piece.text for piece in within.evidence] == ["line 1: F821 Undefined name `y` (ruff)", "   1 | x = 1"]
    (lost,) = between_attempts(one, blobs={})
    assert all("is not there" in line for line in lost.lines)


def test_a_failed_check_is_the_difference() -> None:
    """Of two executions of one code the check that failed on one side only is named by its path."""
    a, b = pair()
    for scene, passed in ((a, True), (b, False)):
        scene.answer("code")
        scene.validate()
        verdict = ExecutionVerdict.PASSED if passed else ExecutionVerdict.FAILED
        scene.execute(verdict, checks=(Check(name="add(1, 2)", passed=passed, detail="returned 4, wanted 3"),))
    first = compared(a, b).first
    assert first is not None
    assert "checks[0].passed" in [each.field for each in first.fields]


def test_a_run_without_a_model_still_compares() -> None:
    """Runs that were refused at once have two records, and can be compared."""
    a = begun(ONE, submitted(ROCK, models=()))
    b = begun(OTHER, submitted(ROCK, models=(DEMO,)))
    comparison = compared(a, b)
    assert comparison.differs
    assert comparison.a.status == "refused"


def test_two_ends_are_one_difference_wherever_they_stand() -> None:
    """One run ends with its second attempt, the other with its first: the ends are laid side by side."""
    a, b = begun(ONE, submitted(ROCK, options=RunOptions(attempts_max=1))), begun(OTHER)
    a.answer("return 1")
    a.validate(ValidationVerdict.FAILED)
    b.answer("return 1")
    b.validate(ValidationVerdict.FAILED)
    finish(b, code="return 2")
    assert a.closed is not None
    assert b.closed is not None
    ends = [each for each in compared(a, b).differing if "run.closed" in each.label]
    assert [each.label for each in ends] == ["orchestrator run.closed.v1"]
    assert ends[0].a is not None
    assert ends[0].b is not None
    assert ("status", '"failed"', '"completed"') in [(each.field, each.a, each.b) for each in ends[0].fields]
