"""Where the records of a run are read: the log of this machine, or a file that somebody exported."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lumina.bus.archive import checked_archive, open_archive
from lumina.bus.archive_format import SUFFIX
from lumina.bus.log import Blobs, Originals
from lumina.cli.errors import UsageProblem
from lumina.cli.home import Home
from lumina.cli.imports import find_import, run_in, where
from lumina.cli.reading import reading
from lumina.events.ids import StreamId
from lumina.projections.errors import NoRunCalled, NoSuchRun
from lumina.projections.reading import Reader, open_store


@dataclass(frozen=True, kw_only=True)
class Source:
    """A run and where it stands.

    Attributes:
        events: The records, of this and of other runs.
        blobs: What they name.
        run: The run that was asked for.
        live: Whether it stands in the log of this machine, which goes on; a file does not.
    """

    events: Originals
    blobs: Blobs
    run: StreamId
    live: bool


@asynccontextmanager
async def source(home: Home, *, name: str) -> AsyncIterator[Source]:
    """Open what `name` means: a run id, or enough of its beginning, of this log or of an imported file; or a file.

    A file, or FILE#RUN, and an imported run need no server.

    Raises:
        NoSuchRun: Nothing has this name, or several things have.
        UsageProblem: There is no such file.
        ArchiveBroken: The file is not what was written.
    """
    found = _file_of(home, name=name)
    if found is None:
        async with reading(home) as (connected, reader):
            run = StreamId(_found(reader, name=name))
            yield Source(events=connected.events, blobs=connected.blobs, run=run, live=True)
        return
    path, asked = found
    async with open_archive(path) as archive:
        run = StreamId(run_in(archive.manifest, asked=asked, file=path.name))
        yield Source(events=archive, blobs=archive, run=run, live=False)


def _found(reader: Reader, *, name: str) -> str:
    try:
        return reader.find(name)
    except NoRunCalled as error:
        raise NoSuchRun(f"{error}; nor is there a file of this name") from error


def file_named(name: str) -> tuple[Path, str] | None:
    """Return the file that `name` is the path of, and the run in it (FILE#RUN); None when it is no path.

    Raises:
        UsageProblem: It looks like one, and there is no such file.
    """
    text, _, run = name.partition("#")
    if not text.endswith(SUFFIX) and os.sep not in text:
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise UsageProblem(f"there is no file {text}")
    return path, run


def whole_log_named(home: Home, *, name: str) -> Path | None:
    """Return the file that `name` means, when it holds a whole log and no run in it was named.

    Raises as `source` does.
    """
    named = file_named(name) or _plain_file(home, name=name)
    if named is None or named[1]:
        return None
    with checked_archive(named[0]) as archive:
        return named[0] if archive.manifest.whole else None


def _file_of(home: Home, *, name: str) -> tuple[Path, str] | None:
    named = file_named(name)
    if named is not None:
        return named
    found = find_import(home, name)
    if found is None:
        return _plain_file(home, name=name)
    entry, run = found
    live = live_run(home, name)
    if live == run:
        return None  # it was exported here: the log has all that the file has
    if live is not None and name not in {run, run.removeprefix("r-")}:
        raise NoSuchRun(f"{name!r} fits {live} here and the imported {run}; give more of the id")
    return where(home, entry), run


def _plain_file(home: Home, *, name: str) -> tuple[Path, str] | None:
    """Return the file in this folder that is called so, when no run is; what looks like a path is not looked at."""
    text, _, run = name.partition("#")
    path = Path(text)
    if not text or not path.is_file() or find_import(home, text) is not None or live_run(home, text) is not None:
        return None
    return path, run


def live_run(home: Home, name: str) -> str | None:
    """Return the run of this machine's log that `name` means, as far as the views know; no server is started."""
    if not home.projections.exists():
        return None
    with open_store(home.root) as store:
        try:
            return Reader(store).find(name)
        except NoSuchRun:
            return None
