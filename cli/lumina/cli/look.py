"""`lumina runs`, `show`, `logs`, `watch` and `cancel`: what was done and what is being done."""

from collections.abc import Sequence
from typing import Annotated, Final

import anyio
import msgspec
import typer
from rich.table import Table
from rich.text import Text

from lumina.bus.log import Records
from lumina.bus.subjects import Filter
from lumina.cli.app import HomeOption, JsonOption, RunArgument, app, err, out, print_json, table_out, work
from lumina.cli.errors import SystemProblem, UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.following import cancel as cancel_run
from lumina.cli.home import Home
from lumina.cli.imports import imported
from lumina.cli.imports_table import imports_table
from lumina.cli.lateness import Lateness
from lumina.cli.lines import event_line
from lumina.cli.outage import end_when_away
from lumina.cli.reading import reading
from lumina.cli.results import gather, show_result
from lumina.cli.run import Wishes, follow_to_end
from lumina.cli.screen import Screen
from lumina.cli.session import read_system
from lumina.cli.sources import Source, source
from lumina.cli.tasks import Task
from lumina.cli.watching import watch_invariants
from lumina.cli.words import say, shorten
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Recorded, rfc3339
from lumina.events.run import RunClosed
from lumina.projections.attempts import AttemptRow, Attempts
from lumina.projections.fold import fold
from lumina.projections.reading import Reader, open_store
from lumina.projections.runs import RunRow, Runs
from lumina.replay.forking.places import shared_by

ID_CHARACTERS: Final = 18
"""How long a run's id is, so that it can be copied from a narrow terminal, too."""
OWN_FIGURES: Final = (
    "+ tries and tokens of a fork alone; `lumina show` counts those that it shares with its parent, too"
)


@app.command()
def runs(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 20,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List the recorded runs, newest first."""

    async def job(found: Home) -> Exit:
        async with reading(found) as (_, reader):
            rows = reader.runs(limit)
        files = imported(found)
        if json_lines:
            for row in rows:
                print_json(msgspec.json.encode(row))
            for entry in files:
                print_json(msgspec.json.encode({"imported": True, **msgspec.to_builtins(entry)}))
        elif rows:
            table_out(_runs_table(rows))
            if any(row.parent for row in rows):
                out().print(OWN_FIGURES, style="dim", markup=False, soft_wrap=True)
        elif not files:
            out().print('no runs yet; try: lumina run "..." (see `lumina examples`)')
        if files and not json_lines:
            out().print("imported:", style="dim")
            table_out(imports_table(files))
        return Exit.OK

    raise typer.Exit(work(job, home=home))


def _runs_table(rows: tuple[RunRow, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("RUN", "STATUS", "STARTED", "TIME", "STEPS", "TRIES", "TOKENS", "REQUEST"):
        width_min = {"RUN": ID_CHARACTERS, "STATUS": 9, "REQUEST": 24}.get(heading)
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=width_min)
    for row in rows:
        own = "+" if row.parent else ""
        seconds = "" if row.closed_ms is None else f"{(row.closed_ms - row.submitted_ms) / 1000:.1f} s"
        table.add_row(
            row.run,
            row.phase.value,
            rfc3339(row.submitted_ms)[:19].replace("T", " "),
            seconds,
            f"{row.accepted}/{row.steps}",
            f"{own}{row.attempts}",
            f"{own}{row.generated_tokens}",
            Text(shorten(f"{_kinship(row)}{row.request}", limit=60)),
        )
    return table


def _kinship(row: RunRow) -> str:
    """Return what a run has to do with others, before the words of its request."""
    fork = f"fork of {row.parent}: " if row.parent else ""
    return f"superseded by {row.superseded_by}: {fork}" if row.superseded_by else fork


async def _records(events: Records, run: str) -> list[Recorded[Event]]:
    return [recorded async for recorded in events.read((Filter(stream=StreamId(run)),))]


def _is_closed(records: list[Recorded[Event]]) -> bool:
    return any(isinstance(recorded.event, RunClosed) for recorded in records)


@app.command()
def show(
    run: RunArgument,
    events: Annotated[bool, typer.Option("--events", help="Every record of the run, in words.")] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show a run: its steps with attempts, code, output and evidence."""

    async def job(found: Home) -> Exit:
        async with source(found, name=run) as where:
            records = await _records(where.events, where.run)
            shared = await shared_by(records, events=where.events)
            outcome = gather([*shared, *records])
            row, tried = _views(found, where=where, records=records)
            if json_lines:
                before = fold(Attempts(), shared).where(AttemptRow)
                attempts = [msgspec.to_builtins(each) for each in (*before, *tried)]
                kin = {"forked_at": row.forked_at, "different": row.different, "superseded_by": row.superseded_by}
                print_json(msgspec.json.encode({**msgspec.to_builtins(outcome), **kin, "ladder": attempts}))
                return Exit.OK
            console = out()
            console.print(Text(f"{where.run}  {outcome.request}", style="bold"), soft_wrap=True)
            if row.superseded_by:
                console.print(Text(f"void: superseded by {row.superseded_by}", style="yellow"), soft_wrap=True)
            if shared:
                console.print(Text(f"shared from {row.parent}, {len(shared)} records:", style="dim"), soft_wrap=True)
            for part in (shared, records):
                if events:
                    lateness = Lateness(part)
                    for recorded in part:
                        print_words(recorded, late=lateness.of(recorded))
                else:
                    _print_ladder(part)
                if part is shared and shared:
                    console.print(Text("its own:", style="dim"))
            await show_result(outcome, blobs=where.blobs, console=console)
        return Exit.OK

    raise typer.Exit(work(job, home=home))


def _views(home: Home, *, where: Source, records: Sequence[Recorded[Event]]) -> tuple[RunRow, tuple[AttemptRow, ...]]:
    """Return the run's row and its attempts: from the views of this machine, or folded from a file."""
    if where.live:
        with open_store(home.root) as store:
            reader = Reader(store)
            return reader.run(where.run).run, reader.attempts(where.run)
    row = fold(Runs(), records).get(RunRow, where.run)
    if row is None:
        raise SystemProblem(f"{where.run} does not begin with a submission: it can't be shown")
    return row, fold(Attempts(), records).where(AttemptRow, run=where.run)


def _print_ladder(records: Sequence[Recorded[Event]]) -> None:
    """Print the lines that last on the screen of a run, again."""
    screen = Screen(console=out())
    for recorded in records:
        screen.record(recorded)


def print_words(recorded: Recorded[Event], *, late: bool = False) -> None:
    """Print one record in words; `late` says that it came too late for its run."""
    clock = rfc3339(recorded.time_ms)[11:23]
    line = f"{recorded.seq:>7} {clock} {recorded.stream:<18} {recorded.agent:<12} {recorded.type:<28} {say(recorded)}"
    if late:
        line += " (late: its run had ended)"
    out().print(line, markup=False, soft_wrap=True)


@app.command()
def logs(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Only this run.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")] = False,
    agent: Annotated[str | None, typer.Option(help="Only what this agent wrote.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="One event per line.")] = False,
    home: HomeOption = None,
) -> None:
    """Print the log, in words or as JSON lines."""

    async def job(found: Home) -> Exit:
        async with reading(found) as (connected, reader):
            stream = None if run is None else StreamId(reader.find(run))
            filters = (Filter(stream=stream, agent=agent),)
            source = connected.events.follow(filters) if follow else connected.events.read(filters)
            lateness = await Lateness.known(connected.events, run=stream)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_when_away, connected.url)
                async for recorded in source:
                    late = lateness.of(recorded)
                    if json_lines:
                        print_json(event_line(recorded, late=late))
                    else:
                        print_words(recorded, late=late)
                tasks.cancel_scope.cancel()
        return Exit.OK

    raise typer.Exit(work(job, home=home))


@app.command()
def watch(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run id, or enough of its beginning.")] = None,
    invariants: Annotated[
        bool, typer.Option("--invariants", help="Say what breaks a law of histories; without RUN on the whole log.")
    ] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="One event (or broken law) per line.")] = False,
    home: HomeOption = None,
) -> None:
    """Attach to a run until it ends. Ctrl-C detaches; `lumina cancel` stops the run.

    With --invariants: read the log from its beginning, go on with it as it grows, and print each record that breaks an
    invariant at once; without RUN until Ctrl-C. Exit codes: 0 all held, 1 something was broken.
    """

    async def judged(found: Home) -> Exit:
        async with reading(found) as (connected, reader):
            name = None if run is None else StreamId(reader.find(run))
            well = await watch_invariants(connected, run=name, json_lines=json_lines)
        return Exit.OK if well else Exit.FAILED

    async def job(found: Home) -> Exit:
        if run is None:
            raise UsageProblem("which run? `lumina runs` lists them; --invariants watches the whole log")
        screen = Screen(console=err(), quiet=json_lines)
        async with reading(found) as (connected, reader):
            name = StreamId(reader.find(run))
            if read_system(found) is None and not _is_closed(await _records(connected.events, name)):
                raise SystemProblem(f"{name} is not finished, and no agents run: start them with `lumina up`")
            wishes = Wishes(task=Task(request="-"), base=found.root, json=json_lines, detach=False, output=None)
            with screen.shown():
                return await follow_to_end(connected, run=name, screen=screen, wishes=wishes, watching=True)

    raise typer.Exit(work(judged if invariants else job, home=home))


@app.command()
def cancel(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="Stands in the log.")] = "cancelled by the user",
    home: HomeOption = None,
) -> None:
    """Ask a run to stop; what was accepted so far stays."""

    async def job(found: Home) -> Exit:
        async with reading(found) as (connected, reader):
            name = StreamId(reader.find(run))
            if _is_closed(await _records(connected.events, name)):
                out().print(f"{name} has ended already")
                return Exit.OK
            await cancel_run(name, events=connected.events, reason=reason)
            out().print(f"asked {name} to stop")
        return Exit.OK

    raise typer.Exit(work(job, home=home))
