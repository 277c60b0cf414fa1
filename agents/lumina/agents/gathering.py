"""Brings together the blobs that a worker needs for a request, where one blob may name others."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from lumina.agents.ports import Worker
from lumina.events.base import Event
from lumina.events.record import Recorded

ROUNDS_MAX: Final = 128
"""More than any worker asks for: a conversation has at most 64 links, each one round."""


async def gathered(
    worker: Worker[Any, Any],
    request: Recorded[Event],
    *,
    get: Callable[[Sequence[str]], Awaitable[Sequence[bytes]]],
) -> dict[str, bytes]:
    """Return all that `worker` needs for `request`, found by `get`, which is called once a round.

    Raises whatever `get` raises.
    """
    blobs: dict[str, bytes] = {}
    for _ in range(ROUNDS_MAX):
        missing = tuple(dict.fromkeys(name for name in worker.needs(request, blobs=blobs) if name not in blobs))
        if not missing:
            return blobs
        blobs.update(zip(missing, await get(missing), strict=True))
    raise AssertionError(f"{worker.name} needs more and more for {request.id}: it is broken")
