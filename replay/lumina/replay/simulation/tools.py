"""The production validator and sandbox with simulated tools under them: only `perform` is another one."""

from collections.abc import Callable
from hashlib import sha256
from typing import Final, Protocol

import anyio
from msgspec.structs import replace

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.agents.ports import Progress
from lumina.agents.sandbox import Sandbox
from lumina.agents.validating import ToolRun, ValidationEffect, ValidationRaw
from lumina.agents.validator import FIRST, Validator
from lumina.events.codec import encode
from lumina.replay.simulation.draws import Draws
from lumina.replay.simulation.fates import run_of, tool_run
from lumina.replay.simulation.script import ToolTrouble
from lumina.sandbox.port import Ended, RunResult

SLOW_S: Final = 20.0
"""Longer than the ack wait, so that heartbeats are needed."""


class Troubles(Protocol):
    """What the script says about tools."""

    draws: Draws

    def tool_trouble(self, role: str) -> ToolTrouble | None:
        """Count a piece of work, and return how it goes wrong."""
        ...

    def performs(self, effect: str) -> None:
        """Take note that the effect with this digest is being done."""
        ...


class SimulatedValidator(Validator):
    """Linters that read the fate in a program."""

    def __init__(self, troubles: Troubles, *, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self._troubles = troubles
        self._now_ms = now_ms

    async def perform(self, effect: ValidationEffect, *, progress: Progress) -> ValidationRaw:
        """Let the tools read, the compiler first."""
        await progress("validating")
        self._troubles.performs(sha256(encode(effect)).hexdigest())
        trouble = await _trouble(self._troubles, role=self.name, key=effect.code, high_ms=2_000)
        runs: list[ToolRun] = []
        for tool in dict.fromkeys(effect.tools):
            run = tool_run(tool, code=effect.code)
            if trouble is ToolTrouble.BROKEN:
                run = replace(run, result=RunResult(ended=Ended.BROKEN, exit_code=None, detail="no such namespace"))
            if trouble is ToolTrouble.MISSING:
                run = ToolRun(tool=tool, confined=False, problem=f"{tool} is not installed")
            runs.append(run)
            if tool == FIRST and run.result is not None and run.result.exit_code == 1:
                break
        return ValidationRaw(ended_at_ms=self._now_ms(), tools=tuple(runs))


class SimulatedSandbox(Sandbox):
    """A tier in which programs come to their fate."""

    def __init__(self, troubles: Troubles, *, now_ms: Callable[[], int]) -> None:
        super().__init__(tiers={})
        self._troubles = troubles
        self._now_ms = now_ms

    async def perform(self, effect: ExecutionEffect, *, progress: Progress) -> ExecutionRaw:
        """Run the program."""
        self._troubles.performs(sha256(encode(effect)).hexdigest())
        if effect.objection:
            return ExecutionRaw(ended_at_ms=self._now_ms(), refusal=effect.objection)
        await progress("executing", tier=effect.tier)
        trouble = await _trouble(self._troubles, role=self.name, key=effect.program.code, high_ms=9_000)
        if trouble is ToolTrouble.MISSING:
            refusal = "bubblewrap is not available: no user namespaces; provide it by: sysctl"
            return ExecutionRaw(ended_at_ms=self._now_ms(), refusal=refusal)
        result = run_of(effect.program)
        if trouble is ToolTrouble.BROKEN:
            result = RunResult(ended=Ended.BROKEN, exit_code=None, detail="the tier broke in the middle")
        return ExecutionRaw(ended_at_ms=self._now_ms(), runs=(result,))


async def _trouble(troubles: Troubles, *, role: str, key: str, high_ms: int) -> ToolTrouble | None:
    """Let the work take its time, and return how it goes wrong."""
    trouble = troubles.tool_trouble(role)
    takes_ms = troubles.draws.long_tail(role, key, low=20, high=high_ms)
    await anyio.sleep(takes_ms / 1000 + (SLOW_S if trouble is ToolTrouble.SLOW else 0.0))
    if trouble is ToolTrouble.LACKS:
        raise OSError("no space left on device")
    return trouble
