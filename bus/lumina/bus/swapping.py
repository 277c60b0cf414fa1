"""Puts a restored store in the place of a damaged one, in a single step, so that no moment lacks a whole one."""

import ctypes
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from lumina.bus.credentials import write_private
from lumina.bus.errors import RepairFailed

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2
_MARK: Final = "swap.json"


class _Mark(msgspec.Struct, frozen=True):
    """What is about to be done, written before the exchange.

    Attributes:
        fresh: Where the new store is in the folder of the mark, and after the exchange the damaged one.
        built: Inode of the new one: as long as it is there, the exchange has not taken place.
    """

    fresh: str
    built: int


def swap(folder: Path, *, fresh: Path, scratch: Path) -> Path:
    """Exchange `<folder>/js` with `fresh`, which lies in `scratch`, and return where the old one is kept.

    Raises:
        RepairFailed: The file system can't do that in one step, and nothing was changed; or it was done, and the old
            store still lies in `scratch`: `finish_swap` goes on from there.
        OSError: What is about to be done can't be written down; nothing was changed.
    """
    store = folder / "js"
    store.mkdir(exist_ok=True)  # it may be gone altogether
    mark = _Mark(fresh=str(fresh.relative_to(scratch)), built=fresh.stat().st_ino)
    write_private(scratch / _MARK, content=msgspec.json.encode(mark))
    _sync(scratch)  # on the disk before what it tells of
    _exchange(store, fresh)
    return _keep(folder, old=fresh)


def finish_swap(folder: Path, *, scratch: Path) -> None:
    """Finish what a repair left behind: keep the old store if it was replaced, and clear the rest.

    Only what is known to be no damaged store is removed.

    Raises:
        RepairFailed: The old store can't be given its name, or nobody knows whether it is there; nothing was removed.
    """
    try:
        mark = msgspec.json.decode((scratch / _MARK).read_bytes(), type=_Mark)
    except FileNotFoundError:
        pass  # it did not get that far
    except (OSError, msgspec.MsgspecError) as error:
        advice = "it may hold the damaged store: move it away"
        raise RepairFailed(f"what is left of a repair in {scratch} can't be read: {error}; {advice}") from error
    else:
        old = scratch / mark.fresh
        if old.is_dir() and old.stat().st_ino != mark.built:
            _keep(folder, old=old)
    shutil.rmtree(scratch, ignore_errors=True)


def _keep(folder: Path, *, old: Path) -> Path:
    """Give the old store its name, once the new one's is on the disk. Raises RepairFailed."""
    try:
        _sync(folder)
        kept = next(path for number in count(1) if not (path := folder / f"js.damaged-{number}").exists())
        old.rename(kept)
        _sync(folder)
    except OSError as error:
        left = old if old.exists() else folder
        advice = "the restored one is in its place; mend that, and `lumina repair` finishes it"
        raise RepairFailed(f"the damaged store, in {left}, can't be put aside: {error}; {advice}") from error
    return kept


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        reason = os.strerror(ctypes.get_errno())
        raise RepairFailed(f"{one} and {other} can't change places in one step on this file system: {reason}")


def sync_tree(folder: Path) -> None:
    """Have everything in a folder on the disk."""
    for path in (folder, *folder.rglob("*")):
        _sync(path)


def store_bytes(folder: Path) -> int:
    """Return how much the files in a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
