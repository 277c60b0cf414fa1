"""Where a fork begins: which run it is a fork of, which records it shares, and what it leaves out."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from lumina.agents.ancestry import GENERATIONS_MAX, history_of
from lumina.agents.closing import chain_heads
from lumina.agents.ports import Origin
from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.node import NodeEvent
from lumina.events.record import Head, Recorded
from lumina.events.run import ChainHead, RunClosed, RunForked, RunSubmitted
from lumina.replay.errors import ForkProblem, RunUnknown

NEAREST_SHOWN: Final = 2


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fork begins.

    Attributes:
        parent: The run that it forks; for a record that this run only shares, the ancestor that wrote it.
        at: The last record of the parent that was looked at.
        chains: The heads of the parent's chains there.
        history: What the fork shares, in the order in which it was decided.
        without: The record that is left out, with all that descends from it; None for none.
    """

    parent: StreamId
    at: Recorded[Event]
    chains: tuple[ChainHead, ...]
    history: tuple[Recorded[Event], ...]
    without: EventId | None = None


async def find_place(run: StreamId, *, seq: int, events: Records) -> Place:
    """Return the place after record `seq` of `run`, one of its own or one that it shares.

    Raises:
        RunUnknown: The log holds no record of the run.
        ForkProblem: The run has no such record.
        LogDamaged: The log is not whole.
    """
    seen: list[int] = []
    parent, without = run, None
    own = await records_of(run, events=events, before=await events.last_seq() + 1)
    while True:
        if not own:
            raise RunUnknown(f"the log holds no record of {parent}")
        seen = [recorded.seq for recorded in own] + seen
        upto = [recorded for recorded in own if recorded.seq <= seq]
        if upto and upto[-1].seq == seq:
            place = await _place(parent, upto=upto, without=without, events=events)
            if not any(recorded.id == place.at.id for recorded in place.history):
                raise ForkProblem(f"{run} leaves record {seq} out: it descends from one that was invalidated")
            return place
        link = fork_of(own)
        if link is None or seq > own[0].seq:
            raise ForkProblem(_no_record(run, seq=seq, seen=seen))
        origin, first = link
        if origin.without is not None and without is not None:
            raise ForkProblem(f"{run} leaves out records of its parents twice; fork {parent} at one of its own records")
        parent, without = origin.parent, origin.without or without
        older = await records_of(parent, events=events, before=first.seq)
        end = next((place for place, each in enumerate(older, 1) if each.id == origin.at), 0)
        own = older[:end]


async def place_without(gone: Recorded[Event], *, run: StreamId, events: Records) -> Place:
    """Return the place after the last record of `run`, without `gone` and all that descends from it.

    Args:
        gone: A record of the run, or one that it shares with its parents.
        run: Whose result is superseded.
        events: Where they stand.

    Raises:
        RunUnknown: The log holds no record of the run.
        ForkProblem: This record can't be invalidated; the message says why.
        LogDamaged: The log is not whole.
    """
    match gone.event:
        case RunSubmitted():
            raise ForkProblem("a run without its submission is no run; submit what you want with `lumina run`")
        case RunForked():
            raise ForkProblem("a fork without its first record is no run; fork its parent again with `lumina fork`")
        case RunClosed():
            raise ForkProblem("nothing descends from the end of a run; invalidate what led to it")
        case _ if isinstance(gone.event, NodeEvent):
            raise ForkProblem("what a node says of itself belongs to no run, so no run can do without it")
        case _:
            pass  # anything else may turn out to be wrong
    own = await records_of(run, events=events, before=await events.last_seq() + 1)
    if not own:
        raise RunUnknown(f"the log holds no record of {run}")
    return await _place(run, upto=own, without=gone.id, events=events)


def fork_of(own: Sequence[Recorded[Event]]) -> tuple[Origin, Recorded[Event]] | None:
    """Return what a run is a fork of, with the record that says so; None when it is no fork."""
    for recorded in own:
        match recorded.event:
            case RunForked(parent=parent, at=at, chains=chains, without=without) if recorded.position == 1:
                return Origin(parent=parent, at=at, chains=chains, without=without), recorded
            case _:
                continue
    return None


async def shared_by(own: Sequence[Recorded[Event]], *, events: Records) -> tuple[Recorded[Event], ...]:
    """Return what a fork shares with its parents, empty for a run that is no fork. Raises LogDamaged."""
    link = fork_of(own)
    return () if link is None else await history_of(link[0], events=events, before=link[1].seq)


async def story_of(run: StreamId, *, events: Records) -> tuple[Recorded[Event], ...]:
    """Return all that belongs to a run: what it shares with its parents, then its own records. Raises LogDamaged."""
    own = await records_of(run, events=events, before=await events.last_seq() + 1)
    return (*await shared_by(own, events=events), *own)


async def records_of(run: StreamId, *, events: Records, before: int) -> list[Recorded[Event]]:
    """Return the records of one run that stand before the sequence `before`. Raises LogDamaged."""
    async with aclosing(events.read((Filter(stream=run),), until=before - 1)) as found:
        return [recorded async for recorded in found]


async def _place(
    parent: StreamId, *, upto: Sequence[Recorded[Event]], without: EventId | None, events: Records
) -> Place:
    at = upto[-1]
    chains = chain_heads(
        {recorded.agent: Head(position=recorded.position, digest=recorded.digest) for recorded in upto}
    )
    origin = Origin(parent=parent, at=at.id, chains=chains, without=without)
    history = await history_of(origin, events=events, before=at.seq + 1)
    if not any(isinstance(recorded.event, RunSubmitted) for recorded in history):
        raise ForkProblem(
            f"{parent} can't be forked: no submission leads to it, or it is a fork of more than {GENERATIONS_MAX} forks"
        )
    return Place(parent=parent, at=at, chains=chains, history=history, without=without)


def _no_record(run: StreamId, *, seq: int, seen: Sequence[int]) -> str:
    near = sorted(sorted(seen, key=lambda each: abs(each - seq))[:NEAREST_SHOWN])
    return f"record {seq} is none of {run}; the nearest are {' and '.join(map(str, near))}"
