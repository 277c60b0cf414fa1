"""The governor, given a history, when something lands, then says this. Every record goes through the codec and back."""

import pytest
from tests.agents.governor_scene import GB, START_MS, Scene, granted, local, node, refused, remote, unload

from lumina.agents.governor import Governor
from lumina.agents.governor_rules import AGE_BOUND_MS, LEASE_GRACE_MS, NODE_WAIT_MS, QUEUE_REQUESTS_MAX
from lumina.agents.ports import Keeper
from lumina.events.generation import GenerationOutcome
from lumina.events.lease import LeaseGranted, LeaseRefused, LeaseReleased, Refusal
from lumina.events.node import UnloadReason, UnloadRequested


@pytest.fixture
def scene() -> Scene:
    """Start with 4 GB, a small model of 1 GB and a large one of 3.5 GB."""
    stage = Scene()
    stage.announce(node(local("small", GB), local("large", 35 * GB // 10)))
    return stage


def test_it_is_a_keeper() -> None:
    """It has the shape that the runner drives, one shard, and is never done."""
    keeper: Keeper[object] = Governor()  # type: ignore[assignment] # its state's type does not matter here
    assert keeper.name == "governor"
    assert not keeper.finished(keeper.initial(Governor().node))


class TestGranting:
    def test_a_first_request_loads(self, scene: Scene) -> None:
        """Nothing is resident: the grant says load, and reserves what was estimated."""
        lease = granted(scene.ask("small"))
        assert (lease.instance, lease.load, lease.bytes_reserved, lease.context) == ("small#1", True, GB, 2048)
        assert lease.reason == "loads small#1: 1.00 GB of 4.00 GB that are free"

    def test_a_resident_model_is_not_loaded_again(self, scene: Scene) -> None:
        """An outcome showed that it is there."""
        scene.serve("small")
        lease = granted(scene.ask("small"))
        assert (lease.instance, lease.load) == ("small#1", False)
        assert lease.reason == "small#1 is resident and free"

    def test_an_outcome_that_does_not_show_a_load_leaves_it_in_doubt(self, scene: Scene) -> None:
        """The call ran into its time limit, perhaps while loading: the next grant says load again."""
        scene.ask("small")
        scene.finish(outcome=GenerationOutcome.TIMED_OUT)
        lease = granted(scene.ask("small"))
        assert (lease.instance, lease.load, lease.bytes_reserved) == ("small#1", True, GB)

    def test_a_busy_instance_is_waited_for(self, scene: Scene) -> None:
        """One slot, one call; when it is free, the release and the next grant come together."""
        scene.ask("small")
        assert scene.ask("small", run="r-2") == ()
        released, lease = scene.finish()
        assert isinstance(released, LeaseReleased)
        assert isinstance(lease, LeaseGranted)

    def test_requests_for_one_model_are_served_in_order(self, scene: Scene) -> None:
        """First come, first served."""
        for run in ("r-1", "r-2", "r-3"):
            scene.ask("small", run=run)
        streams = []
        while scene.ledger.out:
            streams.append(scene.leases()[0].stream)
            scene.finish()
        assert streams == ["r-1", "r-2", "r-3"]

    def test_slots_of_a_loaded_instance_are_all_used(self) -> None:
        """While it loads it takes one call; once it is loaded, as many as it has slots."""
        scene = Scene()
        scene.announce(node(local("wide", GB, slots=2)))
        for _ in range(4):
            scene.ask("wide")
        assert len(scene.ledger.out) == 1
        scene.finish()
        assert len(scene.ledger.out) == 2

    def test_a_second_instance_is_loaded_for_waiting_work(self) -> None:
        """The first is busy, the node allows two, and memory is there."""
        scene = Scene()
        scene.announce(node(local("demo", GB, instances_max=2)))
        scene.ask("demo")
        second = granted(scene.ask("demo"))
        assert (second.instance, second.load) == ("demo#2", True)
        assert scene.ask("demo") == ()

    def test_no_second_instance_without_memory(self) -> None:
        """Nothing is unloaded for the sake of a second instance."""
        scene = Scene()
        scene.announce(node(local("demo", GB, instances_max=9), local("other", GB), bytes_max=2 * GB))
        scene.serve("other")
        scene.ask("demo")
        assert scene.ask("demo") == ()

    def test_a_server_elsewhere_takes_no_memory_and_has_slots(self) -> None:
        """It is never loaded; the third call waits."""
        scene = Scene()
        scene.announce(node(remote("big", slots=2), bytes_max=0))
        lease = granted(scene.ask("big"))
        assert (lease.instance, lease.load, lease.bytes_reserved) == ("big#1", False, 0)
        granted(scene.ask("big"))
        assert scene.ask("big") == ()
        assert len(scene.finish()) == 2

    def test_a_lease_lasts_for_the_call_the_load_and_a_grace(self, scene: Scene) -> None:
        """Its end is counted from the request that was granted."""
        scene.serve("small")
        lease = granted(scene.ask("small"))
        assert lease.expires_at == START_MS + lease.ask.timeout_ms + LEASE_GRACE_MS


class TestRefusing:
    def test_an_unknown_model(self, scene: Scene) -> None:
        """The refusal lists what there is."""
        refusal = refused(scene.ask("nope"))
        assert refusal.refusal is Refusal.UNKNOWN_MODEL
        assert refusal.detail == "no model nope on node local; its models: small, large"

    def test_what_can_never_fit(self) -> None:
        """The refusal says how much is missing, and what would fit."""
        scene = Scene()
        scene.announce(node(local("huge", 9 * GB), local("small", GB), remote("away")))
        refusal = refused(scene.ask("huge"))
        assert (refusal.refusal, refusal.bytes_needed, refusal.bytes_max) == (Refusal.NEVER_FITS, 9 * GB, 4 * GB)
        assert refusal.detail == (
            "model huge needs 9.00 GB, node local has 4.00 GB for it; what would fit: small (1.00 GB), away (elsewhere)"
        )

    def test_what_can_never_fit_beside_pinned_models(self) -> None:
        """The room that is kept for them is nobody else's."""
        scene = Scene()
        scene.announce(node(local("main", 2 * GB, pinned=True), local("other", 3 * GB)))
        refusal = refused(scene.ask("other"))
        assert (refusal.refusal, refusal.bytes_max) == (Refusal.NEVER_FITS, 2 * GB)

    def test_nothing_fits(self) -> None:
        """The refusal says what to do."""
        scene = Scene()
        scene.announce(node(local("huge", 9 * GB), bytes_max=1))
        assert refused(scene.ask("huge")).detail.endswith("none of its models fits: give it a larger ram budget")

    def test_a_full_queue(self, scene: Scene) -> None:
        """The queue has a limit; beyond it a request is refused at once, and may come again."""
        scene.ask("small")
        for _ in range(QUEUE_REQUESTS_MAX):
            assert scene.ask("small") == ()
        refusal = refused(scene.ask("small"))
        assert refusal.refusal is Refusal.QUEUE_FULL
        assert refusal.detail == "256 requests wait on node local already; try again later"


class TestWaitingForANode:
    def test_requests_wait_for_the_announcement(self) -> None:
        """They are decided when it comes, in order."""
        scene = Scene()
        assert scene.ask("small") == ()
        assert scene.ask("nope") == ()
        refusal, lease = scene.announce(node(local("small", GB)))
        assert isinstance(refusal, LeaseRefused)
        assert isinstance(lease, LeaseGranted)

    def test_but_not_for_ever(self) -> None:
        """After a minute they are refused, with what to do."""
        scene = Scene()
        scene.ask("small")
        refusal = refused(scene.elapse())
        assert scene.now_ms == START_MS + NODE_WAIT_MS
        assert (refusal.refusal, refusal.detail) == (
            Refusal.NO_NODE,
            "node local did not announce itself within 60 s; start its governor",
        )


class TestMakingRoom:
    def test_an_idle_instance_goes_and_its_bytes_stay_reserved_until_it_has_gone(self, scene: Scene) -> None:
        """Two phases: ask, wait for the confirmation, then load."""
        scene.serve("small")
        asked = unload(scene.ask("large"))
        assert (asked.instance, asked.reason) == ("small#1", UnloadReason.ROOM)
        assert asked.detail == "large needs 3.50 GB and 3.00 GB are free"
        assert scene.ask("large") == ()
        lease = granted(scene.unloaded("small#1"))
        assert (lease.instance, lease.load) == ("large#1", True)

    def test_a_busy_instance_is_never_evicted(self, scene: Scene) -> None:
        """The swap waits for its outcome."""
        scene.ask("small")
        assert scene.ask("large") == ()
        assert unload(scene.finish()).instance == "small#1"

    def test_a_pinned_instance_is_never_evicted(self) -> None:
        """The other one goes, however recently it was used."""
        scene = Scene()
        scene.announce(node(local("main", GB, pinned=True), local("a", 2 * GB), local("b", 2 * GB)))
        scene.serve("main")
        scene.now_ms += 1000
        scene.serve("a")
        assert unload(scene.ask("b")).instance == "a#1"

    def test_room_is_kept_for_a_pinned_model_that_is_not_loaded_yet(self) -> None:
        """A second instance of another model would take it."""
        scene = Scene()
        scene.announce(node(local("main", 2 * GB, pinned=True), local("a", 2 * GB, instances_max=2)))
        scene.ask("a")
        assert scene.ask("a") == ()
        assert granted(scene.ask("main")).load

    @pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
    def test_the_longest_unused_goes_first(self, first: str, second: str) -> None:
        """Among models that cost the same to load."""
        scene = Scene()
        scene.announce(node(local("a", GB), local("b", GB), local("c", GB), bytes_max=2 * GB))
        scene.serve(first)
        scene.now_ms += 1000
        scene.serve(second)
        scene.now_ms += 1000
        assert unload(scene.ask("c")).instance == f"{first}#1"

    def test_what_is_costly_to_load_again_stays_longer(self) -> None:
        """A measured load time counts: idle time per second of loading decides."""
        scene = Scene()
        scene.announce(node(local("slow", GB), local("quick", GB), local("c", GB), bytes_max=2 * GB))
        scene.ask("slow")
        scene.finish(load_ms=60_000)
        scene.now_ms += 1000
        scene.ask("quick")
        scene.finish(load_ms=100)
        scene.now_ms += 1000
        assert unload(scene.ask("c")).instance == "quick#1"

    def test_no_more_goes_than_is_needed(self) -> None:
        """The small one was chosen first, but the large one alone is enough."""
        scene = Scene()
        scene.announce(node(local("a", GB), local("b", 2 * GB), local("c", 2 * GB), bytes_max=3 * GB))
        scene.serve("a")
        scene.now_ms += 60_000
        scene.serve("b")
        assert unload(scene.ask("c")).instance == "b#1"

    def test_nothing_goes_when_it_would_not_be_enough(self) -> None:
        """The rest is busy: unloading what is idle would only cost a load."""
        scene = Scene()
        scene.announce(node(local("a", GB), local("b", GB), local("c", 2 * GB), bytes_max=2 * GB))
        scene.serve("a")
        scene.ask("b")
        assert scene.ask("c") == ()
        answers = scene.finish()
        assert [answer.instance for answer in answers if isinstance(answer, UnloadRequested)] == ["a#1", "b#1"]

    def test_memory_that_is_on_its_way_is_waited_for(self, scene: Scene) -> None:
        """A second request for room asks for nothing more."""
        scene.serve("small")
        unload(scene.ask("large"))
        assert scene.ask("small") == ()


class TestTheQueue:
    def _swap_waits(self) -> Scene:
        """Return a scene in which one model is busy and another waits for its memory."""
        scene = Scene()
        scene.announce(node(local("a", 2 * GB), local("b", 2 * GB), remote("away"), bytes_max=3 * GB))
        scene.ask("a", run="r-1")
        assert scene.ask("b", run="r-2") == ()
        return scene

    def test_a_resident_model_may_pass_one_that_needs_a_swap(self) -> None:
        """Work for one model is done in one go; the grant says whom it passes."""
        scene = self._swap_waits()
        scene.ask("a", run="r-3")
        lease = scene.finish()[-1]
        assert isinstance(lease, LeaseGranted)
        assert lease.reason == "a#1 is resident and free; this passes 1 older that wait for memory"

    def test_until_the_age_bound(self) -> None:
        """From then on the swap comes first."""
        scene = self._swap_waits()
        scene.ask("a", run="r-3")
        scene.now_ms += AGE_BOUND_MS
        assert unload(scene.finish()).instance == "a#1"
        assert granted(scene.unloaded("a#1")).ask.model == "b"

    def test_a_server_elsewhere_is_not_held_up_by_it(self) -> None:
        """It takes no memory, so it can't be in the way."""
        scene = self._swap_waits()
        scene.now_ms += AGE_BOUND_MS
        granted(scene.ask("away"))

    def test_a_load_never_passes_one_that_waits_for_memory(self) -> None:
        """The memory that is free is being saved up for the older one."""
        scene = Scene()
        scene.announce(node(local("a", 2 * GB), local("b", 3 * GB), local("c", GB), bytes_max=4 * GB))
        scene.ask("a")
        assert scene.ask("b") == ()
        assert scene.ask("c") == ()
