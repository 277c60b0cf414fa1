"""The log of this machine for commands that read: with its views, on the running system or a server of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lumina.cli.home import Home
from lumina.cli.place import Bus, bus
from lumina.cli.session import Plan, system
from lumina.projections.catch_up import catch_up
from lumina.projections.reading import Reader, open_store


@asynccontextmanager
async def reading(home: Home) -> AsyncIterator[tuple[Bus, Reader]]:
    """Join the running system, or start the server alone, with the views caught up to the log."""
    async with system(home, plan=Plan(agents=False)) as place, bus(place, role="client") as connected:
        with open_store(home.root) as store:
            await catch_up(connected.events, store)
            yield connected, Reader(store)
