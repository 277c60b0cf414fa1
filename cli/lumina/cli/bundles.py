"""`lumina export`, `import` and `freeze`: a run in one file, on its way to another machine and back into a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.status import Status as Progress
from rich.text import Text

from lumina.agents.version import code_version
from lumina.bus.appearing import appearing
from lumina.bus.archive import Archive, open_archive
from lumina.bus.archive_format import SUFFIX, Manifest
from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, table_out, work
from lumina.cli.errors import Damaged, UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.exporting import Wishes, check_target, export_all, export_run
from lumina.cli.home import Home
from lumina.cli.imports import Imported, arriving, describe, find_import, imported, keep, remove
from lumina.cli.imports_table import imports_table
from lumina.cli.place import bus
from lumina.cli.proof import print_report
from lumina.cli.session import Plan, system
from lumina.cli.sources import live_run, source
from lumina.cli.words import size
from lumina.events.ids import StreamId
from lumina.projections.errors import NoSuchRun
from lumina.replay.bundles.freezing import name_of_test, text_of_test
from lumina.replay.errors import NotRedactable
from lumina.replay.report import Report, Status
from lumina.replay.verifying.verify import verify_all, verify_run

LOG_NAME: Final = f"lumina-log{SUFFIX}"


@asynccontextmanager
async def _progress(words: str) -> AsyncIterator[Progress]:
    """Show how far it is for the time of the block, on standard error, where somebody looks."""
    with err().status(Text(words)) as progress:
        yield progress


@app.command()
def export(
    run: Annotated[str | None, typer.Argument(metavar="[RUN|FILE]", help="Run id, or its beginning; a file.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole log, for `lumina repair`.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; default: RUN.lumina here.")
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Hide this field and its value wherever it stands; may be repeated."),
    ] = None,
    without_blobs: Annotated[bool, typer.Option("--without-blobs", help="The records alone.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write a run into one file that `lumina verify FILE` proves on any machine; equal runs give equal bytes.

    The file holds the run, those that it is a fork of, and what the governor decided on: the requests for models of
    other runs before it, too. With --redact a field, the top-level field around it, and whatever else holds the same
    text is replaced by its SHA-256: the chains stay checkable, but nothing can be decided again. Short values can be
    guessed from their digest: there is no salt.

    Exit codes: 0 written, 1 a blob is missing or the file can't be written, 2 the call is wrong, 5 the log is damaged.
    """

    async def job(found: Home) -> Exit:
        if (run is None) != everything:
            raise UsageProblem("give either a run or --all: lumina export RUN | lumina export --all")
        if everything and redact:
            raise UsageProblem("--redact goes with a run: a log that hides fields can't be restored from")
        wishes = Wishes(path=Path(), replace=force, hide=tuple(redact or ()), blobs=not without_blobs)
        async with _progress("exporting …") as progress:
            if run is None:
                path, manifest = await _export_log(found, output=output, wishes=wishes, progress=progress)
            else:
                path, manifest = await _export(found, run=run, output=output, wishes=wishes, progress=progress)
        _tell(path, manifest=manifest, json_lines=json_lines)
        return Exit.OK

    raise typer.Exit(work(job, home=home))


async def _export(
    home: Home, *, run: str, output: Path | None, wishes: Wishes, progress: Progress
) -> tuple[Path, Manifest]:
    async with source(home, name=run) as where:
        path = _target(output, name=f"{where.run}{SUFFIX}")
        wanted = _wishes(wishes, path=path, progress=progress)
        try:
            return path, await export_run(where.events, where.blobs, where.run, wishes=wanted)
        except NotRedactable as error:
            raise UsageProblem(str(error)) from error


async def _export_log(home: Home, *, output: Path | None, wishes: Wishes, progress: Progress) -> tuple[Path, Manifest]:
    async with system(home, plan=Plan(agents=False)) as place, bus(place, role="client") as connected:
        path = _target(output, name=LOG_NAME)
        wanted = _wishes(wishes, path=path, progress=progress)
        return path, await export_all(connected.events, connected.blobs, wishes=wanted)


def _target(output: Path | None, *, name: str) -> Path:
    path = Path(name) if output is None else output.expanduser()
    return path / name if path.is_dir() else path


def _wishes(wishes: Wishes, *, path: Path, progress: Progress) -> Wishes:
    check_target(path, replace=wishes.replace)
    return Wishes(path=path, replace=wishes.replace, hide=wishes.hide, blobs=wishes.blobs, tell=progress.update)


def _tell(path: Path, *, manifest: Manifest, json_lines: bool) -> None:
    if json_lines:
        shown = {name: value for name, value in msgspec.to_builtins(manifest).items() if name != "blobs"}
        counts = {"blobs": len(manifest.blobs), "file": str(path), "bytes": path.stat().st_size}
        print_json(msgspec.json.encode({**shown, **counts}))
        return
    what = manifest.run or f"the log with {len(manifest.runs)} runs"
    counts_text = f"{manifest.records:,} records, {len(manifest.blobs):,} blobs, {size(path.stat().st_size)}"
    out().print(Text(f"{path}: {what}; {counts_text}"), soft_wrap=True)
    if manifest.hidden_records or manifest.blobs_left_out:
        left_out = f"{manifest.hidden_records:,} records hide fields, {manifest.blobs_left_out:,} blobs were left out"
        out().print(Text(f"  {left_out}: it can be proved whole, and not be decided again"), soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="As `lumina export` wrote it.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List what was imported.")] = False,
    removed: Annotated[str | None, typer.Option("--remove", metavar="RUN", help="Remove what was imported.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another file of the same run.")] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Check a file and keep it: every command that takes a RUN finds it from then on. No server is needed for it.

    It is never written into the log of this machine, whose agents would go on with it.

    Exit codes: 0 proved, 3 kept, but the code of this machine decides otherwise, 4 kept, but it lacks fields or blobs,
    so that not all of it could be decided again, 5 damaged: not kept.
    """

    async def job(found: Home) -> Exit:
        if (file is not None) + listed + (removed is not None) != 1:
            raise UsageProblem("give a file, --list, or --remove RUN")
        if file is not None:
            return await _import(found, file=file.expanduser(), force=force, json_lines=json_lines)
        if removed is not None:
            return _remove(found, name=removed)
        entries = imported(found)
        if json_lines:
            for entry in entries:
                print_json(msgspec.json.encode(entry))
        elif entries:
            table_out(imports_table(entries))
        else:
            out().print("nothing was imported")
        return Exit.OK

    raise typer.Exit(work(job, home=home))


async def _import(home: Home, *, file: Path, force: bool, json_lines: bool) -> Exit:
    _check_there(file)
    with arriving(home, file) as copy:  # what is proved is what is kept, whatever becomes of the file meanwhile
        async with _progress("checking …"), open_archive(copy) as archive:
            report = await _proof(archive)
            if report.status is Status.DAMAGED:
                raise Damaged(f"{file.name} was not imported: {'; '.join(each.strip() for each in report.lines())}")
            sha256 = _sha256(copy)
            entry = describe(archive, sha256=sha256, verdict=_verdict(report))
        standing = next((each for each in imported(home) if each.file == entry.file), None)
        if standing is not None and standing.sha256 != sha256 and not force:
            words = f"another file of {entry.run} with {standing.records:,} records was imported before"
            raise UsageProblem(f"{words}: lumina import --force replaces it")
        keep(home, copy, entry=entry)
    if json_lines:
        print_json(msgspec.json.encode(entry))
    else:
        print_report(report)
        _say_where(home, entry=entry, again=standing is not None and standing.sha256 == sha256)
    return Exit(report.status.exit_code)


def _check_there(file: Path) -> None:
    if not file.is_file():
        raise UsageProblem(f"there is no file {file}")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


async def _proof(archive: Archive) -> Report:
    run = archive.manifest.run
    if run is None:
        return await verify_all(archive, archive, code=code_version())
    return await verify_run(archive, archive, StreamId(run), code=code_version())


def _verdict(report: Report) -> str:
    return "proved" if report.status is Status.OK else report.status.value


def _say_where(home: Home, *, entry: Imported, again: bool) -> None:
    name = entry.run or f"{len(entry.runs)} runs"
    out().print(Text(f"{name}: {'was imported already' if again else 'imported'}"), soft_wrap=True)
    if entry.run is not None and live_run(home, entry.run) == entry.run:
        words = "stands in the log of this machine, too; commands read it from there"
        out().print(Text(f"  {entry.run} {words}"), soft_wrap=True)


def _remove(home: Home, *, name: str) -> Exit:
    entry = next((each for each in imported(home) if each.file in {name, f"{name}{SUFFIX}"}), None)
    if entry is None:
        found = find_import(home, name)
        if found is None:
            raise NoSuchRun(f"no imported run is called {name!r}; `lumina import --list` lists them")
        entry = found[0]
    remove(home, entry)
    out().print(Text(f"removed {entry.file}"), soft_wrap=True)
    return Exit.OK


@app.command()
def freeze(
    run: Annotated[str, typer.Argument(metavar="RUN|FILE", help="Run id, or enough of its beginning; or a file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the two files.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace the files if they are there.")] = False,
    home: HomeOption = None,
) -> None:
    """Write a pytest file that decides the run again, and the run's file beside it.

    The test fails, with the first record that differs, when the code that is installed decides otherwise or more, and
    when the file is not the one that was frozen any more. A run that `lumina verify` does not prove is not frozen.

    Exit codes: 0 written, 2 the call is wrong, else those of `lumina verify`: 3 diverged, 4 lacks fields or blobs, 5
    damaged.
    """

    async def job(found: Home) -> Exit:
        folder = output.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        async with _progress("exporting …") as progress:
            path, manifest = await _export(
                found, run=run, output=folder, wishes=Wishes(path=folder, replace=force), progress=progress
            )
        test = folder / f"{name_of_test(manifest)}.py"
        check_target(test, replace=force)
        async with open_archive(path) as archive:
            report = await _proof(archive)
        if report.status is not Status.OK:
            if not force:
                path.unlink()
            print_report(report)
            return Exit(report.status.exit_code)
        with appearing(test, replace=force) as written:
            written.write(text_of_test(manifest, file=path.name, proof=report).encode())
        out().print(Text(f"{test}: decides the {manifest.records:,} records of {path} again"), soft_wrap=True)
        return Exit.OK

    raise typer.Exit(work(job, home=home))
