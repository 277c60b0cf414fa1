"""Decide every agent's part again from the log, and compare every byte. No model, sandbox, linter or network is used.

Keepers: every input is decided again; each record of theirs must be the decision that comes next in its chain.
Workers: effect and outcome are derived again from the request, the recorded raw result and the blobs.
The rest comes from outside and is testimony: a submission, a node's announcement, that time passed, and what a model,
a tool or a program really answered (the raw results). Of these only form, writer, digest and chain can be proved.
"""

from collections.abc import AsyncIterator

from lumina.bus.errors import LogDamaged
from lumina.bus.log import Blobs, EventLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.node import NodeAnnounced
from lumina.events.record import Recorded
from lumina.replay.cast import Cast, whole_cast
from lumina.replay.comparing import link_of
from lumina.replay.errors import BlobLost, RunUnknown
from lumina.replay.integrity import Chains, blob_refs, root_difference
from lumina.replay.invariants import Invariants
from lumina.replay.keepers import KeeperProof
from lumina.replay.report import Broken, Damage, Difference, Divergence, Link, Report, Status
from lumina.replay.workers import Shelf, WorkerProof


async def verify_run(
    log: EventLog, blobs: Blobs, run: StreamId, *, cast: Cast | None = None, invariants: bool = False
) -> Report:
    """Prove one run. The governor's part depends on all runs before, so its inputs are read from the log's start.

    Raises:
        RunUnknown: The log holds no record of it.
        LogUnavailable: The log can't be reached.
    """
    cast = await _cast_of(log) if cast is None else cast
    filters = (Filter(stream=run), *cast.governor.inputs, Filter(agent=cast.governor.name))
    proof = _Proof(cast, blobs=blobs, run=run, invariants=invariants)
    # To the log's end: where the run ends can't be known from a log that may have lost its last record.
    report = await proof.report(log, records=log.read(filters))
    if report.status is Status.OK and not report.records:
        raise RunUnknown(f"the log holds no run {run!r}")
    return report


async def verify_all(log: EventLog, blobs: Blobs, *, cast: Cast | None = None, invariants: bool = False) -> Report:
    """Prove the whole log in one pass. Raises LogUnavailable."""
    cast = await _cast_of(log) if cast is None else cast
    proof = _Proof(cast, blobs=blobs, run=None, invariants=invariants)
    return await proof.report(log, records=log.read())


async def _cast_of(log: EventLog) -> Cast:
    """Return all agents of the node that announced itself in the log; it is called `local` unless its owner says so."""
    try:
        announced = await log.last(Filter(event=NodeAnnounced))
    except LogDamaged:
        return whole_cast()  # the proof meets the damage in its place, and reports it
    return whole_cast() if announced is None else whole_cast(announced.stream)


_Place = tuple[Recorded[Event], Difference]
"""A record that diverges, and in what."""


class _Proof:
    """One pass over the records."""

    def __init__(self, cast: Cast, *, blobs: Blobs, run: StreamId | None, invariants: bool) -> None:
        self._run = run
        self._shelf = Shelf(blobs)
        self._orchestrator = KeeperProof(cast.orchestrator)
        self._governor = KeeperProof(cast.governor)
        self._workers = WorkerProof(cast.workers, shelf=self._shelf)
        self._chains = Chains()
        self._invariants = Invariants(run=run) if invariants else None
        self._broken: list[Broken] = []
        self._records = 0
        self._suspect: _Place | None = None

    async def report(self, log: EventLog, *, records: AsyncIterator[Recorded[Event]]) -> Report:
        """Return the verdict: at the first record that fails, or at the end."""
        try:
            async for recorded in records:
                found = await self._take(recorded)
                if isinstance(found, Damage):
                    return self._verdict(Status.DAMAGED, damage=found)
                if found is not None:
                    at, difference = found
                    divergence = Divergence(at=link_of(at), difference=difference, causes=await _causes(log, of=at))
                    return self._verdict(Status.DIVERGED, divergence=divergence)
        except LogDamaged as error:
            return self._verdict(Status.DAMAGED, damage=Damage(seq=error.seq, reason=str(error)))
        return self._verdict(Status.OK)

    async def _take(self, recorded: Recorded[Event]) -> "_Place | Damage | None":
        """Return what is wrong, once it is known to matter."""
        if self._invariants is not None:
            self._broken.extend(self._invariants.take(recorded))
        if self._run not in {None, recorded.stream}:
            self._look_aside(recorded)
            return None
        self._records += 1
        if self._suspect is not None:
            return self._suspect
        if (fault := self._chains.take(recorded)) is not None:
            return Damage(seq=recorded.seq, reason=f"{recorded.type} speaks of other records: {fault}")
        self._workers.notice(recorded)
        try:
            difference = (
                root_difference(recorded)
                or self._orchestrator.take(recorded)
                or self._governor.take(recorded)
                or await self._workers.take(recorded)
            )
            if difference is None:
                await self._find_blobs(recorded)
        except BlobLost as error:
            return Damage(seq=recorded.seq, reason=str(error))
        return None if difference is None else (recorded, difference)

    def _look_aside(self, recorded: Recorded[Event]) -> None:
        """Take a record of another run: a governor that diverges there matters when this run goes on after it."""
        if self._suspect is None and (difference := self._governor.take(recorded)) is not None:
            self._suspect = (recorded, difference)

    async def _find_blobs(self, recorded: Recorded[Event]) -> None:
        """Look for every blob that the record names. Raises BlobLost."""
        for ref in blob_refs(recorded.event):
            if ref.digest not in self._shelf.whole:
                await self._shelf(ref.digest, named_by=recorded)
            size = self._shelf.whole[ref.digest]
            if size != ref.size:
                raise BlobLost(f"blob {ref.digest} has {size} bytes; record {recorded.seq} says {ref.size}")

    def _verdict(self, status: Status, *, divergence: Divergence | None = None, damage: Damage | None = None) -> Report:
        keepers = {proof.keeper.name: proof.equal for proof in (self._orchestrator, self._governor)}
        return Report(
            run=self._run,
            status=status,
            records=self._records,
            decided={**keepers, **self._workers.equal},
            blobs=len(self._shelf.whole),
            closed=self._chains.closed,
            pending=self._orchestrator.pending + self._governor.pending,
            divergence=divergence,
            damage=damage,
            broken=tuple(self._broken),
        )


async def _causes(log: EventLog, *, of: Recorded[Event]) -> tuple[Link, ...]:
    """Return what led to a record, the nearest cause first. Causes cross streams, so the whole log is read."""
    known: dict[EventId, tuple[Link, EventId | None]] = {}
    async for recorded in log.read(until=of.seq):
        known[recorded.id] = (link_of(recorded), recorded.causation)
    causes: list[Link] = []
    cause = of.causation
    while cause is not None and cause in known:
        link, cause = known.pop(cause)
        causes.append(link)
    return tuple(causes)
