"""The runs that a dataset speaks of, opened as they come: in this log, in imported files, or in a given one."""

from contextlib import AsyncExitStack
from typing import Final

from lumina.cli.errors import UsageProblem, first_leaf
from lumina.cli.home import Home
from lumina.cli.sources import Source, source
from lumina.events.ids import StreamId
from lumina.projections.errors import NoSuchRun
from lumina.replay.datasets.reading import RunReading, whole_log_holds
from lumina.replay.errors import RowLost

Opened = tuple[Source, RunReading]
RUNS_KEPT_MAX: Final = 8


class Runs:
    """Opens runs one after the other and keeps the newest; use it as an async context."""

    def __init__(self, home: Home, *, origin: str | None = None) -> None:
        """Look into the file `origin`, if one is given."""
        self._home = home
        self._origin = origin
        self._live: Source | None = None
        self._live_proved = False
        self._lost: dict[str, str] = {}
        self._kept: dict[str, tuple[Opened, AsyncExitStack]] = {}
        self._lasting = AsyncExitStack()

    async def __aenter__(self) -> "Runs":
        return self

    async def __aexit__(self, *_: object) -> None:
        for _, stack in self._kept.values():
            await stack.aclose()
        await self._lasting.aclose()

    async def open(self, run: str) -> Opened:
        """Return a run and where it stands. Raises RowLost when it is nowhere, or can't be proved."""
        if run in self._lost:
            raise RowLost(self._lost[run])  # its other rows need no second proof
        if run not in self._kept:
            if len(self._kept) == RUNS_KEPT_MAX:
                _, stack = self._kept.pop(next(iter(self._kept)))
                await stack.aclose()
            stack = AsyncExitStack()
            try:
                opened = await self._opened(run, stack=stack)
            except RowLost as error:
                await stack.aclose()
                self._lost[run] = str(error)
                raise
            self._kept[run] = (opened, stack)
        return self._kept[run][0]

    async def _opened(self, run: str, *, stack: AsyncExitStack) -> Opened:
        if self._live is not None and self._origin is None:
            try:
                reading = await RunReading.of(
                    StreamId(run), events=self._live.events, blobs=self._live.blobs, proved=self._live_proved
                )
            except RowLost:
                pass  # it may stand in an imported file
            else:
                return self._live, reading
        name = run if self._origin is None else f"{self._origin}#{run}"
        try:
            found = await stack.enter_async_context(source(self._home, name=name))
        except (NoSuchRun, UsageProblem, ExceptionGroup) as error:
            leaf = first_leaf(error)  # the connection that was opened for it wraps it
            if not isinstance(leaf, NoSuchRun | UsageProblem):
                raise
            raise RowLost(str(leaf)) from error
        if found.live and self._live is None:
            self._live = found
            self._lasting.push_async_exit(stack.pop_all())  # its connection serves the other runs, too
            self._live_proved = await whole_log_holds(found.events, blobs=found.blobs)
        proved = found.live and self._live_proved
        return found, await RunReading.of(found.run, events=found.events, blobs=found.blobs, proved=proved)
