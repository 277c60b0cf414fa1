"""Projection `residency`: which models stand in the memory of which node, for whom, and what is left of its budget."""

from enum import Enum
from typing import ClassVar, assert_never

from lumina.events.base import Event
from lumina.events.generation import GenerationFinished
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseReleased
from lumina.events.node import ModelOffer, ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import Recorded
from lumina.projections.fold import Change, Gone, Row, Rows

Seen = (
    NodeAnnounced | LeaseGranted | LeaseReleased | LeaseExpired | GenerationFinished | UnloadRequested | ModelUnloaded
)


class Residence(Enum):
    """How far an instance is. Its bytes are reserved in all three."""

    LOADING = "loading"
    RESIDENT = "resident"
    UNLOADING = "unloading"


class NodeRow(Row, frozen=True, kw_only=True):
    """One machine and what it offers."""

    table: ClassVar[str] = "node"
    key: ClassVar[tuple[str, ...]] = ("node",)

    node: str
    bytes_max: int
    idle_ms: int
    models: tuple[ModelOffer, ...]
    announced_ms: int


class InstanceRow(Row, frozen=True, kw_only=True):
    """One model instance that holds memory.

    Attributes:
        bytes_reserved: Estimated before loading.
        bytes_measured: Seen after loading; None when nobody looked.
        used_ms: When it was last given to somebody or given back.
    """

    table: ClassVar[str] = "instance"
    key: ClassVar[tuple[str, ...]] = ("node", "instance")

    node: str
    instance: str
    model: str
    residence: Residence
    bytes_reserved: int
    context: int
    since_ms: int
    used_ms: int
    bytes_measured: int | None = None
    load_ms: int | None = None


class LeaseRow(Row, frozen=True, kw_only=True):
    """One lease that is neither released nor expired."""

    table: ClassVar[str] = "lease"
    key: ClassVar[tuple[str, ...]] = ("lease",)
    indexed: ClassVar[tuple[str, ...]] = ("node", "instance")

    lease: str
    request: str
    run: str
    step: int
    attempt: int
    node: str
    instance: str
    granted_ms: int
    expires_ms: int


class Residency:
    """The fold."""

    name = "residency"
    version = 1
    kinds: tuple[type[Row], ...] = (NodeRow, InstanceRow, LeaseRow)

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes."""
        event = recorded.event
        if not isinstance(event, Seen):
            return ()
        match event:
            case NodeAnnounced():
                return (_announced(recorded, event),)
            case LeaseGranted():
                return _granted(rows, recorded, event)
            case LeaseReleased() | LeaseExpired():
                return _given_back(rows, recorded, event.lease)
            case GenerationFinished():
                return _used(rows, recorded, event)
            case UnloadRequested():
                row = rows.get(InstanceRow, event.node, event.instance)
                return () if row is None else (row.but(residence=Residence.UNLOADING),)
            case ModelUnloaded():
                return (Gone(kind=InstanceRow, key=(event.node, event.instance)),)
            case _:
                assert_never(event)


def _announced(recorded: Recorded[Event], event: NodeAnnounced) -> NodeRow:
    """Return the node's new row. Its instances stay: their memory is free only when they are seen to be unloaded."""
    return NodeRow(
        node=event.node,
        bytes_max=event.bytes_max,
        idle_ms=event.idle_ms,
        models=event.models,
        announced_ms=recorded.time_ms,
    )


def _granted(rows: Rows, recorded: Recorded[Event], event: LeaseGranted) -> tuple[Change, ...]:
    now = recorded.time_ms
    lease = LeaseRow(
        lease=recorded.id,
        request=event.request,
        run=recorded.stream,
        step=event.ask.step,
        attempt=event.ask.attempt,
        node=event.node,
        instance=event.instance,
        granted_ms=now,
        expires_ms=event.expires_at,
    )
    held = rows.get(InstanceRow, event.node, event.instance)
    if held is not None and not event.load:
        return (held.but(used_ms=now), lease)
    instance = InstanceRow(
        node=event.node,
        instance=event.instance,
        model=event.ask.model,
        residence=Residence.LOADING if event.load else Residence.RESIDENT,
        bytes_reserved=event.bytes_reserved,
        context=event.context,
        since_ms=now,
        used_ms=now,
    )
    return (instance, lease)


def _given_back(rows: Rows, recorded: Recorded[Event], lease: str) -> tuple[Change, ...]:
    row = rows.get(LeaseRow, lease)
    if row is None:
        return ()
    instance = rows.get(InstanceRow, row.node, row.instance)
    used = () if instance is None else (instance.but(used_ms=recorded.time_ms),)
    return (Gone(kind=LeaseRow, key=(lease,)), *used)


def _used(rows: Rows, recorded: Recorded[Event], event: GenerationFinished) -> tuple[Change, ...]:
    lease = rows.get(LeaseRow, event.lease)
    instance = None if lease is None else rows.get(InstanceRow, lease.node, lease.instance)
    if instance is None:
        return ()
    if event.load is not None:
        instance = instance.but(load_ms=event.load.load_ms, bytes_measured=event.load.bytes_measured)
    if instance.residence is Residence.LOADING:
        instance = instance.but(residence=Residence.RESIDENT)
    return (instance.but(used_ms=recorded.time_ms),)
