"""The governor's laws, checked on the events alone, by one who knows nothing of the governor's state."""

from dataclasses import dataclass

from lumina.agents.governor_rules import AGE_BOUND_MS, NODE_WAIT_MS, QUEUE_REQUESTS_MAX
from lumina.events.base import Event
from lumina.events.generation import Ask, GenerationFinished, GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased, Refusal
from lumina.events.node import Backend, ModelOffer, ModelUnloaded, NodeAnnounced, UnloadReason, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.events.timer import TimerElapsed


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as the log shows it."""

    ask: Ask
    run: StreamId
    since_ms: int


class Ledger:
    """Folds a history and asserts, record by record, that no law is broken.

    Attributes:
        waiting: Requests without an answer, oldest first, with their time.
        out: Leases without an outcome that have not run out, oldest first.
        reserved: Bytes by instance, from the grant that loads until the confirmed unload.
        unloading: Instances that were asked to go.
    """

    def __init__(self) -> None:
        self.node: NodeAnnounced | None = None
        self.waiting: dict[EventId, Request] = {}
        self.out: dict[EventId, LeaseGranted] = {}
        self.reserved: dict[str, int] = {}
        self.unloading: set[str] = set()
        self.ended: dict[EventId, str] = {}
        self._confirmed: set[str] = set()
        self._stale: set[str] = set()
        self._unsaid: set[EventId] = set()
        self._runs: dict[EventId, StreamId] = {}
        self._clock_ms = 0

    def see(self, record: Recorded[Event]) -> None:
        """Fold a record. Raises AssertionError, which names the law that it breaks."""
        self._clock_ms = max(self._clock_ms, record.time_ms)
        if record.agent == "governor":
            self._see_answer(record)
        else:
            self._see_input(record)

    def _see_input(self, record: Recorded[Event]) -> None:
        match record.event:
            case NodeAnnounced() as node:
                self._doubt(node)
                self.node = node
            case GenerationRequested() as requested:
                self.waiting[record.id] = Request(ask=requested.ask, run=record.stream, since_ms=self._clock_ms)
            case GenerationFinished() as finished:
                self._finished(finished)
            case RunClosed():
                self._closed(record.stream)
            case ModelUnloaded() as unloaded:
                if unloaded.instance in self.unloading:
                    self.unloading.discard(unloaded.instance)
                    del self.reserved[unloaded.instance]
                    self._stale.discard(unloaded.instance)
                self._confirmed.discard(unloaded.instance)
            case TimerElapsed() as elapsed:
                self._elapsed(elapsed)
            case _:
                raise AssertionError(f"{record.type} is not for the governor")

    def _see_answer(self, record: Recorded[Event]) -> None:
        match record.event:
            case LeaseGranted() as granted:
                self._granted(granted, lease=record.id)
            case LeaseRefused() as refused:
                self._refused(refused)
            case LeaseReleased() as released:
                assert released.lease in self._unsaid, "a lease is released once, and after an outcome or its run's end"
                self._unsaid.discard(released.lease)
            case LeaseExpired() as expired:
                assert expired.lease in self.out, "a lease runs out once, and only without an outcome"
                del self.out[expired.lease]
            case UnloadRequested() as unload:
                self._unload(unload)
            case _:
                raise AssertionError(f"{record.type} is not the governor's to say")

    def settle(self) -> None:
        """Check what must hold when the governor has answered a record."""
        assert not self._unsaid, "every lease that ended is released at once"
        assert len(self.waiting) <= QUEUE_REQUESTS_MAX, "the queue is bounded"
        if self.node is None:
            return
        for request in self.waiting.values():
            offer = self._offer(request.ask.model)
            assert offer is not None, "an unknown model is refused at once"
            assert offer.bytes_estimated <= self._most(offer), "what can never fit is refused at once"
            assert request.ask.cloud or not offer.cloud, "what is not permitted is refused at once"

    def _doubt(self, node: NodeAnnounced) -> None:
        """Forget what was known to be loaded; what the new configuration describes otherwise must not be used."""
        self._confirmed.clear()
        for name in self.reserved:
            model = name.rsplit("#", 1)[0]
            now = next((offer for offer in node.models if offer.model == model), None)
            if self.node is None or self.node.configuration != node.configuration or now != self._offer(model):
                self._stale.add(name)

    def _granted(self, granted: LeaseGranted, *, lease: EventId) -> None:
        request = self.waiting.pop(granted.request)
        assert request.ask == granted.ask, "the question is the one that was asked"
        self._end(granted.request, "granted")
        offer = self._offer(granted.ask.model)
        assert offer is not None, "only offered models are granted"
        assert granted.ask.cloud or not offer.cloud, "the cloud is never lent without a reason"
        calls = sum(1 for other in self.out.values() if other.instance == granted.instance)
        assert calls < offer.slots, "no more calls than slots"
        assert granted.expires_at > self._clock_ms, "a lease lasts"
        self.out[lease] = granted
        self._runs[granted.request] = request.run
        if offer.backend is not Backend.LLAMA_CPP:
            assert (granted.bytes_reserved, granted.load) == (0, False), "a server elsewhere takes no memory"
            return
        name = granted.instance
        assert name not in self.unloading, "an instance on its way out gets no work"
        assert name not in self._stale, "an instance of another configuration gets no work"
        assert granted.load == (name not in self._confirmed), "load is said until an outcome has shown it loaded"
        assert not (granted.load and calls), "loads are single-flight"
        if name not in self.reserved:
            self.reserved[name] = granted.bytes_reserved
            self._fits(offer)
        assert self.reserved[name] == granted.bytes_reserved, "an instance keeps its bytes"
        if not (offer.pinned and name == f"{offer.model}#1"):
            self._passes_nobody_aged(request.since_ms)

    def _fits(self, offer: ModelOffer) -> None:
        assert self.node is not None
        taken = sum(self.reserved.values())
        assert taken <= self.node.bytes_max, "never over-committed"
        kept = sum(
            other.bytes_estimated
            for other in self.node.models
            if other.pinned and other != offer and f"{other.model}#1" not in self.reserved
        )
        assert taken + kept <= self.node.bytes_max, "room for pinned models is kept"
        mine = [name for name in self.reserved if name.rsplit("#", 1)[0] == offer.model]
        assert len(mine) <= offer.instances_max, "no more instances than allowed"

    def _passes_nobody_aged(self, since_ms: int) -> None:
        """Check that no aged request without any instance is passed by a younger one that takes memory."""
        held = {name.rsplit("#", 1)[0] for name in self.reserved}
        for other in self.waiting.values():
            offer = self._offer(other.ask.model)
            swaps = offer is not None and offer.backend is Backend.LLAMA_CPP and offer.model not in held
            if swaps and other.since_ms < since_ms:
                assert self._clock_ms - other.since_ms < AGE_BOUND_MS, "no starvation beyond the age bound"

    def _refused(self, refused: LeaseRefused) -> None:
        request = self.waiting.pop(refused.request)
        self._end(refused.request, "refused")
        assert refused.detail, "a refusal has its reason"
        offer = self._offer(request.ask.model)
        match refused.refusal:
            case Refusal.UNKNOWN_MODEL:
                assert offer is None, "the model is unknown"
            case Refusal.NEVER_FITS:
                assert offer is not None
                assert refused.bytes_needed == offer.bytes_estimated > refused.bytes_max == self._most(offer)
            case Refusal.NOT_PERMITTED:
                assert offer is not None
                assert offer.cloud, "only the cloud needs a permission"
                assert not request.ask.cloud, "who has a reason is not refused for want of one"
            case Refusal.NO_NODE:
                assert self.node is None, "there is no node"
                assert self._clock_ms - request.since_ms >= NODE_WAIT_MS, "it waited"
            case Refusal.QUEUE_FULL:
                assert len(self.waiting) == QUEUE_REQUESTS_MAX, "the queue is full"

    def _finished(self, finished: GenerationFinished) -> None:
        lease = self.out.pop(finished.lease, None)
        if lease is None:
            return
        if self.ended.get(lease.request) == "granted":
            self._unsaid.add(finished.lease)
        if finished.load is not None or finished.outcome.value in {"answered", "unusable", "length", "garbage"}:
            self._confirmed.add(lease.instance)

    def _closed(self, run: StreamId) -> None:
        for name, request in tuple(self.waiting.items()):
            if request.run == run:
                del self.waiting[name]
                self._end(name, "dropped")
        for lease, granted in self.out.items():
            if self._runs[granted.request] == run and self.ended[granted.request] == "granted":
                self.ended[granted.request] = "closed"
                self._unsaid.add(lease)

    def _unload(self, unload: UnloadRequested) -> None:
        name = unload.instance
        assert name in self.reserved, "only what holds memory can give it back"
        assert name not in self.unloading, "an unload is asked for once"
        assert not any(lease.instance == name for lease in self.out.values()), "a busy instance is never evicted"
        assert unload.detail, "an unload has its reason"
        offer = self._offer(name.rsplit("#", 1)[0])
        pinned = offer is not None and offer.pinned and name.endswith("#1")
        assert not pinned or unload.reason is UnloadReason.RETIRED, "a pinned instance is never evicted"
        self.unloading.add(name)

    def _elapsed(self, elapsed: TimerElapsed) -> None:
        """Forget leases of ended runs that have run out: nothing is said about them."""
        for lease, granted in tuple(self.out.items()):
            if self.ended[granted.request] == "closed" and granted.expires_at <= elapsed.due:
                del self.out[lease]

    def _end(self, request: EventId, how: str) -> None:
        assert request not in self.ended, "a request ends once"
        self.ended[request] = how

    def _offer(self, model: str) -> ModelOffer | None:
        models = self.node.models if self.node is not None else ()
        return next((offer for offer in models if offer.model == model), None)

    def _most(self, offer: ModelOffer) -> int:
        assert self.node is not None
        kept = sum(other.bytes_estimated for other in self.node.models if other.pinned and other != offer)
        return max(0, self.node.bytes_max - kept)
