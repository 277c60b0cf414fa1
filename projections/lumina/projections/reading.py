"""What the command line shows: typed answers from the rows of the projections.

Works on any `Rows` that can also list the newest and those with a prefix; `Store` is one. Call `catch_up` before.
"""

from pathlib import Path
from typing import Final

import msgspec

from lumina.projections.attempts import AttemptRow
from lumina.projections.catalogue import PROJECTIONS
from lumina.projections.errors import NoRunCalled, NoSuchRun
from lumina.projections.queue import Counter, WaitingRow
from lumina.projections.residency import InstanceRow, LeaseRow, NodeRow, Residence
from lumina.projections.runs import RunRow, StepRow
from lumina.projections.store import FILE_NAME, Notice, Store
from lumina.projections.throughput import ModelRow

RUNS_LISTED_MAX: Final = 20
CANDIDATES_MAX: Final = 8


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its steps."""

    run: RunRow
    steps: tuple[StepRow, ...]


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """A model instance with the leases on it."""

    instance: InstanceRow
    leases: tuple[LeaseRow, ...]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node with what stands in its memory.

    Attributes:
        bytes_reserved: By all its instances.
        bytes_free: What is left of its budget.
    """

    node: NodeRow
    instances: tuple[InstanceView, ...]
    bytes_reserved: int
    bytes_free: int


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting request and why it waits, in one sentence."""

    waiting: WaitingRow
    why: str


class Reader:
    """Answers from one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def runs(self, limit: int = RUNS_LISTED_MAX) -> tuple[RunRow, ...]:
        """Return the newest runs, newest first."""
        return self._store.newest(RunRow, by="seq", limit=limit)

    def find(self, prefix: str) -> str:
        """Return the id of the one run whose id is `prefix` or starts with it; `r-` may be left out.

        Raises:
            NoSuchRun: None, or several; the message names some of them.
        """
        for start in dict.fromkeys((prefix, f"r-{prefix}")):
            if self._store.get(RunRow, start) is not None:
                return start
            found = self._store.starting(RunRow, prefix=start, limit=CANDIDATES_MAX) if prefix else ()
            if len(found) == 1:
                return found[0].run
            if found:
                names = ", ".join(row.run for row in found)
                raise NoSuchRun(f"{prefix!r} fits several runs: {names}; give more of the id")
        raise NoRunCalled(f"no run is called {prefix!r}; `lumina runs` lists them")

    def run(self, run: str) -> RunView:
        """Return the run with exactly this id. Raises NoSuchRun."""
        row = self._store.get(RunRow, run)
        if row is None:
            raise NoRunCalled(f"no run is called {run!r}; `lumina runs` lists them")
        return RunView(run=row, steps=self._store.where(StepRow, run=run))

    def attempts(self, run: str) -> tuple[AttemptRow, ...]:
        """Return the attempts of a run by step and number; step 0 is its plan."""
        return self._store.where(AttemptRow, run=run)

    def residency(self) -> tuple[NodeView, ...]:
        """Return every node with its instances and leases."""
        return tuple(self._node(node) for node in self._store.where(NodeRow))

    def queue(self) -> tuple[WaitingView, ...]:
        """Return what waits, oldest first, and why."""
        waiting = sorted(self._store.where(WaitingRow), key=lambda row: row.seq)
        return tuple(WaitingView(waiting=row, why=self._why(row)) for row in waiting)

    def throughput(self) -> tuple[ModelRow, ...]:
        """Return the figures of every model that was called."""
        return self._store.where(ModelRow)

    def _node(self, node: NodeRow) -> NodeView:
        instances = tuple(
            InstanceView(instance=row, leases=self._store.where(LeaseRow, node=node.node, instance=row.instance))
            for row in self._store.where(InstanceRow, node=node.node)
        )
        reserved = sum(view.instance.bytes_reserved for view in instances)
        return NodeView(node=node, instances=instances, bytes_reserved=reserved, bytes_free=node.bytes_max - reserved)

    def _why(self, row: WaitingRow) -> str:
        match row.counter:
            case Counter.VALIDATOR:
                return "the validator has it"
            case Counter.SANDBOX:
                return "the sandbox has it"
            case Counter.SPECIALIST:
                return f"{row.instance} is {'being loaded and asked' if row.load else 'being asked'}"
            case Counter.GOVERNOR:
                return self._why_no_lease(row)

    def _why_no_lease(self, row: WaitingRow) -> str:
        nodes = self.residency()
        if not nodes:
            return "no node has announced itself: start a governor"
        instances = [view for node in nodes for view in node.instances]
        own = [view for view in instances if view.instance.model == row.model and view.leases]
        if own:
            users = ", ".join(f"{view.instance.instance} by {_users(view)}" for view in own)
            return f"{row.model} is in use: {users}"
        leaving = [view.instance.instance for view in instances if view.instance.residence is Residence.UNLOADING]
        if leaving:
            return f"waits for the memory of {', '.join(leaving)}"
        busy = [view for view in instances if view.leases]
        if busy:
            return f"no room for {row.model} while {', '.join(view.instance.instance for view in busy)} are in use"
        return "the governor has not answered yet"


def _users(view: InstanceView) -> str:
    return ", ".join(lease.run for lease in view.leases)


def open_store(home: Path, *, notice: Notice | None = None) -> Store:
    """Return the store of all projections in the folder `home`. Raises StoreUnavailable."""
    if notice is None:
        return Store(home / FILE_NAME, projections=PROJECTIONS)
    return Store(home / FILE_NAME, projections=PROJECTIONS, notice=notice)
