"""Where a fork may begin and what may be wished for: the pure part of `lumina fork` and `lumina invalidate`."""

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.agents.fork_scene import World, accepted, begin, fork, lived, of_type, planned
from tests.agents.run_scene import DEMO, LARGE, LAYERS, NPC, ROCK, RUN, SMALL, Scene

from lumina.agents.ancestry import GENERATIONS_MAX
from lumina.agents.closing import chain_heads, root_of
from lumina.bus.memory import MemoryLog
from lumina.cli.errors import UsageProblem
from lumina.cli.fork_wishes import options_of, pair_of, run_and_seq
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.ids import StreamId
from lumina.events.node import NodeAnnounced
from lumina.events.record import Head, Recorded
from lumina.events.run import ModelChoice, RunClosed, RunOptions, RunStatus
from lumina.events.step import StepAccepted
from lumina.replay.errors import ForkProblem, RunUnknown
from lumina.replay.forking.forking import Wishes, compose, compose_without, rehearse
from lumina.replay.forking.places import Place, find_place, place_without, story_of

TWO = f"1. {ROCK}\n2. {NPC}"
OFFERED = {choice.model: choice for choice in (DEMO, SMALL, LARGE)}
CODER = ModelChoice(model="coder", context=2048)


def at(scene: Scene, record: Recorded[Any]) -> Place:
    """Return the place after a record of a run."""
    log = MemoryLog(scene.log)
    return anyio.run(lambda: find_place(scene.run, seq=record.seq, events=log))


def without(scene: Scene, record: Recorded[Any]) -> Place:
    """Return the place at the end of a run without one of its records."""
    log = MemoryLog(scene.log)
    return anyio.run(lambda: place_without(record, run=scene.run, events=log))


def two_steps() -> Scene:
    """Return a run of two accepted steps."""
    return accepted(TWO, models=(SMALL,))


def test_a_place_pins_the_parents_chains() -> None:
    """It names the record and the heads of all chains there; the root is over these."""
    parent = two_steps()
    record = of_type(parent, StepAccepted)[0]
    heads: dict[str, Head] = {}
    for each in parent.records:
        if each.seq <= record.seq:
            heads[each.agent] = Head(position=each.position, digest=each.digest)
    event = compose(at(parent, record), Wishes())
    assert (event.parent, event.at) == (RUN, record.id)
    assert event.chains == chain_heads(heads)
    assert event.root == root_of(event.chains)
    assert event.reason == f"from record {record.seq}"


def test_a_shared_record_is_its_ancestors() -> None:
    """A record that a fork only shares belongs to the run that wrote it; one after the fork's place to nobody."""
    parent = two_steps()
    child = fork(parent, at=of_type(parent, StepAccepted)[0], run="r-child")
    World(seed=1, luck=16).finish(child)
    grandchild = fork(child, at=child.records[2], run="r-grandchild")
    assert at(grandchild, parent.records[3]).parent == RUN
    assert at(grandchild, child.records[1]).parent == "r-child"
    assert at(grandchild, grandchild.records[0]).parent == "r-grandchild"
    with pytest.raises(ForkProblem, match="is none of r-grandchild; the nearest are"):
        at(grandchild, parent.records[-1])
    with pytest.raises(ForkProblem, match="is none of r-child"):
        at(child, grandchild.records[0])
    with pytest.raises(RunUnknown):
        at(Scene(StreamId("r-nobody"), log=parent.log), parent.records[0])


def test_what_a_fork_leaves_out_is_no_place() -> None:
    """A record that was invalidated, and what descends from it, is not shared; a kept one is, without the other."""
    parent = two_steps()
    gone = of_type(parent, ExecutionFinished)[1]
    child = begin(parent.log, compose_without(without(parent, gone), gone), run="r-child")
    World(seed=1, luck=16).finish(child)
    with pytest.raises(ForkProblem, match=r"leaves record \d+ out"):
        at(child, parent.records[-1])
    kept = at(child, parent.records[3])
    assert (kept.parent, kept.without) == (RUN, gone.id)
    late = of_type(child, ExecutionFinished)[0]
    twice = begin(parent.log, compose_without(without(child, late), late), run="r-twice")
    with pytest.raises(ForkProblem, match="twice"):
        at(twice, parent.records[3])


def test_some_events_cannot_be_taken_back() -> None:
    """The submission, a fork's first word, an end and what a node says are refused with what to do instead."""
    parent = two_steps()
    child = fork(parent, at=parent.records[-1], run="r-child")
    node = replace(
        parent.records[0], event=NodeAnnounced(node="local", bytes_max=1, models=(), idle_ms=1, configuration="0" * 64)
    )
    for scene, record, words in (
        (parent, parent.records[0], "lumina run"),
        (child, child.records[0], "lumina fork"),
        (parent, of_type(parent, RunClosed)[0], "invalidate what led to it"),
        (parent, node, "belongs to no run"),
    ):
        with pytest.raises(ForkProblem, match=words):
            without(scene, record)


def test_generations_are_bounded() -> None:
    """Forks of forks go 32 deep; the next one is refused, by the command and by the orchestrator."""
    youngest = accepted()
    log = youngest.log
    for number in range(GENERATIONS_MAX - 1):
        youngest = fork(youngest, at=youngest.records[-1], run=f"r-{number}")
        assert len(youngest.shared) > number
    last = at(youngest, youngest.records[-1])
    child = begin(log, compose(last, Wishes()), run="r-last")
    assert child.closed is not None
    assert child.closed.status is RunStatus.COMPLETED
    with pytest.raises(ForkProblem, match="more than 32 forks"):
        at(child, child.records[-1])
    refused = fork(child, at=child.records[-1], run="r-too-deep")
    assert refused.closed is not None
    assert refused.closed.status is RunStatus.REFUSED


def test_options_are_named_by_what_changes() -> None:
    """Only what differs is said; nothing that differs is no new options."""
    parent = two_steps()
    place = at(parent, planned(parent))
    event = compose(place, Wishes(options={"seed": 7, "attempts_max": 4, "hosts": ["example.org"]}))
    assert event.options == RunOptions(seed=7, attempts_max=4, hosts=("example.org",))
    assert event.reason.endswith("seed 0 → 7; hosts none → example.org")
    assert compose(place, Wishes(options={"seed": 0})).options is None


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(options={"attempts_max": 0}), "attempts_max: expected `int` >= 1"),
        (Wishes(options={"kind": "game"}), "the plan is made already"),
        (Wishes(options={"plan": False}), "the plan is made already"),
        (Wishes(roles=(("planner", "large"),), offered=OFFERED), "the plan is made already"),
        (Wishes(roles=(("cook", "large"),), offered=OFFERED), "no role is called 'cook'"),
        (Wishes(roles=(("dialogue", "huge"),), offered=OFFERED), "not offered here; these are: demo, small, large"),
        (Wishes(roles=(("general", "demo"),), offered=OFFERED), "free scripts"),
        (Wishes(brief=" "), "empty"),
        (Wishes(brief="x" * 30_000), "can't be a step's"),
        (Wishes(brief="Else.", step=7), "no step 7; its steps are 1, 2"),
        (Wishes(step=1), "--edit-brief"),
    ],
)
def test_wishes_that_cannot_be_fulfilled(wishes: Wishes, words: str) -> None:
    """Each is refused in one sentence that says what is wrong."""
    parent = two_steps()
    with pytest.raises(ForkProblem, match=words.replace("`", ".")):
        compose(at(parent, planned(parent)), wishes)


def test_wishes_before_there_is_a_plan() -> None:
    """There the request is edited, a kind may be insisted on, and another model may plan, but only one that can."""
    parent = two_steps()
    place = at(parent, parent.records[0])
    assert compose(place, Wishes(brief=" Something else. ")).request == "Something else."
    with pytest.raises(ForkProblem, match="leave --step out"):
        compose(place, Wishes(brief="Something else.", step=1))
    with pytest.raises(ForkProblem, match="20,000 are allowed"):
        compose(place, Wishes(brief="x" * 20_001))
    with pytest.raises(ForkProblem, match="no specialist of the run answers the kind 'cook'"):
        compose(place, Wishes(options={"kind": "cook"}))
    event = compose(place, Wishes(roles=(("planner", "large"),), offered=OFFERED))
    assert [choice.model for choice in event.models] == ["large", "small"]
    assert all(specialist.models[-2:] == ("small", "large") for specialist in event.specialists)
    with pytest.raises(ForkProblem, match="not one that plans"):
        compose(place, Wishes(roles=(("planner", "coder"),), offered={"coder": CODER}))


def test_the_step_under_way_is_edited_or_the_one_that_is_named() -> None:
    """Its contract is derived anew from the new words; at the end of a run the step must be named."""
    parent = accepted(f"1. {LAYERS}\n2. {NPC}", models=(SMALL,))
    asked = next(record for record in of_type(parent, GenerationRequested) if record.event.ask.step == 1)
    words = "Using Pillow, layer 'a.png' and 'b.png', save the result as 'c.png'."
    (step,) = compose(at(parent, asked), Wishes(brief=words)).steps
    assert (step.number, step.brief, step.contract.artifact) == (1, words, "c.png")
    with pytest.raises(ForkProblem, match="every step had ended there; say which one to edit with --step: 1, 2"):
        compose(at(parent, parent.records[-1]), Wishes(brief=words))
    (named,) = compose(at(parent, parent.records[-1]), Wishes(brief=words, step=1)).steps
    assert named == step


def test_a_role_prefers_its_model() -> None:
    """By name, by kind, and for all: the model comes first there, and is one of the run's from then on."""
    parent = two_steps()
    place = at(parent, planned(parent))
    one = compose(place, Wishes(roles=(("dialogue", "large"),), offered=OFFERED))
    assert [choice.model for choice in one.models] == ["small", "large"]
    assert {specialist.kind: specialist.models for specialist in one.specialists} == {"dialogue": ("large",)}
    every = compose(place, Wishes(roles=(("specialist", "large"),), offered=OFFERED))
    known = parent.records[0].event.specialists  # type: ignore[attr-defined]  # a submission
    assert len(every.specialists) == len(known)


def test_a_model_of_others_needs_permission() -> None:
    """One that the run did not have before is refused until the cloud is permitted, with the way to do so."""
    parent = two_steps()
    place = at(parent, planned(parent))
    away = replace(LARGE, cloud=True)
    with pytest.raises(ForkProblem, match="--set cloud=yes"):
        compose(place, Wishes(models=(away,)))
    with pytest.raises(ForkProblem, match="--set cloud=yes"):
        compose(place, Wishes(roles=(("game", "large"),), offered={"large": away}))
    event = compose(place, Wishes(models=(away,), options={"cloud": True}))
    assert event.models == (away,)
    child = begin(parent.log, event, run="r-child")
    World(seed=1, luck=16).finish(child)
    assert all(record.event.ask.cloud for record in of_type(child, GenerationRequested))


def test_a_page_that_the_new_brief_names_may_be_fetched() -> None:
    """Its host joins those that were permitted before."""
    parent = two_steps()
    place = at(parent, of_type(parent, GenerationRequested)[1])
    event = compose(place, Wishes(brief="Fetch http://news.example.com/a", hosts=("news.example.com",)))
    assert event.options == RunOptions(attempts_max=4, hosts=("news.example.com",))


WISHES = st.builds(
    Wishes,
    models=st.sampled_from([(), (LARGE,), (SMALL, LARGE), (DEMO,)]),
    roles=st.lists(
        st.tuples(st.sampled_from(["planner", "specialist", "game", "layers"]), st.sampled_from(["small", "large"])),
        max_size=2,
    ).map(tuple),
    offered=st.just(OFFERED),
    options=st.sampled_from([{}, {"seed": 3}, {"attempts_max": 2}, {"tokens_max": 40}]),
    brief=st.sampled_from([None, None, LAYERS, "Print it."]),
    step=st.sampled_from([None, None, 1, 2]),
)


@settings(max_examples=40, deadline=None)
@given(
    world=st.builds(World, seed=st.integers(0, 10**6), luck=st.integers(6, 16)),
    place=st.floats(0, 1),
    wishes=WISHES,
)
def test_what_is_rehearsed_is_what_happens(world: World, place: float, wishes: Wishes) -> None:
    """Whatever is wished at whatever record: it is refused before, or the orchestrator says just what was foretold."""
    parent = lived(TWO, models=(SMALL,), world=world)
    record = parent.records[int(place * (len(parent.records) - 1))]
    where = at(parent, record)
    try:
        event = compose(where, wishes)
    except ForkProblem:
        return
    rehearsal = rehearse(where, event, stream=StreamId("r-child"), time_ms=parent.now_ms)
    child = begin(parent.log, event, run="r-child")
    assert child.shared == where.history
    happened = [(record.type, _timeless(record.event)) for record in child.last]
    assert happened == [(record.type, _timeless(record.event)) for record in rehearsal.decisions]
    if child.closed is not None:
        assert child.closed.status.value != "refused" or rehearsal.steps


def _timeless(event: Event) -> Event:
    """Return an event without what its run's first record makes of it."""
    return replace(event, chains=(), root="0" * 64) if isinstance(event, RunClosed) else event


def test_a_story_is_what_is_shared_and_what_is_ones_own() -> None:
    """For a fork the parent's records come first; a run of its own has nothing else."""
    parent = two_steps()
    child = fork(parent, at=of_type(parent, GenerationFinished)[0], run="r-child")
    log = MemoryLog(parent.log)
    assert anyio.run(lambda: story_of(child.run, events=log)) == (*child.shared, *child.records)
    assert list(anyio.run(lambda: story_of(parent.run, events=log))) == parent.records


def test_texts_of_the_command_line() -> None:
    """RUN@SEQ, KEY=VALUE and ROLE=MODEL are read strictly; each mistake is named with its remedy."""
    assert run_and_seq("r-abc@12") == ("r-abc", 12)
    assert options_of(["timeout=1.5", "hosts=a.org, b.org:8000", "plan=no", "kind=", "seed=3"]) == {
        "timeout_ms": 1500,
        "hosts": ["a.org", "b.org:8000"],
        "plan": False,
        "kind": None,
        "seed": 3,
    }
    assert pair_of("scraper=small", option="--role", example="scraper=small") == ("scraper", "small")
    for wrong in ("r-abc", "@12", "r-abc@", "r-abc@x", "r-abc@-1", "r-abc@" + "9" * 20, "r-abc@²"):
        with pytest.raises(UsageProblem):
            run_and_seq(wrong)
    for wrong in ("seed", "colour=red", "seed=x", "timeout=nan", "timeout=inf", "plan=maybe", "attempts="):
        with pytest.raises(UsageProblem):
            options_of([wrong])
    for wrong in ("scraper", "=small", "scraper="):
        with pytest.raises(UsageProblem):
            pair_of(wrong, option="--role", example="scraper=small")
