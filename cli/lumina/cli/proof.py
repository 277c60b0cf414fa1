"""`lumina verify`: decides a run, or all of them, again from the log or a file and compares every byte."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lumina.agents.version import code_version
from lumina.bus.archive import open_archive
from lumina.bus.errors import FieldsHidden, LogDamaged
from lumina.cli.app import HomeOption, JsonOption, app, out, print_json, work
from lumina.cli.errors import Refused, UsageProblem, first_leaf
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.place import Bus, bus
from lumina.cli.session import Plan, system
from lumina.cli.sources import source, whole_log_named
from lumina.events.ids import StreamId
from lumina.replay.report import Damage, Report, Status
from lumina.replay.verifying.verify import verify_all, verify_run


@app.command()
def verify(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|FILE|FILE#RUN]",
            help="A run id, its beginning, an exported file, or a run in one.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole log.")] = False,
    invariants: Annotated[bool, typer.Option("--invariants", help="Check the laws of histories, too.")] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Decide every agent's part again, with no model, sandbox or linter, and compare every byte with the log.

    A fork is proved together with the runs that it descends from. What the processes of this data folder saw last of
    the log must still stand there, so that a log that was put back to an older state is noticed, too.

    Exit codes: 0 equal, 3 diverged (the first difference is shown, with its causes and both code versions), 4 a file
    without some fields or blobs is whole as far as it goes, but not all of it could be decided again, 5 the log is
    damaged (with the record); 1 with --invariants when a law of histories is broken.
    """

    async def job(found: Home) -> Exit:
        if (run is None) != everything:
            raise UsageProblem("give either a run or --all: lumina verify RUN | lumina verify --all")
        try:
            report = await _proof(found, run=run, invariants=invariants)
        except FieldsHidden as error:
            raise Refused(str(error)) from error
        except (LogDamaged, BaseExceptionGroup) as error:
            # Found while the log was opened: by the checkpoints, or where the views were caught up.
            leaf = first_leaf(error)
            if not isinstance(leaf, LogDamaged):
                raise
            report = Report(run=run, status=Status.DAMAGED, damage=Damage(seq=leaf.seq, reason=str(leaf)))
        if json_lines:
            print_json(msgspec.json.encode(report))
        else:
            print_report(report)
            _advise(report, run=run)
        if report.broken:
            return Exit.FAILED
        return Exit(report.status.exit_code)

    raise typer.Exit(work(job, home=home))


def _advise(report: Report, *, run: str | None) -> None:
    """Say what to do about a damaged log. A damaged file has to be exported again."""
    if report.damage is not None and (run is None or not Path(run).is_file()):
        out().print(Text("  `lumina repair` says what can be restored", style="red"))


async def _proof(home: Home, *, run: str | None, invariants: bool) -> Report:
    """Return the proof of a run, of a file, or of the whole log."""
    if run is None:
        async with system(home, plan=Plan(agents=False)) as place, bus(place, role="client") as connected:
            return await verify_all(connected.events, connected.blobs, invariants=invariants, code=code_version())
    if (log := whole_log_named(home, name=run)) is not None:
        async with open_archive(log) as archive:
            return await verify_all(archive, archive, invariants=invariants, code=code_version())
    async with source(home, name=run) as found:
        return await verify_run(found.events, found.blobs, found.run, invariants=invariants, code=code_version())


async def verified(connected: Bus, *, run: StreamId) -> Report:
    """Return the proof of one run."""
    return await verify_run(connected.events, connected.blobs, run, code=code_version())


def print_report(report: Report) -> None:
    """Print a proof, green when it holds, yellow when there is not enough to decide all again."""
    holds = {Status.OK: "green", Status.WHOLE: "yellow"}
    style = "red" if report.broken else holds.get(report.status, "red")
    for line in report.lines():
        out().print(Text(f"verify: {line}" if not line.startswith(" ") else line, style=style), soft_wrap=True)
