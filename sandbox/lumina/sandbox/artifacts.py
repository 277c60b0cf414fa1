"""Which of the files that a program left behind are taken. Pure; `bubblewrap.py` reads the folder.

Only regular files with plain names directly in `/code`: no links, devices, folders, hidden or misleading names.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from lumina.events.contract import Limits

ENTRIES_MAX: Final = 4096
"""Entries of the folder that are looked at."""
REFUSALS_MAX: Final = 50
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")


class Kind(Enum):
    """What a directory entry is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "special file"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the folder, as `lstat` sees it."""

    name: str
    kind: Kind
    size: int
    links: int


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Names to take, in order, and names that are not taken, each with the reason."""

    taken: tuple[str, ...]
    refused: tuple[str, ...]


def select(entries: tuple[Entry, ...], *, given: frozenset[str], limits: Limits) -> Selection:
    """Return which entries to take. Names in `given` were put there by Lumina and are left out silently.

    At most `files_max` files and `file_bytes_max` bytes in all, smallest names first.
    """
    taken: list[str] = []
    refused: list[str] = []
    folded: set[str] = {name.casefold() for name in given}
    left = limits.file_bytes_max
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name in given and entry.kind is Kind.FILE:
            continue
        reason = _objection(entry, folded=folded)
        if not reason and len(taken) >= limits.files_max:
            reason = f"more than {limits.files_max} files"
        if not reason and entry.size > left:
            reason = f"more than {limits.file_bytes_max:,} bytes in all"
        if reason:
            refused.append(f"{entry.name[:120]!a}: {reason}")
            continue
        taken.append(entry.name)
        folded.add(entry.name.casefold())
        left -= entry.size
    return Selection(taken=tuple(taken), refused=tuple(refused[:REFUSALS_MAX]))


def _objection(entry: Entry, *, folded: set[str]) -> str:
    """Return why an entry is not taken, empty when it may be."""
    if entry.kind is not Kind.FILE:
        return f"a {entry.kind.value}"
    if entry.links != 1:
        return "a hard link"
    if not _NAME.fullmatch(entry.name) or entry.name.endswith("."):
        return "not a plain file name"
    if entry.name.casefold() in folded:
        return "differs from another name only in case"
    return ""
