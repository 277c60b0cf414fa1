"""The sandbox agent: answers `execution.requested` by running the code where it can do no harm, or by refusing.

It never runs anything outside a tier that has passed its self-test.
"""

import time
from collections.abc import Mapping
from threading import Event as Flag
from urllib.parse import urlsplit

import anyio

from lumina.agents import executing
from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.agents.ports import NO_BLOBS, Conclusion, Progress, Recording
from lumina.agents.stoppable import run_stoppable
from lumina.events.base import Event
from lumina.events.contract import Form
from lumina.events.record import Recorded
from lumina.sandbox.bubblewrap import Bubblewrap
from lumina.sandbox.certificates import self_signed
from lumina.sandbox.errors import NodeToolsMissing, TierMissing
from lumina.sandbox.fetch import authority, fetch_all
from lumina.sandbox.node_tools import node_modules
from lumina.sandbox.policy import Layout
from lumina.sandbox.port import Report, RunResult, Tier
from lumina.sandbox.programs import Page, Program, Served, play_job, run_job
from lumina.sandbox.roots import program_layout


class Sandbox:
    """A worker that runs programs in the tier that each asks for."""

    name = "sandbox"
    raw_type = ExecutionRaw

    def __init__(self, *, tiers: Mapping[str, Tier] | None = None) -> None:
        """Use `tiers` by name; without them, bubblewrap. Building it costs nothing and needs nothing installed."""
        bubblewrap = Bubblewrap(layout=_layout)
        self._tiers: Mapping[str, Tier] = {bubblewrap.name: bubblewrap} if tiers is None else tiers

    def check(self) -> tuple[Report, ...]:
        """Test every tier and say what it protects from; blocks for some 100 ms."""
        return tuple(tier.check() for tier in self._tiers.values())

    def needs(self, request: Recorded[Event], *, blobs: Mapping[str, bytes] = NO_BLOBS) -> tuple[str, ...]:
        """Return the digests of the program and its files."""
        del blobs
        return executing.needs(executing.request_of(request))

    def prepare(self, request: Recorded[Event], *, blobs: Mapping[str, bytes]) -> ExecutionEffect:
        """Return what is to be run."""
        return executing.prepare(executing.request_of(request), blobs=blobs)

    async def perform(self, effect: ExecutionEffect, *, progress: Progress) -> ExecutionRaw:
        """Fetch the pages, then run; nothing is left running when cancelled."""
        refusal = effect.objection or await self._refusal(effect)
        if refusal:
            return ExecutionRaw(ended_at_ms=_now_ms(), refusal=refusal)
        pages: tuple[Page, ...] = ()
        if effect.urls:
            await progress("fetching", pages=len(effect.urls))
            pages = await fetch_all(effect.urls, allowed=frozenset(map(authority, effect.urls)))
            if all(page.problem for page in pages):
                return ExecutionRaw(ended_at_ms=_now_ms(), pages=pages)
        await progress("executing", tier=effect.tier)
        return await self._executed(effect, pages=pages)

    async def again(self, effect: ExecutionEffect, *, pages: tuple[Page, ...]) -> ExecutionRaw:
        """Run a program once more, with the pages that were fetched for it when it ran first; nothing is fetched."""
        refusal = effect.objection or await self._refusal(effect)
        if refusal:
            return ExecutionRaw(ended_at_ms=_now_ms(), refusal=refusal)
        return await self._executed(effect, pages=pages)

    async def _executed(self, effect: ExecutionEffect, *, pages: tuple[Page, ...]) -> ExecutionRaw:
        try:
            runs = await self._runs(effect.program, tier=self._tiers[effect.tier], served=await _served(pages))
        except (TierMissing, NodeToolsMissing) as error:
            return ExecutionRaw(ended_at_ms=_now_ms(), refusal=f"{error}; provide it by: {error.command}")
        return ExecutionRaw(ended_at_ms=_now_ms(), runs=runs, pages=pages)

    async def _refusal(self, effect: ExecutionEffect) -> str:
        """Return why the tier can't be had, empty when it can."""
        tier = self._tiers.get(effect.tier)
        if tier is None:
            return f"there is no sandbox {effect.tier!r} here, only {', '.join(self._tiers) or 'none'}"
        report = await anyio.to_thread.run_sync(tier.check)
        return "" if report.available else f"{report.reason}; provide it by: {report.command}"

    async def _runs(self, program: Program, *, tier: Tier, served: Served | None) -> tuple[RunResult, ...]:
        if program.form is Form.TIMELINE:
            node_modules()

        def run(stop: Flag) -> tuple[RunResult, ...]:
            first = tier.run(run_job(program, served=served), stop=stop)
            played = play_job(program, results=first.results)
            return (first,) if played is None else (first, tier.run(played, stop=stop))

        return await run_stoppable(run)

    def stopped(self, request: Recorded[Event], *, ended_at_ms: int) -> ExecutionRaw | None:
        """Return None: after its run's end nobody waits for a verdict."""
        del request, ended_at_ms
        return None

    def conclude(
        self, request: Recorded[Event], recording: Recording[ExecutionRaw], *, blobs: Mapping[str, bytes]
    ) -> Conclusion:
        """Return the outcome event and the artifacts."""
        del blobs
        return executing.conclude(request, recording)


def _layout() -> Layout:
    """Show GSAP when it is there; only timelines need it."""
    try:
        return program_layout(str(node_modules() / "gsap"))
    except NodeToolsMissing:
        return program_layout()


async def _served(pages: tuple[Page, ...]) -> Served | None:
    """Return what the program will be served, None when there are no pages."""
    if not pages:
        return None
    secure = {urlsplit(page.url).hostname or "" for page in pages if page.url.lower().startswith("https:")}
    certificate, key = await anyio.to_thread.run_sync(self_signed, tuple(sorted(secure)))
    return Served(pages=pages, certificate=certificate, key=key)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
