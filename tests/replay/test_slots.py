"""Causal slots: the same in every run of one request, and a fork's words beside those of its parent."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agents.fork_scene import World, fork, lived
from tests.agents.run_scene import DEMO, LARGE, NPC, ROCK, SMALL, WINK, Scene, submitted
from tests.replay.conftest import History

from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.execution import ExecutionVerdict
from lumina.events.generation import GenerationFinished, PlanItem
from lumina.events.ids import StreamId
from lumina.events.record import Recorded
from lumina.events.run import ModelChoice, RunOptions
from lumina.replay.diffing.diffing import Told, compare
from lumina.replay.diffing.slots import Placed, place

THREE = f"1. {ROCK}\n2. {NPC}\n3. {WINK}"
PLAN = tuple(
    PlanItem(kind=kind, brief=brief) for kind, brief in (("game", ROCK), ("dialogue", NPC), ("animation", WINK))
)
WORLDS = st.builds(World, seed=st.integers(0, 10**6), luck=st.integers(3, 16), plan=st.sampled_from([(), PLAN]))
REQUESTS = st.sampled_from([ROCK, THREE, "Print the first twenty lucky numbers."])
MODELS = st.sampled_from([(DEMO,), (SMALL,), (SMALL, LARGE)])


def told(scene: Scene) -> Told:
    """Return a scene as a run to be compared."""
    return Told(run=scene.run, records=tuple(scene.records), history=scene.shared)


def paths(placed: tuple[Placed, ...]) -> list[tuple[str, str]]:
    """Return name and label of every slot."""
    return [(each.slot.name, each.slot.label) for each in placed]


async def records_of(history: History, run: str) -> tuple[Recorded[Event], ...]:
    """Return the records of one run of the fixture."""
    log, _ = history
    return tuple([recorded async for recorded in log.read((Filter(stream=StreamId(run)),))])


async def test_runs_of_one_request_have_the_same_slots(history: History) -> None:
    """Three runs of one request, decided by all agents: other ids and times, the same slots, nothing that differs."""
    runs = [await records_of(history, run) for run in ("r-aaa", "r-bbb", "r-ccc")]
    slots = [dict(paths(place(records))) for records in runs]
    assert slots[0] == slots[1] == slots[2]
    assert len(slots[0]) == len(runs[0]) > 15
    assert not {one.id for one in runs[0]} & {one.id for one in runs[1]}
    for other in (1, 2):
        comparison = compare(Told(run="r-aaa", records=runs[0]), Told(run="r-bbb", records=runs[other]))
        assert not comparison.differs, comparison.first
        assert comparison.equal == len(runs[0]) - 1  # all but the submission, which is told apart


@settings(max_examples=20, deadline=None)
@given(request=REQUESTS, models=MODELS, world=WORLDS)
def test_every_record_has_a_slot_of_its_own(request: str, models: tuple[ModelChoice, ...], world: World) -> None:
    """No two records of a run share a slot, each slot above is there, and a run does not differ from itself."""
    scene = lived(request, models=models, world=world)
    placed = place(scene.records)
    assert {each.recorded.id for each in placed} == {record.id for record in scene.records}
    names = [each.slot.name for each in placed]
    assert len(set(names)) == len(names)
    assert {each.slot.above for each in placed} - {None} <= set(names)
    assert not compare(told(scene), told(scene)).differs


@settings(max_examples=30, deadline=None)
@given(request=REQUESTS, models=MODELS, world=WORLDS, end=st.floats(0, 1))
def test_a_fork_that_changes_nothing_does_not_differ(
    request: str, models: tuple[ModelChoice, ...], world: World, end: float
) -> None:
    """Forked anywhere, in a world that answers as before: beyond the fork everything stands in the parent's slots."""
    parent = lived(request, models=models, world=world)
    child = fork(parent, at=parent.records[int(end * (len(parent.records) - 1))], run="r-child")
    world.finish(child)
    comparison = compare(told(parent), told(child))
    assert not comparison.differs, comparison.first
    assert comparison.b.forks.startswith(f"{parent.run}@")


@settings(max_examples=15, deadline=None)
@given(world=WORLDS, first=st.floats(0, 1), second=st.floats(0, 1))
def test_a_fork_of_a_fork_stands_beside_its_grandparent(world: World, first: float, second: float) -> None:
    """Three generations of one run are equal, whichever two are compared."""
    parent = lived(THREE, models=(SMALL, LARGE), world=world)
    child = fork(parent, at=parent.records[int(first * (len(parent.records) - 1))], run="r-child")
    world.finish(child)
    grandchild = fork(child, at=child.records[int(second * (len(child.records) - 1))], run="r-grandchild")
    world.finish(grandchild)
    assert not compare(told(parent), told(grandchild)).differs
    assert not compare(told(grandchild), told(child)).differs


def test_a_fork_with_another_model_parts_at_its_question() -> None:
    """What the fork asks again takes the parent's slot: the first difference is the model, and the fork is named."""
    world = World(seed=1, luck=16)
    parent = lived(ROCK, models=(SMALL,), world=world)
    answer = next(one for one in parent.records if isinstance(one.event, GenerationFinished) and one.event.step == 1)
    asked = next(one for one in parent.records if one.id == answer.causation)
    child = fork(parent, at=asked, run="r-child", models=(LARGE,), reason="with large")
    world.finish(child)
    comparison = compare(told(parent), told(child))
    assert next(each.field for each in comparison.asked) == "models[0].model"
    assert comparison.first is not None
    assert "step.attempt_started.v1" in comparison.first.label
    assert comparison.first.a is not None
    assert comparison.first.b is not None
    assert ("model", '"small"', '"large"') in [(each.field, each.a, each.b) for each in comparison.first.fields]
    assert comparison.b.forks == f"{parent.run}@{asked.seq}: with large"


def test_an_answer_is_named_by_its_number() -> None:
    """Two samples that failed alike are two slots: each hangs from the answer before it."""
    scene = Scene()
    scene.submit(submitted(ROCK, options=RunOptions(attempts_max=3)))
    for number in range(3):
        scene.answer(f"code {number}")
        scene.validate()
        scene.execute(ExecutionVerdict.FAILED)
    labels = [label for _, label in paths(place(scene.records))]
    assert labels.count("specialist generation.finished.v1 #1") == 3
    assert len({name for name, _ in paths(place(scene.records))}) == len(scene.records)
