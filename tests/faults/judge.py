"""What Lumina says about a store, and whether it is true."""

from dataclasses import dataclass
from enum import Enum

from tests.faults.store import Store, Truth, raw_records

from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.errors import BlobMissing, BusError, CheckpointFailed, LogDamaged, LogUnavailable
from lumina.bus.gate import CheckpointFile, pass_gate
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.nats_transport import connect
from lumina.bus.server import embedded_server
from lumina.bus.transport import Transport
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all

READY_S_MAX = 8.0
"""Some damage makes the server read in a circle for ever; an ordinary start takes a tenth of a second."""


class Verdict(Enum):
    """What became of a fault."""

    EXACT = "reported, at the first record that is not what it was"
    BOUNDED = "reported, at a later record"
    REFUSED = "the server or a writer refuses to start"
    HARMLESS = "every record and every blob is what it was"
    FALSE = "reported, though nothing is lost there"
    MISSED = "something is lost or changed, and nobody says so"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault and what was said about it.

    Attributes:
        first: The first record that is lost, changed or forged, or names a blob that is not what it was; 0 for none.
        reported: The record that Lumina names; 0 when it names none.
        words: What a user reads.
    """

    verdict: Verdict
    first: int = 0
    reported: int = 0
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What one reader says; `seq` 0 when it names no record."""

    seq: int
    words: str


async def judge(store: Store, *, open_end: bool = False) -> Finding:
    """Start the server on a store, have Lumina's readers look at it, and compare what they say with the truth.

    With `open_end` one record more than the truth may be there: it was under way when the server was killed.
    """
    try:
        async with (
            embedded_server(store.root, die_with_parent=True, ready_s_max=READY_S_MAX) as server,
            connect(server.endpoint("client")) as transport,
        ):
            first = await first_difference(transport, truth=store.truth, open_end=open_end)
            said = await _gate(transport, store=store) or await _verify(transport)
    except (LogUnavailable, BusError) as error:
        return Finding(verdict=Verdict.REFUSED, words=str(error))
    if said is None:
        return Finding(verdict=Verdict.MISSED if first else Verdict.HARMLESS, first=first)
    verdict = Verdict.EXACT if said.seq == first else Verdict.BOUNDED
    if said.seq == 0:
        verdict = Verdict.REFUSED
    elif first == 0 or said.seq < first:
        verdict = Verdict.FALSE
    return Finding(verdict=verdict, first=first, reported=said.seq, words=said.words)


async def _verify(transport: Transport) -> _Said | None:
    """Return what `lumina verify --all --invariants` says; None when it says that all is well."""
    report = await verify_all(JetStreamLog(transport), JetStreamBlobs(transport), invariants=True)
    words = " ".join(line.strip() for line in report.lines())
    match report.status:
        case Status.DAMAGED:
            assert report.damage is not None, "a damaged log has a place"
            return _Said(seq=report.damage.seq, words=words)
        case Status.DIVERGED:
            assert report.divergence is not None, "what diverged has a place"
            return _Said(seq=report.divergence.at.seq, words=words)
        case Status.OK | Status.WHOLE:
            return _Said(seq=report.broken[0].at.seq, words=words) if report.broken else None


async def _gate(transport: Transport, *, store: Store) -> _Said | None:
    """Return what the gate says that every process passes first; None when it is open."""
    try:
        await pass_gate(JetStreamLog(transport), *map(CheckpointFile, sorted(store.checkpoints.glob("*.json"))))
    except LogDamaged as error:
        return _Said(seq=error.seq, words=str(error))
    except CheckpointFailed as error:
        return _Said(seq=0, words=str(error))
    return None


async def first_difference(transport: Transport, *, truth: Truth, open_end: bool) -> int:
    """Return the first record that is not what it was, or that names a blob that is not; 0 when there is none."""
    found = await raw_records(transport)
    wrong = {seq for seq, kept in truth.records.items() if found.get(seq) != kept}
    wrong |= {seq for seq in found if seq > len(truth.records) + int(open_end)}
    blobs = JetStreamBlobs(transport)
    for digest, content in truth.blobs.items():
        try:
            if await blobs.get(digest) != content:
                wrong.add(truth.named_at[digest])
        except BlobMissing:
            wrong.add(truth.named_at[digest])
    return min(wrong, default=0)
