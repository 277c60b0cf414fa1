"""What the governor does next, and why, in words. Pure: one answer at a time follows from the state.

In this order: give back leases; refuse what can never be; ask for memory that must go; grant what is resident; load;
make room; unload what is idle; refuse what the queue can't hold. Each answer changes the state, so the caller asks
again until there is none.

The queue is first come, first served, but a request for a resident model may pass older ones that wait for memory,
until the oldest of those has waited `AGE_BOUND_MS`. From then on nothing that could be unloaded for it gets new
work. So it waits at most for the bound, the leases that are out at that moment, the unloads, and those before it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from lumina.agents.governor_state import Instance, State, Waiting, is_local
from lumina.agents.ports import Answer
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased, Refusal
from lumina.events.node import ModelOffer, NodeAnnounced, UnloadReason, UnloadRequested
from lumina.events.values import clip

QUEUE_REQUESTS_MAX: Final = 256
AGE_BOUND_MS: Final = 20_000
"""Half the swaps for 5 s of the 95th percentile of waiting; a longer bound buys little (models.md section 4.4)."""
NODE_WAIT_MS: Final = 60_000
"""How long a request waits for the first announcement of a node."""
LEASE_GRACE_MS: Final = 60_000
"""What a lease lasts beyond the call's own limit: a specialist that died is started again, and the call repeated."""
LOAD_ALLOWANCE_MS: Final = 600_000
"""At least what a load may take (`LOAD_S_MAX` in models/llama_pool.py)."""
LOAD_START_MS: Final = 150
LOAD_BYTES_PER_MS: Final = 1_200_000
"""A load that was never measured takes 0.15 s and one second per 1.2 GB (models.md section 4.3)."""
SENTENCE_CHARACTERS_MAX: Final = 500


def next_answer(state: State) -> Answer | None:
    """Return what has to be said first in this state, None when nothing has to be."""
    answer = _lease_back(state)
    if answer is not None:
        return answer
    node = state.announced
    if node is None:
        return _without_node(state)
    for rule in (_refuse, _retire, _shrink, _grant, _load_or_make_room, _unload_idle):
        answer = rule(state, node)
        if answer is not None:
            return answer
    return _overflow(state)


# Leases that end


def _lease_back(state: State) -> Answer | None:
    for name, lease in state.leases.items():
        if lease.released:
            continue
        if lease.ended or lease.closed:
            reason = "its outcome is there" if lease.ended else "its run ended; the instance is busy until the outcome"
            return Answer(event=LeaseReleased(lease=name, reason=reason), stream=lease.run)
        if lease.expires_at <= state.elapsed_ms:
            reason = f"no outcome came in time; {lease.instance} is not used again before it was unloaded"
            return Answer(event=LeaseExpired(lease=name, request=lease.request, reason=reason), stream=lease.run)
    return None


# Requests that can't be admitted


def _refused(waits: Waiting, refusal: Refusal, detail: str, *, needed: int = 0, most: int = 0) -> Answer:
    event = LeaseRefused(
        request=waits.request,
        refusal=refusal,
        detail=clip(detail, limit=SENTENCE_CHARACTERS_MAX),
        bytes_needed=needed,
        bytes_max=most,
    )
    return Answer(event=event, stream=waits.run)


def _without_node(state: State) -> Answer | None:
    for waits in state.waiting:
        if waits.since_ms + NODE_WAIT_MS <= state.elapsed_ms:
            detail = f"node {state.node} did not announce itself within {NODE_WAIT_MS // 1000} s; start its governor"
            return _refused(waits, Refusal.NO_NODE, detail)
    return _overflow(state)


def _overflow(state: State) -> Answer | None:
    if len(state.waiting) <= QUEUE_REQUESTS_MAX:
        return None
    detail = f"{QUEUE_REQUESTS_MAX} requests wait on node {state.node} already; try again later"
    return _refused(state.waiting[-1], Refusal.QUEUE_FULL, detail)


def _refuse(state: State, node: NodeAnnounced) -> Answer | None:
    for waits in state.waiting:
        model = waits.ask.model
        offer = state.offer(model)
        if offer is None:
            names = ", ".join(known.model for known in node.models) or "none"
            detail = f"no model {model} on node {node.node}; its models: {names}"
            return _refused(waits, Refusal.UNKNOWN_MODEL, detail)
        if offer.cloud and not waits.ask.cloud:
            detail = f"model {model} runs on machines of others, and nobody says why it may be asked; see --allow-cloud"
            return _refused(waits, Refusal.NOT_PERMITTED, detail)
        if not is_local(offer):
            continue
        most = _most_for(offer, node)
        if offer.bytes_estimated > most:
            detail = (
                f"model {model} needs {amount(offer.bytes_estimated)}, node {node.node} has {amount(most)} for it; "
                f"{_what_fits(node)}"
            )
            return _refused(waits, Refusal.NEVER_FITS, detail, needed=offer.bytes_estimated, most=most)
    return None


def _most_for(offer: ModelOffer, node: NodeAnnounced) -> int:
    """Return the bytes that one instance could ever get: all but the room kept for other, pinned models."""
    kept = sum(other.bytes_estimated for other in node.models if other.pinned and other.model != offer.model)
    return max(0, node.bytes_max - kept)


def _what_fits(node: NodeAnnounced) -> str:
    fits = [
        f"{other.model} ({amount(other.bytes_estimated) if is_local(other) else 'elsewhere'})"
        for other in node.models
        if not is_local(other) or other.bytes_estimated <= _most_for(other, node)
    ]
    return f"what would fit: {', '.join(fits)}" if fits else "none of its models fits: give it a larger ram budget"


# Memory that must go


def _unload(state: State, name: str, *, reason: UnloadReason, detail: str) -> Answer:
    event = UnloadRequested(
        node=state.node, instance=name, reason=reason, detail=clip(detail, limit=SENTENCE_CHARACTERS_MAX)
    )
    return Answer(event=event, stream=state.node)


def _retire(state: State, node: NodeAnnounced) -> Answer | None:
    del node
    busy = _calls(state)
    for name, instance in state.instances.items():
        if instance.retired and not instance.unloading and not busy[name]:
            return _unload(state, name, reason=UnloadReason.RETIRED, detail=instance.retired)
    return None


def _shrink(state: State, node: NodeAnnounced) -> Answer | None:
    staying = sum(held.bytes for held in state.instances.values() if not held.unloading)
    if staying <= node.bytes_max:
        return None
    victims = _by_worth(state)
    if not victims:
        return None
    detail = f"{amount(staying)} are reserved, but the budget is {amount(node.bytes_max)} now"
    return _unload(state, victims[0], reason=UnloadReason.ROOM, detail=detail)


def _unload_idle(state: State, node: NodeAnnounced) -> Answer | None:
    for name in idle(state):
        if state.instances[name].last_used_ms + node.idle_ms <= state.elapsed_ms:
            detail = f"it was not used for {node.idle_ms / 1000:g} s"
            return _unload(state, name, reason=UnloadReason.IDLE, detail=detail)
    return None


def idle(state: State) -> tuple[str, ...]:
    """Return the instances that may be unloaded: in order, without a lease, not pinned, not on their way out."""
    busy = _calls(state)
    return tuple(
        name for name, held in state.instances.items() if held.usable and not busy[name] and not _is_pinned(state, name)
    )


def _is_pinned(state: State, name: str) -> bool:
    offer = state.offer(state.instances[name].model)
    return offer is not None and offer.pinned and name == f"{offer.model}#1"


def _calls(state: State) -> Counter[str]:
    return Counter(lease.instance for lease in state.leases.values())


# Requests that are admitted


def _is_swap(state: State, waits: Waiting, usable: Mapping[str, list[str]]) -> bool:
    offer = state.offer(waits.ask.model)
    return offer is not None and is_local(offer) and waits.ask.model not in usable


def _usable(state: State) -> dict[str, list[str]]:
    """Return the names of usable instances by model."""
    usable: dict[str, list[str]] = {}
    for name, held in state.instances.items():
        if held.usable:
            usable.setdefault(held.model, []).append(name)
    return usable


def _grant(state: State, node: NodeAnnounced) -> Answer | None:
    """Grant the oldest request whose model has a free slot, unless an aged one waits for that memory."""
    del node
    calls, usable = _calls(state), _usable(state)
    passed, barred = 0, False
    for waits in state.waiting:
        if _is_swap(state, waits, usable):
            passed += 1
            barred = barred or state.clock_ms - waits.since_ms >= AGE_BOUND_MS
            continue
        offer = state.offers[waits.ask.model]
        if not is_local(offer):
            name = f"{offer.model}#1"
            if calls[name] < offer.slots:
                reason = f"a server elsewhere holds {offer.model}; call {calls[name] + 1} of {offer.slots}"
                return _granted(state, waits, offer, name=name, load=False, reason=reason)
            continue
        free = [name for name in usable[offer.model] if calls[name] < _slots(state.instances[name], offer)]
        if barred:
            free = [name for name in free if _is_pinned(state, name)]
        if free:
            name = min(free, key=lambda name: (not state.instances[name].loaded, calls[name], number(name)))
            return _resident(state, waits, offer, name=name, passed=passed)
    return None


def _slots(held: Instance, offer: ModelOffer) -> int:
    """Return how many calls an instance takes: only one until it is known to be loaded (single-flight loads)."""
    return offer.slots if held.loaded else 1


def _resident(state: State, waits: Waiting, offer: ModelOffer, *, name: str, passed: int) -> Answer:
    load = not state.instances[name].loaded
    reason = f"{name} is resident and free"
    if load:
        reason = f"{name} has its memory, but whether it is still loaded is not known"
    if passed:
        reason += f"; this passes {passed} older that wait for memory"
    return _granted(state, waits, offer, name=name, load=load, reason=reason)


def _granted(state: State, waits: Waiting, offer: ModelOffer, *, name: str, load: bool, reason: str) -> Answer:
    lasts_ms = waits.ask.timeout_ms + LEASE_GRACE_MS + (LOAD_ALLOWANCE_MS if load else 0)
    event = LeaseGranted(
        request=waits.request,
        ask=waits.ask,
        node=state.node,
        instance=name,
        load=load,
        bytes_reserved=_bytes(state, offer, name=name),
        context=offer.context,
        expires_at=state.clock_ms + lasts_ms,
        reason=clip(reason, limit=SENTENCE_CHARACTERS_MAX),
    )
    return Answer(event=event, stream=waits.run)


def _load_or_make_room(state: State, node: NodeAnnounced) -> Answer | None:
    """Serve the oldest request that needs a swap; when there is none, load more of what is wanted and busy."""
    usable = _usable(state)
    head = next((waits for waits in state.waiting if _is_swap(state, waits, usable)), None)
    if head is None:
        return _load_another(state, node)
    offer = state.offers[head.ask.model]
    if _count(state, offer.model) >= offer.instances_max:
        return None  # its last instance is on its way out
    room = _room(state, offer, node)
    if offer.bytes_estimated <= room:
        return _load(state, head, offer, room=room)
    coming = sum(
        held.bytes
        for name, held in state.instances.items()
        if (held.unloading or held.retired) and (held.model == offer.model or not _is_pinned(state, name))
    )
    victims = _enough(state, _by_worth(state), need=offer.bytes_estimated - room - coming)
    if not victims:
        return None
    detail = f"{offer.model} needs {amount(offer.bytes_estimated)} and {amount(max(0, room))} are free"
    return _unload(state, victims[0], reason=UnloadReason.ROOM, detail=detail)


def _load_another(state: State, node: NodeAnnounced) -> Answer | None:
    for waits in state.waiting:
        offer = state.offers[waits.ask.model]
        if not is_local(offer) or _count(state, offer.model) >= offer.instances_max:
            continue
        room = _room(state, offer, node)
        if offer.bytes_estimated <= room:
            return _load(state, waits, offer, room=room)
    return None


def _load(state: State, waits: Waiting, offer: ModelOffer, *, room: int) -> Answer:
    taken = {number(name) for name, held in state.instances.items() if held.model == offer.model}
    free = next(k for k in range(1, len(taken) + 2) if k not in taken)
    others = "" if not taken else f", since the other {len(taken)} can't take it now"
    reason = f"loads {offer.model}#{free}{others}: {amount(offer.bytes_estimated)} of {amount(room)} that are free"
    return _granted(state, waits, offer, name=f"{offer.model}#{free}", load=True, reason=reason)


def _room(state: State, offer: ModelOffer, node: NodeAnnounced) -> int:
    """Return the bytes that an instance of `offer` could take now; negative when the budget has shrunk."""
    kept = sum(
        other.bytes_estimated
        for other in node.models
        if other.pinned and other.model != offer.model and f"{other.model}#1" not in state.instances
    )
    return node.bytes_max - kept - sum(held.bytes for held in state.instances.values())


def _by_worth(state: State) -> list[str]:
    """Return the idle instances, first the one whose idle time is largest for what it costs to load it again.

    The rule is Lemonade's (models.md section 4.1): least recently used, weighted by load time.
    """

    def worth(name: str) -> tuple[int, int, str]:
        held = state.instances[name]
        load_ms = state.load_ms.get(held.model, LOAD_START_MS + held.bytes // LOAD_BYTES_PER_MS)
        idle_ms = state.clock_ms - held.last_used_ms
        return (-(idle_ms * 1000 // max(1, load_ms)), load_ms, name)

    return sorted(idle(state), key=worth)


def _enough(state: State, names: Iterable[str], *, need: int) -> list[str]:
    """Return the first of `names` that free `need` bytes, less those that turn out superfluous; or none at all."""
    if need <= 0:
        return []
    chosen: list[str] = []
    total = 0
    for name in names:
        if total >= need:
            break
        chosen.append(name)
        total += state.instances[name].bytes
    if total < need:
        return []
    for name in tuple(chosen):
        if total - state.instances[name].bytes >= need:
            chosen.remove(name)
            total -= state.instances[name].bytes
    return chosen


def _count(state: State, model: str) -> int:
    return sum(1 for held in state.instances.values() if held.model == model)


def _bytes(state: State, offer: ModelOffer, *, name: str) -> int:
    """Return what is reserved for an instance, or would be."""
    if not is_local(offer):
        return 0
    return state.instances[name].bytes if name in state.instances else offer.bytes_estimated


def number(instance: str) -> int:
    """Return K of `MODEL#K`."""
    return int(instance.rsplit("#", 1)[1])


def amount(size: int) -> str:
    """Return bytes in words, for instance `1.35 GB` or `12.0 MB`."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
