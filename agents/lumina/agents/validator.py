"""The validator: answers `validation.requested` by having tools read the code. They never run it.

The tools read hostile text, so they run in the bubblewrap tier; without it in a process group of their own, and the
recording says so.
"""

import time
from collections.abc import Mapping
from threading import Event as Flag

import anyio

from lumina.agents import validating
from lumina.agents.ports import NO_BLOBS, Conclusion, Progress, Recording
from lumina.agents.stoppable import run_stoppable
from lumina.agents.validating import ToolRun, ValidationEffect, ValidationRaw
from lumina.events.base import Event
from lumina.events.contract import Language
from lumina.events.record import Recorded
from lumina.sandbox.bubblewrap import Bubblewrap
from lumina.sandbox.errors import NodeToolsMissing
from lumina.sandbox.linters import RESIDENT, lint_job, resident_job
from lumina.sandbox.node_tools import node_modules
from lumina.sandbox.policy import Layout
from lumina.sandbox.port import RunResult, Tier
from lumina.sandbox.resident import Resident
from lumina.sandbox.roots import linter_layout
from lumina.sandbox.unconfined import run_tool

FIRST = "compile"
"""A syntax error makes what the other tools would say worthless, so this one is waited for."""


class Validator:
    """A worker that has code read by Ruff, Pylint, ESLint and Python's own compiler."""

    name = "validator"
    raw_type = ValidationRaw

    def __init__(self, *, tier: Tier | None = None) -> None:
        """Confine the tools in `tier`, by default bubblewrap. Building it needs nothing installed."""
        self._tier: Tier = Bubblewrap(layout=_layout) if tier is None else tier
        self._residents = {tool: Resident(resident_job(tool), layout=_layout) for tool in RESIDENT}

    def warm(self) -> None:
        """Start the slow tools ahead of the first request, in the background. Optional; costs some CPU seconds."""
        if self._tier.check().available:
            for resident in self._residents.values():
                resident.warm()

    def needs(self, request: Recorded[Event], *, blobs: Mapping[str, bytes] = NO_BLOBS) -> tuple[str, ...]:
        """Return the digest of the code."""
        del blobs
        return (validating.request_of(request).code.digest,)

    def prepare(self, request: Recorded[Event], *, blobs: Mapping[str, bytes]) -> ValidationEffect:
        """Return what is to be read by what."""
        return validating.prepare(validating.request_of(request), blobs=blobs)

    async def perform(self, effect: ValidationEffect, *, progress: Progress) -> ValidationRaw:
        """Run the tools, the compiler first and the others at once; no process is left when cancelled."""
        await progress("validating", tools=", ".join(effect.tools))
        runs: dict[str, ToolRun] = {}
        if FIRST in effect.tools:
            runs[FIRST] = await self._run(FIRST, effect=effect)
        result = runs[FIRST].result if FIRST in runs else None
        if result is None or result.exit_code == 0:

            async def run(tool: str) -> None:
                runs[tool] = await self._run(tool, effect=effect)

            async with anyio.create_task_group() as tasks:
                for tool in dict.fromkeys(effect.tools):
                    if tool not in runs:
                        tasks.start_soon(run, tool)
        ordered = tuple(runs[tool] for tool in dict.fromkeys(effect.tools) if tool in runs)
        return ValidationRaw(ended_at_ms=time.time_ns() // 1_000_000, tools=ordered)

    async def _run(self, tool: str, *, effect: ValidationEffect) -> ToolRun:
        problem = validating.objection(tool, language=effect.language)
        if problem:
            return ToolRun(tool=tool, confined=False, problem=problem)
        job = lint_job(tool, code=effect.code, timeout_ms=effect.timeout_ms)

        def read(stop: Flag) -> ToolRun:
            confined = self._tier.check().available
            try:
                if job.language is Language.JAVASCRIPT:
                    node_modules()
                result = self._read(tool, effect=effect, stop=stop) if confined else run_tool(job, stop=stop)
            except NodeToolsMissing as error:
                return ToolRun(tool=tool, confined=confined, problem=f"{error}; install it by: {error.command}")
            return ToolRun(tool=tool, confined=confined, result=result)

        return await run_stoppable(read)

    def _read(self, tool: str, *, effect: ValidationEffect, stop: Flag) -> RunResult:
        """Have a tool read the code in a sandbox: in one that stands ready, or in a new one."""
        if tool in self._residents:
            return self._residents[tool].read(effect.code, timeout_ms=effect.timeout_ms, stop=stop)
        return self._tier.run(lint_job(tool, code=effect.code, timeout_ms=effect.timeout_ms), stop=stop)

    def stopped(self, request: Recorded[Event], *, ended_at_ms: int) -> ValidationRaw | None:
        """Return None: after its run's end nobody waits for a verdict."""
        del request, ended_at_ms
        return None

    def conclude(
        self, request: Recorded[Event], recording: Recording[ValidationRaw], *, blobs: Mapping[str, bytes]
    ) -> Conclusion:
        """Return the verdict."""
        return validating.conclude(request, recording, blobs=blobs)


def _layout() -> Layout:
    """Show ESLint when it is there; without it the Python tools still work."""
    try:
        return linter_layout(node_modules=str(node_modules()))
    except NodeToolsMissing:
        return linter_layout()
