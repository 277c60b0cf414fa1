"""`lumina runs`, `show`, `logs`, `watch` and `cancel`: what was done and what is being done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import anyio
import msgspec
import typer
from rich.table import Table
from rich.text import Text

from lumina.bus.subjects import Filter
from lumina.cli.app import HomeOption, JsonOption, RunArgument, app, err, out, print_json, table_out, work
from lumina.cli.errors import SystemProblem
from lumina.cli.exits import Exit
from lumina.cli.following import cancel as cancel_run
from lumina.cli.home import Home
from lumina.cli.lines import event_line
from lumina.cli.outage import end_when_away
from lumina.cli.place import Bus, bus
from lumina.cli.results import gather, show_result
from lumina.cli.run import Wishes, follow_to_end
from lumina.cli.screen import Screen
from lumina.cli.session import Plan, read_system, system
from lumina.cli.tasks import Task
from lumina.cli.words import say, shorten
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Recorded, rfc3339
from lumina.events.run import RunClosed
from lumina.projections.catch_up import catch_up
from lumina.projections.reading import Reader, open_store
from lumina.projections.runs import RunRow

ID_CHARACTERS: Final = 18
"""How long a run's id is, so that it can be copied from a narrow terminal, too."""


@asynccontextmanager
async def reading(home: Home) -> AsyncIterator[tuple[Bus, Reader]]:
    """Join the running system, or start the server alone, with the views caught up to the log."""
    async with system(home, plan=Plan(agents=False)) as place, bus(place, role="client") as connected:
        with open_store(home.root) as store:
            await catch_up(connected.events, store)
            yield connected, Reader(store)


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
        if json_lines:
            for row in rows:
                print_json(msgspec.json.encode(row))
        elif rows:
            table_out(_runs_table(rows))
        else:
            out().print('no runs yet; try: lumina run "..." (see `lumina examples`)')
        return Exit.OK

    raise typer.Exit(work(job, home=home))


def _runs_table(rows: tuple[RunRow, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("RUN", "STATUS", "STARTED", "TIME", "STEPS", "TRIES", "TOKENS", "REQUEST"):
        width_min = {"RUN": ID_CHARACTERS, "STATUS": 9, "REQUEST": 24}.get(heading)
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=width_min)
    for row in rows:
        seconds = "" if row.closed_ms is None else f"{(row.closed_ms - row.submitted_ms) / 1000:.1f} s"
        table.add_row(
            row.run,
            row.phase.value,
            rfc3339(row.submitted_ms)[:19].replace("T", " "),
            seconds,
            f"{row.accepted}/{row.steps}",
            str(row.attempts),
            str(row.generated_tokens),
            Text(shorten(row.request, limit=60)),
        )
    return table


async def _records(connected: Bus, run: str) -> list[Recorded[Event]]:
    return [recorded async for recorded in connected.events.read((Filter(stream=StreamId(run)),))]


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
        async with reading(found) as (connected, reader):
            name = reader.find(run)
            records = await _records(connected, name)
            outcome = gather(records)
            if json_lines:
                attempts = [msgspec.to_builtins(row) for row in reader.attempts(name)]
                print_json(msgspec.json.encode({**msgspec.to_builtins(outcome), "ladder": attempts}))
                return Exit.OK
            console = out()
            console.print(Text(f"{name}  {outcome.request}", style="bold"), soft_wrap=True)
            if events:
                for recorded in records:
                    print_words(recorded)
            else:
                _print_ladder(records)
            await show_result(outcome, blobs=connected.blobs, console=console)
        return Exit.OK

    raise typer.Exit(work(job, home=home))


def _print_ladder(records: list[Recorded[Event]]) -> None:
    """Print the lines that last on the screen of a run, again."""
    screen = Screen(console=out())
    for recorded in records:
        screen.record(recorded)


def print_words(recorded: Recorded[Event]) -> None:
    """Print one record in words."""
    clock = rfc3339(recorded.time_ms)[11:23]
    line = f"{recorded.seq:>7} {clock} {recorded.stream:<18} {recorded.agent:<12} {recorded.type:<28} {say(recorded)}"
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
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end_when_away, connected.url)
                async for recorded in source:
                    if json_lines:
                        print_json(event_line(recorded))
                    else:
                        print_words(recorded)
                tasks.cancel_scope.cancel()
        return Exit.OK

    raise typer.Exit(work(job, home=home))


@app.command()
def watch(
    run: RunArgument,
    json_lines: Annotated[bool, typer.Option("--json", help="One event per line.")] = False,
    home: HomeOption = None,
) -> None:
    """Attach to a run until it ends. Ctrl-C detaches; `lumina cancel` stops the run."""

    async def job(found: Home) -> Exit:
        screen = Screen(console=err(), quiet=json_lines)
        async with reading(found) as (connected, reader):
            name = StreamId(reader.find(run))
            if read_system(found) is None and not _is_closed(await _records(connected, name)):
                raise SystemProblem(f"{name} is not finished, and no agents run: start them with `lumina up`")
            wishes = Wishes(task=Task(request="-"), base=found.root, json=json_lines, detach=False, output=None)
            with screen.shown():
                return await follow_to_end(connected, run=name, screen=screen, wishes=wishes, watching=True)

    raise typer.Exit(work(job, home=home))


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
            if _is_closed(await _records(connected, name)):
                out().print(f"{name} has ended already")
                return Exit.OK
            await cancel_run(name, events=connected.events, reason=reason)
            out().print(f"asked {name} to stop")
        return Exit.OK

    raise typer.Exit(work(job, home=home))
