"""The simulated machine: processes that are started, die and are started again, around one log and one clock."""

from collections import Counter
from typing import Final

import anyio
import anyio.abc
import msgspec

from lumina.agents.errors import Diverged
from lumina.bus.decoding import decoded
from lumina.bus.errors import BusError, LogDamaged
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.bus.stored import Stored
from lumina.bus.subjects import subject_of
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.node import ModelUnloaded
from lumina.events.record import Recorded, to_headers
from lumina.events.step import StepAccepted
from lumina.replay.invariants.invariants import Invariants
from lumina.replay.simulation.casting import PARTS, Casting, Scene
from lumina.replay.simulation.draws import Draws
from lumina.replay.simulation.fates import fate_in
from lumina.replay.simulation.ledger import Ledger
from lumina.replay.simulation.models import SimulatedNode
from lumina.replay.simulation.scenarios import role_of
from lumina.replay.simulation.script import (
    Crash,
    Damage,
    Full,
    Jump,
    Load,
    LoadTrouble,
    Lost,
    Model,
    ModelTrouble,
    Outage,
    Pause,
    Reconfigured,
    Redelivered,
    Script,
    Slow,
    Store,
    Tool,
    ToolTrouble,
    Unload,
)
from lumina.replay.simulation.view import View

START_MS: Final = 1_700_000_000_000
RECORDS_MAX: Final = 3_000
RESTART_MS: Final = 500
FAILURES_MAX: Final = 20
DEATHS_MAX: Final = 3
"""A process that nobody killed and that died so often is left down, as a supervisor would leave it."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must not happen, and did.

    Attributes:
        kind: What it is called: failures of one kind count as the same when a script is shrunk.
        reason: What exactly.
        at_ms: When, in virtual milliseconds.
        seq: How many records the log had.
    """

    kind: str
    reason: str
    at_ms: int
    seq: int


class World(Scene):
    """See above. Implements what views, models and tools ask of their surroundings."""

    def __init__(self, script: Script, *, casting: Casting, tasks: anyio.abc.TaskGroup) -> None:
        self.script = script
        self.machine = script.machine
        self.casting = casting
        self.draws = Draws(script.seed)
        self.calm = script.calm
        self.over = False
        self.log = MemoryLog()
        self.blobs = MemoryBlobs()
        self.records: list[Recorded[Event]] = []
        self.landed_at_s: list[float] = []
        self.failures: list[Failure] = []
        self.ledger = Ledger()
        self.invariants = Invariants()
        self.restarts: Counter[str] = Counter()
        self.bytes_max = script.machine.bytes_max
        self.damaged: dict[int, Stored] = {}
        self.given_up: set[str] = set()
        """Runs that the log did not take."""
        self.stopped: dict[str, BaseException] = {}
        """Processes that are not started again, and why."""
        self.held_up_until_s = 0.0
        """Until then some process is down, or waits for something that a fault made slow."""
        self.node = SimulatedNode(script.machine, troubles=self, tasks=tasks, grown=self._grown)
        self._tasks = tasks
        self._began_s = anyio.current_time()
        self._counts: Counter[str] = Counter()
        self._ops: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()
        self._at_op: dict[tuple[str, int], Crash | Lost | Slow] = {
            (each.process, each.op): each for each in script.faults if isinstance(each, Crash | Lost | Slow)
        }
        self._outages = [each for each in script.faults if isinstance(each, Outage)]
        self._pauses = [each for each in script.faults if isinstance(each, Pause)]
        self._fulls = [each for each in script.faults if isinstance(each, Full)]
        self._jumps = [each for each in script.faults if isinstance(each, Jump)]
        self._still_until_s: dict[str, float] = {}
        self._views: dict[str, View] = {}

    # Time

    @property
    def at_ms(self) -> int:
        """Virtual milliseconds since the simulation began."""
        return round((anyio.current_time() - self._began_s) * 1000)

    def now_ms(self) -> int:
        """Return the wall clock, with its jumps."""
        at_ms = self.at_ms
        return START_MS + at_ms + sum(jump.by_ms for jump in self._jumps if jump.at_ms <= at_ms)

    # What goes wrong

    def fails(self, kind: str, reason: str) -> None:
        """Take note of a failure."""
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(Failure(kind=kind, reason=reason, at_ms=self.at_ms, seq=len(self.records)))

    def fault_at(self, process: str, op: int) -> Crash | Lost | Slow | None:
        """See `view.Surroundings`."""
        return self._at_op.get((process, op))

    def stalled_s(self, process: str) -> float:
        """Return for how long a process stands still from now on."""
        at_ms = self.at_ms
        paused_s = max((self._left_s(each, at_ms) for each in self._pauses if each.process == process), default=0.0)
        return max(paused_s, self._still_until_s.get(process, 0.0) - anyio.current_time())

    def away_s(self, process: str) -> float:
        """See `view.Surroundings`."""
        at_ms = self.at_ms
        return max((self._left_s(each, at_ms) for each in self._outages if each.process in {"", process}), default=0.0)

    def full(self, store: Store) -> bool:
        """See `view.Surroundings`."""
        at_ms = self.at_ms
        return any(each.store is store and self._left_s(each, at_ms) > 0 for each in self._fulls)

    @staticmethod
    def _left_s(window: Outage | Pause | Full, at_ms: int) -> float:
        return (
            (window.at_ms + window.for_ms - at_ms) / 1000
            if window.at_ms <= at_ms < window.at_ms + window.for_ms
            else 0.0
        )

    async def go_on(self, process: str) -> None:
        """See `models.Troubles`."""
        still_s = self.stalled_s(process)
        while still_s > 0:
            await anyio.sleep(still_s)
            still_s = self.stalled_s(process)

    def holds_up(self, for_ms: int, *, process: str = "") -> None:
        """See `view.Surroundings`."""
        until_s = anyio.current_time() + for_ms / 1000
        self.held_up_until_s = max(self.held_up_until_s, until_s)
        if process:
            self._still_until_s[process] = until_s

    def _count(self, what: str) -> int:
        self._counts[what] += 1
        return self._counts[what]

    def redelivers(self, role: str) -> bool:
        """See `view.Surroundings`."""
        number = self._count(f"request/{role}")
        faults = (each for each in self.script.faults if isinstance(each, Redelivered))
        return any(each.role == role and each.request == number for each in faults)

    def model_trouble(self) -> ModelTrouble | None:
        """See `models.Troubles`."""
        call = self._count("model")
        faults = (each for each in self.script.faults if isinstance(each, Model))
        return next((each.trouble for each in faults if each.call == call), None)

    def load_trouble(self) -> LoadTrouble | None:
        """See `models.Troubles`."""
        load = self._count("load")
        faults = (each for each in self.script.faults if isinstance(each, Load))
        return next((each.trouble for each in faults if each.load == load), None)

    def unload_fails(self, instance: str) -> bool:
        """See `models.Troubles`."""
        number = self._count("unload") if self._count(f"unload/{instance}") == 1 else self._counts["unload"]
        tries = self._counts[f"unload/{instance}"]
        faults = (each for each in self.script.faults if isinstance(each, Unload))
        fails = any(each.unload == number and tries <= each.tries for each in faults)
        if not fails:
            del self._counts[f"unload/{instance}"]
        return fails

    def tool_trouble(self, role: str) -> ToolTrouble | None:
        """See `tools.Troubles`."""
        work = self._count(f"work/{role}")
        faults = (each for each in self.script.faults if isinstance(each, Tool))
        return next((each.trouble for each in faults if each.role == role and each.work == work), None)

    def damage(self, fault: Damage) -> None:
        """Change one bit of a record that stands in the log."""
        if not self.records:
            return
        recorded = self.records[fault.place % len(self.records)]
        body = bytearray(encode(recorded.event))
        bit = fault.place // len(self.records) % (8 * len(body))
        body[bit // 8] ^= 1 << bit % 8
        subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
        self.damaged[recorded.seq] = Stored(recorded.seq, subject, to_headers(recorded), bytes(body))

    def sound(self, recorded: Recorded[Event]) -> Recorded[Event]:
        """See `view.Surroundings`."""
        stored = self.damaged.get(recorded.seq)
        return recorded if stored is None else decoded(stored)

    # What is seen

    def performs(self, effect: str) -> None:
        """See `Scene`."""
        self.ledger.perform(effect)

    def _grown(self, resident: int, instance: str) -> None:
        # What was granted under an earlier, larger budget may be loaded yet.
        budgets = [each.bytes_max for each in self.script.faults if isinstance(each, Reconfigured)]
        limit = max(self.machine.bytes_max, *budgets, 0)
        if wrong := self.ledger.load(instance):
            self.fails("memory: unreserved", wrong)
        if resident > limit:
            self.fails("memory", f"with {instance}, models take {resident:,} of {limit:,} bytes")

    def acknowledged(self, request: Recorded[Event], *, process: str) -> None:
        """See `view.Surroundings`. A request is settled when its outcome stands, or its run is over."""
        answers = (each for each in reversed(self.records) if each.causation == request.id)
        if request.stream in self.ledger.closed or any(each.agent == role_of(process) for each in answers):
            return
        self.fails("ack: early", f"{process} acknowledged record {request.seq}, and nothing is recorded for it")

    def landed(self, recorded: Recorded[Event]) -> None:
        """See `view.Surroundings`."""
        if recorded.seq != len(self.records) + 1:
            return  # it stood there before
        self.records.append(recorded)
        self.landed_at_s.append(anyio.current_time())
        for broken in self.invariants.take(recorded):
            self.fails(f"invariant: {broken.invariant}", f"record {recorded.seq} ({recorded.type}): {broken.reason}")
        if isinstance(recorded.event, ModelUnloaded) and recorded.event.instance in self.node.resident:
            self.fails("memory: not free", f"record {recorded.seq}: {recorded.event.instance} is still there")
        fate = None
        if isinstance(recorded.event, StepAccepted):
            fate = fate_in(self.blobs.contents[recorded.event.code.digest].decode())
        if wrong := self.ledger.take(recorded, fate=fate):
            self.fails("ledger", f"record {recorded.seq}: {wrong}")
        if len(self.records) > RECORDS_MAX:
            self.fails("endless", f"more than {RECORDS_MAX:,} records")
            self._tasks.cancel_scope.cancel()

    # Processes

    async def keep(self, process: str, *, times: int | None = None) -> None:
        """Keep a process running, `times` times or for ever; it is started again some time after it died."""
        while times is None or times > 0:
            times = None if times is None else times - 1
            view = View(self, process=process, first_op=self._ops[process])
            self._views[process] = view
            error = await self._live(view)
            self._ops[process] = view.ops
            down_ms = RESTART_MS
            if view.crash is not None:
                down_ms = view.crash.down_ms
            elif not view.dead and self._is_final(view, error):
                return
            self.restarts[process] += 1
            self.holds_up(down_ms)
            await anyio.sleep(down_ms / 1000)

    async def _live(self, view: View) -> BaseException | None:
        """Run one incarnation until it ends. Returns what it died of."""
        died: BaseException | None = None
        with view.scope:
            try:
                await PARTS[role_of(view.process)](view, self, self.casting)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged by the caller
                died = error
        if self.over:
            await anyio.lowlevel.checkpoint()
        view.dead = view.dead or view.scope.cancel_called
        self.node.user_gone(view.process)
        return died

    def _is_final(self, view: View, error: BaseException | None) -> bool:
        """Judge the end of a process that nobody killed; return whether it is to stay down."""
        leaves = tuple(_leaves(error)) if error is not None else ()
        permanent = next((leaf for leaf in leaves if isinstance(leaf, LogDamaged | Diverged)), None)
        if permanent is not None:
            self.stopped[view.process] = permanent
            if isinstance(permanent, Diverged) or not self.damaged:
                self.fails(f"stopped: {role_of(view.process)}", f"{view.process}: {permanent}")
            return True
        for leaf in leaves:
            if not (isinstance(leaf, BusError) and type(leaf) in view.told):
                self.fails(
                    f"died: {role_of(view.process)}: {type(leaf).__name__}",
                    f"{view.process}: {type(leaf).__name__}: {str(leaf)[:300]}",
                )
                self._deaths[view.process] += 1
        if not leaves:
            self.fails(f"ended: {role_of(view.process)}", f"{view.process} ended, and nobody had asked it to")
        return self._deaths[view.process] >= DEATHS_MAX

    def kill(self, process: str) -> None:
        """End a process at once, if it lives."""
        view = self._views.get(process)
        if view is not None and not view.dead:
            view.kill()

    def kill_for(self, process: str, *, down_ms: int) -> None:
        """End a process; it comes back after `down_ms`."""
        view = self._views.get(process)
        if view is not None and not view.dead:
            view.crash = Crash(process=process, op=1, down_ms=down_ms)
            view.kill()


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the single exceptions in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
