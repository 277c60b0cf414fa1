"""A fork is proved together with the runs that it shares records with; one that says false things of them is none."""

from typing import Any

import anyio
import msgspec
import pytest
from tests.replay.forked_runs import CHILD, GRANDCHILD, PARENT, family, forked, go_on
from tests.replay.test_verify import but, rewritten

from lumina.agents.closing import root_of
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.base import Event
from lumina.events.contract import Case
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked, RunPlanned, RunStatus
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all, verify_run

History = tuple[MemoryLog, MemoryBlobs]

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def generations() -> History:
    """Return the log of a run, its fork and the fork of that."""
    return anyio.run(family)


def first_word(history: History, run: StreamId) -> Recorded[Event]:
    """Return the record with which a fork begins."""
    return next(each for each in history[0].records if each.stream == run)


async def test_a_fork_is_proved_with_its_parents(generations: History) -> None:
    """The fork of a fork is decided again from what it shares; all records of all three runs are looked at."""
    log, blobs = generations
    report = await verify_run(log, blobs, GRANDCHILD)
    assert report.status is Status.OK, report.lines()
    assert report.parents == (CHILD, PARENT)
    assert report.records == sum(each.stream in {PARENT, CHILD, GRANDCHILD} for each in log.records)
    assert (report.closed, report.pending) == (1, 0)
    assert "r-child, r-parent" in " ".join(report.lines())
    whole = await verify_all(log, blobs)
    assert (whole.status, whole.closed) == (Status.OK, 3), whole.lines()


async def test_a_parent_is_proved_without_its_forks(generations: History) -> None:
    """A run that was forked later is proved as one that was not."""
    log, blobs = generations
    report = await verify_run(log, blobs, PARENT)
    assert (report.status, report.parents) == (Status.OK, ())
    assert report.records == sum(each.stream == PARENT for each in log.records)


async def test_every_prefix_with_forks_is_proved(generations: History) -> None:
    """However far the log has come, what stands in it is right."""
    log, blobs = generations
    for end in range(first_word(generations, CHILD).seq, len(log.records) + 1):
        report = await verify_all(MemoryLog(log.records[:end]), blobs)
        assert report.status is Status.OK, (end, report.lines())


@pytest.mark.parametrize("change", ["count", "digest", "agent", "root", "fewer", "at"])
async def test_a_fork_that_speaks_of_other_records_has_not_gone_on(generations: History, change: str) -> None:
    """With chains, a root or a place that are not those of the parent it is refused: that it went on is reported."""
    log, blobs = generations
    target = first_word(generations, CHILD)
    event = target.event
    assert isinstance(event, RunForked)
    went_on = next(each for each in log.records if each.stream == CHILD and each.agent == "orchestrator")
    one = event.chains[0]
    other = {
        "count": (msgspec.structs.replace(one, count=one.count + 1), *event.chains[1:]),
        "digest": (msgspec.structs.replace(one, digest="1" * 64), *event.chains[1:]),
        "agent": (msgspec.structs.replace(one, agent="a-stranger"), *event.chains[1:]),
        "fewer": event.chains[:-1],
    }
    if change == "root":
        false = but(event, root="1" * 64)
    elif change == "at":
        later = next(each for each in log.records if each.stream == PARENT and each.type == "run.closed.v1")
        false = but(event, at=later.id)
    else:
        false = but(event, chains=other[change], root=root_of(other[change]))
    forged = rewritten(log.records, lambda each: {"event": false} if each.id == target.id else {})
    for report in (await verify_run(forged, blobs, CHILD), await verify_all(forged, blobs)):
        assert report.status is Status.DIVERGED, report.lines()
        assert report.divergence is not None
        assert report.divergence.at.seq == went_on.seq
        assert report.divergence.difference.decided == '"run.closed.v1"'


async def test_a_forged_parent_is_found_from_its_fork(generations: History) -> None:
    """A decision of the parent that is changed, with all digests made good, is named when only the fork is proved."""
    log, blobs = generations
    target = next(each for each in log.records if each.stream == PARENT and each.type == "run.planned.v1")
    event = but(target.event, reason="forged")
    forged = rewritten(log.records, lambda each: {"event": event} if each.id == target.id else {})
    report = await verify_run(forged, blobs, GRANDCHILD)
    assert report.divergence is not None
    assert (report.divergence.at.seq, report.divergence.difference.field) == (target.seq, "event.reason")


async def test_a_parent_that_is_gone_is_missed(generations: History) -> None:
    """A fork whose parent was cut out, with every chain closed over the gap, does not pass."""
    log, blobs = generations
    cut = rewritten(log.records, lambda each: None if each.stream == PARENT else {})
    assert (await verify_run(cut, blobs, CHILD)).status is not Status.OK
    own = next(each for each in log.records if each.stream == CHILD and each.agent == "orchestrator")
    assert (await verify_run(cut, blobs, GRANDCHILD)).status is not Status.OK
    less = rewritten(log.records, lambda each: None if each.id == own.id else {})
    assert (await verify_run(less, blobs, GRANDCHILD)).status is not Status.OK


async def test_a_fork_of_nothing_is_refused_and_proved() -> None:
    """A fork of a run that is not there is no damage: the orchestrator says so, and that decision is proved."""
    log, blobs = await family()
    at = first_word((log, blobs), PARENT)
    event: Any = but(forked(log.records, at=at), at=EventId("0" * 32))
    await go_on(StreamId("r-orphan"), event, log=log, blobs=blobs)
    report = await verify_run(log, blobs, StreamId("r-orphan"))
    assert report.status is Status.OK, report.lines()
    closed = log.records[-1].event
    assert isinstance(closed, RunClosed)
    assert closed.status is RunStatus.REFUSED


@pytest.mark.parametrize("change", ["nothing", "digest", "root", "size"])
async def test_a_forged_fork_is_refused_and_proved(change: str) -> None:
    """All agents go on, start again and end the next run; the refusal is proved like any other decision."""
    log, blobs = await family()
    at = next(each for each in log.records if each.stream == PARENT and each.type == "run.planned.v1")
    honest: Any = forked(log.records, at=at)
    assert isinstance(at.event, RunPlanned)
    step = at.event.steps[0]
    case = Case(arguments="[1]", one_of=tuple(f'"{letter * 3_900}"' for letter in "abcd"))
    replace = msgspec.structs.replace
    large = replace(step, contract=replace(step.contract, cases=(case,) * 60))
    digest = (replace(honest.chains[0], digest="1" * 64), *honest.chains[1:])
    event: Any = {
        "nothing": but(honest, chains=(), root=root_of(())),
        "digest": but(honest, chains=digest, root=root_of(digest)),
        "root": but(honest, root="1" * 64),
        "size": but(honest, steps=(large,)),
    }[change]
    await go_on(StreamId("r-forged"), event, log=log, blobs=blobs)
    await go_on(StreamId("r-next"), honest, log=log, blobs=blobs)
    ends = {each.stream: each.event for each in log.records if isinstance(each.event, RunClosed)}
    assert ends[StreamId("r-forged")].status is RunStatus.REFUSED
    assert ends[StreamId("r-next")].status is RunStatus.COMPLETED
    for report in (await verify_run(log, blobs, StreamId("r-forged")), await verify_all(log, blobs)):
        assert (report.status, report.pending) == (Status.OK, 0), report.lines()
