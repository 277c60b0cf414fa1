"""What a proof found: its verdict, and on failure the one place to look at."""

from enum import Enum
from typing import Final

import msgspec

UNKNOWN_CODE: Final = "unknown"
BROKEN_MAX: Final = 1_000


class Status(Enum):
    """OK: all was decided again and is equal to the byte. DIVERGED: it is not. DAMAGED: the log is not whole.

    WHOLE: an exported file is what was written as far as it goes, but lacks fields or blobs, so that not all of it was
    decided again; what was, is equal.
    """

    OK = "ok"
    WHOLE = "whole"
    DIVERGED = "diverged"
    DAMAGED = "damaged"

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0, 4, 3 or 5."""
        return {Status.OK: 0, Status.WHOLE: 4, Status.DIVERGED: 3, Status.DAMAGED: 5}[self]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first field in which two records differ, with both values as JSON texts.

    Attributes:
        field: For instance `time_ms` or `event.usage.generated_tokens`.
        recorded: What stands in the log.
        decided: What is decided now; `nothing` when there is no such record or value.
    """

    field: str
    recorded: str
    decided: str


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a causal chain."""

    seq: int
    id: str
    type: str
    agent: str
    stream: str


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """A record that the same code, given the same records before it, would not write.

    Attributes:
        at: The record; when one is missing, the record that stands in its place.
        difference: Where.
        causes: The record's cause, the cause of that, and so on to the root.
        recorded_by: Version of the code that decided when it was written, as its node announced it; `unknown` if it
            did not.
        decided_by: Version of the code that decided now.
    """

    at: Link
    difference: Difference
    causes: tuple[Link, ...] = ()
    recorded_by: str = UNKNOWN_CODE
    decided_by: str = UNKNOWN_CODE


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A place where the log, or what it names, is not what was written. `seq` is 0 when no record is concerned."""

    seq: int
    reason: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """An invariant that a history breaks, and at which record."""

    invariant: str
    at: Link
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a run, or on the whole log.

    Attributes:
        run: Which; None for the whole log.
        parents: The runs that it is a fork of, the nearest first; they are proved with it.
        records: How many were looked at.
        decided: How many records of each agent were decided again and found equal.
        blobs: How many blobs were read and found whole.
        closed: Whether the run has ended; for the whole log, how many have.
        pending: Decisions that are not in the log yet: of a keeper that is at work, or that was stopped.
        broken: Invariants that don't hold, if they were asked for, up to `BROKEN_MAX`; `status` does not speak of them.
        broken_more: How many more there were.
        hidden_records: Of an exported file: how many records hide fields. If any does, nothing is decided again.
        blobs_left_out: Of an exported file: how many blobs are named and not there.
        underived: How many outcomes of workers could not be derived again because of that.
    """

    run: str | None
    status: Status
    parents: tuple[str, ...] = ()
    records: int = 0
    decided: dict[str, int] = {}
    blobs: int = 0
    closed: int = 0
    pending: int = 0
    divergence: Divergence | None = None
    damage: Damage | None = None
    broken: tuple[Broken, ...] = ()
    broken_more: int = 0
    hidden_records: int = 0
    blobs_left_out: int = 0
    underived: int = 0

    def lines(self) -> tuple[str, ...]:
        """Return the report for people, the verdict first."""
        name = "the log" if self.run is None else self.run
        counts = ", ".join(f"{agent} {count}" for agent, count in sorted(self.decided.items()))
        if self.divergence is not None:
            return (f"{name}: diverged at record {self.divergence.at.seq}", *_divergence_lines(self.divergence))
        if self.damage is not None:
            where = f" at record {self.damage.seq}" if self.damage.seq else ""
            return (f"{name}: damaged{where}", f"  {self.damage.reason}")
        if self.hidden_records:
            return _hidden_lines(self, name=name)
        whole = "whole, but not all of it decided again" if self.status is Status.WHOLE else "ok"
        verdict = "invariants broken" if self.broken else whole
        lines = [f"{name}: {verdict}; {self.records} records, decided again: {counts or 'none'}; {self.blobs} blobs"]
        if self.blobs_left_out:
            lines.append(f"  {self.blobs_left_out} blobs were left out of this file")
            lines.append(f"  not proved: {self.underived} outcomes of workers, which can't be derived without them")
        if self.parents:
            lines.append(f"  proved with the runs that it is a fork of: {', '.join(self.parents)}")
        if self.pending:
            lines.append(f"  {self.pending} decisions are not in the log yet")
        lines += [f"  record {one.at.seq} ({one.at.type}): {one.invariant}: {one.reason}" for one in self.broken]
        if self.broken_more:
            lines.append(f"  and {self.broken_more} more")
        return tuple(lines)


def _hidden_lines(report: Report, *, name: str) -> tuple[str, ...]:
    return (
        f"{name}: whole, but not decided again; {report.records} records, {report.blobs} blobs",
        f"  {report.hidden_records} records hide fields and {report.blobs_left_out} blobs were left out of this file",
        "  proved: envelopes, visible values, digests, chains and roots; not proved: what the agents decided",
    )


def _divergence_lines(divergence: Divergence) -> tuple[str, ...]:
    at, difference = divergence.at, divergence.difference
    return (
        f"  {at.type} {at.id} by {at.agent} in {at.stream}",
        f"  field     {difference.field}",
        f"  recorded  {difference.recorded}",
        f"  decided   {difference.decided}",
        f"  code      recorded by {divergence.recorded_by}, decided by {divergence.decided_by}",
        *(f"  because of record {link.seq}: {link.type} {link.id} by {link.agent}" for link in divergence.causes),
    )
