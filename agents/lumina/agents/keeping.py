"""Runs a keeper: recovery by re-deciding, then one input after the other, and timers.

Recovery is replay. Everything from the start of the log is decided again and compared with what stands there; what
is missing at the tail is appended. A difference stops the keeper with `Diverged`. Two keepers of one name that run at
once do no harm: their answers have the same ids and the same bytes, so each slot is filled once.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from lumina.agents.ancestry import history_of
from lumina.agents.errors import Diverged
from lumina.agents.law import Decider
from lumina.agents.ports import Deadline, Keeper
from lumina.bus.errors import CheckpointFailed, LogFull, LogUnavailable
from lumina.bus.log import EventLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.ids import EventId, root_event_id
from lumina.events.record import Draft, Recorded
from lumina.events.timer import TimerElapsed

S = TypeVar("S")
INPUTS_BUFFERED_MAX = 256
RETRY_S = 1.0
TIMER_WAIT_S_MAX = 3600.0

log = structlog.get_logger(__name__)


class KeeperRunner:
    """One keeper at work on one log."""

    def __init__(self, keeper: Keeper[S], *, events: EventLog, now_ms: Callable[[], int]) -> None:
        self._decider = Decider(keeper)
        self._origin = keeper.origin
        self._keeper_name = keeper.name
        self._filters = (*keeper.inputs, Filter(agent=keeper.name))
        self._events = events
        self._now_ms = now_ms
        self._awaited: dict[EventId, Recorded[Event]] = {}  # decided, but not seen in the log yet; in order
        self._elapsed: set[Deadline] = set()  # said, but not seen in the log yet

    async def recover(self) -> int:
        """Decide the whole log again, compare, append what is missing, and return the sequence that was reached.

        Raises:
            Diverged: The log holds other decisions.
            LogDamaged: The log is not whole.
        """
        until = await self._events.last_seq()
        async with aclosing(self._events.read(self._filters, until=until)) as records:
            async for recorded in records:
                await self._fold(recorded)
        missing = tuple(self._awaited.values())
        for answer in missing:
            await self._append(answer)
        log.info("keeper.recovered", agent=self._keeper_name, seq=until, appended=len(missing))
        return until

    async def run(self, *, started: anyio.Event | None = None) -> None:
        """Recover, then decide for as long as the log lasts."""
        after = await self.recover()
        if started is not None:
            started.set()
        send, receive = anyio.create_memory_object_stream[Recorded[Event]](INPUTS_BUFFERED_MAX)
        async with anyio.create_task_group() as tasks, send, receive:
            tasks.start_soon(_pump, self._events.follow(self._filters, after=after), send)
            while True:
                recorded = await self._next(receive)
                if recorded is None:
                    await self._elapse()
                    continue
                for answer in await self._fold(recorded):
                    await self._append(answer)

    async def _next(self, receive: MemoryObjectReceiveStream[Recorded[Event]]) -> Recorded[Event] | None:
        """Return the next record, or None when a deadline comes first."""
        due = next((deadline for deadline in self._decider.deadlines() if deadline not in self._elapsed), None)
        wait_s = TIMER_WAIT_S_MAX if due is None else max(0.0, (due.due_ms - self._now_ms()) / 1000)
        with anyio.move_on_after(min(wait_s, TIMER_WAIT_S_MAX)):
            return await receive.receive()
        return None

    async def _fold(self, recorded: Recorded[Event]) -> tuple[Recorded[Event], ...]:
        """Compare an own record with what was decided, or decide an input and return the answers."""
        if recorded.agent == self._keeper_name:
            decided = self._awaited.pop(recorded.id, None)
            if decided is None or decided.digest != recorded.digest:
                raise Diverged(recorded=recorded, decided=decided)
            return ()
        origin = self._origin(recorded)
        history = () if origin is None else await history_of(origin, events=self._events, before=recorded.seq)
        answers = self._decider.take(recorded, history=history)
        self._awaited.update({answer.id: answer for answer in answers})
        if isinstance(recorded.event, TimerElapsed):
            self._elapsed = {deadline for deadline in self._elapsed if deadline.due_ms > recorded.event.due}
        return answers

    async def _append(self, answer: Recorded[Event]) -> None:
        draft = Draft(
            event=answer.event,
            id=answer.id,
            stream=answer.stream,
            agent=answer.agent,
            time_ms=answer.time_ms,
            causation=answer.causation,
        )
        standing = await self._insist(draft)
        if standing.digest != answer.digest:
            raise Diverged(recorded=standing, decided=answer)
        log.info("keeper.decided", agent=self._keeper_name, type=answer.type, stream=answer.stream, seq=standing.seq)

    async def _elapse(self) -> None:
        """Say that the deadlines which have come have come."""
        now_ms = self._now_ms()
        for deadline in self._decider.deadlines():
            if deadline.due_ms > now_ms:
                return
            if deadline in self._elapsed:
                continue
            await self._insist(
                Draft(
                    event=TimerElapsed(timer=deadline.timer, due=deadline.due_ms),
                    id=root_event_id(deadline.stream, name=f"timer/{deadline.timer}/{deadline.due_ms}"),
                    stream=deadline.stream,
                    agent="clock",
                    time_ms=now_ms,
                    causation=None,
                )
            )
            self._elapsed.add(deadline)

    async def _insist(self, draft: Draft[Event]) -> Recorded[Event]:
        """Append until it stands: an outage or a full disk delays a keeper, it loses nothing."""
        while True:
            try:
                return await self._events.append(draft)
            except (LogUnavailable, LogFull, CheckpointFailed) as error:
                log.warning("keeper.waiting", agent=self._keeper_name, reason=str(error), retry_s=RETRY_S)
                await anyio.sleep(RETRY_S)


async def _pump(source: AsyncGenerator[Recorded[Event], None], send: MemoryObjectSendStream[Recorded[Event]]) -> None:
    """Hand records over one by one; the iterator is never cancelled while it hands one over."""
    async with aclosing(source) as records:
        async for recorded in records:
            await send.send(recorded)
