"""`lumina explain`: in words, why a run came out as it did, or what led to one event and what it led to."""

import re
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from lumina.cli.app import HomeOption, JsonOption, app, out, print_json, work
from lumina.cli.errors import UsageProblem, first_leaf
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.sources import source
from lumina.cli.telling import Whole, read_whole, trace, trace_by_id
from lumina.projections.errors import NoSuchRun
from lumina.projections.reading import Reader, open_store
from lumina.replay.explaining.evidence import Evidence
from lumina.replay.explaining.explaining import AttemptTold, Link, RunExplained, StepTold, explain_run
from lumina.replay.explaining.tracing import DEPTH, EventExplained, explain_event
from lumina.replay.words import shorten

WORDS_MAX: Final = 400
"""Characters of one sentence; --json has all of it."""
_PLACE: Final = re.compile(r"^(?P<run>.+)@(?P<seq>\d{1,16})$")
_LEADS: Final = {
    "event": "",
    "cause": "because ",
    "answers": "and it answers, by name, ",
    "rests on": "which rests on ",
}
_EVENT: Final = re.compile(r"^[0-9a-f]{4,32}$")


@app.command()
def explain(
    what: Annotated[
        str, typer.Argument(metavar="RUN|EVENT", help="A run, RUN@SEQ, or an event id (or its beginning).")
    ],
    forward: Annotated[bool, typer.Option("--forward", help="Only what the event led to.")] = False,
    backward: Annotated[bool, typer.Option("--back", help="Only what led to the event.")] = False,
    depth: Annotated[int, typer.Option(min=1, max=10_000, help="Generations of what followed.")] = DEPTH,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Explain a run: the plan, every attempt with its faults, and the shortest chain of events that decided its end.

    Explain an event: what led to it, back to its root, and what it led to; for a lease also why this instance, what
    was unloaded for it and who waited.

    Exit codes: 0 explained, 2 the call is wrong, or there is no such run or event; 5 the log is damaged.
    """

    async def job(found: Home) -> Exit:
        place = _PLACE.match(what)
        if place is not None:
            async with source(found, name=place["run"]) as where:
                traced = await trace(where, seq=int(place["seq"]))
        else:
            run = await _run(found, name=what)
            if run is not None:
                read, superseded_by = run
                if forward or backward:
                    raise UsageProblem("--forward and --back need an event: lumina explain RUN@SEQ --back")
                explained = explain_run(read.told, ladders=read.ladders, blobs=read.blobs)
                _show_run(explained, superseded_by=superseded_by, json_lines=json_lines)
                return Exit.OK
            traced = await trace_by_id(found, beginning=what)
        told = explain_event(
            traced.target, grounds=traced.grounds, elsewhere=traced.elsewhere, depth=depth, lending=traced.lending
        )
        if backward and not forward:
            told = msgspec.structs.replace(told, effects=())
        elif forward and not backward:
            told = msgspec.structs.replace(told, why=())
        _show_event(told, json_lines=json_lines)
        return Exit.OK

    raise typer.Exit(work(job, home=home))


async def _run(home: Home, *, name: str) -> tuple[Whole, str] | None:
    """Read a run, and which one superseded it, if any; None when there is none and the name may be that of an event."""
    try:
        async with source(home, name=name) as found:
            read = await read_whole(found)
            superseded_by = ""
            if found.live:
                with open_store(home.root) as store:
                    superseded_by = Reader(store).run(found.run).run.superseded_by
            return read, superseded_by
    except Exception as error:  # whatever is raised while a place is open comes in a group
        if isinstance(first_leaf(error), NoSuchRun) and _EVENT.match(name):
            return None
        raise


def _show_run(told: RunExplained, *, superseded_by: str, json_lines: bool) -> None:
    if json_lines:
        print_json(msgspec.json.encode({**msgspec.to_builtins(told), "superseded_by": superseded_by}))
        return
    console = out()
    console.print(Text(f"{told.run}  {told.status or 'open'}", style="bold"))
    if superseded_by:
        console.print(Text(f"  void: superseded by {superseded_by}", style="yellow"), soft_wrap=True)
    for line in told.asked:
        _say(line, console=console, indent=2)
    for fault in told.plan_faults:
        _say(f"a model was asked for a plan, but {fault}", console=console, indent=2)
    if told.plan:
        _say(told.plan, console=console, indent=2)
    for step in told.steps:
        _show_step(step, console=console)
    if told.chain:
        count = f"{len(told.chain)} records" if len(told.chain) > 1 else "one record"
        console.print(Text(f"why it was not completed, in {count}:", style="bold"))
        for number, link in enumerate(told.chain):
            _show_link(link, console=console)
            if number == 0:
                _show_evidence(told.evidence, above=link.words, console=console)
    else:
        _say(told.end, console=console, indent=0)


def _show_step(step: StepTold, *, console: Console) -> None:
    console.print(Text(f"step {step.number}, {step.kind} by {step.specialist}", style="bold"))
    for number, model in enumerate(step.models, start=1):
        cloud = " (on machines of others)" if model.cloud else ""
        _say(f"model {number}: {model.model}{cloud}, {model.words}", console=console, indent=2)
    for attempt in step.attempts:
        _show_attempt(attempt, console=console)
    _say(step.end, console=console, indent=2)


def _show_attempt(attempt: AttemptTold, *, console: Console) -> None:
    code = "" if attempt.code is None else f", code {attempt.code[:12]}"
    head = f"attempt {attempt.attempt}: {attempt.rung.replace('_', ' ')} with {attempt.model}{code}"
    console.print(Text(f"  {head}{', accepted' if attempt.accepted else ''}"), soft_wrap=True)
    if attempt.repeats is not None:
        again = f"the model gave the code of attempt {attempt.repeats} again, which had shown: {attempt.decisive}"
        _say(again, console=console, indent=6, style="yellow")
        return
    if attempt.first:
        _say(attempt.first, console=console, indent=6, style="yellow")
    if attempt.decisive:
        _say(f"in the end: {attempt.decisive}", console=console, indent=6, style="yellow")


def _show_evidence(evidence: tuple[Evidence, ...], *, above: str, console: Console) -> None:
    """Show what shows a fault, but not what the sentence above has said already."""
    for piece in evidence:
        if piece.what == "detail" and piece.text in above:
            continue
        for line in piece.text.splitlines():
            console.print(Text(f"      {piece.what:<8} {line}", style="yellow"), soft_wrap=True)


def _show_event(told: EventExplained, *, json_lines: bool) -> None:
    if json_lines:
        print_json(msgspec.json.encode(told))
        return
    console = out()
    event = told.event
    console.print(Text(f"{event.type} {event.id} of {event.stream}", style="bold"))
    if not told.why:
        _show_link(event, console=console)
    for number, link in enumerate(told.why):
        _show_link(link, console=console, words=_LEADS[link.by])
        if number + 1 < len(told.why) and told.why[number + 1].by == "answers":
            _show_cause(link.caused_by, console=console)
    if told.lending is not None:
        console.print(Text("the governor's reasons:", style="bold"))
        for line in told.lending.lines():
            _say(line, console=console, indent=2)
    if told.effects:
        console.print(Text(f"what it led to, {told.followed} records:", style="bold"))
    for effect in told.effects:
        _show_link(effect.link, console=console, indent=2 * effect.indent)
        if effect.hidden:
            _say(f"… {effect.hidden} more that follow: --depth", console=console, indent=2 * effect.indent + 4)
    if not told.followed and not told.why:
        _say("nothing followed from it", console=console, indent=2)


def _show_cause(cause: Link | None, *, console: Console) -> None:
    """Show the recorded cause of a record from which the chain goes on with another one, which it names."""
    if cause is None:
        _say("because of a record that does not stand in this run", console=console, indent=2)
        return
    _show_link(cause, console=console, words="because of its recorded cause, ")


def _show_link(link: Link, *, console: Console, words: str = "", indent: int = 0) -> None:
    line = f"{' ' * indent}  {words}record {link.seq}: {shorten(link.words, limit=WORDS_MAX)}"
    console.print(Text(line), soft_wrap=True)


def _say(line: str, *, console: Console, indent: int, style: str = "") -> None:
    console.print(Text(f"{' ' * indent}{shorten(line, limit=WORDS_MAX)}", style=style), soft_wrap=True)
