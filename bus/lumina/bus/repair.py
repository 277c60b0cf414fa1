"""Restores a damaged log from what is left of it, from its mirror and from an exported file.

Nothing of the old store is touched: the server looks at a copy of it, a new store is built beside it, and when that
has been found whole, the two folders change places in one step. The old one is kept. Whatever happens before, also
kill -9, leaves everything as it was.

<home>/nats/repairing/      what is under way; removed at the end, and by the next repair
<home>/nats/js.damaged-<n>  stores that were replaced
"""

import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from lumina.bus.address import Running, known_log
from lumina.bus.archive import Archive
from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.credentials import ADMIN, keys_folder, nats_folder
from lumina.bus.decoding import decoded
from lumina.bus.errors import BusError, LogDamaged, RepairFailed
from lumina.bus.folder import check_room, locked, make_folder
from lumina.bus.gate import CheckpointFile
from lumina.bus.nats_transport import connect
from lumina.bus.permissions import CONSUMER_PREFIX
from lumina.bus.repair_plan import Plan, Planner
from lumina.bus.repair_sources import ArchiveSource, Source, mirror_files, own_files
from lumina.bus.server import embedded_server
from lumina.bus.startup import READY_S_MAX
from lumina.bus.stored import Ack, Stored
from lumina.bus.swapping import finish_swap, store_bytes, swap, sync_tree
from lumina.bus.transport import Transport
from lumina.events.base import Event
from lumina.events.errors import EventError

OWN: Final = "its own files"
MIRROR: Final = "the mirror"
FILE: Final = "the exported file"
ROOM_BYTES: Final = 64 * 2**20
SAY_EVERY: Final = 5_000

Named = Callable[[Event], Iterable[str]]
"""Digests of the blobs that an event names."""
Check = Callable[[Running], Awaitable[str | None]]
"""What is wrong with the log and the blobs of a running server, None when nothing is."""


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and what was done.

    Attributes:
        state: `whole`: nothing to do. `restorable`: it could be restored, and was not asked for. `restored`: done.
            `lost`: something is gone for good, or is in no source that was given; see `gaps` and `blobs_missing`.
        damage: What is wrong with the log, in one sentence.
        records: How many records it has, or would have.
        by_source: From where they come.
        gaps: Sequences that nobody has, with the reason.
        runs: Runs to which some of them belong, as far as is known.
        blobs: How many blobs there are.
        blobs_missing: Digests of blobs that records name and nobody has.
        left_out: How many records of the exported file were not taken, since they lie beyond the end of the log as its
            own files, the mirror and the checkpoints know it: who made the file could have added them.
        kept: Where the damaged store is now.
    """

    state: str
    damage: str = ""
    records: int = 0
    by_source: dict[str, int] = {}
    gaps: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    blobs: int = 0
    blobs_missing: tuple[str, ...] = ()
    left_out: int = 0
    kept: str = ""


class Repairing:
    """One repair of a data folder.

    Args:
        home: The data folder. No system may run on it.
        checkpoints: The folder of the processes' checkpoints.
        archive: An exported file of this log, or of one of its runs.
        beyond: Take its records beyond the end that is known here, too; a run that begins there is then executed.
        named: See `Named`.
        check: See `Check`.
        say: Is told what goes on.
        ready_s_max: How long the server may take to start on the damaged store; some damage has it read for ever.
    """

    def __init__(
        self,
        home: Path,
        *,
        checkpoints: Path,
        archive: Archive | None,
        beyond: bool = False,
        named: Named,
        check: Check,
        say: Callable[[str], None] = lambda _: None,
        ready_s_max: float = READY_S_MAX,
    ) -> None:
        self._home = home.absolute()
        self._folder = nats_folder(self._home)
        self._scratch = self._folder / "repairing"
        self._checkpoints = checkpoints
        self._archive, self._beyond = archive, beyond
        self._named, self._check, self._say = named, check, say
        self._ready_s_max = ready_s_max
        self._log_id = ""
        self._seen: dict[int, str] = {}
        self._end: int | None = None
        self._left_out = 0

    async def run(self, *, dry_run: bool) -> Repair:
        """Find out what is damaged, and restore it unless `dry_run` or it can't be.

        Raises:
            ServerFailed: A system runs on the data folder.
            RepairFailed: It can't even be tried; nothing was changed.
        """
        make_folder(self._home)
        async with locked(self._folder):
            finish_swap(self._folder, scratch=self._scratch)
            self._log_id = self._known()
            self._seen = await anyio.to_thread.run_sync(self._read_checkpoints)
            try:
                check_room(self._folder, bytes_min=ROOM_BYTES + 2 * store_bytes(self._folder / "js"))
                self._say("looking at a copy of the log")
                damage = await self._diagnosed()
                if damage is None:
                    return Repair(state="whole")
                return await self._restore(damage, dry_run=dry_run)
            finally:
                finish_swap(self._folder, scratch=self._scratch)  # the only copy of the damaged store may be in there

    def _known(self) -> str:
        log_id = known_log(self._home)
        if log_id is None:
            raise RepairFailed(f"the data folder {self._home} has never held a log: there is nothing to repair")
        if self._archive is not None and self._archive.manifest.log_id != log_id:
            other = self._archive.manifest.log_id
            raise RepairFailed(f"{self._archive.path.name} comes from the log {other}, and this is the log {log_id}")
        return log_id

    def _read_checkpoints(self) -> dict[int, str]:
        """Return what processes saw; a checkpoint that can't be read, or is of another log, says nothing."""
        seen: dict[int, str] = {}
        for path in sorted(self._checkpoints.glob("*.json")):
            with suppress(BusError):
                checkpoint = CheckpointFile(path).load()
                if checkpoint is not None and checkpoint.log_id == self._log_id:
                    seen[checkpoint.seq] = checkpoint.digest
        return seen

    async def _diagnosed(self) -> str | None:
        """Return what is wrong with the log as its server gives it, None when nothing is."""
        copy = self._room("old", consumers=True)
        shutil.copyfile(self._folder / "log.json", nats_folder(copy) / "log.json")
        if (self._folder / "js").is_dir():
            await anyio.to_thread.run_sync(shutil.copytree, self._folder / "js", nats_folder(copy) / "js")
        try:
            async with embedded_server(copy, die_with_parent=True, ready_s_max=self._ready_s_max) as server:
                return await self._check(server)
        except BusError as error:
            return str(error).replace(str(copy), str(self._home))
        finally:
            shutil.rmtree(copy)

    def _room(self, name: str, *, consumers: bool) -> Path:
        """Make a data folder with the same keys, and return it."""
        home = self._scratch / name
        shutil.rmtree(home, ignore_errors=True)
        keys_folder(home).mkdir(mode=0o700, parents=True)
        for key in keys_folder(self._home).glob("*.nk"):
            if consumers or not key.stem.startswith(CONSUMER_PREFIX):
                shutil.copyfile(key, keys_folder(home) / key.name)
        return home

    def _sources(self) -> dict[str, Source]:
        store = self._folder / "js"
        sources: dict[str, Source] = {OWN: own_files(store)}
        if mirror_files(store).exists:
            sources[MIRROR] = mirror_files(store)
        if self._archive is not None:
            sources[FILE] = ArchiveSource(self._archive)
        return sources

    def _planner(self, sources: Mapping[str, Source]) -> Planner:
        records = {name: source.records() for name, source in sources.items()}
        if FILE in records and self._end is not None:
            records[FILE] = self._within(records[FILE], end=self._end)
        return Planner(records, checkpoints=self._seen)

    def _within(self, records: Iterable[Stored], *, end: int) -> Iterator[Stored]:
        """Yield the records up to the end, and count the others."""
        self._left_out = 0
        for stored in records:
            if stored.seq <= end:
                yield stored
            else:
                self._left_out += 1

    def _known_end(self, sources: Mapping[str, Source]) -> int:
        """Return up to where the log goes by all that is here. In a thread."""
        own = (stored.seq for name, source in sources.items() if name != FILE for stored in source.records())
        return max((*self._seen, max(own, default=0)), default=0)

    async def _restore(self, damage: str, *, dry_run: bool) -> Repair:
        sources = self._sources()
        self._say("looking for every record")
        plan, wanted = await anyio.to_thread.run_sync(self._planned, sources, abandon_on_cancel=True)
        digests = wanted | sources[OWN].blobs() | (sources[MIRROR].blobs() if MIRROR in sources else frozenset())
        missing = [digest for digest in sorted(wanted) if await _blob(digest, sources=sources) is None]
        found = Repair(
            state="restorable",
            damage=damage,
            records=plan.records,
            by_source=plan.by_source,
            gaps=tuple(map(str, plan.gaps)),
            runs=tuple(sorted(plan.runs | (plan.open if plan.gaps else set()))),
            blobs=len(digests) - len(missing),
            blobs_missing=tuple(missing),
            left_out=self._left_out,
        )
        if not plan.complete or missing or (found.left_out and not found.records):  # an empty log restores nothing
            return msgspec.structs.replace(found, state="lost")
        if dry_run:
            return found
        kept = await self._build(sources, plan=plan, digests=digests)
        return msgspec.structs.replace(found, state="restored", kept=str(kept))

    def _planned(self, sources: Mapping[str, Source]) -> tuple[Plan, set[str]]:
        """Return the plan, and the digests of all blobs that its records name. In a thread."""
        if FILE in sources and not self._beyond:
            self._end = self._known_end(sources)
        planner, wanted = self._planner(sources), set[str]()
        for stored in planner.records():
            with suppress(EventError, LogDamaged):  # of a newer version: what it names is not known
                wanted.update(self._named(decoded(stored).event))
        return planner.plan, wanted

    async def _build(self, sources: Mapping[str, Source], *, plan: Plan, digests: set[str] | frozenset[str]) -> Path:
        """Build a new store, find it whole, and put it in the place of the old one, which is returned."""
        home = self._room("new", consumers=False)
        limit = own_files(self._folder / "js").max_bytes()
        room = None if limit is None else 2 * limit
        async with embedded_server(
            home, sync="default", die_with_parent=True, new_log_id=self._log_id, store_bytes_max=room
        ) as server:
            async with connect(server.endpoint(ADMIN)) as transport:
                await self._write_blobs(transport, sources=sources, digests=digests)
                await self._write_records(transport, sources=sources, plan=plan)
            self._say("verifying the restored log")
            if (wrong := await self._check(server)) is not None:
                raise RepairFailed(f"what was restored is not whole, either: {wrong}; nothing was changed")
        fresh = nats_folder(home) / "js"
        await anyio.to_thread.run_sync(sync_tree, fresh)
        return swap(self._folder, fresh=fresh, scratch=self._scratch)

    async def _write_blobs(
        self, transport: Transport, *, sources: Mapping[str, Source], digests: Iterable[str]
    ) -> None:
        self._say("writing the blobs")
        blobs = JetStreamBlobs(transport)
        for digest in sorted(digests):
            content = await _blob(digest, sources=sources)
            if content is not None:  # else it is a rest that no record names
                await blobs.put(content)

    async def _write_records(self, transport: Transport, *, sources: Mapping[str, Source], plan: Plan) -> None:
        """Write them with the headers of their append, so that the server checks their places once more."""
        for stored in self._planner(sources).records():
            await _publish(transport, stored)
            if stored.seq % SAY_EVERY == 1:
                self._say(f"writing record {stored.seq:,} of {plan.records:,}")


async def _publish(transport: Transport, stored: Stored) -> None:
    answer = await transport.request(stored.subject, payload=stored.payload, headers=stored.headers)
    ack = msgspec.json.decode(answer.payload, type=Ack)
    if ack.error is not None or ack.seq != stored.seq:
        said = ack.error.description if ack.error else f"the server stored it as {ack.seq}"
        raise RepairFailed(f"record {stored.seq} could not be written: {said}; nothing was changed")


async def _blob(digest: str, *, sources: Mapping[str, Source]) -> bytes | None:
    for source in sources.values():
        content = await source.blob(digest)
        if content is not None:
            return content
    return None
