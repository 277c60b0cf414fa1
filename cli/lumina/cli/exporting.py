"""Writes a run, or the whole log, into one file: what `lumina export` and `lumina freeze` do."""

import os
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

from lumina.agents.version import DISTRIBUTION, code_version
from lumina.bus.archive_format import FORMAT, Line, Manifest
from lumina.bus.archive_writer import ArchiveWriter, line_of, written
from lumina.bus.errors import BlobMissing
from lumina.bus.log import Blobs, Originals
from lumina.bus.subjects import Filter
from lumina.cli.app import err
from lumina.cli.errors import UsageProblem
from lumina.events.base import type_of
from lumina.events.ids import StreamId
from lumina.events.node import NodeEvent
from lumina.events.record import from_rfc3339
from lumina.events.run import RunForked, RunSubmitted
from lumina.replay.bundles.bundle import Share, named_by, named_in_turn, schema_text, share_of
from lumina.replay.bundles.redaction import Redaction

TELL_EVERY_RECORDS: Final = 1_000
_OF_NODES: Final = frozenset(type_of(kind) for kind in get_args(NodeEvent))
_BEGINNINGS: Final = frozenset({type_of(RunSubmitted), type_of(RunForked)})

Tell = Callable[[str], None]
"""Is told how far it is."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How a file is to be written.

    Attributes:
        path: Where.
        replace: A file that is there is replaced.
        hide: Names of fields to hide.
        blobs: Whether blobs are taken along.
        tell: Is told how far it is.
    """

    path: Path
    replace: bool = False
    hide: tuple[str, ...] = ()
    blobs: bool = True
    tell: Tell = lambda _: None


def check_target(path: Path, *, replace: bool) -> None:
    """Raise UsageProblem unless a file can be written under this name."""
    if path.exists() and not path.is_file():
        raise UsageProblem(f"{path} is no regular file: a file is written beside its place and then named")
    if os.path.lexists(path) and not replace:
        raise UsageProblem(f"{path} is there already: give another name with -o, or --force to replace it")


async def export_run(events: Originals, blobs: Blobs, run: StreamId, *, wishes: Wishes) -> Manifest:
    """Write a file from which the run can be decided again anywhere.

    Raises:
        RunUnknown: There is no such run.
        LogDamaged: A record is not what was written.
        BlobMissing: A blob is not there.
        NotRedactable: What was asked to be hidden can't be.
        FileExistsError: The file is there already.
    """
    share = await share_of(events, run)
    redaction = Redaction(wishes.hide) if wishes.hide else None
    if redaction is not None:
        await _learn(redaction, events=events, blobs=blobs, share=share)
    with written(wishes.path, replace=wishes.replace) as writer:
        export = _Export(writer, wishes=wishes, redaction=redaction)
        await export.records(events, filters=share.filters, until=share.until, runs=share.runs)
        if export.foreign:
            what = f"{export.foreign:,} record{'s' * (export.foreign != 1)} of other runs"
            err().print(
                f"warning: {what} are in it, since the governor decided on them; --redact hides fields",
                markup=False,
                soft_wrap=True,
            )
        await export.blobs(blobs)
        return await export.finish(events, run=run, runs=share.runs, share=share)


async def export_all(events: Originals, blobs: Blobs, *, wishes: Wishes) -> Manifest:
    """Write a file from which the whole log can be restored, record for record. Raises as `export_run` does."""
    assert not wishes.hide, "a whole log is not redacted"
    with written(wishes.path, replace=wishes.replace) as writer:
        export = _Export(writer, wishes=wishes, redaction=None)
        await export.records(events, filters=(Filter(),), until=await events.last_seq(), runs=None)
        await export.blobs(blobs)
        return await export.finish(events, run=None, runs=tuple(sorted(export.begun)), share=None)


async def _learn(redaction: Redaction, *, events: Originals, blobs: Blobs, share: Share) -> None:
    """Have all values that are to be hidden learnt, those in blobs included."""
    streams: set[str] = set()
    async with aclosing(events.originals(share.filters, until=share.until)) as records:
        async for stored in records:
            redaction.learn(line_of(stored))
            streams.add(stored.headers["ce-subject"])
    learnt: set[str] = set()
    while more := redaction.blobs - learnt:
        for digest in sorted(more):
            learnt.add(digest)
            with suppress(BlobMissing):  # not every digest is that of a blob
                redaction.learn_blob(await blobs.get(digest))
    redaction.check(sorted(streams))


class _Export:
    """One file under way."""

    def __init__(self, writer: ArchiveWriter, *, wishes: Wishes, redaction: Redaction | None) -> None:
        self._writer = writer
        self._wishes = wishes
        self._redaction = redaction
        self._named: set[str] = set()
        self._turns: set[str] = set()
        self._types: set[str] = set()
        self._last_ms = 0
        self.begun: set[StreamId] = set()
        self.foreign = 0

    async def records(
        self, events: Originals, *, filters: Sequence[Filter], until: int, runs: tuple[StreamId, ...] | None
    ) -> None:
        """Write the records, and note the blobs that those of `runs` name, or all."""
        async with aclosing(events.originals(filters, until=until)) as records:
            async for stored in records:
                line = line_of(stored)
                stream, event_type = StreamId(line.headers["ce-subject"]), line.headers["ce-type"]
                if runs is None or stream in runs:
                    named = named_by(stored.payload, event_type=event_type)
                    self._named |= named.blobs
                    self._turns |= named.turns
                if event_type in _BEGINNINGS:
                    self.begun.add(stream)
                self.foreign += runs is not None and stream not in runs and event_type not in _OF_NODES
                self._types.add(event_type)
                self._last_ms = max(self._last_ms, from_rfc3339(line.headers["ce-time"]))
                self._writer.record(self._redacted(line))
                if self._writer.records % TELL_EVERY_RECORDS == 0:
                    self._wishes.tell(f"{self._writer.records:,} records")

    def _redacted(self, line: Line) -> Line:
        return line if self._redaction is None else self._redaction.redact(line)

    async def blobs(self, blobs: Blobs) -> None:
        """Write the blobs that were named. Raises BlobMissing."""
        if not self._wishes.blobs:
            return
        await self._follow_conversations(blobs)
        for number, digest in enumerate(sorted(self._named), start=1):
            content = await _content(blobs, digest)
            if self._redaction is None or not self._redaction.hides_blob(digest, content=content):
                self._writer.blob(digest, content=content)
            if number % TELL_EVERY_RECORDS == 0:
                self._wishes.tell(f"{self._writer.records:,} records, {number:,} of {len(self._named):,} blobs")

    async def _follow_conversations(self, blobs: Blobs) -> None:
        """Note the texts and the earlier turns that turns name: no record names them."""
        seen: set[str] = set()
        for last in sorted(self._turns):
            turn: str | None = last
            while turn is not None and turn not in seen:
                seen.add(turn)
                texts, earlier = named_in_turn(await _content(blobs, turn))
                self._named |= {turn, *texts}
                turn = earlier

    async def finish(
        self, events: Originals, *, run: StreamId | None, runs: tuple[StreamId, ...], share: Share | None
    ) -> Manifest:
        """Write the rest, and return what the file says about itself."""
        writer, wishes = self._writer, self._wishes
        for event_type in sorted(self._types):
            writer.schema(event_type, content=schema_text(event_type))
        manifest = Manifest(
            format=FORMAT,
            lumina=version(DISTRIBUTION),
            code=code_version(),
            log_id=await events.log_id(),
            scope="log" if run is None else "run",
            run=run,
            runs=runs,
            covers=() if share is None else share.covers,
            records=writer.records,
            first_seq=writer.first_seq,
            last_seq=writer.last_seq,
            hidden=tuple(sorted(wishes.hide)),
            hidden_records=writer.hidden_records,
            blobs=tuple(writer.blobs),
            blobs_left_out=len(self._named) - len(writer.blobs),
            until_ms=self._last_ms,
        )
        writer.finish(manifest)
        return manifest


async def _content(blobs: Blobs, digest: str) -> bytes:
    try:
        return await blobs.get(digest)
    except BlobMissing as error:
        raise BlobMissing(f"{error}; --without-blobs exports the records alone") from error
