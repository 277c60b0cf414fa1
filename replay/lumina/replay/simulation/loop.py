"""An event loop whose clock stands still while anything can be done, and then jumps to the next timer.

Hours of virtual time take milliseconds, and two simulations of one script do the same things in the same order:
nothing here depends on the machine's clock, on threads or on addresses of objects.
"""

import asyncio
import gc
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import anyio._backends._asyncio as backend
import structlog
from anyio._core._eventloop import reset_current_async_library, set_current_async_library

T = TypeVar("T")

ROUNDS_AT_ONE_MOMENT_MAX: Final = 200_000
QUIET: Final = logging.CRITICAL


class Stuck(Exception):
    """Nothing can go on: no task is ready and no timer is set, or the same moment never ends."""


class _Clock:
    """Stands in for a selector: where others wait for files, this one turns the clock forward."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> list[object]:
        """Go to the next timer if nothing is ready before it."""
        if timeout is None:
            raise Stuck("no task can go on, and no timer is set")
        if timeout > 0:
            self._loop.go_to_next_timer()
            self._rounds = 0
        self._rounds += 1
        if self._rounds > ROUNDS_AT_ONE_MOMENT_MAX:
            raise Stuck(f"{self._rounds} rounds without a moment passing at {self._loop.time():.3f} s")
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See above. It has no files, sockets, signals or processes."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _Clock(self)

    def time(self) -> float:
        """Return virtual seconds since the loop began."""
        return self._now

    def go_to_next_timer(self) -> None:
        """Turn the clock forward."""
        timers = self._scheduled  # type: ignore[attr-defined]  # asyncio keeps the next timer first in this heap
        self._now = max(self._now, timers[0].when())

    def _process_events(self, event_list: list[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else could wake this loop."""


class _InOrder(Generic[T]):
    """A set that keeps the order in which things came, instead of that of their addresses."""

    def __init__(self) -> None:
        self._items: dict[T, None] = {}

    def add(self, item: T) -> None:
        self._items[item] = None

    def discard(self, item: T) -> None:
        self._items.pop(item, None)

    def remove(self, item: T) -> None:
        del self._items[item]

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items


class _OrderedScope(backend.CancelScope):
    """anyio cancels tasks and inner scopes in the order of a set, which is that of addresses. Here it is their own."""

    def __init__(self, deadline: float = float("inf"), shield: bool = False) -> None:
        super().__init__(deadline, shield)
        self._child_scopes = _InOrder()  # type: ignore[assignment]  # all that is used of the set
        self._tasks = _InOrder()  # type: ignore[assignment]  # likewise


@contextmanager
def _in_order() -> Iterator[None]:
    original = backend.CancelScope
    backend.CancelScope = _OrderedScope  # type: ignore[misc]  # put back below
    try:
        yield
    finally:
        backend.CancelScope = original  # type: ignore[misc]  # as it was


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what production code tells operators: it costs more than the simulation itself."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(QUIET), cache_logger_on_first_use=False, processors=[]
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def play(main: Coroutine[Any, Any, T]) -> T:
    """Return what `main` returns, in virtual time. Raises Stuck when it can never end."""
    collecting = gc.isenabled()
    gc.disable()  # finalizers of what hangs in cycles would run at moments that depend on the past of this process
    loop = VirtualLoop()
    library = set_current_async_library("asyncio")  # said once, not found out at every step
    try:
        with _in_order(), _quiet():
            try:
                return loop.run_until_complete(main)
            finally:
                _end(loop)
    finally:
        reset_current_async_library(library)
        loop.close()
        if collecting:
            gc.enable()


def _end(loop: VirtualLoop) -> None:
    """Cancel what is left after a failure, so that nothing complains about it later."""
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
