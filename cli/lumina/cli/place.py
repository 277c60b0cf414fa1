"""Where the system is and how this process reaches it: in a role, with the log, the blobs and the live chatter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.credentials import keys_folder, load_endpoint
from lumina.bus.endpoint import Endpoint
from lumina.bus.gate import GuardedLog, guarded
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.live import NatsLive
from lumina.bus.nats_transport import connect
from lumina.cli.home import Home

AGENTS: Final = ("orchestrator", "governor", "specialist", "validator", "sandbox")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A running system.

    Attributes:
        home: Its data folder, with the credentials.
        url: Of its NATS server.
        own: This process started it and ends it; False when it was there already.
    """

    home: Home
    url: str
    own: bool = False

    def endpoint(self, role: str) -> Endpoint:
        """Return how `role` connects. A server of somebody else's without our keys is used without authentication."""
        if not keys_folder(self.home.root).exists():
            return Endpoint(url=self.url, name=role)
        return load_endpoint(self.home.root, role=role, url=self.url)


@dataclass(frozen=True, kw_only=True)
class Bus:
    """One process's view of the system."""

    url: str
    events: GuardedLog
    blobs: JetStreamBlobs
    live: NatsLive


@asynccontextmanager
async def bus(place: Place, *, role: str, name: str = "") -> AsyncIterator[Bus]:
    """Connect in a role for the time of the block, past the start-up gate; `name` tells instances of a role apart.

    Raises:
        LogUnavailable: Nobody answers at the server's address.
        LogDamaged: The log ends before this role's checkpoint, or another log stands there.
    """
    checkpoint = place.home.checkpoints / f"{name or role}.json"
    async with connect(place.endpoint(role)) as transport, guarded(JetStreamLog(transport), checkpoint) as events:
        yield Bus(url=place.url, events=events, blobs=JetStreamBlobs(transport), live=NatsLive(transport))
