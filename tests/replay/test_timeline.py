"""A timeline shows what the keepers and workers knew, decided and changed at each record, and the same on every way."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import anyio
import jmespath
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.replay.test_verify import but, first, rewritten

from lumina.agents.ancestry import in_decision_order
from lumina.agents.closing import root_of
from lumina.agents.governor import Governor
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Keeper
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.base import Event
from lumina.events.generation import GenerationFinished
from lumina.events.ids import EventId, StreamId, root_event_id
from lumina.events.lease import LeaseGranted, LeaseReleased
from lumina.events.record import Draft, Recorded
from lumina.events.run import ChainHead, RunForked
from lumina.events.validation import ValidationRequested
from lumina.projections.catalogue import PROJECTIONS
from lumina.projections.fold import fold
from lumina.replay.cast import Inputs, whole_cast
from lumina.replay.errors import RunUnknown, SeqOutside
from lumina.replay.stepping.moments import Walk
from lumina.replay.stepping.plain import changes, json_of, plain
from lumina.replay.stepping.sandbox_files import files_at
from lumina.replay.stepping.timeline import GOVERNOR, ORCHESTRATOR, Timeline
from lumina.replay.stepping.timeline_reading import read_timeline

History = tuple[MemoryLog, MemoryBlobs]
RUN = StreamId("r-bbb")

pytestmark = pytest.mark.anyio


def walk_along(timeline: Timeline, blobs: MemoryBlobs) -> Walk:
    """Return the timeline with its workers."""
    return Walk(timeline, blobs=blobs, cast=whole_cast())


def folded(keeper: Keeper[Any], records: Iterable[Recorded[Event]], *, shard: StreamId) -> Any:
    """Return the fold of records."""
    state = keeper.initial(shard)
    for recorded in records:
        state = keeper.evolve(state, recorded)
    return state


def ordered(keeper: Keeper[Any], records: Iterable[Recorded[Event]], *, until: int) -> list[Recorded[Event]]:
    """Return the inputs of a keeper up to a sequence, each but the last followed by the answers that the log has."""
    inputs = Inputs(keeper.inputs)
    every = list(records)
    known = [each for each in every if each.agent != keeper.name and inputs.hold(each) and each.seq <= until]
    known = [each for each in known if keeper.shard(each) is not None]
    answers = {
        each.id: [own for own in every if own.agent == keeper.name and own.causation == each.id] for each in known
    }
    return [one for each in known for one in (each, *(answers[each.id] if each is not known[-1] else ()))]


async def test_every_record_is_there_and_decided_again(history: History) -> None:
    """The stops are the run's records in order; keepers and workers decide each of them again, and none differs."""
    log, blobs = history
    timeline = await read_timeline(log, RUN)
    assert [stop.recorded for stop in timeline.stops] == [each for each in log.records if each.stream == RUN]
    walk = walk_along(timeline, blobs)
    assert [await walk.difference(moment) for moment in range(len(timeline))] == [None] * len(timeline)
    assert (timeline.pending, timeline.apart) == (0, None)
    assert timeline.closed is not None
    assert timeline.stops[timeline.closed].recorded.type == "run.closed.v1"


async def test_a_keepers_state_at_an_input_is_the_one_that_it_decided_on(history: History) -> None:
    """By the keeper law: the fold of the inputs up to it and of the answers to those before it, wherever they stand."""
    log, _ = history
    timeline = await read_timeline(log, RUN)
    own = [each for each in log.records if each.stream == RUN]
    governor = Governor()
    looked_at = 0
    for stop in timeline.stops:
        seq = stop.recorded.seq
        if stop.recorded.agent != ORCHESTRATOR:
            expected = folded(Orchestrator(), ordered(Orchestrator(), own, until=seq), shard=RUN)
            assert stop.states[ORCHESTRATOR] == expected, seq
            looked_at += 1
        if Inputs(governor.inputs).hold(stop.recorded):
            expected = folded(governor, ordered(governor, log.records, until=seq), shard=governor.node)
            assert stop.states[GOVERNOR] == expected, seq
            looked_at += 1
    assert looked_at > 15


async def test_after_the_last_record_the_state_is_the_fold_of_all(history: History) -> None:
    """Answers are folded as they land; at the end nothing is left out."""
    log, _ = history
    timeline = await read_timeline(log, RUN)
    own = in_decision_order([each for each in log.records if each.stream == RUN])
    assert timeline.stops[-1].states[ORCHESTRATOR] == folded(Orchestrator(), own, shard=RUN)


async def test_rows_are_those_of_the_projection(history: History) -> None:
    """At every record every projection has the rows that a fold of the log up to there gives."""
    log, _ = history
    timeline = await read_timeline(log, RUN)
    for projection in PROJECTIONS:
        table = timeline.tables[projection.name]
        for moment, stop in enumerate(timeline.stops):
            every = fold(projection, log.records[: stop.recorded.seq]).all()
            expected = [row for row in every if not table.of_runs or getattr(row, "run", None) == RUN]
            assert list(table.rows(moment)) == expected, (projection.name, stop.recorded.seq)
        assert any(table.rows(moment) for moment in range(len(timeline)))


@pytest.fixture(scope="module")
def straight(history: History) -> list[bytes]:
    """Return every moment as a walk finds it that only goes forward."""

    async def walked() -> list[bytes]:
        walk = walk_along(await read_timeline(history[0], RUN), history[1])
        return [(await walk.moment(moment)).json() for moment in range(len(walk.timeline))]

    return anyio.run(walked)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(way=st.lists(st.integers(min_value=0, max_value=21), min_size=1, max_size=12))
def test_a_moment_is_the_same_on_every_way(history: History, straight: list[bytes], way: list[int]) -> None:
    """However one walks, forward, back or in leaps, each moment is to the byte what a straight walk finds there."""
    log, blobs = history

    async def walked() -> None:
        wandering = walk_along(await read_timeline(log, RUN), blobs)
        for moment in way:
            assert (await wandering.moment(moment)).json() == straight[moment]

    anyio.run(walked)


async def test_changes_lead_from_one_moment_to_the_next(history: History) -> None:
    """Each change names the value before and the one now; and what is not named has not changed."""
    log, blobs = history
    walk = walk_along(await read_timeline(log, RUN), blobs)
    moments = [await walk.moment(moment) for moment in range(len(walk.timeline))]
    for before, after in pairwise(moments):
        for change in after.changed:
            if change.path.partition(".")[0] in walk.agents:
                assert found(change.path, before.agents) == set_or_none(change.before), change.path
                assert found(change.path, after.agents) == set_or_none(change.after), change.path
        changed = {change.path.partition(".")[0] for change in after.changed}
        for name in walk.agents:
            assert (before.agents[name] != after.agents[name]) == (name in changed)
        for name in walk.projections:
            assert (before.projections[name] != after.projections[name]) == (name in changed)


def found(path: str, states: Any) -> Any:
    """Return what stands at a path: it is a JMESPath."""
    return jmespath.search(path, states)


def set_or_none(value: Any) -> Any:
    """Return a value, None for one that is unset, as JMESPath does."""
    return None if value is msgspec.UNSET else value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(0, 3) | st.text('ab.#"', max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab.#"', max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.data(),
)
def test_there_is_a_change_where_values_differ(before: Any, data: st.DataObject) -> None:
    """Equal values have no changes, others have some; every one names both sides."""
    after = data.draw(st.just(before) | st.integers(0, 3) | st.lists(st.just(before), max_size=2))
    named = list(changes(before, after, path="x"))
    assert bool(named) == (msgspec.json.encode(before) != msgspec.json.encode(after))
    for each in named:
        assert msgspec.UNSET in (each.before, each.after) or json_of(each.before) != json_of(each.after)


async def test_decisions_are_named_where_they_were_made(history: History) -> None:
    """A record lists what was decided on it, by whom, why, and where in the log it stands."""
    log, _ = history
    timeline = await read_timeline(log, RUN)
    submitted = timeline.decided(0)
    assert [each.type for each in submitted] == [
        "run.planned.v1",
        "step.attempt_started.v1",
        "generation.requested.v1",
    ]
    assert all(each.seq and not each.missing and each.difference is None for each in submitted)
    assert submitted[1].why.reason == "first attempt, greedy"
    failed = first(history, "execution.finished.v1")
    repair = timeline.decided(timeline.moment(failed.seq))[0]
    assert repair.why.rule.endswith("(repair)")
    assert "NameError" in repair.why.reason
    every = {each.id for moment in range(len(timeline)) for each in timeline.decided(moment)}
    elsewhere = {each.id for each in log.records if each.stream == RUN and each.causation not in _ids(timeline)}
    assert {stop.recorded.id for stop in timeline.stops} - every == elsewhere


def _ids(timeline: Timeline) -> set[EventId | None]:
    return {stop.recorded.id for stop in timeline.stops}


async def test_causes_lead_to_the_submission_even_through_another_run(history: History) -> None:
    """Where another run made room for this one's request, that record and then the request are named."""
    log, _ = history
    timeline = await read_timeline(log, RUN)
    through = 0
    for moment, stop in enumerate(timeline.stops[1:], start=1):
        causes = timeline.causes(moment)
        assert causes[-1].type == "run.submitted.v1"
        assert causes[0].id == stop.recorded.causation
        if isinstance(stop.recorded.event, LeaseGranted) and causes[0].stream != RUN:
            assert causes[1].id == stop.recorded.event.request
            through += 1
    assert through


async def test_a_late_answer_is_marked_and_changes_nothing(history: History) -> None:
    """An answer that lands after a later input was counted in before that input; its own record only shows it."""
    log, _ = history
    own = [each for each in log.records if each.stream == RUN]
    asked = next(each for each in own if isinstance(each.event, ValidationRequested))
    released = next(each for each in own if isinstance(each.event, LeaseReleased))
    for late in (False, True):
        order = [each for each in log.records if each.id not in {asked.id, released.id}]
        at = next(number for number, each in enumerate(order) if each.id == asked.causation) + 1
        order[at:at] = [released, asked] if late else [asked, released]
        moved = MemoryLog([msgspec.structs.replace(each, seq=seq) for seq, each in enumerate(order, start=1)])
        timeline = await read_timeline(moved, RUN)
        moment = timeline.moment(at + 2 if late else at + 1)
        assert timeline.stops[moment].recorded.id == asked.id
        assert ("late" in timeline.marks(moment)) is late
        assert bool(timeline.states_changed(moment)) is not late
        assert next(each for each in timeline.decided(moment - 1 - late) if each.id == asked.id).late is late


async def test_an_open_run_is_shown_as_far_as_it_is(history: History) -> None:
    """However far the log has come: the same states as later, and what is decided but not written is said to miss."""
    log, _ = history
    whole = await read_timeline(log, RUN)
    missing = 0
    for end in range(first(history, "run.submitted.v1").seq, len(log.records)):
        timeline = await read_timeline(MemoryLog(log.records[:end]), RUN)
        for moment, stop in enumerate(timeline.stops):
            assert stop.states == whole.stops[moment].states
        said = [each for moment in range(len(timeline)) for each in timeline.decided(moment) if each.missing]
        assert len(said) == timeline.pending
        missing += len(said)
    assert missing > 5


@pytest.mark.parametrize(
    ("kind", "fields", "path"),
    [
        ("run.planned.v1", {"reason": "another"}, "event.reason"),
        ("lease.granted.v1", {"context": 4096}, "event.context"),
        ("validation.finished.v1", {"detail": "fine"}, "event.detail"),
        ("execution.finished.v1", {"stdout": "1\n"}, "event.stdout"),
    ],
)
async def test_another_decision_than_the_recorded_one_shows(
    history: History, kind: str, fields: dict[str, Any], path: str
) -> None:
    """A forged record differs at its own stop, and where it was decided, with the field and both values."""
    log, blobs = history
    target = first(history, kind)
    change: Callable[[Recorded[Event]], dict[str, Any]] = lambda each: (  # noqa: E731 - a table of changes
        {"event": but(target.event, **fields)} if each.id == target.id else {}
    )
    walk = walk_along(await read_timeline(rewritten(log.records, change), RUN), blobs)
    at = walk.timeline.moment(target.seq)
    shown = await walk.moment(at)
    assert shown.difference is not None
    assert shown.difference.field == path
    assert "differs" in shown.marks
    causes = [moment for moment in range(at) if walk.timeline.stops[moment].recorded.id == target.causation]
    for cause in causes:
        decided = (await walk.moment(cause)).decided
        assert next(each for each in decided if each.id == target.id).difference == shown.difference
    assert [await walk.difference(moment) for moment in range(at)] == [None] * at


async def test_a_worker_has_its_request_in_hand(history: History) -> None:
    """Idle, then asked with the effect that the blobs give, then concluded with the raw result; and back again."""
    log, blobs = history
    walk = walk_along(await read_timeline(log, RUN), blobs)
    asked = walk.timeline.moment(first(history, "execution.requested.v1").seq)
    done = walk.timeline.moment(first(history, "execution.finished.v1").seq)
    before, during, after = [await walk.state("sandbox", moment) for moment in (asked - 1, asked, done)]
    assert (before["stage"], during["stage"], after["stage"]) == ("idle", "asked", "concluded")
    assert during["effect"]["program"]["code"] == "print(one)\n"
    assert during["raw"] is None
    assert after["raw"]["runs"][0]["exit_code"] == 1
    assert after["concluded"] == plain(walk.timeline.stops[done].recorded.event)
    assert after["effect_digest"] == after["concluded"]["effect"]
    assert await walk.state("sandbox", asked) == during


async def test_the_sandbox_files_are_those_of_the_moment(history: History) -> None:
    """Before the first execution the files that come, then those of the newest one; before any request, none."""
    log, blobs = history
    walk = walk_along(await read_timeline(log, RUN), blobs)
    programs = [(await files_at(walk, moment)) for moment in (0, len(walk.timeline) - 1)]
    assert [(each and each.ahead, each and each.files[0].content) for each in programs] == [
        (True, b"print(one)\n"),
        (False, b"print(1)\n"),
    ]
    begun = MemoryLog(log.records[: first(history, "generation.requested.v1").seq])
    assert await files_at(walk_along(await read_timeline(begun, RUN), blobs), 0) is None


async def test_a_lost_blob_is_said_and_nothing_else_fails(history: History) -> None:
    """Without its program a sandbox's effect can't be derived; the moment names the blob, all else is there."""
    log, blobs = history
    requested = first(history, "execution.requested.v1")
    code = requested.event.code.digest  # type: ignore[attr-defined]  # an execution has one
    poorer = MemoryBlobs()
    poorer.contents.update({digest: each for digest, each in blobs.contents.items() if digest != code})
    walk = walk_along(await read_timeline(log, RUN), poorer)
    shown = await walk.moment(walk.timeline.moment(requested.seq))
    assert code in shown.agents["sandbox"]["problem"]
    after = await walk.moment(walk.timeline.moment(first(history, "execution.finished.v1").seq))
    assert (after.difference, after.marks) == (None, ("not derived",))
    assert code in after.problem
    assert shown.agents["orchestrator"]["steps"][0]["stage"]["is"] == "Executing"


async def test_a_fork_begins_with_what_it_shares(history: History) -> None:
    """The parent's records come first, marked; the fork's first word follows from one of them, and decides anew."""
    log, blobs = history
    grown = MemoryLog(log.records)
    at = next(each for each in log.records if each.stream == RUN and isinstance(each.event, GenerationFinished))
    heads = {each.agent: each for each in log.records if each.stream == RUN and each.seq <= at.seq}
    chains = tuple(
        ChainHead(agent=agent, count=head.position, digest=head.digest) for agent, head in sorted(heads.items())
    )
    fork = StreamId("r-fork")
    forked = RunForked(parent=RUN, at=at.id, chains=chains, root=root_of(chains), reason="to see")
    slot = root_event_id(fork, name="forked")
    draft = Draft(event=forked, id=slot, stream=fork, agent="client", time_ms=at.time_ms + 9_000, causation=None)
    await grown.append(draft)
    timeline = await read_timeline(grown, fork)
    shared = [each.id for each in log.records if each.stream == RUN and each.seq <= at.seq]
    assert [stop.recorded.id for stop in timeline.stops] == [*shared, slot]
    assert [("shared" in timeline.marks(moment)) for moment in range(len(timeline))] == [True] * len(shared) + [False]
    assert timeline.closed is None
    assert [each.type for each in timeline.decided(len(shared))] == ["validation.requested.v1"]
    assert timeline.decided(len(shared))[0].missing
    assert timeline.causes(len(shared))[0].id == at.id
    assert timeline.causes(len(shared))[-1].type == "run.submitted.v1"
    walk = walk_along(timeline, blobs)
    assert (await walk.state(ORCHESTRATOR, len(shared)))["stream"] == fork
    assert (await walk.state("specialist", len(shared)))["stage"] == "concluded"


async def test_what_is_not_there_is_refused(history: History) -> None:
    """An unknown run, and a sequence that is not the run's, name what there is."""
    log, _ = history
    with pytest.raises(RunUnknown, match="r-zzz"):
        await read_timeline(log, StreamId("r-zzz"))
    timeline = await read_timeline(log, RUN)
    other = next(each for each in log.records if each.stream == "r-ccc" and each.seq > timeline.seqs[0])
    with pytest.raises(SeqOutside, match=f"no record {other.seq}.*nearest"):
        timeline.moment(other.seq)
    for seq in (0, timeline.seqs[-1] + 1):
        with pytest.raises(SeqOutside, match="lie between"):
            timeline.moment(seq)
        with pytest.raises(SeqOutside, match="lie between"):
            timeline.up_to(seq)
    assert timeline.up_to(other.seq) == max(moment for moment, each in enumerate(timeline.seqs) if each <= other.seq)
