"""Reads a run for a dataset: its records, what it shares with its parents, and the blobs that rows are made of.

Nothing is learnt from a run that is not proved: a row is evidence only when every decision before it holds.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lumina.bus.errors import BlobMissing, FieldsHidden
from lumina.bus.log import Blobs, Originals
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.replay.datasets.rows import Candidate, Index, Place, Row, candidates, needs, row_of
from lumina.replay.errors import RowLost, RunUnknown
from lumina.replay.inheritance import inherited
from lumina.replay.report import Report, Status
from lumina.replay.verifying.verify import verify_all, verify_run


class RunReading:
    """One run, read as far as it goes."""

    def __init__(self, *, own: list[Recorded[Event]], shared: tuple[Recorded[Event], ...], blobs: Blobs) -> None:
        self._own = own
        self._shared = shared
        self._blobs = blobs
        self.index = Index([*shared, *own])

    @classmethod
    async def of(cls, run: StreamId, *, events: Originals, blobs: Blobs, proved: bool = False) -> "RunReading":
        """Return a run. Raises RowLost when there is no such run, or when it can't be proved, with the place.

        Args:
            run: Which.
            events: Where it stands.
            blobs: What its records name.
            proved: The whole log was proved (`whole_log_holds`), so that this run needs no proof of its own.
        """
        if not proved:
            await _prove(run, events=events, blobs=blobs)
        async with aclosing(events.read((Filter(stream=run),))) as records:
            own = [recorded async for recorded in records]
        if not own:
            raise RowLost(f"the log holds no run {run!r}")
        shared = await inherited(own[0], events=events)
        return cls(own=own, shared=shared or (), blobs=blobs)

    def candidates(self) -> tuple[Candidate, ...]:
        """Return what rows can be made of. Raises RowLost."""
        return tuple(candidates(self._own, shared=self._shared))

    async def rows(self, *, log: Place) -> AsyncIterator[Row]:
        """Yield the rows of the run. Raises RowLost."""
        for candidate in self.candidates():
            yield await self.row(candidate, log=log)

    async def row(self, candidate: Candidate, *, log: Place) -> Row:
        """Return the row that a candidate makes. Raises RowLost."""
        found: dict[str, bytes] = {}
        while missing := [digest for digest in needs(candidate, blobs=found) if digest not in found]:
            for digest in missing:
                found[digest] = await self.blob(digest)
        return row_of(candidate, blobs=found, log=log)

    async def blob(self, digest: str) -> bytes:
        """Return the content of a blob. Raises RowLost."""
        try:
            return await self._blobs.get(digest)
        except BlobMissing as error:
            raise RowLost(str(error)) from error


async def whole_log_holds(events: Originals, *, blobs: Blobs) -> bool:
    """Return whether all of a log is proved, laws of histories included. One pass for all runs."""
    try:
        return _fault_of(await verify_all(events, blobs, invariants=True)) is None
    except FieldsHidden:
        return False


async def _prove(run: StreamId, *, events: Originals, blobs: Blobs) -> None:
    """Prove a run, laws of histories included. Raises RowLost."""
    try:
        fault = _fault_of(await verify_run(events, blobs, run, invariants=True))
    except RunUnknown as error:
        raise RowLost(str(error)) from error
    except FieldsHidden as error:
        fault = str(error)
    if fault is not None:
        raise RowLost(f"{run} can't be proved, so no row is made of it: {fault}")


def _fault_of(report: Report) -> str | None:
    """Return the place and the reason why a proof does not hold, None when it does."""
    if report.damage is not None:
        return f"damaged at record {report.damage.seq}: {report.damage.reason}"
    if report.divergence is not None:
        at, difference = report.divergence.at, report.divergence.difference
        return (
            f"record {at.seq} ({at.type}) diverges in {difference.field}: recorded {difference.recorded[:120]}, "
            f"decided {difference.decided[:120]}"
        )
    if report.broken:
        first = report.broken[0]
        return f"record {first.at.seq} ({first.at.type}): {first.invariant}: {first.reason}"
    if report.status is not Status.OK or report.hidden_records or report.blobs_left_out:
        return "its file hides fields or lacks blobs, so not all of it can be decided again"
    return None


async def place_of(events: Originals) -> Place:
    """Return where a log stands now. Raises RowLost for an empty one."""
    newest = await events.last(Filter())
    if newest is None:
        raise RowLost("the log is empty")
    return Place(
        log=await events.log_id(),
        seq=newest.seq,
        id=newest.id,
        stream=newest.stream,
        agent=newest.agent,
        digest=newest.digest,
    )


async def place_problem(place: Place, *, events: Originals, live: bool) -> str | None:
    """Return why a log is not the one of which a row says where it stood, None when it is.

    A file may hold less than that log did; then its name is all that can be compared.
    """
    log = await events.log_id()
    if log != place.log:
        return f"log: the row comes of the log {place.log}, this is {log}"
    from_there = await events.find(EventId(place.id), stream=StreamId(place.stream), agent=place.agent)
    if from_there is None:
        return f"log: record {place.seq} ({place.id}) is not there" if live else None
    if (from_there.seq, from_there.digest) != (place.seq, place.digest):
        return f"log: record {place.id} stands at {from_there.seq} with the digest {from_there.digest}"
    return None
