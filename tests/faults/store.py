"""Real stores to damage: a log of several runs by all writers, and what stood in it, kept elsewhere.

Every agent decides for real (`tests.bench.history`); each writes with its own credentials to a real NATS server with
the configuration of production. Only the blocks may be made small, so that a short log has several.
"""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import anyio
from tests.bench.history import History

from lumina.bus.credentials import CURATOR, nats_folder
from lumina.bus.nats_transport import connect
from lumina.bus.server import EmbeddedServer, create_consumer_credentials, embedded_server
from lumina.bus.stored import Stored, StoredMessages
from lumina.bus.subjects import BLOB_STREAM, LOG_STREAM, subject_of
from lumina.bus.topology import ensure_topology
from lumina.bus.transport import Transport
from lumina.bus.workers import WORKER_ROLES
from lumina.cli.home import Home
from lumina.cli.place import Bus, Place, bus
from lumina.events.base import Event
from lumina.events.catalogue import SPOKEN_BY
from lumina.events.codec import encode
from lumina.events.record import Draft, Recorded, to_headers
from lumina.replay.verifying.integrity import blob_refs

ROLES = ("client", "orchestrator", "governor", "specialist", "validator", "sandbox")
SMALL_BYTES = 2**16
"""A store of this size has blocks of 32 kB; it is then given more room, and keeps them until it is started again."""
ROOM_BYTES = 2**28
EVENTS = 300
MIRROR_S_MAX = 60.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record as it was: what is compared."""

    subject: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What stood in a log when it was whole, kept outside of it.

    Attributes:
        records: By sequence.
        blobs: By digest: all that the records name.
        named_at: The first record that names a blob, by digest.
    """

    records: Mapping[int, Kept]
    blobs: Mapping[str, bytes]
    named_at: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Store:
    """A data folder where nothing runs, and the truth about it. Faults go into copies only."""

    root: Path
    truth: Truth
    name: str

    def copy(self, to: Path) -> "Store":
        """Return a copy in the folder `to`."""
        shutil.copytree(self.root, to, ignore=shutil.ignore_patterns("address.json"))  # another port for each
        return Store(root=to, truth=self.truth, name=self.name)

    @property
    def streams(self) -> Path:
        """Where the streams of the log's account are."""
        return nats_folder(self.root) / "js" / "jetstream" / "LUMINA" / "streams"

    @property
    def log(self) -> Path:
        """The folder of the log's stream."""
        return self.streams / LOG_STREAM

    @property
    def blobs(self) -> Path:
        """The folder of the blobs' stream."""
        return self.streams / BLOB_STREAM

    @property
    def checkpoints(self) -> Path:
        """Where the writers keep what they saw last."""
        return Home(root=self.root).checkpoints


def blocks(stream: Path) -> list[Path]:
    """Return the blocks of a stream, the oldest first."""
    return sorted((stream / "msgs").glob("*.blk"), key=lambda path: int(path.stem))


@asynccontextmanager
async def writers(root: Path, *, server: EmbeddedServer) -> AsyncIterator[dict[str, Bus]]:
    """Connect every role as its process does, with its checkpoint."""
    place = Place(home=Home(root=root), url=server.url)
    place.home.ensure()
    async with AsyncExitStack() as stack:
        yield {role: await stack.enter_async_context(bus(place, role=role)) for role in ROLES}


async def write(recorded: Recorded[Event], *, by: Mapping[str, Bus]) -> Recorded[Event]:
    """Append one record as its own writer."""
    spoken = next((by for agent, by in SPOKEN_BY.items() if agent == recorded.agent), (recorded.agent,))
    draft = Draft(
        event=recorded.event,
        id=recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        time_ms=recorded.time_ms,
        causation=recorded.causation,
    )
    return await by[spoken[-1]].events.append(draft)


async def make(
    root: Path, *, name: str, small: bool = False, snapshot: Path | None = None, mirror: bool = False
) -> Store:
    """Write a history to a fresh store and stop the server; copy its files to `snapshot` when most of it is written.

    With `small` it has blocks of 32 kB instead of as large as production has them; with `mirror` an external consumer
    is known, and so the log and the blobs have a mirror.
    """
    if mirror:
        await create_consumer_credentials(root, name="reader")
    history = written_history()
    most = len(history.records) * 5 // 6
    for part in (history.records[:most], history.records[most:]):
        async with embedded_server(root, store_bytes_max=SMALL_BYTES if small else ROOM_BYTES) as server:
            await ensure_topology(server.endpoint("admin"), store_bytes_max=ROOM_BYTES)
            async with writers(root, server=server) as by:
                for recorded in part:
                    for ref in blob_refs(recorded.event):
                        await by["client"].blobs.put(history.blobs[ref.digest])
                    assert await write(recorded, by=by) == recorded, "the log is the history"
                await _work_off(by)
            if mirror:
                await _mirrored(server, records=part[-1].seq)
        if snapshot is not None and not snapshot.exists():
            shutil.copytree(nats_folder(root) / "js", snapshot)
    return Store(root=root, truth=truth_of(history.records, blobs=history.blobs), name=name)


async def make_killed(root: Path, *, name: str, after: int) -> Store:
    """Write a history and kill -9 the server while it writes; the truth is what was acknowledged by then."""
    history = written_history()
    acknowledged: list[Recorded[Event]] = []
    async with embedded_server(root, store_bytes_max=SMALL_BYTES, stop_s_max=1) as server:
        await ensure_topology(server.endpoint("admin"), store_bytes_max=ROOM_BYTES)
        async with writers(root, server=server) as by:
            for content in history.blobs.values():
                await by["client"].blobs.put(content)
            async with anyio.create_task_group() as tasks:

                async def kill() -> None:
                    os.kill(server.pid, signal.SIGKILL)
                    await server.wait()
                    tasks.cancel_scope.cancel()

                for recorded in history.records:
                    acknowledged.append(await write(recorded, by=by))
                    if len(acknowledged) == after:
                        tasks.start_soon(kill)
    return Store(root=root, truth=truth_of(acknowledged, blobs=history.blobs), name=name)


def written_history() -> History:
    """Return what is written to every store."""
    history = History()
    history.extend(EVENTS)
    return history


def truth_of(records: Sequence[Recorded[Event]], *, blobs: Mapping[str, bytes]) -> Truth:
    """Return what a log of these records holds, to the byte."""
    named_at: dict[str, int] = {}
    truth: dict[int, Kept] = {}
    for recorded in records:
        for ref in blob_refs(recorded.event):
            named_at.setdefault(ref.digest, recorded.seq)
        subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
        truth[recorded.seq] = Kept(subject=subject, headers=to_headers(recorded), body=encode(recorded.event))
    return Truth(
        records=truth,
        blobs={digest: content for digest, content in blobs.items() if digest in named_at},
        named_at=named_at,
    )


async def raw_records(transport: Transport) -> dict[int, Kept]:
    """Return what the server gives, one by one: nothing is checked and a gap is not noticed."""
    messages = StoredMessages(transport, stream=LOG_STREAM)
    state = (await messages.facts()).state
    found = {seq: await messages.at(seq) for seq in range(1, state.last_seq + 1)}
    return {seq: _kept(stored) for seq, stored in found.items() if stored is not None}


def _kept(stored: Stored) -> Kept:
    """Return the record, without what only the server looks at, and what it adds when it answers."""
    headers = {name: value for name, value in stored.headers.items() if name.startswith("ce-")}
    return Kept(subject=stored.subject, headers=headers, body=stored.payload)


async def _mirrored(server: EmbeddedServer, *, records: int) -> None:
    """Wait until the mirror has everything."""
    async with connect(server.endpoint(CURATOR)) as transport:
        mirror = StoredMessages(transport, stream=LOG_STREAM)
        with anyio.fail_after(MIRROR_S_MAX):
            for _ in count():
                if (await mirror.facts()).state.last_seq == records:
                    return
                await anyio.sleep(0.05)


async def _work_off(by: Mapping[str, Bus]) -> None:
    """Acknowledge every request that waits, so that the consumers have something to remember."""
    for role in WORKER_ROLES:
        async with aclosing(by[role].events.work(role)) as deliveries:
            while True:
                with anyio.move_on_after(0.5) as waiting:
                    delivery = await anext(deliveries)
                    await delivery.ack()
                if waiting.cancelled_caught:
                    break
