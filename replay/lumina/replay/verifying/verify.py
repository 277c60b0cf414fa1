"""Decide every agent's part again from the log, and compare every byte. No model, sandbox, linter or network is used.

Keepers: every input is decided again; each record of theirs must be the decision that comes next in its chain.
Workers: effect and outcome are derived again from the request, the recorded raw result and the blobs.
The rest comes from outside and is testimony: a submission, a node's announcement, that time passed, and what a model,
a tool or a program really answered (the raw results). Of these only form, writer, digest and chain can be proved.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from lumina.bus.archive import Archive
from lumina.bus.errors import BlobMissing, FieldsHidden, LogDamaged
from lumina.bus.log import Blobs, Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.node import NodeAnnounced
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.replay.bundles.integrity import prove_file
from lumina.replay.bundles.left_out import Present, left_out_of
from lumina.replay.cast import Cast, cast_of, whole_cast
from lumina.replay.comparing import link_of
from lumina.replay.errors import BlobLeftOut, BlobLost, RunUnknown
from lumina.replay.inheritance import inherited
from lumina.replay.invariants.invariants import Invariants
from lumina.replay.report import BROKEN_MAX, UNKNOWN_CODE, Broken, Damage, Difference, Divergence, Report, Status
from lumina.replay.verifying.causal import causes_of
from lumina.replay.verifying.integrity import Chains, blob_refs
from lumina.replay.verifying.keepers import KeeperProof
from lumina.replay.verifying.parents import parents_of
from lumina.replay.verifying.testimony import OutsideProof
from lumina.replay.verifying.workers import Shelf, WorkerProof


async def verify_run(
    events: Records,
    blobs: Blobs,
    run: StreamId,
    *,
    cast: Cast | None = None,
    invariants: bool = False,
    code: str = UNKNOWN_CODE,
) -> Report:
    """Prove one run, and with a fork all runs that it descends from.

    The governor's part depends on all runs before, so its inputs are read from the start.

    Args:
        events: A log, or a file that was exported from one.
        blobs: What the records name.
        run: Which.
        cast: Who decides; all agents of today's code if not given.
        invariants: Check the laws of histories, too.
        code: The version of the code that decides, for the report of a divergence.

    Raises:
        RunUnknown: There is no record of it.
        FieldsHidden: Invariants were asked for, of a file that hides fields.
        LogUnavailable: The log can't be reached.
    """
    left_out = await _left_out(events, run=run, invariants=invariants)
    if isinstance(left_out, Report):
        return left_out
    cast = await _cast_of(events) if cast is None else cast
    try:
        parents = await parents_of(run, events=events)
    except LogDamaged as error:
        damage = Damage(seq=error.seq, reason=str(error))
        return Report(run=run, status=Status.DAMAGED, damage=damage)
    streams = tuple(Filter(stream=stream) for stream in (run, *parents))
    filters = (*streams, *cast.governor.inputs, Filter(agent=cast.governor.name), Filter(event=NodeAnnounced))
    proof = _Proof(
        cast,
        events=events,
        blobs=blobs,
        runs=(run, *parents),
        invariants=invariants,
        code=code,
        left_out=left_out,
    )
    # To the log's end: where the run ends can't be known from a log that may have lost its last record.
    report = await proof.report(events.read(filters))
    if report.status in {Status.OK, Status.WHOLE} and not report.records:
        raise RunUnknown(f"the log holds no run {run!r}")
    return report


async def verify_all(
    events: Records,
    blobs: Blobs,
    *,
    cast: Cast | None = None,
    invariants: bool = False,
    code: str = UNKNOWN_CODE,
) -> Report:
    """Prove the whole log in one pass. See `verify_run`. Raises FieldsHidden, LogUnavailable."""
    left_out = await _left_out(events, run=None, invariants=invariants)
    if isinstance(left_out, Report):
        return left_out
    cast = await _cast_of(events) if cast is None else cast
    proof = _Proof(cast, events=events, blobs=blobs, runs=(), invariants=invariants, code=code, left_out=left_out)
    return await proof.report(events.read())


async def _left_out(events: Records, *, run: StreamId | None, invariants: bool) -> frozenset[str] | Report:
    """Return the blobs that a file lacks; the verdict when it hides fields, so that nothing can be decided from it."""
    if not isinstance(events, Archive):
        return frozenset()
    if invariants and events.hides:
        hidden = f"{events.manifest.hidden_records:,} records of {events.path.name} hide fields"
        raise FieldsHidden(f"{hidden}, so no invariants can be checked: verify it without them")
    report = await prove_file(events, run=run) if events.hides else None
    if report is not None and report.damage is not None:
        return report
    try:
        left_out = await left_out_of(events)
    except LogDamaged as error:
        return Report(run=run, status=Status.DAMAGED, damage=Damage(seq=error.seq, reason=str(error)))
    except BlobMissing as error:
        return Report(run=run, status=Status.DAMAGED, damage=Damage(seq=0, reason=str(error)))
    return left_out if report is None else report


async def _cast_of(events: Records) -> Cast:
    """Return all agents of the log's node."""
    try:
        return await cast_of(events)
    except LogDamaged:
        return whole_cast()  # the proof meets the damage in its place, and reports it


_Place = tuple[Recorded[Event], Difference, str]
"""A record that diverges, in what, and the code that wrote it."""


class _Proof:
    """One pass over the records. Without `runs` all runs are proved, else these, of which the first was asked for."""

    def __init__(
        self,
        cast: Cast,
        *,
        events: Records,
        blobs: Blobs,
        runs: tuple[StreamId, ...],
        invariants: bool,
        code: str,
        left_out: frozenset[str],
    ) -> None:
        self._events = events
        self._left_out = left_out
        self._underived = 0
        self._runs = runs
        self._shelf = Shelf(blobs)
        self._orchestrator = KeeperProof(cast.orchestrator, events=events)
        self._governor = KeeperProof(cast.governor, events=events)
        self._workers = WorkerProof(cast.workers, shelf=Present(self._shelf, left_out=left_out), events=events)
        self._testimony = OutsideProof(events)
        self._chains = Chains(events)
        self._invariants = Invariants(run=runs[0] if runs else None) if invariants else None
        self._broken: list[Broken] = []
        self._broken_more = 0
        self._records = 0
        self._closed = 0
        self._suspect: _Place | None = None
        self._node: StreamId | None = None
        self._recorded_by = UNKNOWN_CODE
        self._decided_by = code

    async def report(self, records: AsyncGenerator[Recorded[Event], None]) -> Report:
        """Return the verdict: at the first record that fails, or at the end."""
        try:
            async with aclosing(records):
                async for recorded in records:
                    found = await self._take(recorded)
                    if isinstance(found, Damage):
                        return self._verdict(Status.DAMAGED, damage=found)
                    if found is not None:
                        return self._verdict(Status.DIVERGED, divergence=await self._divergence(found))
        except LogDamaged as error:
            return self._verdict(Status.DAMAGED, damage=Damage(seq=error.seq, reason=str(error)))
        return self._verdict(Status.WHOLE if self._left_out else Status.OK)

    async def _divergence(self, place: "_Place") -> Divergence:
        recorded, difference, recorded_by = place
        return Divergence(
            at=link_of(recorded),
            difference=difference,
            causes=await causes_of(recorded, events=self._events),
            recorded_by=recorded_by,
            decided_by=self._decided_by,
        )

    async def _take(self, recorded: Recorded[Event]) -> "_Place | Damage | None":
        """Return what is wrong, once it is known to matter."""
        if self._invariants is not None:
            history = await inherited(recorded, events=self._events)
            self._note(self._invariants.take(recorded, history=history))
        if isinstance(recorded.event, NodeAnnounced):
            self._recorded_by = recorded.event.code or UNKNOWN_CODE
            self._node = self._node or recorded.stream
        if self._runs and recorded.stream not in self._runs:
            await self._look_aside(recorded)
            return None
        self._records += 1
        if self._suspect is not None:
            return self._suspect
        if (fault := await self._chains.take(recorded)) is not None:
            return Damage(seq=recorded.seq, reason=f"{recorded.type} speaks of other records: {fault}")
        self._workers.notice(recorded)
        try:
            difference = (
                await self._testimony.take(recorded)
                or self._other_node(recorded)
                or await self._orchestrator.take(recorded)
                or await self._governor.take(recorded)
                or await self._derived(recorded)
            )
            if difference is None:
                await self._find_blobs(recorded)
        except BlobLost as error:
            return Damage(seq=recorded.seq, reason=str(error))
        if isinstance(recorded.event, RunClosed) and recorded.stream in (self._runs[:1] or {recorded.stream}):
            self._closed += 1
        return None if difference is None else (recorded, difference, self._recorded_by)

    def _note(self, broken: tuple[Broken, ...]) -> None:
        room = BROKEN_MAX - len(self._broken)
        self._broken.extend(broken[:room])
        self._broken_more += len(broken[room:])

    async def _look_aside(self, recorded: Recorded[Event]) -> None:
        """Take a record of another run: a governor that diverges there matters when this run goes on after it."""
        if self._suspect is not None:
            return
        difference = self._other_node(recorded) or await self._governor.take(recorded)
        if difference is not None:
            self._suspect = (recorded, difference, self._recorded_by)

    async def _derived(self, recorded: Recorded[Event]) -> Difference | None:
        """Return how an outcome differs from what is derived, unless a file lacks what is needed for that."""
        try:
            return await self._workers.take(recorded)
        except BlobLeftOut:
            self._underived += 1
            return None

    def _other_node(self, recorded: Recorded[Event]) -> Difference | None:
        """Return what is wrong with the announcement of a node that is not the log's: nobody decides its part again."""
        if not isinstance(recorded.event, NodeAnnounced) or recorded.stream == self._node:
            return None
        decided = f"{self._node}: a log has one node, whose name is fixed by its first announcement"
        return Difference(field="stream", recorded=recorded.stream, decided=decided)

    async def _find_blobs(self, recorded: Recorded[Event]) -> None:
        """Look for every blob that the record names. Raises BlobLost."""
        for ref in blob_refs(recorded.event):
            if ref.digest in self._left_out:
                continue
            size = await self._shelf.size(ref.digest, named_by=recorded)
            if size != ref.size:
                raise BlobLost(f"blob {ref.digest} has {size} bytes; record {recorded.seq} says {ref.size}")

    def _verdict(self, status: Status, *, divergence: Divergence | None = None, damage: Damage | None = None) -> Report:
        keepers = {proof.keeper.name: proof.equal for proof in (self._orchestrator, self._governor)}
        return Report(
            run=self._runs[0] if self._runs else None,
            status=status,
            parents=self._runs[1:],
            records=self._records,
            decided={**keepers, **self._workers.equal},
            blobs=self._shelf.found,
            closed=self._closed,
            pending=self._orchestrator.pending + self._governor.pending,
            divergence=divergence,
            damage=damage,
            broken=tuple(self._broken),
            broken_more=self._broken_more,
            blobs_left_out=len(self._left_out),
            underived=self._underived,
        )
