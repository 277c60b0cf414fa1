"""Invariants of the governor: answers in order, leases that end, memory given once, the cloud only with permission."""

from collections.abc import Iterable
from typing import Final

import msgspec

from lumina.agents.orchestrator import RUN_PREFIX
from lumina.events.base import Event
from lumina.events.generation import Ask, GenerationFinished, GenerationRequested
from lumina.events.ids import EventId, StreamId, event_id
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.node import ModelOffer, ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunOptions
from lumina.events.timer import TimerElapsed
from lumina.replay.invariants.law import BUDGET, BUSY, CAUSE, CLOUD, LEASE, SLOT, SLOTS, Fault

NAME: Final = "governor"
GOVERNOR_INPUTS_MAX: Final = 10_000
"""How many inputs behind the governor's newest answer are known as possible causes."""


_READ: Final = frozenset(
    (GenerationRequested, GenerationFinished, RunClosed, NodeAnnounced, ModelUnloaded, TimerElapsed)
)


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that has not ended."""

    granted: Recorded[Event]
    node: str
    instance: str
    request: EventId
    expires_at: int


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is neither granted nor refused."""

    stream: StreamId
    ask: Ask


class GovernorLaws:
    """What the governor's records have to go by: its inputs, requests, leases and the memory of its node."""

    def __init__(self, *, inputs_max: int = GOVERNOR_INPUTS_MAX) -> None:
        self._inputs_max = inputs_max
        self.undecided: dict[EventId, Asked] = {}
        self.leases: dict[EventId, Lease] = {}
        self.instances: dict[tuple[str, str], int] = {}
        self._nodes: dict[str, NodeAnnounced] = {}
        self._inputs: dict[EventId, Recorded[Event]] = {}
        self._too_many = False
        self._cause: tuple[EventId, int] | None = None
        self._seq = 0
        self._elapsed_ms = 0
        self._due: dict[EventId, int] = {}
        self._dropped: list[tuple[int, EventId]] = []
        self._in_run: dict[StreamId, int] = {}
        self.emptied: list[StreamId] = []
        """Streams in which nothing is waited for any more, as far as the governor is concerned."""

    def waited_for(self, stream: StreamId) -> bool:
        """Whether a request or lease in `stream` has not ended."""
        return stream in self._in_run

    def take(self, recorded: Recorded[Event], *, options: RunOptions | None, faults: list[Fault]) -> None:
        """Fold a record and add what it breaks. `options` are those of its run, if the run is known."""
        if recorded.agent == NAME:
            self._order(recorded, faults=faults)
            self._answer(recorded, options=options, faults=faults)
        else:
            self._input(recorded)

    def _input(self, recorded: Recorded[Event]) -> None:
        event = recorded.event
        if type(event) not in _READ:
            return
        match event:
            case GenerationRequested():
                self.undecided[recorded.id] = Asked(stream=recorded.stream, ask=event.ask)
                self._count(recorded.stream, 1)
            case GenerationFinished():
                if event.lease in self.leases:
                    self._due.setdefault(event.lease, recorded.seq)
            case RunClosed():
                self._closed(recorded)
            case NodeAnnounced() | ModelUnloaded():
                pass  # they count from the moment at which the governor has read them
            case TimerElapsed() if not recorded.stream.startswith(RUN_PREFIX):
                self._elapsed(recorded, due=event.due)
            case _:
                return  # a timer of a run, which it does not read
        self._inputs[recorded.id] = recorded
        if len(self._inputs) > self._inputs_max:
            self._read_next()
            self._too_many = True

    def _read_next(self) -> EventId:
        """Take the oldest input as one that the governor has read, and return its id."""
        name = next(iter(self._inputs))
        recorded = self._inputs.pop(name)
        self._seq = recorded.seq
        match recorded.event:
            case NodeAnnounced() as announced:
                self._nodes[announced.node] = announced
            case ModelUnloaded(node=node, instance=instance):
                self.instances.pop((node, instance), None)
            case _:
                pass  # what it says of requests and leases was noted when it landed
        return name

    def _closed(self, recorded: Recorded[Event]) -> None:
        """Note what the governor has to give back, and that it answers no request of this run once it knows."""
        if recorded.stream not in self._in_run:
            return
        for name, lease in self.leases.items():
            if lease.granted.stream == recorded.stream:
                self._due.setdefault(name, recorded.seq)
        self._dropped += [(recorded.seq, name) for name, one in self.undecided.items() if one.stream == recorded.stream]

    def _elapsed(self, recorded: Recorded[Event], *, due: int) -> None:
        self._elapsed_ms = max(self._elapsed_ms, due)
        for name, lease in self.leases.items():
            if lease.expires_at <= due:
                self._due.setdefault(name, recorded.seq)

    def _order(self, recorded: Recorded[Event], *, faults: list[Fault]) -> None:
        """Check that this is the next answer to the same input, or the first to a later one."""
        cause = recorded.causation
        if cause is not None and self._cause is not None and cause == self._cause[0]:
            ordinal = self._cause[1] + 1
        elif cause is not None and cause in self._inputs:
            self._reach(cause)
            ordinal = 0
        elif cause is not None and self._too_many:
            self._cause = None  # it may have answered one that is forgotten; then nothing can be said about its number
            return
        else:
            faults.append((CAUSE, f"nothing that the governor has not answered has its cause's id {cause}"))
            return
        slot = event_id(cause, agent=NAME, ordinal=ordinal)
        if recorded.id != slot:
            faults.append((SLOT, f"it stands in the slot {recorded.id}; the next one of its cause is {slot}"))
        self._cause = (cause, ordinal)
        for lease in [lease for lease, since in self._due.items() if since < self._seq]:
            del self._due[lease]
            why = (
                f"lease {lease} should have ended before: the governor has seen its outcome, its run's end or its time"
            )
            faults.append((LEASE, why))

    def _reach(self, cause: EventId) -> None:
        """Go on to the input that the governor answers now; it does not come back to those before it.

        Its answers are judged by what it has read so far, not by what has landed meanwhile.
        """
        while self._read_next() != cause:
            pass
        while self._dropped and self._dropped[0][0] <= self._seq:
            self._decide(self._dropped.pop(0)[1])

    def _answer(self, recorded: Recorded[Event], *, options: RunOptions | None, faults: list[Fault]) -> None:
        event = recorded.event
        match event:
            case LeaseGranted():
                self._grant(recorded, event, options=options, faults=faults)
            case LeaseRefused():
                if self._decide(event.request) is None:
                    faults.append((LEASE, f"request {event.request} does not wait for a lease"))
            case LeaseReleased():
                self._end(event.lease, faults=faults)
            case LeaseExpired():
                lease = self._end(event.lease, faults=faults)
                if lease is not None and lease.expires_at > self._elapsed_ms:
                    faults.append((LEASE, f"it has time until {lease.expires_at}, and that has not elapsed"))
            case UnloadRequested():
                if any((one.node, one.instance) == (event.node, event.instance) for one in self.leases.values()):
                    faults.append((BUSY, f"{event.instance} is in use"))
            case _:
                pass  # not the governor's to write, which is reported elsewhere

    def _grant(
        self, recorded: Recorded[Event], event: LeaseGranted, *, options: RunOptions | None, faults: list[Fault]
    ) -> None:
        asked = self._decide(event.request)
        if asked is None:
            faults.append((LEASE, f"request {event.request} does not wait for a lease"))
        elif asked.ask != event.ask:
            faults.append((LEASE, f"request {event.request} asked otherwise"))
        lease = Lease(
            granted=recorded,
            node=event.node,
            instance=event.instance,
            request=event.request,
            expires_at=event.expires_at,
        )
        self.leases[recorded.id] = lease
        self._count(recorded.stream, 1)
        announced = self._nodes.get(event.node)
        offer = _offer(() if announced is None else announced.models, model=event.ask.model)
        held = sum((one.node, one.instance) == (event.node, event.instance) for one in self.leases.values())
        slots = 0 if offer is None else offer.slots
        if held > slots:
            faults.append((SLOTS, f"{event.instance} has {held} leases and {slots} slots"))
        if offer is not None and offer.cloud:
            if not event.ask.cloud:
                faults.append((CLOUD, f"{event.instance} is lent to a question that does not say why"))
            if options is not None and not options.cloud:
                faults.append((CLOUD, f"{event.instance} is lent to a run that does not permit it"))
        self._reserve(event, limit=0 if announced is None else announced.bytes_max, faults=faults)

    def _reserve(self, event: LeaseGranted, *, limit: int, faults: list[Fault]) -> None:
        if not event.bytes_reserved:
            return  # a server elsewhere
        place = (event.node, event.instance)
        fresh = place not in self.instances
        self.instances[place] = event.bytes_reserved
        used = sum(size for (node, _), size in self.instances.items() if node == event.node)
        # A smaller budget may be announced at any time; only taking more is the governor's doing.
        if fresh and used > limit:
            faults.append((BUDGET, f"{event.instance} brings {event.node} to {used:,} of {limit:,} bytes"))

    def _decide(self, request: EventId) -> Asked | None:
        asked = self.undecided.pop(request, None)
        if asked is not None:
            self._count(asked.stream, -1)
        return asked

    def _end(self, name: EventId, *, faults: list[Fault]) -> Lease | None:
        lease = self.leases.pop(name, None)
        if lease is None:
            faults.append((LEASE, f"lease {name} was never granted, or has ended before"))
            return None
        self._due.pop(name, None)
        self._count(lease.granted.stream, -1)
        return lease

    def _count(self, stream: StreamId, change: int) -> None:
        left = self._in_run.get(stream, 0) + change
        if left:
            self._in_run[stream] = left
        else:
            self._in_run.pop(stream, None)
            self.emptied.append(stream)


def _offer(offers: Iterable[ModelOffer], *, model: str) -> ModelOffer | None:
    return next((offer for offer in offers if offer.model == model), None)
