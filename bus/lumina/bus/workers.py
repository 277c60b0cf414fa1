"""Which requests each worker role answers, and how long it may be silent while it works."""

from dataclasses import dataclass
from typing import Final

from lumina.bus.subjects import Filter
from lumina.events.execution import ExecutionRequested
from lumina.events.lease import LeaseGranted
from lumina.events.node import UnloadRequested
from lumina.events.validation import ValidationRequested

ACK_WAIT_S: Final = 6.0
HEARTBEAT_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class WorkerRole:
    """A role's durable consumer: its name and what it is handed."""

    name: str
    filters: tuple[Filter, ...]


WORKER_ROLES: Final = {
    role.name: role
    for role in (
        WorkerRole(name="specialist", filters=(Filter(event=LeaseGranted), Filter(event=UnloadRequested))),
        WorkerRole(name="validator", filters=(Filter(event=ValidationRequested),)),
        WorkerRole(name="sandbox", filters=(Filter(event=ExecutionRequested),)),
    )
}
