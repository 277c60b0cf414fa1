"""What can be proved of an exported file that lacks fields or blobs: that it is what was written, not what is decided.

Every envelope, visible value and digest of a hidden one is checked, the order, the chains that are there from their
first record, what `run.closed` says about them, and every blob that is there. Nothing is decided again.
"""

from typing import Final

import msgspec

from lumina.agents.closing import root_of
from lumina.bus.archive import Archive
from lumina.bus.archive_format import Line, check_hidden, stored_from
from lumina.bus.checks import Continuity, Scope
from lumina.bus.decoding import decoded
from lumina.bus.errors import ArchiveBroken, BlobMissing, LogDamaged
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Recorded, Sealed, recorded_as
from lumina.events.run import ChainHead, RunClosed, RunStatus
from lumina.events.timer import TimerElapsed
from lumina.events.values import Count, Digest
from lumina.replay.errors import RunUnknown
from lumina.replay.report import Damage, Report, Status

_CLOSED: Final = "run.closed.v1"


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
    continuity, roots = Continuity(scope, after=0), _Roots()
    try:
        for line in archive.lines():
            recorded = _checked(line)
            continuity.expect(recorded.seq)
            if archive.covers_chain_of(recorded):
                continuity.check(recorded)
            records += run is None or recorded.stream in runs
            if archive.manifest.whole or recorded.stream in archive.manifest.runs:
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
        status=Status.OK,
        parents=() if run is None else tuple(str(each) for each in runs[1:]),
        records=records,
        blobs=blobs,
        closed=closed,
        hidden_records=archive.manifest.hidden_records,
        blobs_left_out=archive.manifest.blobs_left_out,
    )


class _Roots:
    """The digests of every open run by writer, to compare with what `run.closed` says about them."""

    def __init__(self) -> None:
        self._open: dict[StreamId, dict[str, list[str]]] = {}
        self._closed: set[StreamId] = set()

    def check(self, recorded: Recorded[Event]) -> None:
        """Take the next record of a run that is there wholly. Raises LogDamaged if it speaks of other records."""
        if recorded.stream in self._closed:
            return
        chains = self._open.setdefault(recorded.stream, {})
        if isinstance(recorded.event, RunClosed):
            closed = recorded.event
            standing = {agent: digests for agent, digests in chains.items() if digests}
            named = [(head.agent, head.count, head.digest) for head in closed.chains if head.count]
            found = [(agent, count, standing.get(agent, [])[count - 1 : count]) for agent, count, _ in named]
            whole = found == [(agent, count, [digest]) for agent, count, digest in named]
            if not whole or closed.root != root_of(closed.chains) or closed.records != sum(each[1] for each in named):
                raise LogDamaged(f"{recorded.type} speaks of other records than stand before it", seq=recorded.seq)
            self._closed.add(recorded.stream)
            del self._open[recorded.stream]
            return
        chains.setdefault(recorded.agent, []).append(recorded.digest)


def _checked(line: Line) -> Recorded[Event]:
    """Return a record whose digests have been checked; where it hides fields, with an event that only stands for it.

    Raises:
        LogDamaged: A digest is wrong.
    """
    if not line.hidden:
        return decoded(stored_from(line))
    sealed = check_hidden(line)
    return recorded_as(
        sealed, event=_stand_in(line, sealed=sealed), digest=line.headers["ce-luminadigest"], seq=line.seq
    )


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
