"""`lumina replay`: walks along a recorded run, forward and back. Nothing is run, no model is called."""

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import anyio
import msgspec
import typer
from rich.text import Text

from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, work
from lumina.cli.errors import CliProblem, UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.replay_panes import (
    NOTHING_RUNS,
    changed_lines,
    decided_lines,
    difference_lines,
    heading,
    headline,
    line,
    outline,
    owner,
    reason_words,
    record_lines,
    table_lines,
    why_lines,
)
from lumina.cli.sources import source
from lumina.replay.cast import cast_of
from lumina.replay.errors import BadBreakpoint
from lumina.replay.stepping.breakpoints import Breakpoint
from lumina.replay.stepping.moments import Moment, Scope, Walk
from lumina.replay.stepping.sandbox_files import SandboxFiles, files_at
from lumina.replay.stepping.timeline_reading import read_timeline

PAUSE_S_MAX: Final = 10.0
SPEED_MAX: Final = 1_000_000.0
MARKS: Final = {
    "late": "other records that its writer answers to landed between its cause and it",
    "after the end": "it landed when the run was closed already, and counts for nothing",
    "shared": "it stands in the run that this one is a fork of",
}
"""What the marks of records mean that don't speak for themselves."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    Attributes:
        name: How the run, or the file, was called.
        agents: Only these; None for all.
        projections: Likewise.
        speed: How much faster than it was; None for at once.
    """

    name: str
    step: bool
    until: int | None
    at: int | None
    stop: Breakpoint | None
    agents: tuple[str, ...] | None
    projections: tuple[str, ...] | None
    speed: float | None
    files: Path | None
    json: bool


@app.command()
def replay(
    run: Annotated[str, typer.Argument(metavar="RUN|FILE", help="Run id, or enough of its beginning, or a file.")],
    step: Annotated[bool, typer.Option("--step", help="Step by keys on the full screen; ? shows them.")] = False,
    until: Annotated[int | None, typer.Option(metavar="SEQ", help="Stop behind this record.")] = None,
    at: Annotated[int | None, typer.Option(metavar="SEQ", help="Only this record, with all states and rows.")] = None,
    stop: Annotated[
        str | None,
        typer.Option("--break", metavar="EXPR", help="Stop where it holds: JMESPath, or a type: step.accepted."),
    ] = None,
    agent: Annotated[str | None, typer.Option(metavar="A", help="Only what concerns this agent.")] = None,
    projection: Annotated[str | None, typer.Option(metavar="P", help="Only what concerns this projection.")] = None,
    speed: Annotated[str | None, typer.Option(metavar="4x", help="With the recorded pauses, so much faster.")] = None,
    files: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the sandbox's files at --at (default: the end) there.")
    ] = None,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Walk along a recorded run: what every agent knew, what it decided and why. No model is called, nothing is run.

    All decisions are made again while you watch; one that differs from the log is shown as such.

    Exit codes: 0 every decision shown is equal, 1 --break holds nowhere, 2 the call is wrong, 3 a decision differs, 5
    the log is damaged.
    """

    async def job(found: Home) -> Exit:
        wishes = Wishes(
            name=run,
            step=step,
            until=until,
            at=at,
            stop=None if stop is None else _breakpoint(stop),
            agents=None if agent is None else (agent,),
            projections=None if projection is None else (projection,),
            speed=None if speed is None else _speed(speed),
            files=files,
            json=json_lines,
        )
        _check(wishes)
        return await _replay(found, wishes=wishes)

    raise typer.Exit(work(job, home=home))


def _breakpoint(expression: str) -> Breakpoint:
    try:
        return Breakpoint(expression)
    except BadBreakpoint as error:
        raise UsageProblem(f"--break can't be asked: {error}") from error


def _speed(text: str) -> float:
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = math.nan
    if not 0 < speed <= SPEED_MAX:
        raise UsageProblem(f"--speed {text} is no speed; 1x is as it was, 4x four times as fast")
    return speed


def _check(wishes: Wishes) -> None:
    """Refuse what can't be meant. Raises UsageProblem."""
    asked = {
        "--until": wishes.until is not None,
        "--break": wishes.stop is not None,
        "--speed": wishes.speed is not None,
        "--json": wishes.json,
        "--files": wishes.files is not None,
    }
    barred = {
        "--step": ("--until", "--speed", "--json", "--files") if wishes.step else (),
        "--files": ("--until", "--break", "--speed", "--json") if wishes.files is not None else (),
        "--at": ("--until", "--break", "--speed") if wishes.at is not None and not wishes.step else (),
    }
    for option, others in barred.items():
        for other in others:
            if asked[other]:
                raise UsageProblem(f"{option} and {other} don't go together; see lumina replay --help")
    if wishes.step and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageProblem(
            "--step needs a terminal; without one: lumina replay RUN, or lumina replay RUN --at SEQ --json"
        )


async def _replay(found: Home, *, wishes: Wishes) -> Exit:
    async with source(found, name=wishes.name) as place:
        with err().status("reading the log"):
            timeline = await read_timeline(place.events, place.run)
            walk = Walk(timeline, blobs=place.blobs, cast=await cast_of(place.events))
        _check_names(walk, wishes)
        start = None if wishes.at is None else timeline.moment(wishes.at)
        if wishes.files is not None:
            return await _write_files(walk, len(timeline) - 1 if start is None else start, folder=wishes.files)
        if wishes.step:
            from lumina.cli.replay_screen import Stepper  # noqa: PLC0415 - a full screen takes a while to load

            shown = next(iter(wishes.agents or wishes.projections or ()), None)
            await Stepper(walk, start=start or 0, stop=wishes.stop, pane=shown).run_async()
            return Exit.OK
        if start is not None:
            return _print_moment(await walk.moment(start, scope=_scope(wishes)), walk=walk, wishes=wishes)
        return await _print_all(walk, wishes=wishes)


def _check_names(walk: Walk, wishes: Wishes) -> None:
    for option, named, known in (
        ("agent", wishes.agents, walk.agents),
        ("projection", wishes.projections, walk.projections),
    ):
        unknown = [name for name in named or () if name not in known]
        if unknown:
            raise UsageProblem(f"there is no {option} {unknown[0]!r}; there are {', '.join(known)}")


def _scope(wishes: Wishes, *, default: tuple[str, ...] | None = None) -> Scope:
    """Return whose states and rows are wanted: those that are named; when none is, those of `default`."""
    if wishes.agents is None and wishes.projections is None:
        return Scope(agents=default, projections=default)
    return Scope(agents=wishes.agents or (), projections=wishes.projections or ())


def _say(lines: Iterable[Text]) -> None:
    for each in lines:
        out().print(each, soft_wrap=True)


def _title(walk: Walk) -> Text:
    timeline = walk.timeline
    state = "open" if timeline.closed is None else "closed"
    return line((f"replay of {timeline.run}, {state}, {len(timeline)} records: {NOTHING_RUNS}", "dim"))


def _print_moment(moment: Moment, *, walk: Walk, wishes: Wishes) -> Exit:
    if wishes.json:
        print_json(moment.json())
    else:
        _say([_title(walk), heading(f"record {moment.record['seq']}, {moment.index} of {moment.count}")])
        _say(record_lines(moment))
        _say(why_lines(moment))
        _say([heading("changed"), *changed_lines(moment.changed, of=_named(wishes))])
        for agent, state in moment.agents.items():
            _say([heading(agent), *outline(state, indent="  ")])
        for projection, tables in moment.projections.items():
            _say([heading(projection), *table_lines(tables)])
    return Exit.OK if moment.difference is None else Exit.PARTIAL


def _named(wishes: Wishes) -> tuple[str, ...] | None:
    if wishes.agents is None and wishes.projections is None:
        return None
    return (*(wishes.agents or ()), *(wishes.projections or ()))


async def _print_all(walk: Walk, *, wishes: Wishes) -> Exit:
    timeline = walk.timeline
    last = len(timeline) - 1 if wishes.until is None else timeline.up_to(wishes.until)
    if not wishes.json:
        _say([_title(walk)])
    differ: list[int] = []
    marks: set[str] = set()
    unproved = 0
    stopped: int | None = None
    problem = ""
    for moment in range(last + 1):
        recorded = timeline.stops[moment].recorded
        if wishes.speed is not None and moment:
            pause_ms = recorded.time_ms - timeline.stops[moment - 1].recorded.time_ms
            await anyio.sleep(min(PAUSE_S_MAX, max(0, pause_ms) / 1000 / wishes.speed))
        shown = await walk.moment(moment, scope=_scope(wishes, default=()))
        if shown.difference is not None:
            differ.append(recorded.seq)
        marks |= {*shown.marks}
        unproved += bool(shown.problem)
        _print_step(shown, walk=walk, at=moment, wishes=wishes)
        if wishes.stop is not None:
            verdict = wishes.stop.look(recorded)
            problem = verdict.problem or problem
            if verdict.holds:
                stopped = recorded.seq
                break
    if wishes.stop is not None and stopped is None:
        raise CliProblem(_never(wishes.stop, last + 1, problem=problem))
    if not wishes.json:
        _say(_end(walk, differ=differ, unproved=unproved, stopped=stopped, wishes=wishes))
        _say(line((f"[{mark}]: {words}", "dim")) for mark, words in MARKS.items() if mark in marks)
    return Exit.PARTIAL if differ else Exit.OK


def _print_step(shown: Moment, *, walk: Walk, at: int, wishes: Wishes) -> None:
    """Print one record, unless it does not concern what the user asked for."""
    named = _named(wishes)
    recorded = walk.timeline.stops[at].recorded
    if named is not None and recorded.agent not in named and not any(owner(each) in named for each in shown.changed):
        return
    if wishes.json:
        print_json(shown.json())
        return
    _say([headline(recorded, says=shown.says, marks=shown.marks)])
    _say([line((f"{'':21}{reason_words(shown.why)}", "dim"))])
    _say(Text.assemble(" " * 21, each) for each in difference_lines(shown.difference, problem=shown.problem))
    if shown.decided:
        _say(decided_lines(shown.decided, indent=" " * 21, told_later=True))
    if named is not None:
        _say(changed_lines(shown.changed, of=named, indent=" " * 21))


def _never(stop: Breakpoint, count: int, *, problem: str) -> str:
    why = f"; where it could not be told: {problem}" if problem else ""
    hint = "" if why else "; texts stand between quotes, as in type=='step.accepted.v1'"
    return f"the breakpoint {stop.expression} holds at none of {count} records{why}{hint}"


def _end(walk: Walk, *, differ: list[int], unproved: int, stopped: int | None, wishes: Wishes) -> Iterator[Text]:
    timeline = walk.timeline
    if stopped is not None and wishes.stop is not None:
        yield line((f"stopped at record {stopped}, where {wishes.stop.expression} holds", "bold"))
        yield line((f"all about it: lumina replay {wishes.name} --at {stopped}", "dim"))
    if differ:
        yield line((f"{len(differ)} record(s) differ from what is decided now, the first is {differ[0]}", "bold red"))
    if unproved:
        yield line((f"{unproved} record(s) by workers could not be derived here", "yellow"))
    if not differ and not unproved and stopped is None:
        yield line(("every decision was made again and is equal", "green"))
    if timeline.apart is not None:
        recorded, difference = timeline.apart
        yield line((f"record {recorded.seq} of {recorded.stream} is decided otherwise now:", "red"))
        yield from difference_lines(difference)
    if timeline.pending and stopped is None:
        yield line((f"{timeline.pending} decision(s) are not in the log yet", "yellow"))


async def _write_files(walk: Walk, moment: int, *, folder: Path) -> Exit:
    found = await files_at(walk, moment)
    if found is None:
        raise CliProblem(f"{walk.timeline.run} has run nothing in a sandbox, and is not about to")
    for path in _written(found, folder=folder):
        out().print(Text(f"wrote {path}"), soft_wrap=True)
    when = "would have next" if found.ahead else "had"
    _say([line(f"what the sandbox {when} for record {found.request.seq}: {found.request.says}")])
    _say([line(("it starts: ", "dim"), " ".join(found.command))])
    if found.urls:
        _say([line(("not rebuilt are the pages that it is served: ", "dim"), ", ".join(found.urls))])
    return Exit.OK


def _written(found: SandboxFiles, *, folder: Path) -> list[Path]:
    """Write the files, and return their paths. Raises UsageProblem for a folder in which something is."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageProblem(f"{folder} is not an empty folder; files are written into an empty or a new one only")
    folder.mkdir(parents=True, exist_ok=True)
    for file in found.files:
        assert Path(file.name).name == file.name, "names of files have no folders; see lumina.events.values.FileName"
        (folder / file.name).write_bytes(file.content)
    return [folder / file.name for file in found.files]
