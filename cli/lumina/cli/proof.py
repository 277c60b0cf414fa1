"""`lumina verify`: decides a run, or all of them, again from the log and compares every byte."""

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lumina.cli.app import HomeOption, JsonOption, app, out, print_json, work
from lumina.cli.errors import UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.look import reading
from lumina.cli.place import Bus, bus
from lumina.cli.session import Plan, system
from lumina.events.ids import StreamId
from lumina.replay.report import Report, Status
from lumina.replay.verify import verify_all, verify_run


@app.command()
def verify(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run id, or enough of its beginning.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole log.")] = False,
    invariants: Annotated[bool, typer.Option("--invariants", help="Check the laws of histories, too.")] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Decide every agent's part again, with no model, sandbox or linter, and compare every byte with the log.

    Exit codes: 0 equal, 3 diverged (the first difference is shown), 5 the log is damaged (with the record).
    """

    async def job(found: Home) -> Exit:
        if (run is None) != everything:
            raise UsageProblem("give either a run or --all: lumina verify RUN | lumina verify --all")
        if run is None:
            async with system(found, plan=Plan(agents=False)) as place, bus(place, role="client") as connected:
                report = await verify_all(connected.events, connected.blobs, invariants=invariants)
        else:
            async with reading(found) as (connected, reader):
                report = await verified(connected, run=StreamId(reader.find(run)), invariants=invariants)
        if json_lines:
            print_json(msgspec.json.encode(report))
        else:
            print_report(report)
        if report.broken:
            return Exit.FAILED
        return Exit(report.status.exit_code)

    raise typer.Exit(work(job, home=home))


async def verified(connected: Bus, *, run: StreamId, invariants: bool = False) -> Report:
    """Return the proof of one run."""
    return await verify_run(connected.events, connected.blobs, run, invariants=invariants)


def print_report(report: Report) -> None:
    """Print a proof, green when it holds."""
    style = "green" if report.status is Status.OK and not report.broken else "red"
    for line in report.lines():
        out().print(Text(f"verify: {line}" if not line.startswith(" ") else line, style=style), soft_wrap=True)
