"""`lumina watch --invariants`: a consumer of the log that says at once when a record breaks what must always hold."""

import signal
from collections.abc import Callable
from contextlib import aclosing

import anyio
import msgspec
from rich.text import Text

from lumina.agents.governor import Governor
from lumina.bus.log import EventLog
from lumina.bus.subjects import Filter
from lumina.cli.app import err, out, print_json
from lumina.cli.outage import end_when_away
from lumina.cli.place import Bus
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.node import NodeAnnounced
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.replay.inheritance import inherited
from lumina.replay.invariants.invariants import Invariants
from lumina.replay.report import Broken
from lumina.replay.words import say

TOLD_EVERY = 20_000
"""Records between two lines of progress while the past is read."""
SETTLE_S = 5.0
"""How long a run that has ended is watched on, until its leases are given back."""

OnBroken = Callable[[Broken, Recorded[Event]], None]


class Watch:
    """Reads the log from its beginning and goes on with it; with `run`, that run and what its governor saw."""

    def __init__(self, events: EventLog, *, run: StreamId | None, on_broken: OnBroken) -> None:
        self.records = 0
        self.broken = 0
        self.fold = Invariants(run=run)
        self._events = events
        self._run = run
        self._on_broken = on_broken

    async def read(self) -> None:
        """Go on for ever, or with `run` until that run has ended and is settled."""
        head = await self._events.last_seq()
        async with aclosing(self._events.follow(await self._filters())) as records:
            with anyio.CancelScope() as settling:
                async for recorded in records:
                    await self._take(recorded)
                    self._tell(recorded.seq, head=head)
                    ended = recorded.stream == self._run and isinstance(recorded.event, RunClosed)
                    if ended and settling.deadline == float("inf"):
                        settling.deadline = anyio.current_time() + SETTLE_S
                    if settling.deadline < float("inf") and recorded.seq >= head and self._is_settled():
                        return

    async def _filters(self) -> tuple[Filter, ...]:
        if self._run is None:
            return (Filter(),)
        announced = await self._events.last(Filter(event=NodeAnnounced))
        governor = Governor() if announced is None else Governor(node=announced.stream)
        return (Filter(stream=self._run), *governor.inputs, Filter(agent=governor.name))

    async def _take(self, recorded: Recorded[Event]) -> None:
        self.records += 1
        history = await inherited(recorded, events=self._events)
        for broken in self.fold.take(recorded, history=history):
            self.broken += 1
            self._on_broken(broken, recorded)

    def _tell(self, seq: int, *, head: int) -> None:
        """Say how far the reading of what had been recorded before is."""
        if seq == head:
            err().print(f"{head:,} records read; now as they land (Ctrl-C ends)", style="dim")
        elif seq < head and self.records % TOLD_EVERY == 0:
            err().print(f"{seq:,} of {head:,} records read", style="dim")

    def _is_settled(self) -> bool:
        return all(one.at.stream != self._run for one in self.fold.unsettled())

    def summary(self) -> str:
        """Return what was seen, in one line."""
        open_ = self.fold.remembered
        verdict = "every invariant holds" if not self.broken else f"{self.broken} broken"
        return f"{self.records:,} records, {verdict}; open: {open_.runs} run(s), {open_.leases} lease(s)"


async def watch_invariants(connected: Bus, *, run: StreamId | None, json_lines: bool) -> bool:
    """Print what is broken, as it lands, until Ctrl-C or, with `run`, its end. Returns whether all was well."""

    def on_broken(broken: Broken, recorded: Recorded[Event]) -> None:
        if json_lines:
            print_json(msgspec.json.encode(broken))
            return
        out().print(Text(f"record {broken.at.seq} in {broken.at.stream}: {broken.invariant}", style="red"))
        out().print(f"  {broken.reason}\n  {broken.at.type} by {broken.at.agent}: {say(recorded)}", markup=False)

    watch = Watch(connected.events, run=run, on_broken=on_broken)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_on_signal, tasks.cancel_scope)
        tasks.start_soon(end_when_away, connected.url)
        await watch.read()
        tasks.cancel_scope.cancel()
    err().print(watch.summary(), style="red" if watch.broken else "green", markup=False)
    return not watch.broken


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    """Ctrl-C is how such a watch ends."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return
