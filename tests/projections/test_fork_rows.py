"""What the views show of forks: their parent, the steps that they share, and who takes whose place."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.agents.fork_scene import World, accepted, fork, lived, of_type, planned, step_of
from tests.agents.run_scene import LARGE, LAYERS, NPC, ROCK, RUN, SMALL, Scene

from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.ids import StreamId
from lumina.events.run import RunForked, RunOptions
from lumina.events.step import StepAccepted
from lumina.projections.attempts import AttemptRow, Attempts, Stage
from lumina.projections.fold import MemoryRows, fold
from lumina.projections.runs import RunPhase, RunRow, Runs, StepPhase, StepRow

TWO = f"1. {ROCK}\n2. {NPC}"
FED = f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'."


def run_row(rows: MemoryRows, run: str) -> RunRow:
    """Return the row of a run that must be there."""
    row = rows.get(RunRow, run)
    assert row is not None
    return row


def phases(rows: MemoryRows, run: str) -> list[StepPhase]:
    """Return how far each step of a run is."""
    return [step.phase for step in rows.where(StepRow, run=run)]


def test_a_fork_begins_with_its_parents_steps() -> None:
    """Before the plan it has none; after a step's end it has that step as it ended, marked with whose it is."""
    parent = accepted(TWO, models=(SMALL,))
    first, second = of_type(parent, StepAccepted)
    fork(parent, at=parent.records[0], run="r-early")
    fork(parent, at=first, run="r-middle", reason="another brief")
    late = fork(parent, at=second, run="r-late")
    again = fork(late, at=late.records[0], run="r-again")
    assert again.closed is not None
    rows = fold(Runs(), [*parent.records, *(each for each in parent.log if isinstance(each.event, RunForked))])
    assert phases(rows, "r-early") == []
    assert phases(rows, "r-middle") == [StepPhase.ACCEPTED, StepPhase.WAITING]
    middle = run_row(rows, "r-middle")
    assert (middle.parent, middle.forked_at, middle.different) == (RUN, first.id, "another brief")
    assert (middle.request, middle.phase, middle.accepted) == (TWO, RunPhase.RUNNING, 1)
    whole = fold(Runs(), parent.log)
    assert [step.shared_from for step in whole.where(StepRow, run="r-again")] == [RUN, RUN]
    assert [step.code for step in whole.where(StepRow, run="r-again")] == [first.event.code, second.event.code]
    assert run_row(whole, "r-again").parent == "r-late"


def test_a_superseded_run_names_its_successor() -> None:
    """Its steps count no more than its successor says when that ends; no other fork supersedes anybody."""
    parent = accepted(TWO, models=(SMALL,))
    gone = of_type(parent, ExecutionFinished)[1]
    child = fork(parent, at=parent.records[-1], run="r-child", without=gone.id, supersedes=True)
    rows = fold(Runs(), parent.log)
    assert run_row(rows, RUN).superseded_by == "r-child"
    assert phases(rows, "r-child") == [StepPhase.WAITING, StepPhase.WAITING]
    World(seed=1, luck=16).finish(child)
    rows = fold(Runs(), parent.log)
    assert phases(rows, "r-child") == [StepPhase.ACCEPTED, StepPhase.ACCEPTED]
    assert [step.shared_from for step in rows.where(StepRow, run="r-child")] == [RUN, ""]
    assert run_row(rows, "r-child").accepted == 2
    assert run_row(rows, "r-child").superseded_by == ""


def test_an_edited_step_is_open_again() -> None:
    """Its new brief is shown, and it counts as accepted only when the fork accepts it."""
    parent = accepted(FED, models=(SMALL,))
    step = replace(step_of(parent), brief="Layer 'a.png'.")
    edited = fork(parent, at=parent.records[-1], run="r-edited", steps=(step,))
    assert edited.closed is None
    rows = fold(Runs(), parent.log)
    assert phases(rows, "r-edited")[0] is StepPhase.RUNNING
    assert rows.where(StepRow, run="r-edited")[0].brief == "Layer 'a.png'."
    World(seed=2, luck=16).finish(edited)
    rows = fold(Runs(), parent.log)
    assert [step.shared_from for step in rows.where(StepRow, run="r-edited")] == ["", ""]
    assert run_row(rows, "r-edited").accepted == 2


def test_an_attempt_goes_on_in_a_fork() -> None:
    """What a fork asks about code that its parent brought is an attempt of the fork, with that code."""
    parent = accepted(ROCK)
    asked = of_type(parent, ExecutionRequested)[0]
    child = fork(parent, at=asked, run="r-child")
    World(seed=1, luck=16).finish(child)
    (row,) = fold(Attempts(), parent.log).where(AttemptRow, run="r-child")
    assert (row.step, row.attempt, row.stage) == (1, 1, Stage.ACCEPTED)
    assert row.code == asked.event.code


def test_a_fork_of_nobody_is_shown() -> None:
    """Its parent is not there: it is listed as refused, without words or steps; a second first word changes nothing."""
    other = Scene(StreamId("r-child"))
    event = RunForked(parent=StreamId("r-nobody"), at=accepted().records[0].id, chains=(), root="0" * 64)
    other.hear(event, agent="client")
    other.hear(event, agent="client")
    row = run_row(fold(Runs(), other.log), "r-child")
    assert (row.phase, row.request, row.steps) == (RunPhase.REFUSED, "", 0)


@settings(max_examples=25, deadline=None)
@given(
    world=st.builds(World, seed=st.integers(0, 10**6), luck=st.integers(4, 16)),
    place=st.floats(0, 1),
    gone=st.one_of(st.none(), st.floats(0, 1)),
    options=st.sampled_from([None, RunOptions(attempts_max=6), RunOptions(attempts_max=1)]),
)
def test_in_the_end_a_row_says_what_the_run_says(
    world: World, place: float, gone: float | None, options: RunOptions | None
) -> None:
    """Wherever a run is forked, whatever is left out: at its end the steps and the counts are those of `run.closed`."""
    parent = lived(FED, models=(SMALL, LARGE), world=world)
    places = parent.records[parent.records.index(planned(parent)) :]
    at = places[int(place * (len(places) - 1))]
    out = None if gone is None else parent.records[1 + int(gone * (len(parent.records) - 2))].id
    child = fork(parent, at=at, run="r-child", without=out, options=options)
    world.finish(child)
    assert child.closed is not None
    rows = fold(Runs(), parent.log)
    row = run_row(rows, "r-child")
    results = {result.number: result.accepted for result in child.closed.results}
    assert row.phase.value == child.closed.status.value
    steps = {step.number: step.phase is StepPhase.ACCEPTED for step in rows.where(StepRow, run="r-child")}
    assert steps == results
    assert row.accepted == sum(results.values())
    assert row.failed == sum(step.phase is StepPhase.FAILED for step in rows.where(StepRow, run="r-child"))
