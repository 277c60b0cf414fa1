"""Simulated model processes of one node: they load, take memory, answer, die and outlive those who use them.

They keep the promises of `llama_pool.py`: loads are single-flight over all processes of the node, a model process
ends when it is told to, and by itself a while after its last user is gone. What is resident is counted here, not
taken from what the governor says.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
import anyio.abc

from lumina.models.backend import (
    Backend,
    Finish,
    Generation,
    Loaded,
    Message,
    OnLoad,
    OnText,
    Reply,
    ignore_load,
    ignore_text,
)
from lumina.models.errors import ModelError, ModelGarbage, ModelTimedOut, ModelUnavailable, UnknownModel
from lumina.models.llama_frames import ORPHAN_S
from lumina.models.prompting import BARE_PLAN, PLAN_ROLE
from lumina.replay.simulation.draws import Draws
from lumina.replay.simulation.fates import answer, plan_answer
from lumina.replay.simulation.script import LoadTrouble, Machine, ModelTrouble

LOAD_S_MAX: Final = 600.0
BYTES_PER_MS: Final = 1_200_000
UNLOAD_FAILS_S: Final = 30.0
CONTEXT: Final = 4_096
SURROGATE: Final = "\ud800"


class Troubles(Protocol):
    """What the script says about models."""

    draws: Draws

    def model_trouble(self) -> ModelTrouble | None:
        """Count a call, and return how it goes wrong."""
        ...

    def load_trouble(self) -> LoadTrouble | None:
        """Count a load, and return how it goes wrong."""
        ...

    async def go_on(self, process: str) -> None:
        """Wait for as long as a process stands still."""
        ...

    def unload_fails(self, instance: str) -> bool:
        """Count a try to unload, and return whether it fails."""
        ...


class _Resident:
    """One model process."""

    def __init__(self, instance: str, *, size: int) -> None:
        self.instance = instance
        self.size = size
        self.settled = anyio.Event()
        self.problem = ""
        self.load_ms = 0
        self.ended = anyio.Event()
        self.users: set[str] = set()
        self.turn = anyio.Lock()


class SimulatedNode:
    """All model processes of a machine."""

    def __init__(
        self,
        machine: Machine,
        *,
        troubles: Troubles,
        tasks: anyio.abc.TaskGroup,
        grown: Callable[[int, str], None],
    ) -> None:
        """`grown` is told how many bytes are resident whenever a load begins, and whose load it is."""
        self._machine = machine
        self.troubles = troubles
        self._tasks = tasks
        self._grown = grown
        self._resident: dict[str, _Resident] = {}
        self._asked: dict[int, int] = {}

    @property
    def resident(self) -> frozenset[str]:
        """The instances that have a process."""
        return frozenset(self._resident)

    @property
    def resident_bytes(self) -> int:
        """What all model processes hold together."""
        return sum(each.size for each in self._resident.values())

    def ask_number(self, seed: int) -> int:
        """Count a question by its sampling seed: the same question may be answered in another way."""
        self._asked[seed] = self._asked.get(seed, 0) + 1
        return self._asked[seed]

    def user_gone(self, user: str) -> None:
        """Take note that a process died: what nobody uses any more ends after a while."""
        for each in tuple(self._resident.values()):
            if user in each.users:
                each.users.discard(user)
                self._tasks.start_soon(self._end_if_lonely, each)

    async def _end_if_lonely(self, each: _Resident) -> None:
        await anyio.sleep(ORPHAN_S)
        if not each.users:
            self.end(each.instance)

    def end(self, instance: str) -> bool:
        """End a model process; return whether there was one."""
        each = self._resident.pop(instance, None)
        if each is None:
            return False
        each.ended.set()
        each.settled.set()
        return True

    async def ensure(self, instance: str, *, user: str, on_load: OnLoad) -> tuple[_Resident, Loaded | None]:
        """Return a loaded model process; start it where there is none."""
        name = instance.rpartition("#")[0]
        if name not in self._machine.models:
            raise UnknownModel(f"no model {name} here")
        each = self._resident.get(instance)
        started = each is None
        if each is None:
            each = _Resident(instance, size=self._machine.models[name])
            self._resident[instance] = each
            self._grown(self.resident_bytes, instance)
            self._tasks.start_soon(self._load, each)
        each.users.add(user)
        await on_load(0.5)
        with anyio.move_on_after(LOAD_S_MAX) as waited:
            await each.settled.wait()
        if waited.cancelled_caught:
            raise ModelTimedOut(f"{name} was not loaded within {LOAD_S_MAX:g} s")
        if each.problem or each.ended.is_set():
            raise ModelUnavailable(each.problem or f"the process of {instance} was ended while it loaded")
        loaded = Loaded(load_ms=each.load_ms, bytes_measured=each.size) if started else None
        return each, loaded

    async def _load(self, each: _Resident) -> None:
        trouble = self.troubles.load_trouble()
        takes_ms = 150 + each.size // BYTES_PER_MS
        if trouble is LoadTrouble.SLOW:
            takes_ms += 45_000
        if trouble is LoadTrouble.HANGS:
            await each.ended.wait()
            return
        await anyio.sleep(takes_ms / 1000)
        each.load_ms = takes_ms
        if trouble is LoadTrouble.NO_MEMORY:
            each.problem = "the process that loads it was ended (exit code -9), perhaps for want of memory"
            self.end(each.instance)
        each.settled.set()

    async def unload(self, instance: str) -> bool:
        """End a model process and wait until it has ended."""
        if self.troubles.unload_fails(instance):
            await anyio.sleep(UNLOAD_FAILS_S)
            raise ModelUnavailable(f"the process of {instance} does not end, even killed")
        if instance not in self._resident:
            return False
        await anyio.sleep(0.05)
        return self.end(instance)


class SimulatedModels:
    """The models as one specialist process sees them; see `Models`."""

    def __init__(self, node: SimulatedNode, *, user: str) -> None:
        self._node = node
        self._user = user

    async def backend_for(self, instance: str, *, on_load: OnLoad = ignore_load) -> tuple[Backend, Loaded | None]:
        """See `Models`."""
        await self._node.troubles.go_on(self._user)
        each, loaded = await self._node.ensure(instance, user=self._user, on_load=on_load)
        return _SimulatedBackend(self._node, each), loaded

    async def unload(self, instance: str) -> bool:
        """See `Models`."""
        await self._node.troubles.go_on(self._user)
        return await self._node.unload(instance)

    async def aclose(self) -> None:
        """See `Models`."""
        self._node.user_gone(self._user)


class _SimulatedBackend:
    """See `Backend`."""

    def __init__(self, node: SimulatedNode, each: _Resident) -> None:
        self._node = node
        self._each = each

    @property
    def where(self) -> str:
        """See `Backend`."""
        return self._each.instance

    @property
    def context(self) -> int:
        """See `Backend`."""
        return CONTEXT

    async def aclose(self) -> None:
        """See `Backend`."""

    async def count(self, messages: Sequence[Message]) -> int:
        """See `Backend`."""
        return sum(len(message.text) // 4 + 4 for message in messages)

    async def generate(self, call: Generation, *, on_text: OnText = ignore_text) -> Reply:
        """See `Backend`."""
        reply: Reply | None = None
        problem: ModelError | None = None
        with anyio.move_on_after(call.timeout_s):
            async with self._each.turn, anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, tasks.cancel_scope)
                try:
                    reply = await self._answer(call, on_text=on_text)
                except ModelError as error:  # raised outside the group, which would wrap it
                    problem = error
                tasks.cancel_scope.cancel()
        if problem is not None:
            raise problem
        if reply is None and self._each.ended.is_set():
            raise ModelUnavailable(f"the process of {self.where} is gone")
        if reply is None:
            raise ModelTimedOut(f"{self.where} did not finish within {call.timeout_s:g} s; it was stopped")
        return reply

    async def _watch(self, scope: anyio.CancelScope) -> None:
        await self._each.ended.wait()
        scope.cancel()

    async def _answer(self, call: Generation, *, on_text: OnText) -> Reply:
        troubles = self._node.troubles
        trouble = troubles.model_trouble()
        ask = self._node.ask_number(call.seed)
        await on_text("", 0)
        takes_ms = troubles.draws.long_tail("takes", call.seed, ask, low=80, high=9_000)
        match trouble:
            case ModelTrouble.SLOW:
                takes_ms += 30_000
            case ModelTrouble.HANGS:
                await anyio.sleep_forever()
            case ModelTrouble.DIES:
                self._node.end(self._each.instance)
                await anyio.sleep_forever()
            case _:
                pass
        await anyio.sleep(takes_ms / 1000)
        if trouble is ModelTrouble.GONE:
            raise ModelUnavailable(f"{self.where} does not answer")
        if trouble is ModelTrouble.GARBAGE:
            raise ModelGarbage(f"{self.where} does not speak its protocol")
        await on_text("…", 1)
        return self._reply(call, ask=ask, silly=trouble is ModelTrouble.SILLY, takes_ms=takes_ms)

    def _reply(self, call: Generation, *, ask: int, silly: bool, takes_ms: int) -> Reply:
        draws = self._node.troubles.draws
        role, brief = call.messages[0].text, call.messages[-1].text
        cut = False
        if role == BARE_PLAN or role.startswith(PLAN_ROLE):
            text = plan_answer(draws, seed=call.seed, ask=ask, brief=brief)
        else:
            text, cut = answer(draws, seed=call.seed, ask=ask)
        if silly:
            text = draws.pick("silly", call.seed, ask, of=("", "\0" * 50, "```python\n" * 200, "x" * 2_000_000))
        return Reply(
            text=text,
            finish=Finish.LENGTH if cut else Finish.STOP,
            prompt_tokens=len(brief) // 4,
            generated_tokens=min(call.tokens_max, len(text) // 4),
            prompt_ms=takes_ms // 4,
            generate_ms=takes_ms - takes_ms // 4,
        )
