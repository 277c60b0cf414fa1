"""What each fold makes of one good run, stage by stage, and what the command line is told."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from lumina.events.base import Event
from lumina.events.generation import GenerationRequested
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunOptions, RunSubmitted
from lumina.projections.attempts import AttemptRow, Attempts, Stage
from lumina.projections.catalogue import PROJECTIONS
from lumina.projections.errors import NoSuchRun
from lumina.projections.fold import fold
from lumina.projections.queue import Counter
from lumina.projections.reading import Reader
from lumina.projections.residency import InstanceRow, Residence, Residency
from lumina.projections.runs import RunPhase, RunRow, Runs, StepPhase
from lumina.projections.store import FILE_NAME, Store
from lumina.replay.scribe import Scribe

OneRun = Callable[[str], Sequence[Recorded[Event]]]
READ_AT = Callable[[str], Reader]


@pytest.fixture
def read_at(tmp_path: Path, one_run: OneRun) -> Iterator[READ_AT]:
    """Return the function that gives a reader of one run up to the first record of a type."""
    store = Store(tmp_path / FILE_NAME, projections=PROJECTIONS)

    def reader(stop: str) -> Reader:
        store.take(one_run(stop))
        return Reader(store)

    with store:
        yield reader


@pytest.mark.parametrize(
    ("stop", "phase", "step", "stage"),
    [
        ("run.planned.v1", RunPhase.RUNNING, StepPhase.WAITING, None),
        ("step.attempt_started.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.STARTED),
        ("generation.requested.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.QUEUED),
        ("lease.granted.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.GENERATING),
        ("generation.finished.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.GENERATED),
        ("validation.requested.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.VALIDATING),
        ("validation.finished.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.VALIDATED),
        ("execution.requested.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.EXECUTING),
        ("execution.finished.v1", RunPhase.RUNNING, StepPhase.RUNNING, Stage.EXECUTED),
        ("step.accepted.v1", RunPhase.RUNNING, StepPhase.ACCEPTED, Stage.ACCEPTED),
        ("run.closed.v1", RunPhase.COMPLETED, StepPhase.ACCEPTED, Stage.ACCEPTED),
    ],
)
def test_a_run_is_shown_where_it_is(
    read_at: READ_AT, stop: str, phase: RunPhase, step: StepPhase, stage: Stage | None
) -> None:
    """After each record of the main road, run, step and attempt stand where that record put them."""
    reader = read_at(stop)
    view = reader.run("r-abc")
    assert view.run.phase is phase
    assert view.run.phase.closed is (phase is RunPhase.COMPLETED)
    assert [row.phase for row in view.steps] == [step]
    assert [row.stage for row in reader.attempts("r-abc")] == ([] if stage is None else [stage])


@pytest.mark.parametrize(
    ("stop", "counter", "why"),
    [
        ("generation.requested.v1", Counter.GOVERNOR, "the governor has not answered yet"),
        ("lease.granted.v1", Counter.SPECIALIST, "demo#0 is being loaded and asked"),
        ("generation.finished.v1", None, ""),
        ("validation.requested.v1", Counter.VALIDATOR, "the validator has it"),
        ("execution.requested.v1", Counter.SANDBOX, "the sandbox has it"),
        ("run.closed.v1", None, ""),
    ],
)
def test_the_queue_says_who_is_waited_for(read_at: READ_AT, stop: str, counter: Counter | None, why: str) -> None:
    """A request waits at one counter at a time, with the reason, until its outcome."""
    waiting = read_at(stop).queue()
    expected = [] if counter is None else [(counter, why)]
    assert [(view.waiting.counter, view.why) for view in waiting] == expected


def test_the_queue_names_who_holds_the_model(tmp_path: Path, one_run: OneRun) -> None:
    """A second request for a model in use is told by whom."""
    records = list(one_run("lease.granted.v1"))
    ask = next(each.event.ask for each in records if isinstance(each.event, GenerationRequested))
    scribe = Scribe()
    for each in records:
        scribe.root(each.event, stream=each.stream, agent=each.agent, name=each.id)
    scribe.root(GenerationRequested(ask=ask), stream="r-xyz", agent="orchestrator")
    with Store(tmp_path / FILE_NAME, projections=PROJECTIONS) as store:
        store.take(scribe.records)
        assert [view.why for view in Reader(store).queue() if view.waiting.run == "r-xyz"] == [
            "demo is in use: demo#0 by r-abc"
        ]


def test_residency_shows_memory_and_leases(read_at: READ_AT) -> None:
    """While a model loads, its bytes are taken and its lease is on it."""
    (node,) = read_at("lease.granted.v1").residency()
    (view,) = node.instances
    assert (node.bytes_reserved, node.bytes_free) == (4000, 6000)
    assert (view.instance.residence, [lease.run for lease in view.leases]) == (Residence.LOADING, ["r-abc"])


def test_residency_shows_what_was_measured(one_run: OneRun) -> None:
    """After the answer the instance is resident, with the measured memory beside the estimate; the lease is gone."""
    rows = fold(Residency(), one_run("lease.released.v1"))
    (instance,) = rows.where(InstanceRow)
    assert (instance.residence, instance.bytes_measured, instance.load_ms) == (Residence.RESIDENT, 5000, 90)
    assert len(rows.all()) == 2


def test_throughput_is_tokens_per_second(read_at: READ_AT) -> None:
    """20 tokens in 200 ms are 100 a second."""
    (model,) = read_at("run.closed.v1").throughput()
    assert (model.model, model.calls, model.answered) == ("demo", 1, 1)
    assert model.generated_tokens_per_s == pytest.approx(100.0)
    assert model.prompt_tokens_per_s == pytest.approx(5000.0)


def test_a_run_adds_up_its_tokens_and_times(read_at: READ_AT) -> None:
    """Tokens, models, attempts and both times stand in the run's row; the evidence in the step's."""
    view = read_at("run.closed.v1").run("r-abc")
    run, (step,) = view.run, view.steps
    assert (run.prompt_tokens, run.generated_tokens, run.models) == (50, 20, ("demo",))
    assert (run.attempts, run.accepted, run.failed) == (1, 1, 0)
    assert run.closed_ms is not None
    assert run.closed_ms > run.submitted_ms
    assert step.code is not None
    assert len(step.validation) == len(step.execution) == 32


def test_an_attempt_says_what_came_of_it(one_run: OneRun) -> None:
    """The verdict in words follows the attempt along its way."""
    words = {
        stop: [row.verdict for row in fold(Attempts(), one_run(stop)).all() if hasattr(row, "verdict")]
        for stop in ("generation.requested.v1", "validation.finished.v1", "execution.finished.v1", "run.closed.v1")
    }
    assert list(words.values()) == [["queued"], ["validation passed"], ["execution passed"], ["accepted"]]


def test_what_came_too_late_is_marked(one_run: OneRun) -> None:
    """An outcome behind the counts of `run.closed` is late, whether it landed before that record or after it."""
    records = list(one_run("run.closed.v1"))
    closed = records[-1].event
    assert isinstance(closed, RunClosed)
    place = next(place for place, each in enumerate(records) if each.type == "execution.finished.v1")
    fewer = tuple(head for head in closed.chains if head.agent != "sandbox")
    early_end = msgspec.structs.replace(records[-1], event=msgspec.structs.replace(closed, chains=fewer))
    for history in ([*records[:-1], early_end], [*records[:place], early_end, records[place]]):
        (row,) = fold(Attempts(), history).where(AttemptRow)
        assert row.late
        assert row.verdict.endswith(", late")


def test_a_closed_run_stays_as_it_closed(one_run: OneRun) -> None:
    """A cancellation that comes too late changes nothing."""
    scribe = Scribe()
    for each in one_run("run.closed.v1"):
        scribe.root(each.event, stream=each.stream, agent=each.agent, name=each.id)
    before = fold(Runs(), scribe.records).all()
    scribe.root(RunCancelRequested(reason="too late"), stream="r-abc", agent="client")
    assert fold(Runs(), scribe.records).all() == before


def test_a_record_of_no_run_is_passed_over(one_run: OneRun) -> None:
    """A stream that no submission opened makes no run."""
    scribe = Scribe()
    for each in one_run("run.closed.v1")[2:]:
        scribe.root(each.event, stream=each.stream, agent=each.agent)
    assert fold(Runs(), scribe.records).where(RunRow) == ()


def _submitted(*runs: str) -> list[Recorded[Event]]:
    scribe = Scribe()
    for run in runs:
        event = RunSubmitted(request=f"work of {run}", options=RunOptions(), specialists=(), models=())
        scribe.root(event, stream=run, agent="client")
    return scribe.records


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    """The list is cut to its limit at the old end."""
    with Store(tmp_path / FILE_NAME, projections=PROJECTIONS) as store:
        store.take(_submitted("r-b", "r-a", "r-c"))
        assert [row.run for row in Reader(store).runs(2)] == ["r-c", "r-a"]


@pytest.mark.parametrize(
    ("prefix", "run"), [("r-abc", "r-abc"), ("r-abd", "r-abd2"), ("x", "r-xyz"), ("r-x", "r-xyz"), ("abcd", "r-abcd")]
)
def test_a_run_is_found_by_what_its_id_starts_with(tmp_path: Path, prefix: str, run: str) -> None:
    """A whole id always counts, a prefix when it is unique, with or without `r-`."""
    with Store(tmp_path / FILE_NAME, projections=PROJECTIONS) as store:
        store.take(_submitted("r-abc", "r-abcd", "r-abd2", "r-xyz"))
        assert Reader(store).find(prefix) == run


@pytest.mark.parametrize(
    ("prefix", "message"),
    [("r-ab", "several runs: r-abc, r-abcd, r-abd2"), ("q", "no run"), ("", "no run"), ("%", "no")],
)
def test_an_unclear_prefix_is_refused(tmp_path: Path, prefix: str, message: str) -> None:
    """An ambiguous prefix lists what it fits; one that fits nothing says so."""
    with Store(tmp_path / FILE_NAME, projections=PROJECTIONS) as store:
        store.take(_submitted("r-abc", "r-abcd", "r-abd2", "r-xyz"))
        with pytest.raises(NoSuchRun, match=message):
            Reader(store).find(prefix)


def test_an_unknown_run_is_not_shown(tmp_path: Path) -> None:
    """Asking for a run that is not there is an error, not an empty page."""
    with Store(tmp_path / FILE_NAME, projections=PROJECTIONS) as store, pytest.raises(NoSuchRun):
        Reader(store).run("r-abc")
