"""Reads all that makes up a run: its records, what it shares with the runs that it forks, and its attempts' code."""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from lumina.agents.ancestry import history_of
from lumina.agents.ports import Origin
from lumina.bus.errors import BlobMissing
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.cli.app import err
from lumina.cli.errors import UsageProblem
from lumina.cli.home import Home
from lumina.cli.reading import reading
from lumina.cli.sources import Source, source
from lumina.events.base import Event
from lumina.events.ids import EventId
from lumina.events.lease import LeaseGranted, LeaseRefused
from lumina.events.record import Recorded
from lumina.events.run import RunForked
from lumina.replay.diffing.attempts import Ladders, ladders_of
from lumina.replay.diffing.codediffs import codes_of
from lumina.replay.diffing.diffing import Told
from lumina.replay.diffing.slots import answered_by
from lumina.replay.explaining.grounds import Grounds
from lumina.replay.explaining.lending import Lending, lending_of
from lumina.replay.explaining.tracing import back

WINDOW_RECORDS: Final = 2_000
"""How much of the log is read at once when something is looked for near a record."""
SEARCHES_MAX: Final = 16
"""How often a chain of causes may change to a stream that must be looked for."""
RECORDS_SILENT_MAX: Final = 50_000
MATCHES_MAX: Final = 5


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A run as far as it went.

    Attributes:
        told: Its records and its shared history.
        ladders: Its attempts.
        blobs: The code of the attempts, by digest, as far as it is there.
    """

    told: Told
    ladders: Ladders
    blobs: Mapping[str, bytes]


async def whole(home: Home, *, name: str) -> Whole:
    """Read the run that `name` means. Raises NoSuchRun."""
    async with source(home, name=name) as found:
        return await read_whole(found)


async def read_whole(found: Source) -> Whole:
    """Read the run of a source that is open."""
    records = tuple([recorded async for recorded in found.events.read((Filter(stream=found.run),))])
    if not records:
        raise UsageProblem(f"there is no record of {found.run}")
    told = Told(run=found.run, records=records)
    match records[0].event:
        case RunForked(parent=parent, at=at, chains=chains, without=without):
            origin = Origin(parent=parent, at=at, chains=chains, without=without)
            history = await history_of(origin, events=found.events, before=records[0].seq)
            told = Told(run=found.run, records=records, history=history)
        case _:
            pass
    ladders = ladders_of(each.recorded for each in told.placed())
    blobs: dict[str, bytes] = {}
    for digest in sorted(codes_of(ladders)):
        try:
            blobs[digest] = await found.blobs.get(digest)
        except BlobMissing:
            continue  # what it is compared with is still there; the diff says that this one is not
    return Whole(told=told, ladders=ladders, blobs=blobs)


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A record to be explained.

    Attributes:
        grounds: The records of its run or node.
        elsewhere: Causes that stand in other streams.
        lending: For a lease.
    """

    target: Recorded[Event]
    grounds: Grounds
    elsewhere: Mapping[EventId, Recorded[Event]]
    lending: Lending | None


async def trace(found: Source, *, seq: int) -> Traced:
    """Read what explains the record with this sequence, of a run or of what it shares with its parents."""
    read = await read_whole(found)
    records = [*read.told.history, *read.told.records]
    target = next((recorded for recorded in records if recorded.seq == seq), None)
    if target is None:
        first, last = read.told.records[0].seq, read.told.records[-1].seq
        raise UsageProblem(f"record {seq} is not of {found.run}, whose records stand between {first} and {last}")
    return await _traced(target, read=read, events=found.events)


async def trace_by_id(home: Home, *, beginning: str) -> Traced:
    """Read what explains the one event whose id begins so. The whole log is searched for it."""
    async with reading(home) as (connected, _):
        total = await connected.events.last_seq()
        if total > RECORDS_SILENT_MAX:
            err().print(f"searching {total:,} records for the event; RUN@SEQ is faster", markup=False)
        async with aclosing(connected.events.read()) as records:
            matches = [recorded async for recorded in records if recorded.id.startswith(beginning)]
        if not matches:
            raise UsageProblem(f"no run and no event is called {beginning}; `lumina runs` and `lumina logs` list them")
        if len(matches) > 1:
            some = ", ".join(f"{one.id} ({one.stream}@{one.seq})" for one in matches[:MATCHES_MAX])
            raise UsageProblem(f"{len(matches)} events begin with {beginning}: {some}; give more of the id")
        target = matches[0]
        place = Source(events=connected.events, blobs=connected.blobs, run=target.stream, live=True)
        return await _traced(target, read=await read_whole(place), events=connected.events)


async def _traced(target: Recorded[Event], *, read: Whole, events: Records) -> Traced:
    placed = [each.recorded for each in read.told.placed()]
    known = {recorded.id for recorded in placed}
    # What a fork says again in its parent's place leaves the parent's own words out: they may be asked for, too.
    left_out = [one for one in (*read.told.history, *read.told.records) if one.id not in known]
    grounds = Grounds([*left_out, *placed], ladders=read.ladders)
    elsewhere: dict[EventId, Recorded[Event]] = {}
    for _ in range(SEARCHES_MAX):
        end = list(back(target, grounds=grounds, elsewhere=elsewhere))[-1]
        missing = answered_by(end)
        if missing is None:
            break
        cause = await _search(events, event=missing, until=end.seq - 1)
        if cause is None:
            break
        elsewhere[cause.id] = cause
        async with aclosing(events.read((Filter(stream=cause.stream),), until=cause.seq)) as records:
            elsewhere.update({recorded.id: recorded async for recorded in records})
    given = target.causation  # of a lease it may be a record of another run than what the lease answers
    if given is not None and given not in grounds.records and given not in elsewhere:
        cause = await _search(events, event=given, until=target.seq - 1)
        elsewhere.update({} if cause is None else {cause.id: cause})
    lending = None
    if isinstance(target.event, LeaseGranted | LeaseRefused):
        asked = grounds.records.get(target.event.request)
        after = max(0, (target.seq if asked is None else asked.seq) - WINDOW_RECORDS)
        async with aclosing(events.read(after=after, until=target.seq)) as records:
            lending = lending_of(target, between=[recorded async for recorded in records])
    return Traced(target=target, grounds=grounds, elsewhere=elsewhere, lending=lending)


async def _search(events: Records, *, event: EventId, until: int) -> Recorded[Event] | None:
    """Look for a cause in all streams, from the newest records back: it mostly stands near."""
    while until > 0:
        after = max(0, until - WINDOW_RECORDS)
        async with aclosing(events.read(after=after, until=until)) as records:
            async for recorded in records:
                if recorded.id == event:
                    return recorded
        until = after
    return None
