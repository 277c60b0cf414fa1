"""Runs blocking work in a thread that ends when its task is cancelled, so that nothing is left running."""

from collections.abc import Callable
from threading import Event as Flag
from typing import TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


async def run_stoppable(work: Callable[[Flag], T]) -> T:
    """Return what `work` returns. When the task is cancelled, its flag is set and the thread is waited for."""
    stop = Flag()
    results: list[T] = []

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        results.append(await anyio.to_thread.run_sync(work, stop))
        tasks.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()  # what was stopped on the way is no result
    return results[0]
