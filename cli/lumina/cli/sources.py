"""Where the records of a run are read: the log of this machine, or a file that somebody exported."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lumina.bus.log import Blobs, Records
from lumina.cli.home import Home
from lumina.cli.look import reading
from lumina.events.ids import StreamId


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run and where it stands.

    Attributes:
        events: The records, of this and of other runs.
        blobs: What they name.
        run: The run that was asked for.
        live: Whether it stands in the log of this machine, which goes on; a file does not.
    """

    events: Records
    blobs: Blobs
    run: StreamId
    live: bool


@asynccontextmanager
async def source(home: Home, *, name: str) -> AsyncIterator[Source]:
    """Open what `name` means: a run id, or enough of its beginning.

    Raises:
        NoSuchRun: Nothing has this name, or several things have.
    """
    async with reading(home) as (connected, reader):
        yield Source(events=connected.events, blobs=connected.blobs, run=StreamId(reader.find(name)), live=True)
