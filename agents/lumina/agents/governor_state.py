"""What the governor knows: the node's offer, the model instances, who uses them, who waits; and how records change it.

An instance goes unloaded → held (its bytes are reserved by `lease.granted` with `load`) → loaded (an outcome showed
it) → unloading (`node.unload_requested`) → unloaded (`node.model_unloaded`), and its bytes stay reserved until the
last step. What a fact from outside leaves in doubt is decided for safety: the memory stays reserved, the next grant
says `load` again.

- **A node announces itself again.** Its model processes may have survived. Every instance keeps its bytes, but is not
  known to be loaded. If the configuration changed, an instance may hold the wrong model: it is retired.
- **A lease runs out, or a model process does not answer.** Nobody knows what the process does: its instance is
  retired, which means that it gets no more work and is unloaded as soon as no lease is on it.
- **A run ends while its lease is in use.** The lease is released, but the instance counts as busy until the outcome
  is there or the lease has run out, since its process may still compute, or load.
"""

from typing import assert_never

import msgspec
from msgspec.structs import replace

from lumina.events.base import Event
from lumina.events.generation import Ask, GenerationFinished, GenerationOutcome, GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseEvent, LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.node import Backend, ModelOffer, ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.events.timer import TimerElapsed

GovernorInput = NodeAnnounced | GenerationRequested | GenerationFinished | RunClosed | ModelUnloaded | TimerElapsed
GovernorAnswer = LeaseEvent | UnloadRequested

_SHOWS_LOADED = (
    GenerationOutcome.ANSWERED,
    GenerationOutcome.UNUSABLE,
    GenerationOutcome.LENGTH,
    GenerationOutcome.GARBAGE,
)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A request in the queue."""

    request: EventId
    run: StreamId
    ask: Ask
    since_ms: int


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was granted an instance.

    Attributes:
        ended: Its outcome is in the log.
        closed: Its run has ended.
        released: `lease.released` was said, but there is no outcome yet.
    """

    request: EventId
    run: StreamId
    instance: str
    expires_at: int
    ended: bool = False
    closed: bool = False
    released: bool = False


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A model process that holds memory, or may hold it.

    Attributes:
        bytes: Reserved for it.
        last_used_ms: When a lease on it was last granted or ended.
        loaded: An outcome showed that it is there.
        unloading: It was asked to go.
        retired: Why it gets no more work; empty while all is well.
    """

    model: str
    bytes: int
    last_used_ms: int
    loaded: bool = False
    unloading: bool = False
    retired: str = ""

    @property
    def usable(self) -> bool:
        """Whether it may get work."""
        return not self.unloading and not self.retired


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of all that concerns one node.

    Attributes:
        announced: The newest announcement; None before the first.
        offers: Its models by name.
        waiting: In order of arrival.
        leases: By the id of their `lease.granted`.
        instances: By name.
        load_ms: How long the last load of a model took.
        clock_ms: The latest time of any input. Clocks of several machines differ; this one never goes back.
        elapsed_ms: The latest deadline that elapsed.
    """

    node: StreamId
    announced: NodeAnnounced | None = None
    offers: dict[str, ModelOffer] = {}
    waiting: tuple[Waiting, ...] = ()
    leases: dict[EventId, Lease] = {}
    instances: dict[str, Instance] = {}
    load_ms: dict[str, int] = {}
    clock_ms: int = 0
    elapsed_ms: int = 0

    def offer(self, model: str) -> ModelOffer | None:
        """Return what the node offers under that name, None for an unknown model."""
        return self.offers.get(model)


def is_local(offer: ModelOffer) -> bool:
    """Whether a model takes memory of this node. All others are only counted by their slots."""
    return offer.backend is Backend.LLAMA_CPP


def tick(state: State, recorded: Recorded[Event]) -> State:
    """Move the state's clock on to the time of an input."""
    return replace(state, clock_ms=max(state.clock_ms, recorded.time_ms))


def after(state: State, event: Event, *, record: EventId, stream: StreamId) -> State:
    """Return the state after `event`, which stands, or will stand, as `record` in `stream`. Never refuses."""
    if isinstance(event, GovernorInput):
        return _after_input(state, event, record=record, stream=stream)
    if isinstance(event, GovernorAnswer):
        return _after_answer(state, event, record=record)
    return state


def _after_input(state: State, event: GovernorInput, *, record: EventId, stream: StreamId) -> State:
    match event:
        case NodeAnnounced():
            return _announced(state, event)
        case GenerationRequested():
            waits = Waiting(request=record, run=stream, ask=event.ask, since_ms=state.clock_ms)
            return replace(state, waiting=(*state.waiting, waits))
        case GenerationFinished():
            return _finished(state, event)
        case RunClosed():
            return _closed(state, stream)
        case ModelUnloaded():
            return _unloaded(state, event)
        case TimerElapsed():
            return _elapsed(state, event)
        case _:
            assert_never(event)


def _after_answer(state: State, event: GovernorAnswer, *, record: EventId) -> State:
    match event:
        case LeaseGranted():
            return _granted(state, event, lease=record)
        case LeaseRefused():
            return replace(state, waiting=_without(state, event.request))
        case LeaseReleased():
            return _released(state, event)
        case LeaseExpired():
            return _void(state, event.lease)
        case UnloadRequested():
            return _change(state, event.instance, unloading=True)
        case _:
            assert_never(event)


def _announced(state: State, event: NodeAnnounced) -> State:
    """Doubt what is resident; retire what the new configuration does not describe."""
    now = {offer.model: offer for offer in event.models}
    same_file = state.announced is not None and state.announced.configuration == event.configuration
    instances = {}
    for name, instance in state.instances.items():
        same = same_file and instance.model in now and now[instance.model] == state.offers.get(instance.model)
        retired = instance.retired or ("" if same else "the node's configuration changed")
        instances[name] = replace(instance, loaded=False, retired=retired)
    return replace(state, announced=event, offers=now, instances=instances)


def _granted(state: State, event: LeaseGranted, *, lease: EventId) -> State:
    granted = next(waits for waits in state.waiting if waits.request == event.request)
    instances = state.instances
    offer = state.offer(event.ask.model)
    if event.instance in instances:
        instances = {**instances, event.instance: replace(instances[event.instance], last_used_ms=state.clock_ms)}
    elif offer is not None and is_local(offer):
        fresh = Instance(model=event.ask.model, bytes=event.bytes_reserved, last_used_ms=state.clock_ms)
        instances = {**instances, event.instance: fresh}
    held = Lease(request=event.request, run=granted.run, instance=event.instance, expires_at=event.expires_at)
    return replace(
        state, waiting=_without(state, event.request), instances=instances, leases={**state.leases, lease: held}
    )


def _released(state: State, event: LeaseReleased) -> State:
    lease = state.leases[event.lease]
    if lease.ended:
        return _drop(state, event.lease)
    return replace(state, leases={**state.leases, event.lease: replace(lease, released=True)})


def _finished(state: State, event: GenerationFinished) -> State:
    lease = state.leases.get(event.lease)
    if lease is None:  # it ran out before
        return state
    instance = state.instances.get(lease.instance)
    if instance is not None:
        loaded = instance.loaded or event.load is not None or event.outcome in _SHOWS_LOADED
        state = _change(state, lease.instance, loaded=loaded, last_used_ms=state.clock_ms)
        if event.outcome is GenerationOutcome.UNAVAILABLE:
            state = _retire(state, lease.instance, why="its process did not load or answer")
    if event.load is not None:
        state = replace(state, load_ms={**state.load_ms, event.model: event.load.load_ms})
    if lease.released:
        return _drop(state, event.lease)
    return replace(state, leases={**state.leases, event.lease: replace(lease, ended=True)})


def _closed(state: State, run: StreamId) -> State:
    waiting = tuple(waits for waits in state.waiting if waits.run != run)
    leases = {name: replace(lease, closed=True) if lease.run == run else lease for name, lease in state.leases.items()}
    return replace(state, waiting=waiting, leases=leases)


def _unloaded(state: State, event: ModelUnloaded) -> State:
    instance = state.instances.get(event.instance)
    if instance is None:
        return state
    if not instance.unloading:  # nobody asked: what became of its memory is in doubt
        return _change(state, event.instance, loaded=False)
    return replace(state, instances={name: held for name, held in state.instances.items() if name != event.instance})


def _elapsed(state: State, event: TimerElapsed) -> State:
    """Move time on, and give up on outcomes of released leases that have run out."""
    due = max(state.elapsed_ms, event.due)
    state = replace(state, elapsed_ms=due, clock_ms=max(state.clock_ms, due))
    for name, lease in state.leases.items():
        if lease.released and lease.expires_at <= due:
            state = _void(state, name)
    return state


def _void(state: State, lease: EventId) -> State:
    """Drop a lease whose outcome never came, and retire its instance."""
    instance = state.leases[lease].instance
    return _retire(_drop(state, lease), instance, why="a lease on it ran out without an outcome")


def _retire(state: State, instance: str, *, why: str) -> State:
    if instance not in state.instances or state.instances[instance].retired:
        return state
    return _change(state, instance, retired=why)


def _drop(state: State, lease: EventId) -> State:
    return replace(state, leases={name: held for name, held in state.leases.items() if name != lease})


def _change(state: State, name: str, **fields: object) -> State:
    instance = state.instances.get(name)
    if instance is None:
        return state
    return replace(state, instances={**state.instances, name: replace(instance, **fields)})


def _without(state: State, request: EventId) -> tuple[Waiting, ...]:
    return tuple(waits for waits in state.waiting if waits.request != request)
