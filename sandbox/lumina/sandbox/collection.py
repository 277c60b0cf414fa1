"""Takes the files that a dead program left, through a held descriptor of its folder. Links are never followed."""

import os
import stat

from lumina.events.contract import Limits
from lumina.sandbox.artifacts import ENTRIES_MAX, Entry, Kind, select
from lumina.sandbox.port import File


def collect(folder: int, *, given: frozenset[str], limits: Limits) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """Return the files of `folder` that the rules allow, and what was refused with the reasons.

    Nothing may be running in the sandbox any more.
    """
    names = os.listdir(folder)
    too_many = (f"{len(names) - ENTRIES_MAX} entries were not looked at",) if len(names) > ENTRIES_MAX else ()
    entries = tuple(_entry(name, folder=folder) for name in sorted(names)[:ENTRIES_MAX])
    selection = select(entries, given=given, limits=limits)
    files = tuple(
        File(name=name, content=_read(name, folder=folder, limit=limits.file_bytes_max)) for name in selection.taken
    )
    return files, selection.refused + too_many


def _entry(name: str, *, folder: int) -> Entry:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISREG(found.st_mode):
        kind = Kind.FILE
    elif stat.S_ISDIR(found.st_mode):
        kind = Kind.FOLDER
    elif stat.S_ISLNK(found.st_mode):
        kind = Kind.LINK
    else:
        kind = Kind.SPECIAL
    return Entry(name=name, kind=kind, size=found.st_size, links=found.st_nlink)


def _read(name: str, *, folder: int, limit: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read(limit)
