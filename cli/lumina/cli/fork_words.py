"""What a fork would be, in words and as JSON: for `--dry-run`."""

from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.events.run import RunForked
from lumina.replay.forking.forking import Rehearsal
from lumina.replay.forking.places import Place
from lumina.replay.words import say, shorten, size

RECORDS_SHOWN_MAX: Final = 400
NOTHING_CHANGED: Final = "nothing changed: it goes on as the run did, and what had no answer there is asked again"


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known before a fork is begun.

    Attributes:
        missing: What is wrong with blobs that it needs.
        story: For a run that is superseded, all that it holds; else nothing.
    """

    where: Place
    event: RunForked
    rehearsal: Rehearsal
    missing: tuple[str, ...]
    story: tuple[Recorded[Event], ...] = ()

    @property
    def superseded(self) -> tuple[Recorded[Event], ...]:
        """The records of the story that the new run does without."""
        kept = {recorded.id for recorded in self.where.history}
        return tuple(recorded for recorded in self.story if recorded.id not in kept)


def changes_nothing(event: RunForked) -> bool:
    """Whether a fork goes on as its parent would have."""
    changed = event.options is not None or event.request is not None or event.models or event.specialists or event.steps
    return not changed and event.without is None


def as_json(dry: DryRun) -> bytes:
    """Return one JSON object."""
    return msgspec.json.encode(
        {
            "parent": dry.where.parent,
            "at": _record(dry.where.at),
            "reason": dry.event.reason,
            "request": dry.rehearsal.request,
            "shared": [_record(recorded) for recorded in dry.where.history],
            "superseded": [_record(recorded) for recorded in dry.superseded],
            "steps": dry.rehearsal.steps,
            "next": [{"type": recorded.type, "words": say(recorded)} for recorded in dry.rehearsal.decisions],
            "files": dry.rehearsal.files,
            "blobs": len(dry.rehearsal.blobs),
            "missing": dry.missing,
        }
    )


def _record(recorded: Recorded[Event]) -> dict[str, Any]:
    return {"seq": recorded.seq, "id": recorded.id, "run": recorded.stream, "type": recorded.type}


def show(dry: DryRun, *, console: Console) -> None:
    """Print it for people."""
    at = dry.where.at
    _say(console, f"{dry.where.parent}  {shorten(dry.rehearsal.request)}", style="bold")
    gone = next((recorded for recorded in dry.story if recorded.id == dry.event.without), None)
    if gone is not None:
        words = f"taken back: record {gone.seq}, {gone.type} by {gone.agent}: {say(gone)}"
        _say(console, f"{words}; with all that descends from it, {len(dry.superseded)} in all")
    else:
        _say(console, f"forked after record {at.seq}, {at.type} by {at.agent}: {say(at)}")
        different = NOTHING_CHANGED if changes_nothing(dry.event) else f"different: {dry.event.reason}"
        _say(console, different)
    runs = dict.fromkeys(recorded.stream for recorded in dry.where.history)
    counts = [f"{sum(each.stream == run for each in dry.where.history)} of {run}" for run in runs]
    _say(console, f"shares {len(dry.where.history)} records: {', '.join(counts)}")
    if dry.story:
        _records(console, "kept", records=dry.where.history)
        _records(console, "superseded", records=dry.superseded)
    for step in dry.rehearsal.steps:
        _say(console, f"step {step.number} {step.kind}: {step.fate}")
    _say(console, "next:" if dry.rehearsal.decisions else "next: nothing until somebody answers")
    for recorded in dry.rehearsal.decisions:
        _say(console, f"  {recorded.type:<26} {say(recorded)}")
    if dry.rehearsal.step is not None:
        _say(console, f"files beside the program of step {dry.rehearsal.step}: {len(dry.rehearsal.files) or 'none'}")
    for file in dry.rehearsal.files:
        _say(console, f"  {file.name}  {size(file.blob.size)}  sha256 {file.blob.digest}")
    for reason in dry.missing:
        _say(console, f"missing: {reason}", style="red")
    if not dry.missing:
        _say(console, f"all {len(dry.rehearsal.blobs)} blobs that these records name are there")
    _say(console, "nothing was written", style="dim")


def _records(console: Console, title: str, *, records: tuple[Recorded[Event], ...]) -> None:
    _say(console, f"{title}: {len(records)}")
    for recorded in records[:RECORDS_SHOWN_MAX]:
        _say(console, f"  {recorded.seq:>7} {recorded.agent:<12} {recorded.type:<26} {say(recorded)}")
    if len(records) > RECORDS_SHOWN_MAX:
        _say(console, f"  … and {len(records) - RECORDS_SHOWN_MAX} more; --json lists all")


def _say(console: Console, words: str, *, style: str = "") -> None:
    console.print(Text(words, style=style), soft_wrap=True)
