"""The laws of forks, over generated runs: a fork begins where its parent stood, ends as it did, and touches nobody."""

import anyio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.agents.fork_scene import World, accepted, folded, fork, lived, outcome, step_of
from tests.agents.run_scene import (
    DEMO,
    LARGE,
    LAYERS,
    NPC,
    ROCK,
    SMALL,
    WINK,
    Scene,
    specialists,
    submitted,
)

from lumina.agents.ancestry import in_decision_order, kept
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.orchestrator_state import (
    Asking,
    Coded,
    Executing,
    PlanAsked,
    PlanOpen,
    Resting,
    RunState,
    Stage,
    Started,
    Validated,
    Validating,
    Waiting,
)
from lumina.bus.memory import MemoryLog
from lumina.events.base import Event
from lumina.events.contract import Form
from lumina.events.execution import ExecutionRequested
from lumina.events.generation import GenerationRequested, PlanItem
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.events.run import ModelChoice, RunClosed, RunOptions
from lumina.events.step import StepAccepted
from lumina.events.validation import ValidationRequested

LATER = f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'."
TWICE = f"1. {ROCK}\n2. {NPC}"
THREE = f"1. {ROCK}\n2. {NPC}\n3. {WINK}"
PLAN = tuple(
    PlanItem(kind=kind, brief=brief) for kind, brief in (("game", ROCK), ("dialogue", NPC), ("animation", WINK))
)
WORLDS = st.builds(World, seed=st.integers(0, 10**6), luck=st.integers(4, 16), plan=st.sampled_from([(), PLAN]))
REQUESTS = st.sampled_from([ROCK, THREE, LATER, "Print the first twenty lucky numbers."])
MODELS = st.sampled_from([(DEMO,), (SMALL,), (SMALL, LARGE)])


def before_its_question(stage: Stage) -> Stage:
    """Return what a fork makes of a stage, as the requirements say it."""
    match stage:
        case Asking():
            return Started(mend=stage.mend)
        case Validating():
            return Coded(code=stage.code, tries=stage.tries)
        case Executing():
            return Validated(code=stage.code, validation=stage.validation, tries=stage.tries)
        case Waiting():
            return Resting(after=stage.after)
        case _:
            return stage


@settings(max_examples=25, deadline=None)
@given(request=REQUESTS, models=MODELS, world=WORLDS, end=st.floats(0, 1))
def test_a_fork_begins_where_its_parent_stood(
    request: str, models: tuple[ModelChoice, ...], world: World, end: float
) -> None:
    """With no change its state is the parent's, but for its chains, its time and what has to be asked again."""
    parent = lived(request, models=models, world=world)
    at = parent.records[int(end * (len(parent.records) - 1))]
    shared = in_decision_order([record for record in parent.records if record.seq <= at.seq])
    before: RunState = folded(shared, run=StreamId("r-child"))
    child = fork(parent, at=at, run="r-child")
    first = child.records[0]
    state: RunState = folded([*child.shared, first], run=StreamId("r-child"))
    assert state.heads.keys() == {"client"}
    assert state.heads["client"].digest == first.digest
    planning = PlanOpen() if isinstance(before.planning, PlanAsked) and not before.planned else before.planning
    assert state == replace(
        before,
        heads=state.heads,
        submitted_ms=first.time_ms,
        cancelled=None,
        timed_out=False,
        closed=False,
        planning=planning,
        steps=tuple(replace(step, stage=before_its_question(step.stage)) for step in before.steps),
    )


@settings(max_examples=12, deadline=None)
@given(request=REQUESTS, models=MODELS, world=WORLDS, stride=st.integers(1, 5))
def test_forking_anywhere_and_going_on_ends_as_the_parent_did(
    request: str, models: tuple[ModelChoice, ...], world: World, stride: int
) -> None:
    """At any record of any run: a fork ends, and with equal answers it ends in the same way."""
    parent = lived(request, models=models, world=world)
    count = len(parent.records)
    before = list(parent.log)
    for number in range(0, count, max(stride, count // 12)):
        at = parent.records[number]
        child = fork(parent, at=at, run=f"r-child-{number}")
        if isinstance(at.event, GenerationRequested | ValidationRequested | ExecutionRequested):
            assert child.records[1].event == at.event, "what nobody had answered is asked again, word for word"
        world.finish(child)
        assert outcome(child) == outcome(parent), number
    assert parent.log[:count] == before


@settings(max_examples=10, deadline=None)
@given(world=WORLDS, first=st.floats(0, 1), second=st.floats(0, 1))
def test_two_forks_of_one_parent_never_touch(world: World, first: float, second: float) -> None:
    """Their records, written in turns, are those that each writes alone; the parent's do not change."""
    parent = lived(THREE, models=(SMALL, LARGE), world=world)
    places = [parent.records[int(each * (len(parent.records) - 1))] for each in (first, second)]
    before = list(parent.records)
    alone = []
    for number, at in enumerate(places):
        apart = Scene(log=list(before))
        apart.records = before
        scene = fork(apart, at=at, run=f"r-child-{number}")
        world.finish(scene)
        alone.append([(record.id, record.type) for record in scene.records[1:]])
    together = [fork(parent, at=at, run=f"r-child-{number}") for number, at in enumerate(places)]
    while any(scene.closed is None for scene in together):
        for scene in together:
            if scene.closed is None:
                world.answer(scene)
    for scene, records in zip(together, alone, strict=True):
        assert [(record.id, record.type) for record in scene.records[1:]] == records
        assert {record.stream for record in scene.records} == {scene.run}
    assert parent.records == before
    ids = [record.id for record in parent.log]
    assert len(set(ids)) == len(ids)
    assert outcome(together[0]) == outcome(together[1]) == outcome(parent)


@settings(max_examples=15, deadline=None)
@given(world=WORLDS, before=st.integers(0, 12), between=st.integers(1, 4))
def test_a_parent_that_goes_on_and_its_fork_do_not_hear_each_other(world: World, before: int, between: int) -> None:
    """Forked while it is open, a parent ends as if nobody had forked it, and its fork ends in the same way."""
    alone = lived(TWICE, models=(SMALL, LARGE), world=world)
    parent = Scene()
    parent.submit(submitted(TWICE, models=(SMALL, LARGE), options=RunOptions(attempts_max=4)))
    for _ in range(before):
        if parent.closed is None:
            world.answer(parent)
    child = fork(parent, at=parent.records[-1], run="r-child")
    turns = 0
    while parent.closed is None or child.closed is None:
        scene = child if turns % (between + 1) else parent
        turns += 1
        if scene.closed is None:
            world.answer(scene)
    assert outcome(parent) == outcome(child) == outcome(alone)
    assert [record.id for record in parent.records] == [record.id for record in alone.records]


async def _recovered(scene: Scene) -> int:
    """Let an orchestrator start on the log of a scene; return how many records it adds."""
    log = MemoryLog(scene.log)
    await KeeperRunner(Orchestrator(), events=log, now_ms=lambda: scene.now_ms).recover()
    return len(log.records) - len(scene.log)


@settings(max_examples=15, deadline=None)
@given(world=WORLDS, first=st.floats(0, 1), second=st.floats(0, 1), gone=st.floats(0, 1))
def test_an_orchestrator_that_starts_again_decides_forks_again(
    world: World, first: float, second: float, gone: float
) -> None:
    """On a log with a fork, a fork of it and a run without an event it finds every byte as it decides it."""
    parent = lived(TWICE, models=(SMALL, LARGE), world=world)
    child = fork(parent, at=parent.records[int(first * (len(parent.records) - 1))], run="r-child")
    world.finish(child)
    at = child.records[int(second * (len(child.records) - 1))]
    out = parent.records[1 + int(gone * (len(parent.records) - 2))].id
    grandchild = fork(child, at=at, run="r-grandchild", without=out, options=RunOptions(attempts_max=6))
    if grandchild.closed is None:
        world.answer(grandchild)
    assert anyio.run(_recovered, parent) == 0


FORGED = st.fixed_dictionaries(
    {},
    optional={
        "options": st.builds(
            RunOptions,
            attempts_max=st.integers(1, 5),
            tokens_max=st.sampled_from([0, 20, 100_000]),
            timeout_ms=st.sampled_from([0, 60_000]),
            kind=st.sampled_from([None, "game", "nothing"]),
            seed=st.integers(0, 9),
        ),
        "models": st.lists(st.sampled_from([DEMO, SMALL, LARGE]), min_size=1, max_size=4).map(tuple),
        "specialists": st.lists(
            st.builds(
                lambda ref, form, models, name: replace(ref, form=form, models=models, name=name or ref.name),
                st.sampled_from(specialists()),
                st.sampled_from(list(Form)),
                st.sampled_from([(), ("large",), ("nobody",)]),
                st.sampled_from([None, None, "nobody"]),
            ),
            max_size=3,
        ).map(tuple),
        "request": st.sampled_from([ROCK, THREE, "?"]),
        "steps": st.lists(
            st.builds(
                lambda step, number, specialist, brief: replace(
                    step, number=number, specialist=specialist or step.specialist, brief=brief or step.brief
                ),
                st.sampled_from([step_of(accepted(THREE), 2), step_of(accepted(LATER, models=(SMALL,)), 2)]),
                st.integers(1, 4),
                st.sampled_from([None, None, "general", "nobody"]),
                st.sampled_from([None, LATER, "x"]),
            ),
            max_size=3,
        ).map(tuple),
        "supersedes": st.booleans(),
    },
)


@settings(max_examples=40, deadline=None)
@given(
    request=REQUESTS,
    models=MODELS,
    world=WORLDS,
    forged=st.lists(FORGED, min_size=1, max_size=3),
    ends=st.lists(st.floats(0, 1), min_size=6, max_size=6),
)
def test_no_fork_is_too_strange(
    request: str,
    models: tuple[ModelChoice, ...],
    world: World,
    forged: list[dict[str, object]],
    ends: list[float],
) -> None:
    """Whatever a fork says, at whatever record, without whatever other one: it is decided and it ends."""
    scene = lived(request, models=models, world=world)
    for number, fields in enumerate(forged):
        at = scene.records[int(ends[number] * (len(scene.records) - 1))]
        place = ends[number + 3]
        out = scene.log[int(place * (len(scene.log) - 1))].id if place > 0.3 else None
        scene = fork(scene, at=at, run=f"r-fork-{number}", without=out, **fields)
        if scene.closed is None:
            assert "run" in scene.timers()
            assert Orchestrator().decide(scene.state, scene.records[-1]) == ()
        world.finish(scene)
        assert sum(isinstance(record.event, RunClosed) for record in scene.records) == 1


def descendants(records: list[Recorded[Event]], *, of: Recorded[Event]) -> set[EventId]:
    """Return a record and all that descends from it: links are drawn first, then followed until nothing is added."""
    links: set[tuple[EventId, EventId]] = set()
    for later in records:
        for earlier in records:
            if earlier is not later and earlier.stream == later.stream and _follows(later, earlier):
                links.add((earlier.id, later.id))
    found = {of.id}
    while more := {to for by, to in links if by in found} - found:
        found |= more
    return found


def _follows(later: Recorded[Event], earlier: Recorded[Event]) -> bool:
    named = {later.causation, getattr(later.event, "request", None), getattr(later.event, "lease", None)}
    siblings = later.agent == earlier.agent == "orchestrator" and later.causation == earlier.causation
    if earlier.id in named or (siblings and earlier.position < later.position):
        return True
    timer = getattr(later.event, "timer", None)
    ask = getattr(earlier.event, "ask", earlier.event)
    place = getattr(ask, "step", None), getattr(ask, "attempt", None)
    named_so = "plan" if place[0] == 0 else f"step-{place[0]}.attempt-{place[1]}"
    ended_there = isinstance(earlier.event, StepAccepted)
    return timer == named_so and not ended_there and earlier.seq < later.seq


@settings(max_examples=25, deadline=None)
@given(request=REQUESTS, models=MODELS, world=WORLDS, place=st.floats(0, 1))
def test_what_is_kept_is_all_that_does_not_descend(
    request: str, models: tuple[ModelChoice, ...], world: World, place: float
) -> None:
    """Leaving one record out leaves out exactly its descendants; the run goes on with what is left and ends."""
    parent = lived(request, models=models, world=world)
    gone = parent.records[1 + int(place * (len(parent.records) - 2))]
    lost = descendants(parent.records, of=gone)
    story = in_decision_order(parent.records)
    left = kept(story, without=gone.id)
    assert [record.id for record in left] == [record.id for record in story if record.id not in lost]
    child = fork(parent, at=parent.records[-1], run="r-child", without=gone.id, supersedes=True)
    assert [record.id for record in child.shared] == [record.id for record in left]
    world.finish(child)
    assert child.closed is not None


@settings(max_examples=25, deadline=None)
@given(request=REQUESTS, models=MODELS, world=WORLDS, places=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_what_a_fork_decided_goes_with_what_it_shared(
    request: str, models: tuple[ModelChoice, ...], world: World, places: tuple[float, float]
) -> None:
    """When a fork loses a record that it shared, the wish to fork stays, and all that it led to goes."""
    parent = lived(request, models=models, world=world)
    at = parent.records[1 + int(places[0] * (len(parent.records) - 2))]
    child = fork(parent, at=at, run="r-child")
    world.finish(child)
    own = [record for record in child.records if record.stream == "r-child"]
    shared = [record for record in child.shared if record.agent != "client"]
    assume(shared)
    gone = shared[int(places[1] * (len(shared) - 1))]
    left = kept([*child.shared, *in_decision_order(own)], without=gone.id)
    words = [record.id for record in own if record.agent == "client"]
    assert [record.id for record in left if record.stream == "r-child" and record.agent != "clock"] == words
    again = fork(child, at=child.records[-1], run="r-again", without=gone.id, supersedes=True)
    world.finish(again)
    assert again.closed is not None
