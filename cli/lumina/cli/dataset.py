"""`lumina dataset`: rows to learn from, each with its proof; `lumina dataset verify` makes them all again."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated, Final

import anyio
import msgspec
import typer

from lumina.bus.appearing import appearing
from lumina.bus.subjects import Filter
from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, work
from lumina.cli.dataset_check import Checker, Fault
from lumina.cli.dataset_runs import Runs
from lumina.cli.errors import UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.exporting import check_target
from lumina.cli.home import Home
from lumina.cli.reading import reading
from lumina.cli.sources import Source, source
from lumina.events.ids import StreamId
from lumina.events.run import RunForked, RunSubmitted
from lumina.replay.datasets.reading import RunReading, place_of, whole_log_holds
from lumina.replay.datasets.rows import Row
from lumina.replay.errors import RowLost

VERIFY: Final = "verify"
TOLD_EVERY: Final = 10


@app.command()
def dataset(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN... | verify FILE]", help="Runs, files, or `verify FILE`.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run of this log.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the rows go (default: standard output).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    source_file: Annotated[
        str | None, typer.Option("--from", help="For verify: an exported file to look into instead of this log.")
    ] = None,
    execute: Annotated[bool, typer.Option(help="For verify: run the code again in the sandbox.")] = True,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many rows.")] = None,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write rows to learn from as JSON lines: accepted (prompt, code, verdict), and repairs of faulty code.

    `lumina dataset verify FILE` makes every row again from the log, compares all of it, and runs the code once more in
    the sandbox, with the files and pages that it had. Every run is proved first, as `lumina verify --invariants` does:
    no row is made of one that does not hold. Exit codes: 0 every run, or with verify every row, holds, 1 some do not.
    """
    asked = runs or []
    verifying = asked[:1] == [VERIFY]

    async def job(found: Home) -> Exit:
        if verifying:
            return await _verify(
                found, _file(asked[1:]), origin=source_file, execute=execute, limit=limit, json=json_lines
            )
        if bool(asked) == everything:
            raise UsageProblem("give either runs or --all: lumina dataset RUN... | lumina dataset --all")
        refused: list[str] = []
        if output is not None:
            check_target(output, replace=force)
        count = await _write(found, asked, output=output, force=force, limit=limit, refused=refused)
        err().print(f"{count} row(s)" + (f" in {output}" if output else ""), style="dim", markup=False)
        for reason in refused:
            err().print(f"lumina: {reason}", style="red", markup=False, soft_wrap=True)
        return Exit.FAILED if refused else Exit.OK

    raise typer.Exit(work(job, home=home))


def _file(names: list[str]) -> Path:
    if len(names) != 1:
        raise UsageProblem("give one file of rows: lumina dataset verify FILE")
    path = Path(names[0])
    if not path.is_file():
        raise UsageProblem(f"there is no file {path}")
    return path


async def _write(
    home: Home, names: list[str], *, output: Path | None, force: bool, limit: int | None, refused: list[str]
) -> int:
    """Write the rows of some runs, or of all, and return how many; `refused` is told which runs make none, and why."""
    count = 0
    with ExitStack() as stack:
        lines = None if output is None else stack.enter_context(appearing(output, replace=force))
        async with aclosing(_rows(home, names, refused=refused)) as rows:
            async for row in rows:
                if lines is None:
                    print_json(msgspec.json.encode(row))
                else:
                    lines.write(msgspec.json.encode(row) + b"\n")
                count += 1
                if count % TOLD_EVERY == 0:
                    err().print(f"{count} rows", style="dim")
                if count == limit:
                    break
    return count


async def _rows(home: Home, names: list[str], *, refused: list[str]) -> AsyncGenerator[Row, None]:
    proved: bool | None = None if not names else False
    async with aclosing(_sources(home, names)) as places:
        async for place in places:
            if proved is None:
                proved = await whole_log_holds(place.events, blobs=place.blobs)
            try:
                reading_ = await RunReading.of(place.run, events=place.events, blobs=place.blobs, proved=proved)
                log = await place_of(place.events)
                rows = [await reading_.row(candidate, log=log) for candidate in reading_.candidates()]
            except RowLost as error:
                refused.append(str(error))
                continue
            for row in rows:
                yield row


async def _sources(home: Home, names: list[str]) -> AsyncGenerator[Source, None]:
    """Yield the runs of these names, or all runs of this log, each where it stands."""
    for name in names:
        async with source(home, name=name) as found:
            yield found
    if names:
        return
    async with reading(home) as (connected, _):
        begun = (Filter(event=RunSubmitted), Filter(event=RunForked))
        async with aclosing(connected.events.read(begun)) as records:
            runs = [recorded.stream async for recorded in records]
        for run in dict.fromkeys(runs):
            yield Source(events=connected.events, blobs=connected.blobs, run=StreamId(run), live=True)


async def _verify(home: Home, file: Path, *, origin: str | None, execute: bool, limit: int | None, json: bool) -> Exit:
    """Check a file of rows and say which do not hold."""
    faults: list[Fault] = []
    count = 0
    checker = Checker(execute=execute)
    lines = (await anyio.Path(file).read_bytes()).splitlines()
    async with Runs(home, origin=origin) as runs:
        for number, line in enumerate(lines[:limit], start=1):
            count = number
            fault = await _fault(line, runs=runs, checker=checker)
            if fault is not None:
                faults.append(Fault(line=number, reason=fault))
                if json:
                    print_json(msgspec.json.encode(faults[-1]))
                else:
                    out().print(f"row {number}: {fault}", style="red", markup=False, soft_wrap=True)
            if number % TOLD_EVERY == 0:
                err().print(f"{number} rows looked at", style="dim")
    done = f"{checker.executed} execution(s) repeated" if execute else "nothing executed"
    verdict = "every row holds" if not faults else f"{len(faults)} do not hold"
    err().print(f"{count} row(s), {verdict}; {done}", style="red" if faults else "green", markup=False)
    return Exit.FAILED if faults or not count else Exit.OK


async def _fault(line: bytes, *, runs: Runs, checker: Checker) -> str | None:
    """Return why a line does not hold, None when it does."""
    try:
        row = msgspec.json.decode(line, type=Row)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        return f"it is no row: {error}"
    try:
        found, reading_ = await runs.open(row.run)
    except RowLost as error:
        return str(error)
    return await checker.fault(row, run=reading_, events=found.events, live=found.live)
