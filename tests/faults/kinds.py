"""The faults that need no server: bytes and files of a stopped store, changed in a copy."""

import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from tests.faults.blocks import COMPRESSED, PARTS, Place, places
from tests.faults.store import Store, blocks

from lumina.bus.credentials import nats_folder

PAGE_BYTES: Final = 4096
INDEX: Final = "index.db"

Injection = Callable[[Store], Awaitable[None] | None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: Under which it is counted.
        name: What is done, and where.
        store: Into a copy of which store: `whole` (one large block), `small` (many), or `killed` (many, no clean end).
        inject: Does it.
    """

    kind: str
    name: str
    store: str
    inject: Injection


def without_index(fault: Fault) -> Fault:
    """Return the same fault, after which the server has to rebuild its index from the blocks."""

    async def inject(store: Store) -> None:
        await apply(fault, store)
        drop_index(store)

    return replace(fault, name=f"{fault.name}, index rebuilt", inject=inject)


async def apply(fault: Fault, store: Store) -> None:
    """Do what a fault is."""
    under_way = fault.inject(store)
    if under_way is not None:
        await under_way


def drop_index(store: Store) -> None:
    """Remove the index of the log, and of the blobs."""
    for stream in (store.log, store.blobs):
        (stream / "msgs" / INDEX).unlink(missing_ok=True)


def flip(path: Path, *, at: int, bit: int) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def flips_in_records(rng: Random) -> Iterator[Fault]:
    """Yield one flip for each structural part of a record at the log's beginning, in its middle and at its end."""
    for where in ("first", "middle", "last"):
        for part in PARTS:
            share, bit = rng.random(), rng.randrange(8)

            def inject(
                store: Store, where: str = where, part: str = part, share: float = share, bit: int = bit
            ) -> None:
                newest = blocks(store.log)[-1]
                place = _chosen(list(places(newest.read_bytes())), where=where)
                start, end = place.span(part)
                flip(newest, at=start + int(share * (end - start)), bit=bit)

            fault = Fault(kind=f"flip: {part}", name=f"{where} record, bit {bit}", store="whole", inject=inject)
            yield fault
            yield without_index(fault)


def _chosen(standing: list[Place], *, where: str) -> Place:
    return standing[{"first": 0, "middle": len(standing) // 2, "last": -1}[where]]


def flips_in_files(rng: Random, *, each: int) -> Iterator[Fault]:
    """Yield flips at random places of every other kind of file."""
    targets: tuple[tuple[str, str, str], ...] = (
        ("flip: index of the log", "small", "LUMINA_LOG/msgs/index.db"),
        ("flip: configuration of the log", "small", "LUMINA_LOG/meta.inf"),
        ("flip: checksum of a configuration", "small", "LUMINA_LOG/meta.sum"),
        ("flip: a worker's consumer", "small", "LUMINA_LOG/obs/worker-validator/meta.inf"),
        ("flip: a worker's consumer", "small", "LUMINA_LOG/obs/worker-sandbox/meta.sum"),
        ("flip: what a worker has done", "small", "LUMINA_LOG/obs/worker-specialist/o.dat"),
        ("flip: index of the blobs", "small", "OBJ_LUMINA_BLOBS/msgs/index.db"),
        ("flip: configuration of the blobs", "small", "OBJ_LUMINA_BLOBS/meta.inf"),
        ("flip: checksum of a configuration", "small", "OBJ_LUMINA_BLOBS/meta.sum"),
    )
    for kind, store, path in targets:
        for _ in range(each):
            share, bit = rng.random(), rng.randrange(8)

            def inject(store: Store, path: str = path, share: float = share, bit: int = bit) -> None:
                file = store.streams / path
                flip(file, at=int(share * file.stat().st_size), bit=bit)

            yield Fault(kind=kind, name=f"{path}, at {share:.1%}, bit {bit}", store=store, inject=inject)


def flips_in_blocks(rng: Random, *, count: int) -> Iterator[Fault]:
    """Yield flips at random places of random blocks of the log and of the blobs, with and without an index."""
    for number in range(count):
        stream = "blobs" if number % 4 == 0 else "log"
        store = ("small", "whole")[number % 2 if stream == "log" else 0]
        which, share, bit = rng.random(), rng.random(), rng.randrange(8)

        def inject(
            store: Store, stream: str = stream, which: float = which, share: float = share, bit: int = bit
        ) -> None:
            found = blocks(store.log if stream == "log" else store.blobs)
            block = found[int(which * len(found))]
            flip(block, at=int(share * block.stat().st_size), bit=bit)

        of = "a block of the blobs" if stream == "blobs" else "a block of the log"
        name = f"block at {which:.1%}, byte at {share:.1%}, bit {bit}"
        fault = Fault(kind=f"flip: {of}, {store}", name=name, store=store, inject=inject)
        yield without_index(fault) if number % 3 == 0 else fault


def flips_in_compressed_heads() -> Iterator[Fault]:
    """Yield flips in what stands before and behind the compressed records of a block."""
    for at in (0, 2, 3, 4, 5, 6, -1, -8):

        def inject(store: Store, at: int = at) -> None:
            block = blocks(store.log)[4]
            assert block.read_bytes().startswith(COMPRESSED)
            flip(block, at=at % block.stat().st_size, bit=0)

        fault = Fault(kind="flip: frame of a compressed block", name=f"byte {at}", store="small", inject=inject)
        yield fault
        yield without_index(fault)


def _newest(store: Store) -> Path:
    return blocks(store.log)[-1]


def _cut(path: Path, *, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def truncations(rng: Random) -> Iterator[Fault]:
    """Yield ends that are torn off: of the last record, of whole records, of blocks."""
    torn = [1, 7, 8, 9, 50, *(rng.randrange(10, 900) for _ in range(4))]

    def tear(cut: int) -> Injection:
        return lambda store: _cut(_newest(store), keep=_newest(store).stat().st_size - cut)

    def lose(records: int) -> Injection:
        return lambda store: _cut(_newest(store), keep=list(places(_newest(store).read_bytes()))[-records].start)

    def halve(number: int) -> Injection:
        def inject(store: Store) -> None:
            block = blocks(store.log)[number]
            _cut(block, keep=block.stat().st_size // 2)

        return inject

    cases = [
        *(("truncate: last record torn", f"{cut} bytes off", tear(cut)) for cut in torn),
        *(("truncate: whole records", f"the last {records}", lose(records)) for records in (1, 2, 5, 20)),
        *(("truncate: half a block", f"block {number}", halve(number)) for number in (0, 5, -2, -1)),
        ("truncate: to nothing", "last block", lambda store: _cut(_newest(store), keep=0)),
        ("truncate: to nothing", "block 3", lambda store: _cut(blocks(store.log)[3], keep=0)),
        ("truncate: blobs", "half the last block", lambda store: _cut(blocks(store.blobs)[-1], keep=300)),
        ("truncate: blobs", "block 1", lambda store: _cut(blocks(store.blobs)[1], keep=300)),
    ]
    for kind, name, inject in cases:
        fault = Fault(kind=kind, name=name, store="small", inject=inject)
        yield fault
        yield without_index(fault)


def whole_blocks() -> Iterator[Fault]:
    """Yield blocks that are lost, doubled, swapped, partly zero or followed by rubbish."""

    def drop(number: int, *, stream: str = "log") -> Injection:
        return lambda store: blocks(store.log if stream == "log" else store.blobs)[number].unlink()

    def put(number: int, at: int) -> Injection:
        def inject(store: Store) -> None:
            found = blocks(store.log)
            shutil.copyfile(found[number], found[number].with_name(f"{at}.blk"))

        return inject

    def swap(one: int, other: int) -> Injection:
        def inject(store: Store) -> None:
            found = blocks(store.log)
            first, second = found[one].read_bytes(), found[other].read_bytes()
            found[one].write_bytes(second)
            found[other].write_bytes(first)

        return inject

    def zero(number: int, share: float) -> Injection:
        def inject(store: Store) -> None:
            block = blocks(store.log)[number]
            content = bytearray(block.read_bytes())
            start = int(share * len(content)) // PAGE_BYTES * PAGE_BYTES
            content[start : start + PAGE_BYTES] = bytes(min(PAGE_BYTES, len(content) - start))
            block.write_bytes(content)

        return inject

    def add(rubbish: bytes) -> Injection:
        def inject(store: Store) -> None:
            newest = _newest(store)
            newest.write_bytes(newest.read_bytes() + rubbish)

        return inject

    cases = [
        *(("lost block", f"block {number}", drop(number)) for number in (0, 1, 5, -2, -1)),
        *(("lost block of blobs", f"block {number}", drop(number, stream="blobs")) for number in (0, 1, -1)),
        *(("doubled block", f"{number} again as {at}.blk", put(number, at)) for number, at in ((4, 99), (-1, 99))),
        *(("doubled block", f"{number} in place of {at}.blk", put(number, at)) for number, at in ((4, 6), (6, 4))),
        *(("swapped blocks", f"{one} and {other}", swap(one, other)) for one, other in ((2, 3), (0, 5), (3, -1))),
        *(("zeroed page", f"block {n}, at {share:.0%}", zero(n, share)) for n in (2, 7, -1) for share in (0, 0.5, 0.9)),
        *(("rubbish at the end", f"{len(rubbish)} bytes", add(rubbish)) for rubbish in (b"\0" * 64, b"lumina" * 9)),
    ]
    for kind, name, inject in cases:
        fault = Fault(kind=kind, name=name, store="small", inject=inject)
        yield fault
        yield without_index(fault)


def lost_files(snapshot: Path) -> Iterator[Fault]:
    """Yield files that are lost, or come from an older copy of the store."""

    def remove(*parts: str) -> Injection:
        def inject(store: Store) -> None:
            for path in (store.streams / part for part in parts):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        return inject

    def restore(part: str) -> Injection:
        def inject(store: Store) -> None:
            here = nats_folder(store.root) / "js" / part
            shutil.rmtree(here) if here.is_dir() else here.unlink()
            old = snapshot / part
            shutil.copytree(old, here) if old.is_dir() else shutil.copyfile(old, here)

        return inject

    def empty(store: Store) -> None:
        shutil.rmtree(nats_folder(store.root) / "js")

    log, objects = "jetstream/LUMINA/streams/LUMINA_LOG", "jetstream/LUMINA/streams/OBJ_LUMINA_BLOBS"
    cases = [
        ("lost index", "of the log", "small", remove("LUMINA_LOG/msgs/index.db")),
        ("lost index", "of the log and the blobs", "whole", drop_index),
        ("lost index", "after kill -9", "killed", drop_index),
        ("killed while it wrote", "nothing else", "killed", lambda store: None),
        ("lost consumers", "all", "small", remove("LUMINA_LOG/obs")),
        ("lost consumers", "one", "small", remove("LUMINA_LOG/obs/worker-sandbox")),
        ("lost consumers", "what one has done", "small", remove("LUMINA_LOG/obs/worker-sandbox/o.dat")),
        ("lost configuration", "of the log", "small", remove("LUMINA_LOG/meta.inf")),
        ("lost configuration", "of the log, its checksum", "small", remove("LUMINA_LOG/meta.sum")),
        ("lost configuration", "of the blobs", "small", remove("OBJ_LUMINA_BLOBS/meta.inf")),
        ("lost stream", "the log", "small", remove("LUMINA_LOG")),
        ("lost stream", "the blobs", "small", remove("OBJ_LUMINA_BLOBS")),
        ("lost stream", "both", "small", remove("LUMINA_LOG", "OBJ_LUMINA_BLOBS")),
        ("lost store", "all files of the server", "small", empty),
        ("old copy", "all files", "small", old_copy(snapshot).inject),
        ("old copy", "the log", "small", restore(log)),
        ("old copy", "the blobs", "small", restore(objects)),
        ("old copy", "index of the log", "small", restore(f"{log}/msgs/index.db")),
        ("old copy", "consumers", "small", restore(f"{log}/obs")),
    ]
    for kind, name, store, inject in cases:
        yield Fault(kind=kind, name=name, store=store, inject=inject)
    yield without_index(old_copy(snapshot))


def old_copy(snapshot: Path) -> Fault:
    """Return the fault that all files come from an older copy of the store."""

    def inject(store: Store) -> None:
        here = nats_folder(store.root) / "js"
        shutil.rmtree(here)
        shutil.copytree(snapshot, here)

    return Fault(kind="old copy", name="all files", store="small", inject=inject)


def lost_words() -> Iterator[Fault]:
    """Yield damage to what the data folder says about its log."""

    def spoil(path: str, *, emptied: bool) -> Injection:
        def inject(store: Store) -> None:
            file = store.root / path
            if emptied:
                file.write_bytes(b"")
            else:
                flip(file, at=file.stat().st_size // 2, bit=0)

        return inject

    for path in ("nats/log.json", "checkpoints/client.json", "checkpoints/orchestrator.json"):
        for emptied in (True, False):
            name = f"{path} {'emptied' if emptied else 'changed'}"
            yield Fault(kind="the folder's files", name=name, store="small", inject=spoil(path, emptied=emptied))
