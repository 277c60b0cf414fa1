"""The governor's laws as properties: any interleaving of runs, specialists, nodes and time, judged by the events."""

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.agents.governor_ledger import Ledger
from tests.agents.governor_scene import GB, Scene, ask, decided_again, local, node, remote

from lumina.agents.governor_state import State
from lumina.events.base import Event
from lumina.events.generation import GenerationFinished, GenerationOutcome
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseReleased
from lumina.events.node import NodeAnnounced, UnloadReason, UnloadRequested
from lumina.events.record import NO_DIGEST, Recorded

SMALL, MIDDLE, LARGE = local("small", GB // 2, instances_max=3), local("middle", GB), local("large", 3 * GB)
WIDE, PINNED, AWAY, CLOUD = (
    local("wide", GB, slots=3, instances_max=2),
    local("pinned", GB, pinned=True),
    remote("away", slots=2),
    remote("cloud", slots=2, cloud=True),
)
OFFERS = (SMALL, MIDDLE, LARGE, WIDE, PINNED, AWAY, CLOUD)
RUNS = st.sampled_from(["r-1", "r-2", "r-3"])
NODES = st.builds(
    lambda models, bytes_max, file: node(*models, bytes_max=bytes_max, idle_ms=60_000, file=file),
    st.lists(st.sampled_from(OFFERS), min_size=2, max_size=6, unique_by=lambda offer: offer.model),
    st.sampled_from([2 * GB, 3 * GB, 4 * GB, 6 * GB]),
    st.sampled_from(["a", "b"]),
)
PATIENCE_ROUNDS = 200


class GovernorMachine(RuleBasedStateMachine):
    """Everybody around the governor does what the protocol lets them do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()

    @initialize(announced=st.none() | NODES)
    def start(self, announced: NodeAnnounced | None) -> None:
        """Let the node be there first, or come later."""
        if announced is not None:
            self.scene.announce(announced)

    @rule(announced=NODES)
    def announce(self, announced: NodeAnnounced) -> None:
        """Let the node start again, with the same or another configuration."""
        self.scene.announce(announced)

    @rule(pick=st.data(), run=RUNS, times=st.integers(1, 3), cloud=st.sampled_from(["", "permitted"]))
    def ask(self, pick: st.DataObject, run: str, times: int, cloud: str) -> None:
        """Let a run ask a model, mostly one that the node has."""
        known = self.scene.ledger.node.models if self.scene.ledger.node else OFFERS
        models = [*(offer.model for offer in known), "small", "unheard-of"]
        for model in pick.draw(st.lists(st.sampled_from(models), min_size=times, max_size=times)):
            self.scene.ask(model, run=run, cloud=cloud)

    @precondition(lambda self: self.scene.ledger.out)
    @rule(pick=st.data(), outcome=st.sampled_from(GenerationOutcome), load_ms=st.none() | st.integers(1, 60_000))
    def finish(self, pick: st.DataObject, outcome: GenerationOutcome, load_ms: int | None) -> None:
        """Let a specialist end any of the leases that are out."""
        lease = pick.draw(st.sampled_from([one.id for one in self.scene.leases()]))
        self.scene.finish(self.scene.granted(lease), outcome=outcome, load_ms=load_ms)

    @precondition(lambda self: self.scene.ledger.out)
    @rule(limit=st.integers(1, 5))
    def answer_all(self, limit: int) -> None:
        """Let specialists answer what is out, as they mostly do."""
        for _ in range(limit):
            if self.scene.ledger.out:
                self.scene.finish(load_ms=10)

    @precondition(lambda self: self.scene.ledger.unloading)
    @rule(pick=st.data())
    def unload(self, pick: st.DataObject) -> None:
        """Let a process that was asked to go be gone."""
        self.scene.unloaded(pick.draw(st.sampled_from(sorted(self.scene.ledger.unloading))))

    @rule(run=RUNS)
    def close(self, run: str) -> None:
        """Let a run end, whatever is under way for it."""
        self.scene.close(run)

    @rule(passed_ms=st.sampled_from([10, 1000, 15_000, 25_000]))
    def wait(self, passed_ms: int) -> None:
        """Let nothing happen for a while."""
        self.scene.now_ms += passed_ms

    @precondition(lambda self: self.scene.governor.deadlines(self.scene.state))
    @rule()
    def elapse(self) -> None:
        """Let a deadline come."""
        self.scene.elapse()

    def teardown(self) -> None:
        """Show that every request ends if all do their part, and that the history can be decided again."""
        if self.scene.ledger.node is None and self.scene.ledger.waiting:
            self.scene.announce(node(*OFFERS))
        for _ in range(PATIENCE_ROUNDS):
            if self.scene.ledger.unloading:
                self.scene.unloaded(min(self.scene.ledger.unloading))
            elif self.scene.ledger.out:
                self.scene.finish()
        assert not self.scene.ledger.waiting, "every request ends"
        assert not self.scene.ledger.out
        self._let_everything_idle()
        own = [one.digest for one in self.scene.records if one.agent == "governor"]
        assert decided_again(self.scene.records) == own, "the same history is decided in the same way"
        state = self.scene.state
        assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state, "a state can be kept"

    def _let_everything_idle(self) -> None:
        """Show that memory comes back when nobody uses it, but for what is pinned."""
        for _ in range(PATIENCE_ROUNDS):
            if self.scene.ledger.unloading:
                self.scene.unloaded(min(self.scene.ledger.unloading))
            elif self.scene.governor.deadlines(self.scene.state):
                self.scene.elapse()
        assert self.scene.ledger.reserved.keys() <= {"pinned#1"}, "what is idle is unloaded"


GovernorMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestGovernorMachine = GovernorMachine.TestCase


def _busy_history() -> list[Recorded[Event]]:
    """Return a history with every kind of answer in it."""
    scene = Scene()
    scene.ask("small")
    scene.announce(node(SMALL, MIDDLE, LARGE, AWAY, idle_ms=60_000))
    for model in ("large", "middle", "away", "unheard-of", "small"):
        scene.ask(model, run="r-2")
    scene.finish()
    scene.finish()
    while scene.ledger.out or scene.ledger.unloading:
        if scene.ledger.unloading:
            scene.unloaded(min(scene.ledger.unloading))
        else:
            scene.finish(load_ms=10)
    scene.ask("middle", run="r-3")
    scene.close("r-3")
    scene.elapse()
    scene.elapse()
    return scene.records


def test_re_deciding_from_any_prefix_gives_the_same_answers() -> None:
    """A governor that is killed anywhere says afterwards what it would have said: the log shows no trace of it."""
    records = _busy_history()
    assert {type(one.event) for one in records} >= {LeaseGranted, LeaseReleased, UnloadRequested}
    for cut in range(len(records) + 1):
        known = records[:cut]
        own = [one.digest for one in known if one.agent == "governor"]
        assert decided_again(known)[: len(own)] == own


class TestTheLedgerNotices:
    """The judge itself: each law, broken on purpose, is noticed. A history is changed and seen again."""

    @staticmethod
    def _seen(scene: Scene, *events: tuple[Event, str]) -> None:
        for number, (event, stream) in enumerate(events):
            last = scene.records[-1]
            scene.ledger.see(
                Recorded(
                    event=event,
                    id=EventId(f"{number:032x}"),
                    stream=StreamId(stream),
                    agent="governor",
                    time_ms=last.time_ms,
                    causation=last.id,
                    position=1,
                    previous=NO_DIGEST,
                    digest=NO_DIGEST,
                )
            )

    @staticmethod
    def _grant(scene: Scene, *, instance: str, size: int, load: bool = True) -> tuple[Event, str]:
        event = LeaseGranted(
            request=scene.last_request(),
            ask=ask(instance.removesuffix("#1")),
            node="local",
            instance=instance,
            load=load,
            bytes_reserved=size,
            context=2048,
            expires_at=scene.now_ms + 1000,
        )
        return event, "r-1"

    @staticmethod
    def _full() -> Scene:
        """Return a scene in which the large model is busy, and the middle one is waited for."""
        scene = Scene()
        scene.announce(node(MIDDLE, LARGE, bytes_max=3 * GB))
        scene.ask("large")
        scene.ask("middle")
        return scene

    def test_over_commitment(self) -> None:
        """A load beyond the budget."""
        scene = self._full()
        with pytest.raises(AssertionError, match="never over-committed"):
            self._seen(scene, self._grant(scene, instance="middle#1", size=GB))

    def test_a_second_load_of_one_instance(self) -> None:
        """A grant on an instance that is loading."""
        scene = Scene()
        scene.announce(node(local("large", 3 * GB, slots=2)))
        scene.ask("large")
        scene.ask("large")
        with pytest.raises(AssertionError, match="single-flight"):
            self._seen(scene, self._grant(scene, instance="large#1", size=3 * GB))

    def test_the_eviction_of_a_busy_instance(self) -> None:
        """An unload while a lease is out."""
        unload = UnloadRequested(node="local", instance="large#1", reason=UnloadReason.ROOM, detail="room")
        with pytest.raises(AssertionError, match="busy instance"):
            self._seen(self._full(), (unload, "local"))

    def test_the_eviction_of_a_pinned_instance(self) -> None:
        """An unload to make room for others."""
        scene = Scene()
        scene.announce(node(PINNED))
        scene.serve("pinned")
        unload = UnloadRequested(node="local", instance="pinned#1", reason=UnloadReason.ROOM, detail="room")
        with pytest.raises(AssertionError, match="pinned instance"):
            self._seen(scene, (unload, "local"))

    def test_starvation(self) -> None:
        """A younger request for the resident model is granted long after an older one began to wait for memory."""
        scene = self._full()
        scene.now_ms += 25_000
        scene.ask("large")
        scene.finish()
        lenient = Ledger()
        for one in scene.records:
            if not isinstance(one.event, UnloadRequested):
                lenient.see(one)
        scene.ledger = lenient
        with pytest.raises(AssertionError, match="starvation"):
            self._seen(scene, self._grant(scene, instance="large#1", size=3 * GB, load=False))

    def test_an_answer_given_twice(self) -> None:
        """A lease that is expired after its outcome."""
        scene = self._full()
        lease = scene.leases()[0]
        scene.finish()
        with pytest.raises(AssertionError, match="runs out once"):
            self._seen(scene, (LeaseExpired(lease=lease.id, request=lease.event.request), "r-1"))

    def test_a_lease_that_is_not_given_back(self) -> None:
        """An outcome without a release."""
        scene = self._full()
        lease = scene.leases()[0]
        scene.finish()
        finished = next(one.event for one in scene.records if isinstance(one.event, GenerationFinished))
        fresh = Ledger()
        for one in scene.records:
            if not isinstance(one.event, LeaseReleased):
                fresh.see(one)
        assert finished.lease == lease.id
        with pytest.raises(AssertionError, match="released at once"):
            fresh.settle()
