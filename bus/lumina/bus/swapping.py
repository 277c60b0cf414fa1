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


class _Mark(msgspec.Struct, frozen=True):
    """What is about to be done, written before the exchange.

    Attributes:
        fresh: Where the new store is, and after the exchange the damaged one.
        inode: Of the damaged one: it tells whether the exchange took place.
    """

    fresh: str
    inode: int


def swap(folder: Path, *, fresh: Path, scratch: Path) -> Path:
    """Exchange `<folder>/js` with `fresh`, and return where the old one is kept.

    Raises:
        RepairFailed: The file system can't do that in one step; nothing was changed.
    """
    store = folder / "js"
    store.mkdir(exist_ok=True)  # it may be gone altogether
    write_private(
        scratch / "swap.json", content=msgspec.json.encode(_Mark(fresh=str(fresh), inode=store.stat().st_ino))
    )
    _exchange(store, fresh)
    _sync(folder)
    return _keep(folder, old=fresh)


def finish_swap(folder: Path, *, scratch: Path) -> None:
    """Finish what a repair that was killed left behind: keep the old store if it was replaced, and clear the rest."""
    try:
        mark = msgspec.json.decode((scratch / "swap.json").read_bytes(), type=_Mark)
    except (FileNotFoundError, msgspec.MsgspecError):
        pass  # it did not get that far
    else:
        old = Path(mark.fresh)
        if old.is_dir() and old.stat().st_ino == mark.inode:
            _keep(folder, old=old)
    shutil.rmtree(scratch, ignore_errors=True)


def _keep(folder: Path, *, old: Path) -> Path:
    kept = next(path for number in count(1) if not (path := folder / f"js.damaged-{number}").exists())
    old.rename(kept)
    _sync(folder)
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
