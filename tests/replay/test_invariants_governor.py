"""The governor's invariants, each broken once: memory, slots, leases, and the cloud only with permission."""

import pytest
from tests.replay.law_scene import RAW, RUN, Story, announced, another_asks, submission

from lumina.events.ids import EventId
from lumina.events.lease import LeaseExpired, LeaseRefused, LeaseReleased, Refusal
from lumina.events.node import ModelUnloaded, UnloadReason, UnloadRequested
from lumina.events.record import NO_DIGEST
from lumina.events.run import RunClosed, RunStatus
from lumina.replay.invariants import invariants as law
from lumina.replay.invariants.invariants import Invariants
from lumina.replay.scribe import Scribe


def test_memory_is_not_given_twice() -> None:
    """Three instances of 4,000 bytes don't fit into 10,000; two do."""
    story = Story()
    story.started()
    story.granted(story.requested())
    for number in (2, 3):
        last = story.granted(another_asks(story, f"r-{number}"), instance=f"demo#{number}")
        assert story.broken() == ([] if number == 2 else [(law.BUDGET, last.seq)])


def test_memory_that_was_given_back_is_free() -> None:
    """After `node.model_unloaded` its bytes may go to another instance; before that they may not."""
    for unloads in (False, True):
        story = Story(bytes_max=4000)
        story.completed()
        idle = story.elapse(1, timer="idle", stream="local")
        unload = UnloadRequested(node="local", instance="demo#1", reason=UnloadReason.IDLE)
        asked = story.scribe.answer(unload, to=idle, agent="governor")
        if unloads:
            gone = ModelUnloaded(node="local", instance="demo#1", was_loaded=True, effect=NO_DIGEST, raw=RAW)
            story.scribe.answer(gone, to=asked, agent="specialist")
        last = story.granted(another_asks(story, "r-b"), instance="demo#2")
        assert story.broken() == ([] if unloads else [(law.BUDGET, last.seq)])


def test_a_smaller_budget_is_no_fault_of_the_governor() -> None:
    """What stands in memory when a node announces less may stay; nothing may be added."""
    story = Story()
    story.coded()
    story.scribe.root(announced(bytes_max=1000), stream="local", agent="node")
    story.granted(another_asks(story, "r-b"))
    assert story.broken() == []
    last = story.granted(another_asks(story, "r-c"), instance="demo#2", size=1)
    assert story.broken() == [(law.BUDGET, last.seq)]


@pytest.mark.parametrize(("slots", "faults"), [(1, 1), (2, 0)])
def test_an_instance_serves_as_many_as_it_has_slots(slots: int, faults: int) -> None:
    """A second lease on an instance needs a second slot."""
    story = Story(slots=slots)
    story.started()
    story.granted(story.requested())
    last = story.granted(another_asks(story, "r-b"))
    assert story.broken() == [(law.SLOTS, last.seq)] * faults


def test_a_busy_instance_is_not_unloaded() -> None:
    """An unload while a lease is out is broken."""
    story = Story()
    story.started()
    request = story.requested()
    story.granted(request)
    unload = UnloadRequested(node="local", instance="demo#1", reason=UnloadReason.ROOM)
    last = story.scribe.answer(unload, to=request, agent="governor")
    assert story.broken() == [(law.BUSY, last.seq)]


def test_a_request_is_decided_once() -> None:
    """A second grant or a refusal after the grant is broken, and so is a grant of another question."""
    story = Story()
    story.started()
    request = story.requested()
    story.granted(request)
    second = story.granted(request, instance="demo#2")
    refused = LeaseRefused(request=request.id, refusal=Refusal.NEVER_FITS, detail="no")
    third = story.scribe.answer(refused, to=request, agent="governor")
    assert story.broken() == [(law.LEASE, second.seq), (law.LEASE, third.seq)]


def test_a_lease_ends_once() -> None:
    """A second release is broken, and so is one of a lease that nobody granted."""
    story = Story()
    lease = story.coded()
    second = story.released(lease)
    cause = next(one for one in story.records if one.id == second.causation)
    unknown = story.scribe.answer(LeaseReleased(lease=EventId("1" * 32)), to=cause, agent="governor")
    assert story.broken() == [(law.LEASE, second.seq), (law.LEASE, unknown.seq)]


def test_a_lease_ends_in_time() -> None:
    """A governor that has gone on to later inputs should have given back the leases whose outcome it has seen."""
    story = Story()
    story.started()
    story.generated(story.granted(story.requested()))
    request = another_asks(story, "r-b")
    refused = LeaseRefused(request=request.id, refusal=Refusal.NEVER_FITS, detail="no")
    last = story.scribe.answer(refused, to=request, agent="governor")
    assert story.broken() == [(law.LEASE, last.seq)]


def test_a_lease_does_not_run_out_before_its_time() -> None:
    """It may run out when its moment has elapsed, not before."""
    for late in (True, False):
        story = Story()
        story.started()
        lease = story.granted(story.requested())
        due = lease.event.expires_at if late else lease.event.expires_at - 1  # type: ignore[attr-defined]  # it is a grant
        timer = story.elapse(due, timer="lease", stream="local")
        expired = LeaseExpired(lease=lease.id, request=lease.event.request)  # type: ignore[attr-defined]  # it is a grant
        last = story.scribe.answer(expired, to=timer, agent="governor", stream=RUN)
        assert story.broken() == ([] if late else [(law.LEASE, last.seq)])


@pytest.mark.parametrize(("permitted", "reason", "faults"), [(True, "why", 0), (True, "", 2), (False, "why", 2)])
def test_the_cloud_is_asked_only_with_permission_and_reason(permitted: bool, reason: str, faults: int) -> None:
    """A question to a model on machines of others, and its lease, need the run's permission and a reason."""
    story = Story(cloud=permitted)
    story.started()
    request = story.requested(cloud=reason, model="away")
    lease = story.granted(request, instance="away#1", size=0)
    assert story.broken() == [(law.CLOUD, request.seq), (law.CLOUD, lease.seq)][:faults]


def test_the_inputs_that_nobody_answered_are_bounded() -> None:
    """Runs that ask no model leave the governor nothing to say; of many such inputs the newest are kept as causes."""
    fold, scribe = Invariants(inputs_max=50), Scribe()
    end = RunClosed(status=RunStatus.REFUSED, reason="", results=(), tokens=0, records=1, chains=(), root=NO_DIGEST)
    for number in range(55):
        began = scribe.root(submission(), stream=f"r-{number}", agent="client")
        closed = scribe.answer(end, to=began, agent="orchestrator")
        assert fold.take(began) == fold.take(closed) == ()
    assert fold.remembered == law.Open(runs=0, requests=0, leases=0, instances=0)
    assert len(fold._governor._inputs) == 50
    released = LeaseReleased(lease=EventId("1" * 32))
    old = scribe.answer(released, to=scribe.records[1], agent="governor")
    assert [one.invariant for one in fold.take(old)] == [law.LEASE], "its cause is not judged any more, all else is"
    new = scribe.answer(released, to=scribe.records[-2], agent="governor")
    assert [one.invariant for one in fold.take(new)] == [law.LEASE]
