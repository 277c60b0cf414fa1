"""Forks: what a new run takes over from its parent, what it asks again, and that it touches nobody else."""

import pytest
from msgspec.structs import replace
from tests.agents.fork_scene import (
    World,
    accepted,
    begin,
    fork,
    forked_from,
    lived,
    of_type,
    outcome,
    planned,
    step_of,
)
from tests.agents.run_scene import (
    LARGE,
    LAYERS,
    NPC,
    ROCK,
    RUN,
    SMALL,
    WINK,
    Scene,
    blob,
    ended,
    error,
    said,
    specialists,
    submitted,
)

from lumina.agents.orchestrator import Orchestrator
from lumina.events.execution import ExecutionRequested
from lumina.events.generation import GenerationOutcome, GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.run import RunCancelRequested, RunOptions, RunStatus
from lumina.events.step import AttemptStarted, StepAccepted
from lumina.events.validation import ValidationRequested, ValidationVerdict
from lumina.events.values import FileRef

LATER = f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'."
THREE = f"1. {ROCK}\n2. {NPC}\n3. {WINK}"


def test_a_fork_of_a_fork() -> None:
    """It shares what its parent shares and what its parent did, up to its place, and ends in the same way."""
    world = World(seed=4, luck=10)
    parent = lived(THREE, models=(SMALL, LARGE), world=world)
    child = fork(parent, at=parent.records[len(parent.records) // 3], run="r-child")
    world.finish(child)
    middle = child.records[len(child.records) // 2]
    grandchild = fork(child, at=middle, run="r-grandchild")
    assert {record.stream for record in grandchild.shared} == {RUN, "r-child"}
    world.finish(grandchild)
    assert outcome(grandchild) == outcome(child) == outcome(parent)


def test_it_has_its_own_time_and_its_own_end() -> None:
    """A parent that was cancelled, timed out or ended: its fork is none of that, and its deadline counts anew."""
    parent = Scene()
    parent.submit(submitted(ROCK))
    parent.answer()
    parent.hear(RunCancelRequested(reason="enough"), agent="client")
    assert ended(parent)[0] is RunStatus.CANCELLED
    parent.now_ms += 1_000_000
    child = fork(parent, at=parent.records[-1], run="r-child", options=RunOptions(timeout_ms=5_000))
    assert child.timers()["run"] == child.records[0].time_ms + 5_000
    child.validate()
    child.execute()
    assert ended(child) == (RunStatus.COMPLETED, "accepted")
    again = fork(child, at=of_type(child, ValidationRequested)[0], run="r-again")
    again.elapse("run")
    assert ended(again)[0] is RunStatus.TIMED_OUT
    last = fork(again, at=again.records[-1], run="r-last")
    assert said(last.last) == ["requested"]


@pytest.mark.parametrize("wrong", ["parent", "record", "later"])
def test_a_fork_of_nothing_is_refused(wrong: str) -> None:
    """A parent or a record that is not there, or not yet: the run is closed with the reason, at once."""
    parent = accepted()
    event = forked_from(parent, at=parent.records[-1])
    log = list(parent.log)
    match wrong:
        case "parent":
            event = replace(event, parent=StreamId("r-nobody"))
        case "record":
            event = replace(event, at=EventId("0" * 32))
        case _:
            log = log[:-1]
    child = begin(log, event, run="r-child")
    status, reason = ended(child)
    assert status is RunStatus.REFUSED
    assert event.parent in reason
    assert event.at in reason
    assert said(child.last) == ["closed"]
    assert child.hear(event, agent="client") == ()
    again = fork(child, at=child.records[-1], run="r-again")
    assert ended(again)[0] is RunStatus.REFUSED


def test_only_the_first_word_forks() -> None:
    """A fork in a stream that has begun already changes nothing, and neither does a submission in a fork."""
    parent = accepted()
    other = Scene(StreamId("r-other"), log=parent.log)
    other.submit(submitted(NPC))
    asked = other.asked()
    assert other.hear(forked_from(parent, at=parent.records[-1]), agent="client") == ()
    assert other.asked() == asked
    child = fork(parent, at=of_type(parent, ValidationRequested)[0], run="r-child")
    assert child.submit(submitted(NPC)) == ()
    assert Orchestrator().decide(child.state, child.records[0]) == ()
    child.validate()
    child.execute(artifacts=(FileRef(name="generated_character.png", blob=blob("picture 1 1")),))
    assert outcome(child) == outcome(parent)


def test_another_seed_and_limit_hold_from_there() -> None:
    """What is asked again is asked under the new options; what is in code already is judged as it is."""
    parent = accepted()
    question = of_type(parent, GenerationRequested)[0]
    options = RunOptions(seed=7, attempts_max=1)
    child = fork(parent, at=question, run="r-child", options=options)
    asked = child.asked().event
    assert isinstance(asked, GenerationRequested)
    assert isinstance(question.event, GenerationRequested)
    assert asked.ask == replace(question.event.ask, sampling=asked.ask.sampling)
    assert asked.ask.sampling.seed != question.event.ask.sampling.seed
    child.answer("other code")
    child.validate(ValidationVerdict.FAILED, findings=(error("wrong"),))
    assert ended(child) == (RunStatus.FAILED, "1 of 1 attempts made; last: line 3: F821 wrong")


def test_a_repair_is_asked_again_with_what_was_wrong() -> None:
    """The faulty code and its fault go to the model once more, as the parent had put it."""
    parent = Scene()
    parent.submit(submitted(ROCK, models=(SMALL,)))
    parent.answer()
    parent.validate(ValidationVerdict.FAILED, findings=(error("wrong"),))
    question = parent.asked()
    assert isinstance(question.event, GenerationRequested)
    assert question.event.ask.previous is not None
    child = fork(parent, at=question, run="r-child")
    assert child.asked().event == question.event


def test_another_model_begins_its_own_ladder() -> None:
    """The attempt under way is begun anew by the new model; an answer that is there is kept."""
    parent = lived(ROCK, models=(SMALL,), world=World(seed=1, luck=16))
    question, judged = of_type(parent, GenerationRequested)[0], of_type(parent, ValidationRequested)[0]
    child = fork(parent, at=question, run="r-child", models=(LARGE,))
    assert said(child.last) == ["attempt_started", "requested"]
    started = child.last[0].event
    assert isinstance(started, AttemptStarted)
    assert (started.attempt, started.model) == (1, "large")
    later = fork(parent, at=judged, run="r-later", models=(LARGE,))
    later.validate(ValidationVerdict.FAILED, findings=(error("wrong"),))
    repair = later.asked().event
    assert isinstance(repair, GenerationRequested)
    assert repair.ask.model == "large"
    assert repair.ask.previous == judged.event.code
    longer = fork(parent, at=question, run="r-longer", models=(SMALL, LARGE))
    assert said(longer.last) == ["requested"]


def test_a_model_for_one_specialist() -> None:
    """A specialist's own preference counts for its steps and for no others."""
    parent = lived(THREE, models=(SMALL,), world=World(seed=1, luck=16))
    mine = tuple(replace(each, models=("large",)) for each in specialists() if each.kind == "dialogue")
    child = fork(parent, at=planned(parent), run="r-child", models=(SMALL, LARGE), specialists=mine)
    World(seed=1, luck=16).finish(child)
    models = {record.event.step: record.event.model for record in of_type(child, AttemptStarted)}
    assert models == {1: "small", 2: "large", 3: "small"}


def test_another_brief_begins_its_step_and_what_reads_its_file_anew() -> None:
    """A step whose words change is done again, and a later one that reads what it makes; all else stays accepted."""
    parent = accepted(f"{LATER}\n3. {ROCK}", models=(SMALL,))
    assert len(of_type(parent, StepAccepted)) == 3
    step = step_of(parent)
    edited = replace(step, brief=f"{step.brief} Use RGBA.")
    child = fork(parent, at=parent.records[-1], run="r-child", steps=(edited,))
    World(seed=2, luck=16).finish(child)
    assert [record.event.step for record in of_type(child, StepAccepted)] == [1, 2]
    assert child.closed is not None
    assert [result.accepted for result in child.closed.results] == [True, True, True]
    assert parent.closed is not None
    assert child.closed.results[2] == parent.closed.results[2]
    asked = of_type(child, GenerationRequested)[0].event
    assert isinstance(asked, GenerationRequested)
    assert (asked.ask.brief, asked.ask.attempt) == (edited.brief, 1)
    untouched = fork(parent, at=parent.records[-1], run="r-untouched")
    assert said(untouched.last) == ["closed"]
    assert outcome(untouched) == outcome(parent)


def test_another_request_before_the_plan() -> None:
    """While there is no plan the request itself may change; afterwards that is refused, and so is a step unknown."""
    parent = accepted()
    child = fork(parent, at=parent.records[0], run="r-child", request=NPC)
    World(seed=1, luck=16).finish(child)
    assert child.closed is not None
    assert child.closed.status is RunStatus.COMPLETED
    late = fork(parent, at=planned(parent), run="r-late", request=NPC)
    assert ended(late) == (
        RunStatus.REFUSED,
        "the request is planned already; replace a step of the plan instead",
    )
    step = step_of(parent)
    unknown = fork(parent, at=planned(parent), run="r-unknown", steps=(replace(step, number=9),))
    assert ended(unknown) == (RunStatus.REFUSED, "the plan has no step 9; it has 1")
    nobody = fork(parent, at=planned(parent), run="r-who", steps=(replace(step, specialist="who"),))
    assert ended(nobody)[0] is RunStatus.REFUSED
    early = fork(parent, at=parent.records[0], run="r-early", steps=(step,))
    assert ended(early)[0] is RunStatus.REFUSED


def test_a_failed_step_is_tried_again_when_anything_is_different() -> None:
    """At the end of a failed run: without a change it fails again at once, with more attempts it begins anew."""
    parent = Scene()
    parent.submit(submitted(ROCK, models=(SMALL,), options=RunOptions(attempts_max=1)))
    parent.answer(outcome=GenerationOutcome.UNUSABLE)
    assert ended(parent)[0] is RunStatus.FAILED
    same = fork(parent, at=parent.records[-1], run="r-same")
    assert outcome(same) == outcome(parent)
    more = fork(parent, at=parent.records[-1], run="r-more", options=RunOptions(attempts_max=2))
    assert said(more.last) == ["attempt_started", "requested"]
    World(seed=1, luck=16).finish(more)
    assert more.closed is not None
    assert parent.closed is not None
    assert more.closed.status is RunStatus.COMPLETED
    assert more.closed.tokens > parent.closed.tokens


def test_the_sandbox_gets_the_same_files() -> None:
    """Beside the program lie the same blobs as at that point of the parent, an earlier step's artifact among them."""
    hat = FileRef(name="hat.png", blob=blob("hat"))
    parent = Scene()
    parent.submit(submitted(LATER, models=(SMALL,), files=(hat,)))
    World(seed=3, luck=16).finish(parent)
    runs = of_type(parent, ExecutionRequested)
    assert [len(record.event.files) for record in runs] == [1, 2]
    for number, at in enumerate(parent.records):
        child = fork(parent, at=at, run=f"r-child-{number}")
        World(seed=3, luck=16).finish(child)
        again = {record.event.step: record.event for record in of_type(child, ExecutionRequested)}
        for record in runs:
            assert again.get(record.event.step, record.event) == record.event
            assert record.event.step in again or record.seq < at.seq
