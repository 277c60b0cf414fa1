"""Which record belongs at each place of a damaged log, given what several sources still have of it. Pure.

A record is believed by its digests alone, wherever it comes from. Its place is believed when it continues the chain of
its writer there. Only a log without any gap is ever restored: what comes behind a lost record may depend on it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Final

from lumina.bus.salvage import envelope
from lumina.bus.stored import Stored
from lumina.bus.subjects import chain_filter
from lumina.events.ids import StreamId
from lumina.events.record import Head

CLOSED: Final = "run.closed.v1"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Sequences for which nobody has a sound record, both ends included.

    Attributes:
        reason: Why what is there, if anything is, can't be taken.
    """

    first: int
    last: int
    reason: str

    def __str__(self) -> str:
        """Return it as a user reads it."""
        which = f"record {self.first}" if self.first == self.last else f"records {self.first} to {self.last}"
        return f"{which}: {self.reason}"


@dataclass(kw_only=True)
class Plan:
    """What can be restored, as far as it was looked at.

    Attributes:
        records: How many can be.
        by_source: How many of them each source has given; the first one that has a record gives it.
        gaps: What nobody has.
        runs: Whose records are in the gaps, as far as their other records tell.
        open: Runs whose end is not there.
    """

    records: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether every record up to the end is there."""
        return not self.gaps


class Planner:
    """Chooses record by record, in the order of the log.

    Args:
        sources: By name, the sound records that each has, in order; the first ones are preferred.
        checkpoints: Digests of records that processes saw, by sequence; the log reaches at least as far.
    """

    def __init__(self, sources: Mapping[str, Iterable[Stored]], *, checkpoints: Mapping[int, str]) -> None:
        self.plan = Plan(by_source=dict.fromkeys(sources, 0))
        self._sources = sources
        self._checkpoints = checkpoints
        self._heads: dict[tuple[str, str], Head] = {}

    def records(self) -> Iterator[Stored]:
        """Yield what belongs into the log, with the headers of its append. At the end `plan` is complete."""
        after = 0
        for seq, candidates in self._by_seq():
            if seq > after + 1:
                self._miss(after + 1, last=seq - 1, reason="nobody has it any more")
            chosen = self._choose(candidates, seq=seq)
            if chosen is not None:
                yield chosen
            after = seq
        end = max(self._checkpoints, default=0)
        if end > after:
            self._miss(after + 1, last=end, reason="a process has seen it, and nobody has it any more")

    def _by_seq(self) -> Iterator[tuple[int, list[tuple[str, Stored]]]]:
        tagged = [_tagged(records, name=name) for name, records in self._sources.items()]
        for seq, group in groupby(merge(*tagged, key=itemgetter(0)), key=itemgetter(0)):
            yield seq, [(name, stored) for _, name, stored in group]

    def _choose(self, candidates: Sequence[tuple[str, Stored]], *, seq: int) -> Stored | None:
        distinct: dict[str, tuple[str, Stored]] = {}
        for name, stored in candidates:
            distinct.setdefault(stored.headers["ce-luminadigest"], (name, stored))
        seen = self._checkpoints.get(seq)
        fitting = [
            (name, stored)
            for digest, (name, stored) in distinct.items()
            if (seen is None or digest == seen) and self._continues(stored)
        ]
        if len(fitting) != 1:
            names = " and ".join(name for name, _ in fitting or distinct.values())
            reason = f"what {names} has does not belong there" if not fitting else f"{names} have different ones"
            self._miss(seq, last=seq, reason=reason)
            return None
        name, stored = fitting[0]
        self.plan.records += 1
        self.plan.by_source[name] += 1
        return self._take(stored, seq=seq)

    def _continues(self, stored: Stored) -> bool:
        """Whether it is the next one of its chain; behind a gap also a later one."""
        sealed = envelope(stored.headers)
        assert sealed is not None, "sources give sound records only"
        head = self._heads.get((sealed.stream, sealed.agent), Head())
        if sealed.position == head.position + 1:
            return sealed.previous == head.digest
        return bool(self.plan.gaps) and sealed.position > head.position

    def _take(self, stored: Stored, *, seq: int) -> Stored:
        sealed = envelope(stored.headers)
        assert sealed is not None, "it was looked at before"
        chain = (sealed.stream, sealed.agent)
        head = self._heads.get(chain, Head())
        if sealed.position != head.position + 1:
            self.plan.runs.add(sealed.stream)
        self._heads[chain] = Head(seq=seq, position=sealed.position, digest=stored.headers["ce-luminadigest"])
        if sealed.type == CLOSED:
            self.plan.open.discard(sealed.stream)
        elif sealed.type.startswith("run."):
            self.plan.open.add(sealed.stream)
        headers = {
            **{name: value for name, value in stored.headers.items() if name.startswith("ce-")},
            "Nats-Msg-Id": sealed.id,
            "Nats-Expected-Last-Subject-Sequence": str(head.seq),
            "Nats-Expected-Last-Subject-Sequence-Subject": chain_filter(StreamId(sealed.stream), agent=sealed.agent),
        }
        return Stored(seq, stored.subject, headers, stored.payload)

    def _miss(self, first: int, *, last: int, reason: str) -> None:
        gaps = self.plan.gaps
        if gaps and gaps[-1].last == first - 1 and gaps[-1].reason == reason:
            gaps[-1] = Gap(first=gaps[-1].first, last=last, reason=reason)
        else:
            gaps.append(Gap(first=first, last=last, reason=reason))


def _tagged(records: Iterable[Stored], *, name: str) -> Iterator[tuple[int, str, Stored]]:
    for stored in records:
        yield stored.seq, name, stored
