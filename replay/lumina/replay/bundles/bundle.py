"""What belongs into the exported file of a run: all from which its every decision can be made again. Pure.

That is: the run's own records and those of the runs that it is a fork of, and the inputs and answers of the governor
from the log's start, since what it granted to this run depends on all that it had granted before.
"""

from contextlib import aclosing
from typing import Any

import msgspec

from lumina.bus.archive_format import Covers
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import type_of
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.codec import decode
from lumina.events.errors import EventError
from lumina.events.generation import Ask, GenerationFinished, GenerationRequested
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseGranted
from lumina.events.run import RunClosed
from lumina.events.schema import schema_of
from lumina.events.values import BlobRef
from lumina.models.errors import ConversationLost
from lumina.models.turns import Turn
from lumina.replay.cast import cast_of
from lumina.replay.errors import RunUnknown
from lumina.replay.verifying.integrity import blob_refs
from lumina.replay.verifying.parents import parents_of


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a log goes into a file.

    Attributes:
        runs: Those whose every record, with all blobs, is taken; the one that is asked for comes first.
        filters: For all that is taken.
        until: The last record.
    """

    runs: tuple[StreamId, ...]
    filters: tuple[Filter, ...]
    until: int

    @property
    def covers(self) -> tuple[Covers, ...]:
        """The filters as they are written down."""
        return tuple(
            Covers(stream=each.stream, agent=each.agent, type=None if each.event is None else type_of(each.event))
            for each in self.filters
        )


async def share_of(log: Records, run: StreamId) -> Share:
    """Return what a file of the run holds.

    Of a run that has ended it goes as far as the governor's answers to its last record; of another to the log's end.

    Raises:
        RunUnknown: The log holds no record of it.
        LogDamaged: The log is not whole.
        LogUnavailable: The log can't be reached.
    """
    runs, last = await _family(log, run)
    governor = (await cast_of(log)).governor
    filters = (
        *(Filter(stream=each) for each in runs),
        *governor.inputs,
        Filter(agent=governor.name),
    )
    until = await log.last_seq()
    if last is not None:
        until = await _answered(log, filters=filters, governor=governor.name, last=last)
    return Share(runs=runs, filters=filters, until=until)


async def _family(log: Records, run: StreamId) -> tuple[tuple[StreamId, ...], int | None]:
    """Return the run and those that it is a fork of, and its last record when it has ended."""
    seen, last, closed = False, 0, False
    async with aclosing(log.read((Filter(stream=run),))) as records:
        async for recorded in records:
            seen, last, closed = True, recorded.seq, closed or isinstance(recorded.event, RunClosed)
    if not seen:
        raise RunUnknown(f"the log holds no run {run!r}")
    return (run, *await parents_of(run, events=log)), last if closed else None


async def _answered(log: Records, *, filters: tuple[Filter, ...], governor: str, last: int) -> int:
    """Return the last record of the governor that answers an input up to `last`; it answers them in their order."""
    later: set[EventId] = set()
    until = last
    async with aclosing(log.read(filters, after=last)) as records:
        async for recorded in records:
            if recorded.agent != governor:
                later.add(recorded.id)
            elif recorded.causation in later:
                break
            else:
                until = recorded.seq
    return until


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of the blobs that an event names, and which of them are ends of conversations."""

    blobs: frozenset[str] = frozenset()
    turns: frozenset[str] = frozenset()


def schema_text(event_type: str) -> bytes:
    """Return the JSON Schema of a type of event, for readers in any language."""
    schema: dict[str, Any] = schema_of(EVENT_TYPES[event_type])
    return msgspec.json.format(msgspec.json.encode(schema, order="deterministic"), indent=1) + b"\n"


def named_by(body: bytes, *, event_type: str) -> Named:
    """Return what the bytes of an event name; nothing for a type that is unknown here."""
    try:
        event = decode(body, event_type=event_type)
    except EventError:
        return Named()
    turns: set[str] = set()
    match event:
        case (
            GenerationRequested(ask=Ask(turn=BlobRef(digest=digest)))
            | LeaseGranted(ask=Ask(turn=BlobRef(digest=digest)))
        ):
            turns.add(digest)
        case GenerationFinished(turn=BlobRef(digest=digest)):
            turns.add(digest)
        case _:
            pass  # continues no conversation
    return Named(blobs=frozenset(ref.digest for ref in blob_refs(event)), turns=frozenset(turns))


def named_in_turn(content: bytes) -> tuple[frozenset[str], str | None]:
    """Return the texts that the blob of a turn names, and the turn before it.

    Raises:
        ConversationLost: It is none.
    """
    try:
        turn = msgspec.json.decode(content, type=Turn)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConversationLost(f"a blob is no turn of a conversation: {error}") from error
    return frozenset(part.text for part in turn.parts), turn.earlier
