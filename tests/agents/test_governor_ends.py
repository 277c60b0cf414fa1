"""How leases, instances and offers end, as the governor sees it: given a history, when something lands, then this."""

import pytest
from tests.agents.governor_scene import GB, START_MS, Scene, granted, local, node, refused, unload

from lumina.events.generation import GenerationOutcome
from lumina.events.lease import LeaseExpired, LeaseReleased, Refusal
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.timer import TimerElapsed


@pytest.fixture
def scene() -> Scene:
    """Start with 4 GB, a small model of 1 GB and a large one of 3.5 GB."""
    stage = Scene()
    stage.announce(node(local("small", GB), local("large", 35 * GB // 10)))
    return stage


class TestEnding:
    def test_a_run_that_ends_leaves_the_queue(self, scene: Scene) -> None:
        """Its requests are dropped without a word, others go on."""
        scene.ask("small", run="r-1")
        scene.ask("small", run="r-2")
        scene.ask("small", run="r-3")
        assert scene.close("r-2") == ()
        assert scene.finish()[-1] == scene.leases()[0].event
        assert scene.leases()[0].stream == "r-3"

    def test_its_leases_are_released_but_their_instance_is_busy_until_the_outcome(self, scene: Scene) -> None:
        """The process may still compute; evicting it or giving it away would be guessing."""
        scene.ask("small", run="r-1")
        lease = scene.leases()[0]
        (released,) = scene.close("r-1")
        assert isinstance(released, LeaseReleased)
        assert released.lease == lease.id
        assert scene.ask("large", run="r-2") == ()
        assert unload(scene.finish(lease)).instance == "small#1"

    def test_or_until_they_run_out(self, scene: Scene) -> None:
        """Then the instance is retired; nothing is said to a run that has ended."""
        scene.ask("small", run="r-1")
        scene.close("r-1")
        asked = unload(scene.elapse())
        assert (asked.instance, asked.reason) == ("small#1", UnloadReason.RETIRED)

    def test_a_lease_that_runs_out(self, scene: Scene) -> None:
        """Its request hears of it, and nobody trusts its instance any more: it is unloaded before anything else."""
        scene.ask("small")
        lease = scene.leases()[0]
        expired, asked = scene.elapse()
        assert isinstance(expired, LeaseExpired)
        assert (expired.lease, expired.request) == (lease.id, lease.event.request)
        assert isinstance(asked, UnloadRequested)
        assert (asked.instance, asked.reason) == ("small#1", UnloadReason.RETIRED)
        assert asked.detail == "a lease on it ran out without an outcome"

    def test_an_outcome_after_that_changes_nothing(self, scene: Scene) -> None:
        """It is late: the memory comes back with the confirmed unload only."""
        scene.ask("small")
        lease = scene.leases()[0]
        scene.elapse()
        assert scene.finish(lease) == ()
        assert scene.ask("small") == ()
        assert granted(scene.unloaded("small#1")).load

    def test_a_process_that_did_not_answer_is_retired(self, scene: Scene) -> None:
        """It is unloaded at once, and the next request loads afresh."""
        scene.ask("small")
        asked = unload(scene.finish(outcome=GenerationOutcome.UNAVAILABLE))
        assert asked.reason is UnloadReason.RETIRED
        assert asked.detail == "its process did not load or answer"

    def test_an_idle_instance_is_unloaded_by_the_clock(self, scene: Scene) -> None:
        """Five minutes after its last use."""
        scene.serve("small")
        asked = unload(scene.elapse())
        assert scene.now_ms == START_MS + 300_000
        assert (asked.reason, asked.detail) == (UnloadReason.IDLE, "it was not used for 300 s")

    def test_use_puts_that_off(self, scene: Scene) -> None:
        """The time counts from the end of the last call."""
        scene.serve("small")
        scene.now_ms += 200_000
        scene.serve("small")
        assert scene.take(TimerElapsed(timer="idle", due=START_MS + 300_000), stream="local", agent="clock") == ()

    def test_an_unload_that_nobody_asked_for_frees_nothing(self, scene: Scene) -> None:
        """What became of the memory is in doubt: it stays reserved, and the next grant says load."""
        scene.serve("small")
        assert scene.unloaded("small#1") == ()
        assert scene.unloaded("small#7") == ()
        assert granted(scene.ask("small")).load


class TestAnnouncingAgain:
    def test_nothing_is_freed(self, scene: Scene) -> None:
        """The processes may have survived: bytes stay reserved, and the next grant says load."""
        scene.serve("small")
        assert scene.announce(node(local("small", GB), local("large", 35 * GB // 10))) == ()
        lease = granted(scene.ask("small"))
        assert (lease.instance, lease.load) == ("small#1", True)
        assert lease.reason == "small#1 has its memory, but whether it is still loaded is not known"

    def test_another_configuration_retires_what_is_resident(self, scene: Scene) -> None:
        """The file behind the name may be another one now."""
        scene.serve("small")
        asked = unload(scene.announce(node(local("small", GB), file="b")))
        assert (asked.instance, asked.reason) == ("small#1", UnloadReason.RETIRED)

    def test_a_lease_that_is_out_goes_on(self, scene: Scene) -> None:
        """Its instance is retired when it ends."""
        scene.ask("small")
        assert scene.announce(node(local("small", GB), file="b")) == ()
        assert unload(scene.finish()).instance == "small#1"

    def test_queued_requests_that_can_not_fit_any_more_are_refused(self, scene: Scene) -> None:
        """At once, like new ones."""
        scene.ask("small")
        scene.ask("large")
        refusal = refused(scene.announce(node(local("small", GB), local("large", 35 * GB // 10), bytes_max=2 * GB)))
        assert refusal.refusal is Refusal.NEVER_FITS

    def test_a_smaller_budget_unloads_what_is_idle(self) -> None:
        """Until what is reserved fits."""
        models = (local("a", GB), local("b", GB))
        scene = Scene()
        scene.announce(node(*models))
        scene.serve("a")
        scene.now_ms += 1
        scene.serve("b")
        asked = unload(scene.announce(node(*models, bytes_max=GB)))
        assert (asked.instance, asked.reason) == ("a#1", UnloadReason.ROOM)
        assert asked.detail == "2.00 GB are reserved, but the budget is 1.00 GB now"


def test_other_nodes_and_other_keepers_timers_are_not_its_business() -> None:
    """Their streams are not its node's."""
    scene = Scene()
    assert scene.take(TimerElapsed(timer="run", due=START_MS), stream="r-1", agent="clock") == ()
    assert scene.state.elapsed_ms == 0


def test_a_clock_that_is_behind_does_not_turn_time_back() -> None:
    """A lease that is granted to a client with a slow clock lasts as long as any."""
    scene = Scene()
    scene.announce(node(local("small", GB)))
    scene.serve("small")
    scene.now_ms -= 10_000_000
    assert granted(scene.ask("small")).expires_at > START_MS
