"""Bring the projections to the end of the log."""

from collections.abc import AsyncIterator
from typing import Final, Protocol

from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.projections.errors import StoreDamaged
from lumina.projections.store import Store

BATCH_RECORDS_MAX: Final = 256


class Records(Protocol):
    """As much of an event log as a projection needs. `lumina.bus.log.EventLog` is one."""

    async def last_seq(self) -> int:
        """Return the sequence of the newest record, 0 for an empty log."""
        ...

    def read(self, *, after: int = 0, until: int | None = None) -> AsyncIterator[Recorded[Event]]:
        """Yield every record with `after` < seq <= `until`, in order, none left out."""
        ...


async def catch_up(log: Records, store: Store) -> int:
    """Apply all that the log holds and the store has not seen; return the last sequence applied.

    A store that is damaged, or that was filled from another log or from records that this log no longer holds, is
    built again, once; its notice says so.

    Raises:
        StoreDamaged: It is damaged again right after it was built.
        StoreUnavailable: The file can't be written.
        LogDamaged: Of the log: up to the damage everything is applied.
        LogUnavailable: Of the log.
    """
    try:
        await _check_origin(log, store)
        return await _apply(log, store)
    except StoreDamaged as error:
        store.rebuild(f"the store was damaged ({error})")
        return await _apply(log, store)


async def _check_origin(log: Records, store: Store) -> None:
    """Throw the store away if the records that it stands on are not those of this log."""
    position = store.position()
    if position.seq == 0:
        return
    if await log.last_seq() < position.seq:
        store.rebuild(f"the log ends before record {position.seq}, which the projections have seen")
        return
    first = [recorded async for recorded in log.read(after=0, until=1)]
    last = [recorded async for recorded in log.read(after=position.seq - 1, until=position.seq)]
    if [recorded.digest for recorded in (*first, *last)] != [position.first, position.digest]:
        store.rebuild("the projections were made from another log")


async def _apply(log: Records, store: Store) -> int:
    batch: list[Recorded[Event]] = []
    seq = store.position().seq
    try:
        async for recorded in log.read(after=seq):
            batch.append(recorded)
            seq = recorded.seq
            if len(batch) == BATCH_RECORDS_MAX:
                store.take(batch)
                batch = []
    finally:
        # Also when the log turns out to be damaged: what stands before the damage is good.
        if batch:
            store.take(batch)
    return seq
