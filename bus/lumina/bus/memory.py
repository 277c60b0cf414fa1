"""The event log, the blobs and the chatter in this process's memory: what they promise, without a server.

For tests, simulation and replay. Passes the contract suite of the real ones; runs on any anyio backend. What stands
in it went through the same bytes as on the wire.
"""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Final

import anyio
import anyio.lowlevel
import msgspec

from lumina.bus.checks import Continuity, Scope, check_again
from lumina.bus.errors import BlobMissing, BlobsFull, LogDamaged, PayloadTooLarge
from lumina.bus.log import Delivery
from lumina.bus.stored import Stored
from lumina.bus.subjects import Filter, subject_matches, subject_of
from lumina.bus.transport import Inbox, Message
from lumina.bus.workers import ACK_WAIT_S, WORKER_ROLES
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Draft, Head, Recorded, chain, from_headers, to_headers

PAYLOAD_BYTES_MAX: Final = 2**20
BLOBS_BYTES_MAX: Final = 2**31
LIVE_ITEMS_MAX: Final = 10_000
IDLE_S: Final = 3_600.0

Clock = Callable[[], float]


class MemoryLog:
    """See `EventLog`.

    Args:
        records: A history to begin with, for instance one that was exported; it is checked when it is read.
        clock: Seconds, for the ack wait; the event loop's clock if not given. After turning another clock forward,
            call `tick`.
        ack_wait_s: After how long an unacknowledged request is delivered again.
        log_id: What `log_id` returns.
    """

    def __init__(
        self,
        records: Sequence[Recorded[Event]] = (),
        *,
        clock: Clock = anyio.current_time,
        ack_wait_s: float = ACK_WAIT_S,
        log_id: str = "memory",
    ) -> None:
        self._records = list(records)
        self._given = len(self._records)
        self._slots: dict[tuple[StreamId, str], dict[EventId, Recorded[Event]]] = {}
        for recorded in self._records:
            self._slots.setdefault((recorded.stream, recorded.agent), {})[recorded.id] = recorded
        self._clock = clock
        self._ack_wait_s = ack_wait_s
        self._log_id = log_id
        self._news = anyio.Event()
        self._queues: dict[str, _Queue] = {}

    @property
    def records(self) -> tuple[Recorded[Event], ...]:
        """Everything that was appended, in order."""
        return tuple(self._records)

    def tick(self) -> None:
        """Look at the clock again: requests may be due for another delivery."""
        self._news.set()
        self._news = anyio.Event()

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """See `EventLog`."""
        await anyio.lowlevel.checkpoint()
        slots = self._slots.setdefault((draft.stream, draft.agent), {})
        if draft.id in slots:
            return slots[draft.id]
        recorded, body = chain(draft, after=_head(slots))
        headers = to_headers(recorded)
        size = len(body) + sum(len(key) + len(value) for key, value in headers.items())
        if size > PAYLOAD_BYTES_MAX:
            raise PayloadTooLarge(f"{recorded.type}: {size:,} bytes; the log takes {PAYLOAD_BYTES_MAX:,}")
        recorded = from_headers(headers, body=body, seq=self._last_seq() + 1)
        slots[draft.id] = recorded
        self._records.append(recorded)
        self.tick()
        return recorded

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """See `EventLog`."""
        await anyio.lowlevel.checkpoint()
        return _head(self._slots.get((stream, agent), {}))

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """See `EventLog`."""
        await anyio.lowlevel.checkpoint()
        return self._slots.get((stream, agent), {}).get(event)

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """See `EventLog`."""
        await anyio.lowlevel.checkpoint()
        pattern = which.subject()
        return next((each for each in reversed(self._records) if _matches(each, pattern)), None)

    async def last_seq(self) -> int:
        """See `EventLog`."""
        await anyio.lowlevel.checkpoint()
        return self._last_seq()

    async def log_id(self) -> str:
        """Return the name of this log."""
        await anyio.lowlevel.checkpoint()
        return self._log_id

    async def at(self, seq: int) -> Recorded[Event] | None:
        """Return the record at `seq`, None when there is none."""
        await anyio.lowlevel.checkpoint()
        found = self._from(seq - 1)
        return self._records[found] if found < len(self._records) and self._records[found].seq == seq else None

    async def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        await anyio.lowlevel.checkpoint()
        reading = _Reading(filters, after=after)
        last_seq = self._last_seq()
        reading.check_not_beyond(last_seq)
        end = last_seq if until is None else min(until, last_seq)
        for number in range(self._from(after), len(self._records)):
            recorded = self._records[number]
            if recorded.seq > end:
                break
            if reading.take(recorded, trusted=number >= self._given):
                await self._look_back(reading, recorded)
                yield recorded
        reading.continuity.end(end)

    async def originals(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]:
        """See `Originals`."""
        async with aclosing(self.read(filters, after=after, until=until)) as records:
            async for each in records:
                yield Stored(each.seq, _subject(each), to_headers(each), encode(each.event))

    async def follow(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        reading = _Reading(filters, after=after)
        reading.check_not_beyond(self._last_seq())
        number = self._from(after)
        while True:
            await anyio.lowlevel.checkpoint()
            news = self._news
            while number < len(self._records):
                recorded = self._records[number]
                number += 1
                if reading.take(recorded, trusted=number > self._given):
                    await self._look_back(reading, recorded)
                    yield recorded
                    news = self._news
            if number == len(self._records):
                await news.wait()

    async def _look_back(self, reading: "_Reading", recorded: Recorded[Event]) -> None:
        """Read a chain again whose end this reader has forgotten, and check that the record continues it."""
        if not reading.linked:
            chain_ = (Filter(stream=recorded.stream, agent=recorded.agent),)
            await check_again(recorded, earlier=self.read(chain_, until=recorded.seq - 1))

    async def work(self, worker: str) -> AsyncGenerator[Delivery, None]:
        """See `EventLog`."""
        queue = self._queues.setdefault(worker, _Queue(worker, clock=self._clock, ack_wait_s=self._ack_wait_s))
        while True:
            await anyio.lowlevel.checkpoint()
            news = self._news
            recorded = queue.take(self._records)
            if recorded is not None:
                yield MemoryDelivery(self, recorded=recorded, queue=queue)
                continue
            with anyio.move_on_after(queue.next_due_s()):
                await news.wait()

    def _last_seq(self) -> int:
        return self._records[-1].seq if self._records else 0

    def _from(self, after: int) -> int:
        return bisect_right(self._records, after, key=lambda recorded: recorded.seq)


class MemoryDelivery:
    """See `Delivery`."""

    def __init__(self, log: MemoryLog, *, recorded: Recorded[Event], queue: "_Queue") -> None:
        self._log = log
        self._recorded = recorded
        self._queue = queue

    @property
    def recorded(self) -> Recorded[Event]:
        """See `Delivery`."""
        return self._recorded

    async def ack(self) -> None:
        """See `Delivery`."""
        self._queue.forget(self._recorded.seq)
        await anyio.lowlevel.cancel_shielded_checkpoint()

    async def in_progress(self) -> None:
        """See `Delivery`."""
        self._queue.extend(self._recorded.seq)
        await anyio.lowlevel.checkpoint()

    async def retry(self, *, delay_s: float) -> None:
        """See `Delivery`."""
        self._queue.give_back(self._recorded.seq, delay_s=delay_s)
        self._log.tick()
        await anyio.lowlevel.cancel_shielded_checkpoint()


class MemoryBlobs:
    """See `Blobs`. `contents` is open, so that a test can damage it."""

    def __init__(self, *, bytes_max: int = BLOBS_BYTES_MAX) -> None:
        self.contents: dict[str, bytes] = {}
        self._bytes_max = bytes_max

    async def put(self, content: bytes) -> str:
        """See `Blobs`."""
        await anyio.lowlevel.checkpoint()
        digest = sha256(content).hexdigest()
        if digest not in self.contents:
            used = sum(map(len, self.contents.values()))
            if used + len(content) > self._bytes_max:
                raise BlobsFull(f"{used:,} of {self._bytes_max:,} bytes are used; raise `bytes_max`")
            self.contents[digest] = bytes(content)
        return digest

    async def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        await anyio.lowlevel.checkpoint()
        content = self.contents.get(digest)
        if content is None:
            raise BlobMissing(f"no blob {digest}")
        if sha256(content).hexdigest() != digest:
            raise BlobMissing(f"blob {digest} does not have that digest any more")
        return content


class MemoryLive:
    """See `Live`."""

    def __init__(self) -> None:
        self._ears: list[tuple[str, Inbox]] = []

    async def say(self, subject: str, *, payload: bytes) -> None:
        """See `Live`."""
        for pattern, inbox in self._ears:
            if subject_matches(subject, pattern=pattern):
                inbox.put(Message(subject, payload))
        await anyio.lowlevel.checkpoint()

    async def hear(self, subject: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """See `Live`."""
        ear = (subject, Inbox(items_max=LIVE_ITEMS_MAX))
        self._ears.append(ear)
        try:
            while True:
                for arrival in await ear[1].take(timeout_s=IDLE_S):
                    if isinstance(arrival, Message):
                        yield arrival.subject, arrival.payload
        finally:
            self._ears.remove(ear)


class _Queue:
    """What one worker role has been handed, as a durable consumer keeps it."""

    def __init__(self, worker: str, *, clock: Clock, ack_wait_s: float) -> None:
        self._patterns = [each.subject() for each in WORKER_ROLES[worker].filters]
        self._clock = clock
        self._ack_wait_s = ack_wait_s
        self._seen = 0
        self._due: dict[int, float] = {}
        self._requests: dict[int, Recorded[Event]] = {}

    def take(self, records: Sequence[Recorded[Event]]) -> Recorded[Event] | None:
        """Return a request that is due again, else the next new one, and start its ack wait."""
        now = self._clock()
        seq = min((seq for seq, due in self._due.items() if due <= now), default=None)
        while seq is None and self._seen < len(records):
            recorded = records[self._seen]
            self._seen += 1
            if any(_matches(recorded, pattern) for pattern in self._patterns):
                self._requests[recorded.seq] = recorded
                seq = recorded.seq
        if seq is None:
            return None
        self._due[seq] = now + self._ack_wait_s
        return self._requests[seq]

    def next_due_s(self) -> float:
        """In how many seconds, at the latest, it is worth looking again."""
        return max(0.0, min(self._due.values(), default=self._clock() + IDLE_S) - self._clock())

    def forget(self, seq: int) -> None:
        """Take it as done, also when another instance holds it by now."""
        self._due.pop(seq, None)
        self._requests.pop(seq, None)

    def extend(self, seq: int) -> None:
        """Somebody still works on it."""
        if seq in self._due:
            self._due[seq] = self._clock() + self._ack_wait_s

    def give_back(self, seq: int, *, delay_s: float) -> None:
        """Make it due again after `delay_s`."""
        if seq in self._due:
            self._due[seq] = self._clock() + delay_s


class _Reading:
    """How far one reader is, and what it checks."""

    def __init__(self, filters: Sequence[Filter], *, after: int) -> None:
        self._scope = Scope(filters)
        self._pattern = self._scope.cover.subject()
        self._after = after
        self.continuity = Continuity(self._scope, after=after)
        self.linked = True

    def check_not_beyond(self, last_seq: int) -> None:
        if self._after > last_seq:
            reason = f"this reader has read up to {self._after}, and the log ends at {last_seq}: it lost its tail"
            raise LogDamaged(reason, seq=last_seq + 1)

    def take(self, recorded: Recorded[Event], *, trusted: bool) -> bool:
        """Return whether the next record is one of those asked for. What this log wrote itself has its digest."""
        subject = _subject(recorded)
        if not subject_matches(subject, pattern=self._pattern):
            return False
        self.continuity.expect(recorded.seq)
        if not self._scope.wants(subject):
            return False
        if not trusted:
            check_bytes(recorded)
        self.linked = self.continuity.check(recorded)
        return True


def check_bytes(recorded: Recorded[Event]) -> None:
    """Check that a record has its digest.

    Raises:
        LogDamaged: It does not.
    """
    before = Head(position=recorded.position - 1, digest=recorded.previous)
    if _drafted(recorded, after=before).digest != recorded.digest:
        raise LogDamaged("its bytes do not have the digest that it carries", seq=recorded.seq, stream=recorded.stream)


def _drafted(recorded: Recorded[Event], *, after: Head) -> Recorded[Event]:
    again, _ = chain(
        Draft(
            event=recorded.event,
            id=recorded.id,
            stream=recorded.stream,
            agent=recorded.agent,
            time_ms=recorded.time_ms,
            causation=recorded.causation,
        ),
        after=after,
    )
    return msgspec.structs.replace(again, seq=recorded.seq)


def _head(slots: dict[EventId, Recorded[Event]]) -> Head:
    if not slots:
        return Head()
    newest = next(reversed(slots.values()))
    return Head(seq=newest.seq, position=newest.position, digest=newest.digest)


def _subject(recorded: Recorded[Event]) -> str:
    return subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)


def _matches(recorded: Recorded[Event], pattern: str) -> bool:
    return subject_matches(_subject(recorded), pattern=pattern)
