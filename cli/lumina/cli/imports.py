"""Runs of other machines: files that were imported, kept in the data folder and read where they are, never merged.

Beside each file stands a description, so that a list of them opens none. See docs/adr/0007-bundles.md.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from lumina.bus.archive import Archive
from lumina.bus.archive_format import SUFFIX, Manifest, fields_of
from lumina.bus.credentials import write_private
from lumina.cli.errors import SystemProblem
from lumina.cli.home import Home
from lumina.events.record import from_rfc3339
from lumina.projections.errors import NoSuchRun

REQUEST_CHARACTERS_MAX: Final = 200


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """One imported file.

    Attributes:
        file: Its name in the folder.
        sha256: Of the whole file.
        run: For which it was made; None for a whole log.
        runs: All that can be read from it.
        request: What the run was asked for; empty when that is hidden.
        status: How it ended; empty when it had not, or when that is hidden.
        verdict: What `lumina verify` said of it here: `ok`, `diverged`.
    """

    file: str
    sha256: str
    run: str | None
    runs: tuple[str, ...]
    request: str = ""
    status: str = ""
    submitted_ms: int = 0
    closed_ms: int | None = None
    records: int = 0
    hidden_records: int = 0
    blobs_left_out: int = 0
    bytes: int = 0
    code: str = ""
    verdict: str = ""


def describe(archive: Archive, *, sha256: str, verdict: str) -> Imported:
    """Return what is listed of a file."""
    manifest = archive.manifest
    found = Imported(
        file=f"{manifest.run or 'log-' + sha256[:12]}{SUFFIX}",
        sha256=sha256,
        run=manifest.run,
        runs=manifest.runs,
        records=manifest.records,
        hidden_records=manifest.hidden_records,
        blobs_left_out=manifest.blobs_left_out,
        bytes=archive.path.stat().st_size,
        code=manifest.code,
        verdict=verdict,
    )
    for line in archive.lines():
        stream = line.headers.get("ce-subject")
        if manifest.run is None or stream not in manifest.runs:
            continue
        shown = {name: value for name, value in fields_of(line.body).items() if name not in line.hidden}
        match line.headers.get("ce-type"):
            case "run.submitted.v1":  # of the run itself, or of that which it is a fork of
                request = msgspec.json.decode(shown.get("request", '""'), type=str)[:REQUEST_CHARACTERS_MAX]
                found = msgspec.structs.replace(found, request=request, submitted_ms=_time(line.headers))
            case "run.forked.v1" if stream == manifest.run:
                found = msgspec.structs.replace(found, submitted_ms=_time(line.headers))
            case "run.closed.v1" if stream == manifest.run:
                status = msgspec.json.decode(shown.get("status", '""'), type=str)
                found = msgspec.structs.replace(found, status=status, closed_ms=_time(line.headers))
            case _:
                pass  # says nothing that a list shows
    return found


def _time(headers: dict[str, str]) -> int:
    return from_rfc3339(headers["ce-time"])


def imported(home: Home) -> tuple[Imported, ...]:
    """Return what was imported, by name. What can't be read is left out: importing it again mends it."""
    found: list[Imported] = []
    for path in sorted(home.imports.glob("*.json")):
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Imported)
        except (OSError, msgspec.MsgspecError):
            continue
        if (home.imports / entry.file).is_file():
            found.append(entry)
    return tuple(found)


@contextmanager
def arriving(home: Home, path: Path) -> Iterator[Path]:
    """Copy a file into the folder for the time of the block, and yield the copy. Raises OSError.

    It is in a folder of its own, under its own name, which errors tell; `keep` takes it from there.
    """
    home.imports.mkdir(mode=0o700, parents=True, exist_ok=True)
    with TemporaryDirectory(dir=home.imports, prefix=".", suffix=".new") as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        yield copy


def keep(home: Home, copy: Path, *, entry: Imported) -> Path:
    """Give the copy that is `arriving` its place, with its description, and return where it is. Raises OSError."""
    target = home.imports / entry.file
    copy.replace(target)
    description = _description(target)
    write_private(description, content=msgspec.json.format(msgspec.json.encode(entry), indent=1))
    return target


def remove(home: Home, entry: Imported) -> None:
    """Remove a file and its description. Raises OSError."""
    target = home.imports / entry.file
    _description(target).unlink(missing_ok=True)
    target.unlink(missing_ok=True)


def find_import(home: Home, name: str) -> tuple[Imported, str] | None:
    """Return the file and the run that `name`, a run id or its beginning, means; None when no file has it.

    A run that several files hold is read from the one that was made for it.

    Raises:
        NoSuchRun: Several runs begin like this.
    """
    entries = imported(home)
    for start in dict.fromkeys((name, f"r-{name}")):
        exact = [entry for entry in entries if start in entry.runs]
        if exact:
            return min(exact, key=lambda entry: (entry.run != start, entry.file)), start
        runs = sorted({run for entry in entries for run in entry.runs if name and run.startswith(start)})
        if len(runs) > 1:
            raise NoSuchRun(f"{name!r} fits several imported runs: {', '.join(runs[:8])}; give more of the id")
        if runs:
            return find_import(home, runs[0])
    return None


def run_in(manifest: Manifest, *, asked: str, file: str) -> str:
    """Return the run that is meant in a file: the one that it was made for, or the one asked for.

    Raises:
        NoSuchRun: It holds no such run, or several and none was named.
    """
    if not asked and manifest.run is not None:
        return manifest.run
    fitting = [run for run in manifest.runs if run == asked] or [
        run for run in manifest.runs if run.startswith((asked, f"r-{asked}"))
    ]
    if len(fitting) == 1:
        return fitting[0]
    some = ", ".join(manifest.runs[:8])
    count = "one run" if len(manifest.runs) == 1 else f"{len(manifest.runs)} runs"
    raise NoSuchRun(f"{file} holds {count} ({some}): name one as FILE#RUN")


def where(home: Home, entry: Imported) -> Path:
    """Return the path of an imported file. Raises SystemProblem when it is gone."""
    path = home.imports / entry.file
    if not path.is_file():
        raise SystemProblem(f"{path} is gone; import it again")
    return path


def _description(target: Path) -> Path:
    return target.with_suffix(".json")
