"""What can be proved of an exported file that hides fields: that it is what was written, not what is decided.

Every envelope, its writer, every visible value and digest of a hidden one is checked, the order, the chains that are
there from their first record, what `run.closed` says about them, and every blob that is there. Nothing is decided
again. Memory does not grow with the records.
"""

from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from lumina.agents.closing import root_of
from lumina.bus.archive import Archive
from lumina.bus.archive_format import Line, check_hidden, stored_from
from lumina.bus.checks import Continuity, Scope, check_again
from lumina.bus.decoding import decoded
from lumina.bus.errors import ArchiveBroken, BlobMissing, LogDamaged
from lumina.bus.subjects import Filter
from lumina.events.base import Event, type_of
from lumina.events.catalogue import WRITERS
from lumina.events.errors import UnknownEvent
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded, Sealed, recorded_as
from lumina.events.run import ChainHead, RunClosed, RunStatus
from lumina.events.timer import TimerElapsed
from lumina.events.values import Count, Digest
from lumina.replay.errors import RunUnknown
from lumina.replay.report import Damage, Report, Status

_CLOSED: Final = "run.closed.v1"
_WRITERS: Final = {type_of(kind): writers for kind, writers in WRITERS.items()}


class _Closing(msgspec.Struct):
    """What `run.closed` says about the records of its run; these fields are never hidden."""

    records: Count
    chains: tuple[ChainHead, ...]
    root: Digest


async def prove_file(archive: Archive, *, run: StreamId | None) -> Report:
    """Prove that a file, as far as it goes, is what was written.

    Args:
        archive: The file.
        run: For the counts of the report, with the runs that it is a fork of; None for all that is there.

    Raises:
        RunUnknown: The file has no record of the run.
        UnknownEvent: It has a record of a newer version.
    """
    runs = archive.manifest.runs if run == archive.manifest.run else (run,)
    records, closed, blobs = 0, 0, 0
    scope = Scope((Filter(),))
    scope.everything = archive.manifest.whole
    continuity = Continuity(scope, after=0)
    try:
        roots = _Roots(await _causes(archive))
        async for line in archive.each_line():
            recorded = _checked(line)
            continuity.expect(recorded.seq)
            if archive.covers_chain_of(recorded) and not continuity.check(recorded):
                await check_again(recorded, earlier=_earlier(archive, than=recorded))
            records += run is None or recorded.stream in runs
            if recorded.stream in archive.manifest.runs:
                roots.check(recorded)
                closed += isinstance(recorded.event, RunClosed) and run in {None, recorded.stream}
        for digest in archive.manifest.blobs:
            await archive.get(digest)
            blobs += 1
    except LogDamaged as error:
        damage = Damage(seq=error.seq, reason=str(error))
        return Report(run=run, status=Status.DAMAGED, records=records, damage=damage)
    except BlobMissing as error:
        return Report(run=run, status=Status.DAMAGED, records=records, damage=Damage(seq=0, reason=str(error)))
    if not records and run is not None:
        raise RunUnknown(f"{archive.path.name} holds no run {run!r}")
    return Report(
        run=run,
        status=Status.WHOLE,
        parents=() if run is None else tuple(str(each) for each in runs[1:]),
        records=records,
        blobs=blobs,
        closed=closed,
        hidden_records=archive.manifest.hidden_records,
        blobs_left_out=archive.manifest.blobs_left_out,
    )


class _Heads(msgspec.Struct):
    """The ends of the chains of an open run, by writer, and those that its end has to name.

    Attributes:
        standing: How many records each writer has, and the digest of the last one.
        decided: The same at the record on which the end was decided; None before it.
    """

    standing: dict[str, ChainHead]
    decided: dict[str, ChainHead] | None = None


class _Roots:
    """Compares what `run.closed` says about the chains of its run with those that stand before it.

    The orchestrator sees every record of a run, so when it decides to close it, it names all writers that have spoken
    up to the record on which it decides, and itself. Whatever landed later is late, and not named.

    Args:
        causes: On which record the end of each run was decided, see `_causes`.
    """

    def __init__(self, causes: dict[StreamId, EventId | None]) -> None:
        self._causes = causes
        self._open: dict[StreamId, _Heads] = {}

    def check(self, recorded: Recorded[Event]) -> None:
        """Take the next record of a run that is there wholly. Raises LogDamaged if it speaks of other records."""
        stream = recorded.stream
        if stream not in self._causes:
            return  # it is still open, or was closed before this record
        heads = self._open.setdefault(stream, _Heads(standing={}))
        if isinstance(recorded.event, RunClosed):
            if (fault := _fault(recorded, recorded.event, heads=heads)) is not None:
                raise LogDamaged(
                    f"{recorded.type} speaks of other records than stand before it: {fault}", seq=recorded.seq
                )
            del self._open[stream], self._causes[stream]
            return
        head = ChainHead(agent=recorded.agent, count=recorded.position, digest=recorded.digest)
        heads.standing[recorded.agent] = head
        if recorded.id == self._causes[stream] and heads.decided is None:
            heads.decided = dict(heads.standing)


def _fault(recorded: Recorded[Event], closed: RunClosed, *, heads: _Heads) -> str | None:
    """Return why the end of a run does not speak of these chains."""
    if heads.decided is None:
        return "that on which it was decided does not stand there"
    due = dict(heads.decided)
    if (own := heads.standing.get(recorded.agent)) is not None:
        due[recorded.agent] = own
    named = {head.agent: head for head in closed.chains}
    if tuple(named) != tuple(sorted(due)) or len(named) != len(closed.chains):
        return f"it names the writers {', '.join(named) or 'none'}, but there are {', '.join(sorted(due))}"
    for agent, head in due.items():
        if named[agent] != head:
            return f"it names {named[agent].count} records by {agent}, and there are {head.count}, or of another digest"
    if closed.records != sum(head.count for head in closed.chains):
        return f"it counts {closed.records} records, and its chains have another number"
    if closed.root != root_of(closed.chains):
        return "its root is not that of its chains"
    return None


async def _causes(archive: Archive) -> dict[StreamId, EventId | None]:
    """Return on which record the first end of each run was decided, of all runs that are there wholly."""
    causes: dict[StreamId, EventId | None] = {}
    async for line in archive.each_line():
        stream, cause = line.headers.get("ce-subject", ""), line.headers.get("ce-causationid")
        if line.headers.get("ce-type") == _CLOSED and stream in archive.manifest.runs:
            causes.setdefault(StreamId(stream), None if cause is None else EventId(cause))
    return causes


async def _earlier(archive: Archive, *, than: Recorded[Event]) -> AsyncGenerator[Recorded[Event], None]:
    """Yield the records of a chain that stand before one of its records."""
    async for line in archive.each_line():
        if line.seq >= than.seq:
            return
        if line.headers.get("ce-subject") == than.stream:
            recorded = _checked(line)
            if recorded.agent == than.agent:
                yield recorded


def _checked(line: Line) -> Recorded[Event]:
    """Return a record whose digests have been checked; where it hides fields, with an event that only stands for it.

    Raises:
        LogDamaged: A digest is wrong.
    """
    if not line.hidden:
        recorded = decoded(stored_from(line))
        _check_writer(line, agent=recorded.agent)
        return recorded
    sealed = check_hidden(line)
    _check_writer(line, agent=sealed.agent)
    return recorded_as(
        sealed, event=_stand_in(line, sealed=sealed), digest=line.headers["ce-luminadigest"], seq=line.seq
    )


def _check_writer(line: Line, *, agent: str) -> None:
    """Check that the writer of a record may write its type. Raises ArchiveBroken."""
    event_type = line.headers["ce-type"]
    writers = _WRITERS.get(event_type)
    if writers is None:
        raise UnknownEvent(f"record {line.seq}: {event_type} is unknown to this version; upgrade to read it")
    if agent not in writers:
        raise ArchiveBroken(f"{agent} may not write {event_type}, only {' or '.join(writers)}", seq=line.seq)


def _stand_in(line: Line, *, sealed: Sealed) -> Event:
    """Return what `Chains` looks at: whether it closes the run, and if so, what that says about the chains."""
    if sealed.type != _CLOSED:
        return TimerElapsed(timer=sealed.type, due=0)
    try:
        closing = msgspec.json.decode(line.body, type=_Closing)
    except msgspec.MsgspecError as error:
        raise ArchiveBroken(f"{sealed.type}: {error}", seq=line.seq) from error
    return RunClosed(
        status=RunStatus.CANCELLED,
        reason="",
        results=(),
        tokens=0,
        records=closing.records,
        chains=closing.chains,
        root=closing.root,
    )
