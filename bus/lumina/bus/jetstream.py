"""The event log on one NATS JetStream stream. See `log.py` for what it promises.

Append: the slot's id is the message id; the expected last sequence is that of the writer's chain, always with the
same filter, so that two writers of one chain can't both win. A conflict, a timeout and a lost acknowledgement have
one answer: look whether the slot is filled, and if not, go behind the new head. The server's dedupe window is a
saving, never the guarantee.

Read: batches of direct gets, no consumer. Follow: the same, woken by the stream's republished records.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import anyio
import msgspec

from lumina.bus.chains import Chain, Chains
from lumina.bus.checks import Continuity, Scope, check_again
from lumina.bus.decoding import decoded
from lumina.bus.errors import LogDamaged, LogFull, LogUnavailable, PayloadTooLarge
from lumina.bus.log import Delivery
from lumina.bus.pulls import pull_requests
from lumina.bus.stored import FULL_CODES, Ack, ApiError, Batch, Stored, StoredMessages, published
from lumina.bus.subjects import LOG_ID_METADATA, LOG_STREAM, Filter, subject_of, tail_subject
from lumina.bus.transport import Arrival, Message, Reconnected, Subscription, Transport, patiently
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Draft, Head, Recorded, chain, to_headers

APPEND_S_MAX: Final = 15.0
READ_RETRY_S_MAX: Final = 10.0
FOLLOW_RETRY_S_MAX: Final = 120.0
POLL_S: Final = 5.0
CONFLICT_PAUSE_S_MAX: Final = 0.02
LAG_PAUSE_S: Final = 0.01
LAG_READS_MAX: Final = 20

_CONFLICTS: Final = {10071, 10164, 10201}
_TOO_LARGE: Final = {10054}


class JetStreamLog:
    """See `EventLog`.

    Args:
        transport: The connection; its credentials decide what may be appended.
        append_s_max: How long an append tries through outages and conflicts.
        retry_s_max: How long `follow` and `work` wait for a server that is gone.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        append_s_max: float = APPEND_S_MAX,
        retry_s_max: float = FOLLOW_RETRY_S_MAX,
        poll_s: float = POLL_S,
    ) -> None:
        self._transport = transport
        self._append_s_max = append_s_max
        self._retry_s_max = retry_s_max
        self._poll_s = poll_s
        self._messages = StoredMessages(transport, stream=LOG_STREAM)
        self._chains = Chains()
        self._ack = msgspec.json.Decoder(Ack)

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """See `EventLog`."""
        deadline = anyio.current_time() + self._append_s_max
        mine = self._chains.of(draft.stream, agent=draft.agent)
        async with mine.lock:
            while True:
                try:
                    recorded = await self._try_append(draft, chain_=mine)
                except LogUnavailable:
                    # Whether it landed is unknown: look, before it is tried again.
                    left_s = deadline - anyio.current_time()
                    if left_s <= 0 or self._transport.is_closed:
                        raise
                    mine.known = False
                    await self._transport.wait_connected(timeout_s=left_s)
                    await anyio.sleep(min(CONFLICT_PAUSE_S_MAX, left_s))
                    continue
                if recorded is not None:
                    return recorded
                if anyio.current_time() > deadline:
                    raise LogUnavailable(f"{mine.filter}: others kept writing for {self._append_s_max} s")

    async def _try_append(self, draft: Draft[Event], *, chain_: Chain) -> Recorded[Event] | None:
        """Return the record that fills the slot; None when another writer came first."""
        if not chain_.known:
            await chain_.refresh(self._messages)
        standing = chain_.slots.get(draft.id)
        if standing is not None:
            return await self._standing(draft.id, seq=standing)
        recorded, body = chain(draft, after=chain_.head)
        headers = to_headers(recorded)
        headers["Nats-Msg-Id"] = draft.id
        headers["Nats-Expected-Last-Subject-Sequence"] = str(chain_.head.seq)
        headers["Nats-Expected-Last-Subject-Sequence-Subject"] = chain_.filter
        subject = subject_of(draft.event, stream=draft.stream, agent=draft.agent)
        answer = await self._transport.request(subject, payload=body, headers=headers)
        ack = self._ack.decode(answer.payload)
        if ack.error is not None:
            await self._resolve(ack.error, event=draft.id, chain_=chain_, subject=subject)
            return None
        if ack.duplicate:
            # The server knows the id, and this chain does not have it: it stands somewhere else.
            return await self._standing(draft.id, seq=ack.seq)
        recorded = msgspec.structs.replace(recorded, seq=ack.seq)
        chain_.extend(recorded)
        return recorded

    async def _resolve(self, error: ApiError, *, event: EventId, chain_: Chain, subject: str) -> None:
        reason = f"{subject}: {error.description} ({error.err_code})"
        if error.err_code in _CONFLICTS:
            if not await chain_.refresh(self._messages):
                await chain_.check_head(self._messages)
                # A write of the same chain is under way, or this replica lags: give it a moment.
                # Different writers wait for different times.
                await anyio.sleep(CONFLICT_PAUSE_S_MAX * int(event[:2], 16) / 256)
            return
        if error.err_code in _TOO_LARGE:
            raise PayloadTooLarge(reason)
        if error.err_code in FULL_CODES:
            raise LogFull(f"{reason}; raise the stream's limit or free disk space under the server's data directory")
        raise LogUnavailable(reason)

    async def _standing(self, event: EventId, *, seq: int) -> Recorded[Event]:
        stored = await self._messages.at(seq)
        if stored is None:
            raise LogDamaged("it was written, and can't be read", seq=seq)
        recorded = decoded(stored)
        if recorded.id != event:
            raise LogDamaged(f"it was {event}, and is {recorded.id}", seq=seq)
        return recorded

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """See `EventLog`."""
        return (await self._refreshed(stream, agent=agent)).head

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """See `EventLog`."""
        seq = (await self._refreshed(stream, agent=agent)).slots.get(event)
        return (
            None
            if seq is None
            else await patiently(self._transport, lambda: self._standing(event, seq=seq), retry_s_max=READ_RETRY_S_MAX)
        )

    async def _refreshed(self, stream: StreamId, *, agent: str) -> Chain:
        found = self._chains.of(stream, agent=agent)
        async with found.lock:
            await patiently(self._transport, lambda: found.refresh(self._messages), retry_s_max=READ_RETRY_S_MAX)
        return found

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """See `EventLog`."""
        stored = await patiently(
            self._transport, lambda: self._messages.last(which.subject()), retry_s_max=READ_RETRY_S_MAX
        )
        return None if stored is None else decoded(stored)

    async def last_seq(self) -> int:
        """See `EventLog`."""
        facts = await patiently(self._transport, self._messages.facts, retry_s_max=READ_RETRY_S_MAX)
        return facts.state.last_seq

    async def log_id(self) -> str:
        """Return what was drawn when the log was created; empty for a log that was created by other means."""
        facts = await patiently(self._transport, self._messages.facts, retry_s_max=READ_RETRY_S_MAX)
        return facts.config.metadata.get(LOG_ID_METADATA, "")

    async def at(self, seq: int) -> Recorded[Event] | None:
        """Return the record at `seq`, None when there is none.

        Raises:
            LogDamaged: What is there is not a sound record.
        """
        stored = await patiently(self._transport, lambda: self._messages.at(seq), retry_s_max=READ_RETRY_S_MAX)
        return None if stored is None else decoded(stored)

    async def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        async with aclosing(self._read(filters, after=after, until=until)) as records:
            async for _, recorded in records:
                yield recorded

    async def originals(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]:
        """See `Originals`."""
        async with aclosing(self._read(filters, after=after, until=until)) as records:
            async for stored, _ in records:
                yield published(stored)

    async def _read(
        self, filters: Sequence[Filter], *, after: int, until: int | None
    ) -> AsyncGenerator[tuple[Stored, Recorded[Event]], None]:
        reading = _Reading(filters, after=after)
        last_seq = await self.last_seq()
        reading.check_not_beyond(last_seq)
        end = last_seq if until is None else min(until, last_seq)
        more = reading.seq < end
        while more:
            expected = end if reading.everything else 0
            batch = await self._next_batch(reading, expected=expected, retry_s_max=READ_RETRY_S_MAX)
            for stored in batch.messages:
                if stored.seq > end:
                    more = False
                    break
                recorded = reading.take(stored)
                if recorded is not None:
                    await self._look_back(reading, recorded)
                    yield stored, recorded
            more = more and batch.pending > 0 and reading.seq < end
        reading.continuity.end(end)

    async def follow(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        reading = _Reading(filters, after=after)
        async with self._transport.subscribe(*{tail_subject(each) for each in filters}) as tail:
            reading.check_not_beyond(await self.last_seq())
            announced = 0
            while True:
                batch = await self._next_batch(reading, expected=announced, retry_s_max=self._retry_s_max)
                for stored in batch.messages:
                    recorded = reading.take(stored)
                    if recorded is not None:
                        await self._look_back(reading, recorded)
                        yield recorded
                if not batch.pending:
                    announced = await self._wait_for_news(tail, reading=reading)

    async def _look_back(self, reading: "_Reading", recorded: Recorded[Event]) -> None:
        """Read a chain again whose end this reader has forgotten, and check that the record continues it."""
        if not reading.linked:
            chain_ = (Filter(stream=recorded.stream, agent=recorded.agent),)
            await check_again(recorded, earlier=self.read(chain_, until=recorded.seq - 1))

    async def _next_batch(self, reading: "_Reading", *, expected: int, retry_s_max: float) -> Batch:
        """Return what comes next; when `expected` must be there and is not, give a lagging replica a moment."""
        batch = Batch([], 0)
        for _ in range(LAG_READS_MAX):
            batch = await patiently(
                self._transport,
                lambda: self._messages.batch(reading.pattern, seq=reading.seq + 1),
                retry_s_max=retry_s_max,
            )
            if batch.messages or expected <= reading.seq:
                break
            await anyio.sleep(LAG_PAUSE_S)
        if batch.pending and not batch.messages:
            raise LogDamaged(f"{batch.pending:,} records follow, and none of them can be read", seq=reading.seq + 1)
        return batch

    async def _wait_for_news(self, tail: Subscription, *, reading: "_Reading") -> int:
        """Return the sequence of a record that was announced after the last one read; 0 to look anyway."""
        while True:
            arrivals = await tail.take(timeout_s=self._poll_s)
            if not arrivals:
                return 0
            if any(isinstance(arrival, Reconnected) for arrival in arrivals):
                # What was announced meanwhile was not heard; and the log may be another one, or shorter.
                facts = await patiently(self._transport, self._messages.facts, retry_s_max=self._retry_s_max)
                reading.check_not_beyond(facts.state.last_seq)
                return 0
            announced = max(map(announced_seq, arrivals))
            if announced > reading.seq:
                return announced

    def work(self, worker: str) -> AsyncGenerator[Delivery, None]:
        """See `EventLog`."""
        return pull_requests(self._transport, role=worker, retry_s_max=self._retry_s_max)


class _Reading:
    """How far one reader is, and what it checks."""

    def __init__(self, filters: Sequence[Filter], *, after: int) -> None:
        self._scope = Scope(filters)
        self.continuity = Continuity(self._scope, after=after)
        self.linked = True
        self.everything = self._scope.everything
        self.pattern = self._scope.cover.subject()
        self.seq = after

    def check_not_beyond(self, last_seq: int) -> None:
        if self.seq > last_seq:
            reason = f"this reader has read up to {self.seq}, and the log ends at {last_seq}: it lost its tail"
            raise LogDamaged(reason, seq=last_seq + 1)

    def take(self, stored: Stored) -> Recorded[Event] | None:
        """Return the next record, None when it was not asked for."""
        self.continuity.expect(stored.seq)
        self.seq = stored.seq
        if not self._scope.wants(stored.subject):
            return None
        recorded = decoded(stored)
        self.linked = self.continuity.check(recorded)
        return recorded


def announced_seq(arrival: Arrival) -> int:
    """Return the sequence that a republished record carries."""
    return int(arrival.headers.get("Nats-Sequence", "0")) if isinstance(arrival, Message) else 0
