"""How one simulated process sees the bus: late, with gaps, and not at all once it is dead.

One object is the log, the blobs and the chatter of one incarnation of a process. Every operation is counted; the
script may name it. What a dead incarnation still tries, in its cleanup for instance, reaches nobody.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, Protocol, TypeVar

import anyio

from lumina.bus.errors import BlobsFull, CheckpointFailed, LogFull, LogUnavailable
from lumina.bus.log import Delivery
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Draft, Head, Recorded
from lumina.replay.simulation.draws import Draws
from lumina.replay.simulation.script import Crash, Loss, Lost, Slow, Store

T = TypeVar("T")

LATENCY_MS_MAX: Final = 600
LATENCY_POWER: Final = 24
"""Half of all operations take a millisecond, one in a hundred more than 400."""
IMPATIENT: Final = 40
"""Of a hundred operations in an outage, so many fail at once; the rest wait as the real log does, then fail."""
PATIENCE_S: Final = 10.0


class Killed(BaseException):
    """The process is dead. Not an Exception, so that nothing in it can catch it by accident."""


class Surroundings(Protocol):
    """What a view needs of its world."""

    log: MemoryLog
    blobs: MemoryBlobs
    draws: Draws
    calm: bool
    over: bool

    def fault_at(self, process: str, op: int) -> Crash | Lost | Slow | None:
        """Return what is to happen in an operation."""
        ...

    async def go_on(self, process: str) -> None:
        """Wait for as long as a process stands still."""
        ...

    def away_s(self, process: str) -> float:
        """Return for how long a process can't reach the bus from now on."""
        ...

    def full(self, store: Store) -> bool:
        """Return whether nothing can be stored now."""
        ...

    def sound(self, recorded: Recorded[Event]) -> Recorded[Event]:
        """Return what a reader finds at the place of a record. Raises LogDamaged."""
        ...

    def landed(self, recorded: Recorded[Event]) -> None:
        """Take note of a record that an append returned."""
        ...

    def holds_up(self, for_ms: int, *, process: str = "") -> None:
        """Take note that a fault makes somebody wait; with `process`, all that this process does."""
        ...

    def acknowledged(self, request: Recorded[Event], *, process: str) -> None:
        """Take note that a worker says that a request is settled."""
        ...

    def redelivers(self, role: str) -> bool:
        """Count a request that is handed out, and return whether it is to be handed out once more."""
        ...


class View:
    """See above; it implements `EventLog`, `Blobs` and `Live`."""

    def __init__(self, world: Surroundings, *, process: str, first_op: int) -> None:
        self.process = process
        self.ops = first_op
        self.dead = False
        self.crash: Crash | None = None
        self.scope = anyio.CancelScope()
        self.told: set[type[Exception]] = set()
        """Which failures of the bus this incarnation was told of."""
        self._world = world
        self._chains: set[tuple[StreamId, str]] = set()

    def kill(self) -> None:
        """From now on nothing that this incarnation does has any effect."""
        self.dead = True
        self.scope.cancel()

    # The log

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """See `EventLog`."""
        return self._world.sound(await self.do("append", partial(self._append, draft), stores=Store.LOG))

    async def _append(self, draft: Draft[Event]) -> Recorded[Event]:
        chain = (draft.stream, draft.agent)
        if chain not in self._chains:  # what is to be succeeded is read once
            head = await self._world.log.head(draft.stream, agent=draft.agent)
            newest = await self._world.log.at(head.seq)
            if newest is not None:
                self._world.sound(newest)
            self._chains.add(chain)
        recorded = await self._world.log.append(draft)
        self._world.landed(recorded)
        return recorded

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """See `EventLog`."""
        return await self.do("head", partial(self._world.log.head, stream, agent=agent))

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """See `EventLog`."""
        found = await self.do("find", partial(self._world.log.find, event, stream=stream, agent=agent))
        return None if found is None else self._world.sound(found)

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """See `EventLog`."""
        found = await self.do("last", partial(self._world.log.last, which))
        return None if found is None else self._world.sound(found)

    async def last_seq(self) -> int:
        """See `EventLog`."""
        return await self.do("last_seq", self._world.log.last_seq)

    async def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        await self.do("read", _nothing)
        async with aclosing(self._world.log.read(filters, after=after, until=until)) as records:
            async for recorded in records:
                self._check_alive()
                yield self._world.sound(recorded)

    async def follow(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `EventLog`."""
        async with aclosing(self._world.log.follow(filters, after=after)) as records:
            async for recorded in records:
                await self.do("hear", _nothing, patient=True)
                yield self._world.sound(recorded)

    async def work(self, worker: str) -> AsyncGenerator[Delivery, None]:
        """See `EventLog`."""
        async with aclosing(self._world.log.work(worker)) as deliveries:
            async for delivery in deliveries:
                await self.do("hear", _nothing, patient=True)
                if self._world.redelivers(worker):
                    await delivery.retry(delay_s=0.0)
                yield _SeenDelivery(self, delivery)

    def acknowledged(self, request: Recorded[Event]) -> None:
        """Pass on that a request is settled, as its worker says."""
        self._world.acknowledged(request, process=self.process)

    # The blobs and the chatter

    async def put(self, content: bytes) -> str:
        """See `Blobs`."""
        return await self.do("put", partial(self._world.blobs.put, content), stores=Store.BLOBS)

    async def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        return await self.do("get", partial(self._world.blobs.get, digest))

    async def say(self, subject: str, *, payload: bytes) -> None:
        """See `Live`. Nobody listens, since nothing may be decided from it."""
        del subject, payload
        self._check_alive()

    async def hear(self, subject: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """See `Live`."""
        await anyio.sleep_forever()
        yield subject, b""

    # What happens to an operation

    async def do(
        self, kind: str, effect: Callable[[], Awaitable[T]], *, stores: Store | None = None, patient: bool = False
    ) -> T:
        """Let one operation have its effect, or what the script says instead."""
        self._check_alive()
        self.ops += 1
        op = self.ops
        fault = self._world.fault_at(self.process, op)
        slow = fault if isinstance(fault, Slow) else None
        await self._travel(kind, op=op, way="there", slow=slow)
        await self._outage(op, patient=patient)
        match fault:
            case Crash(landed=False):
                self._die(fault)
            case Lost(loss=Loss.REQUEST):
                raise self._failure(LogUnavailable, "the request was lost")
            case _:
                pass
        if stores is not None and self._world.full(stores):
            raise self._failure(LogFull if stores is Store.LOG else BlobsFull, "no room is left")
        result = await effect()
        if isinstance(fault, Crash):
            self._die(fault)
        if stores is not None:
            await self._travel(kind, op=op, way="back")
            if self._world.away_s(self.process) > 0:
                raise self._failure(LogUnavailable, "the bus went away before it answered")
        match fault:
            case Lost(loss=Loss.ACK):
                raise self._failure(LogUnavailable, "the answer was lost")
            case Lost(loss=Loss.CHECKPOINT) if kind == "append":
                raise self._failure(CheckpointFailed, "the checkpoint can't be written")
            case _:
                return result

    async def _travel(self, kind: str, *, op: int, way: str, slow: Slow | None = None) -> None:
        """Let the time pass that a message takes; a process that stands still goes on when it may."""
        late_ms = 0 if slow is None else slow.for_ms
        if slow is not None:
            self._world.holds_up(slow.for_ms, process=self.process if slow.still else "")
        if not self._world.calm:
            late_ms += self._world.draws.long_tail(
                self.process, op, kind, way, low=1, high=LATENCY_MS_MAX, power=LATENCY_POWER
            )
        if late_ms:
            await anyio.sleep(late_ms / 1000)
        await self._world.go_on(self.process)
        self._check_alive()

    async def _outage(self, op: int, *, patient: bool) -> None:
        waited_s = 0.0
        while (away_s := self._world.away_s(self.process)) > 0:
            if not patient:
                impatient = self._world.draws.chance(self.process, op, "impatient", percent=IMPATIENT)
                if impatient or waited_s >= PATIENCE_S:
                    raise self._failure(LogUnavailable, "the bus can't be reached")
                away_s = min(away_s, PATIENCE_S - waited_s)
            waited_s += away_s
            await anyio.sleep(away_s)
            self._check_alive()

    def _failure(self, kind: type[Exception], reason: str) -> Exception:
        self.told.add(kind)
        return kind(reason)

    def _die(self, crash: Crash) -> None:
        self.crash = crash
        self.kill()
        raise Killed

    def _check_alive(self) -> None:
        if self.dead or self._world.over:
            raise Killed


class _SeenDelivery:
    """See `Delivery`."""

    def __init__(self, view: View, delivery: Delivery) -> None:
        self._view = view
        self._delivery = delivery

    @property
    def recorded(self) -> Recorded[Event]:
        """See `Delivery`."""
        return self._delivery.recorded

    async def ack(self) -> None:
        """See `Delivery`."""
        await self._view.do("ack", self._acknowledge)

    async def _acknowledge(self) -> None:
        await self._delivery.ack()
        self._view.acknowledged(self._delivery.recorded)

    async def in_progress(self) -> None:
        """See `Delivery`."""
        await self._view.do("in_progress", self._delivery.in_progress)

    async def retry(self, *, delay_s: float) -> None:
        """See `Delivery`."""
        await self._view.do("retry", partial(self._delivery.retry, delay_s=delay_s))


async def _nothing() -> None:
    """Only the way takes time."""
