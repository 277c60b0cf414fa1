"""`lumina fork` and `lumina invalidate`: a run goes on from one of its records in another way, or without one."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec.structs import replace

from lumina.bus.errors import BlobMissing, LogDamaged
from lumina.cli.app import HomeOption, app, err, out, print_json, work
from lumina.cli.errors import Refused, UsageProblem, first_leaf
from lumina.cli.exits import Exit
from lumina.cli.following import cancel, new_run_id, now_ms
from lumina.cli.fork_wishes import OPTIONS, is_pair, options_of, pair_of, run_and_seq
from lumina.cli.fork_words import NOTHING_CHANGED, DryRun, as_json, changes_nothing, show
from lumina.cli.home import Home
from lumina.cli.place import Bus, bus
from lumina.cli.reading import reading
from lumina.cli.run import (
    Wishes,
    choose_models,
    follow_to_end,
    is_model_file,
    offered,
    session_node_file,
    wanted_models,
)
from lumina.cli.screen import Screen
from lumina.cli.session import Plan, read_system, system
from lumina.cli.sources import Source, source
from lumina.cli.tasks import Task, hosts_typed
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked, RunSubmitted
from lumina.models.errors import BadConfiguration
from lumina.replay.errors import ForkProblem
from lumina.replay.forking import forking
from lumina.replay.forking.forking import compose, compose_without, draft_fork, rehearse
from lumina.replay.forking.places import Place, find_place, place_without, story_of

ID_CHARACTERS_MIN: Final = 6

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")]
DetachOption = Annotated[bool, typer.Option("--detach", "-d", help="Hand it to the running system and return.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for code and files (default: lumina-out/RUN).")
]
LinesOption = Annotated[bool, typer.Option("--json", help="One event per line on standard output.")]


@dataclass(frozen=True, kw_only=True)
class Going:
    """How a fork is begun and followed.

    Attributes:
        where: Its place.
        wishes: How it is followed, and which model files its session brings along.
        dry_run: Only say what would happen.
        story: For a run that is superseded, all that it holds; else nothing.
    """

    where: Place
    wishes: Wishes
    dry_run: bool
    story: Sequence[Recorded[Event]] = ()


@app.command()
def fork(
    place: Annotated[str, typer.Argument(metavar="RUN@SEQ", help="A run and the last record that is shared.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model id or GGUF file, for the whole run; repeat for larger ones to fall back on."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=MODEL", help="planner, specialist (all), or a specialist's name or kind."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help=f"From here on; KEY is one of {', '.join(OPTIONS)}."),
    ] = None,
    edit_brief: Annotated[
        str | None, typer.Option(help="Other words for the step under way; for the request before there is a plan.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Number of the step whose brief is edited.")] = None,
    model_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, e.g. http://host:1234/v1.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Name of the environment variable with its key.")] = None,
    dry_run: DryRunOption = False,
    output: OutputOption = None,
    detach: DetachOption = False,
    json_lines: LinesOption = False,
    home: HomeOption = None,
) -> None:
    """Go on from any record of a run in another way: another model, limit or brief. The run itself stays as it is.

    The new run shares what stands up to that record, starts with the same files in its sandbox, and asks again what
    was not answered there. `lumina show RUN --events` lists the records with their SEQ.

    Exit codes: as `lumina run`.
    """

    async def job(found: Home) -> Exit:
        roles = await _roles(found, role or (), place=place)
        own_files = () if model_url else tuple(name for _, name in roles if is_model_file(name))
        wishes = Wishes(
            task=Task(request="-", models=list(dict.fromkeys((*(model or ()), *own_files)))),
            base=found.root,
            json=json_lines,
            detach=detach,
            output=output,
            model_url=model_url,
            api_key=api_key,
        )
        changes = forking.Wishes(
            roles=tuple((part, Path(name).stem if name in own_files else name) for part, name in roles),
            options=options_of(setting or ()),
            hosts=hosts_typed(edit_brief or ""),
            brief=edit_brief,
            step=step,
        )
        models = 1 if model_url else len(model or ())
        return await _fork(found, place, changes=changes, models=models, wishes=wishes, dry_run=dry_run)

    raise typer.Exit(_work(job, home=home))


async def _fork(home: Home, place: str, *, changes: forking.Wishes, models: int, wishes: Wishes, dry_run: bool) -> Exit:
    """Fork a run; the first `models` of the models that `wishes` names are for the whole run."""
    run, seq = run_and_seq(place)
    async with source(home, name=run) as origin:
        _check_live(origin)
        where = await find_place(origin.run, seq=seq, events=origin.events)
    if not changes.roles:
        compose(where, changes)  # what is wrong with it is said before anything starts

    async def begin(connected: Bus, own: bool) -> RunForked:
        if not models and not changes.roles:
            return compose(where, changes)
        offers = await offered(connected)
        every = choose_models(offers, wanted=[offer.model for offer in offers], own=own) if offers else ()
        chosen = choose_models(offers, wanted=wanted_models(wishes)[:models], own=own) if models else ()
        return compose(where, replace(changes, models=chosen, offered={each.model: each for each in every}))

    return await _go(home, Going(where=where, wishes=wishes, dry_run=dry_run), begin=begin)


async def _roles(home: Home, texts: Sequence[str], *, place: str) -> tuple[tuple[str, str], ...]:
    """Return what `--role` says. Raises UsageProblem; its example has a model of the run that is forked."""
    example = "" if all(map(is_pair, texts)) else await _example_of_role(home, place)
    return tuple(pair_of(text, option="--role", example=example) for text in texts)


async def _example_of_role(home: Home, place: str) -> str:
    run, _ = run_and_seq(place)
    async with source(home, name=run) as origin:
        story = await story_of(origin.run, events=origin.events)
    models = [choice.model for each in story if isinstance(each.event, RunSubmitted) for choice in each.event.models]
    return f"specialist={models[0] if models else 'MODEL'}"


def _check_live(origin: Source) -> None:
    if not origin.live:
        raise Refused(
            f"{origin.run} stands in a file; only a run in the log of this machine can go on, as agents read it"
        )


@app.command()
def invalidate(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="An event's id, enough of its beginning, or RUN@SEQ.")],
    dry_run: DryRunOption = False,
    output: OutputOption = None,
    detach: DetachOption = False,
    json_lines: LinesOption = False,
    home: HomeOption = None,
) -> None:
    """Take one event back with all that descends from it, keep the rest, and do again what is missing then.

    A new run takes the place of the old one, which stays in the log as it is. What descends from an event: all that it
    caused, directly or not. An old run that still goes on is stopped.

    Exit codes: as `lumina run`.
    """

    async def job(found: Home) -> Exit:
        wishes = Wishes(task=Task(request="-"), base=found.root, json=json_lines, detach=detach, output=output)
        gone, run = await _found(found, event)
        async with reading(found) as (connected, _):
            where = await place_without(gone, run=run, events=connected.events)
            story = await story_of(run, events=connected.events)
        composed = compose_without(where, gone)

        async def begin(connected: Bus, own: bool) -> RunForked:
            del connected, own
            return composed

        return await _go(found, Going(where=where, wishes=wishes, dry_run=dry_run, story=story), begin=begin)

    raise typer.Exit(_work(job, home=home))


def _work(job: Callable[[Home], Awaitable[Exit]], *, home: Path | None) -> Exit:
    """Run a command whose wishes may be impossible: that is a wrong call."""

    async def checked(found: Home) -> Exit:
        try:
            return await job(found)
        except BaseException as error:
            leaf = first_leaf(error)
            if isinstance(leaf, ForkProblem):
                raise UsageProblem(str(leaf)) from error
            raise

    return work(checked, home=home)


async def _go(home: Home, going: Going, *, begin: Callable[[Bus, bool], Awaitable[RunForked]]) -> Exit:
    """Begin a fork and follow it to its end, as `lumina run` does; or only say what it would be."""
    wishes = going.wishes
    if wishes.detach and read_system(home) is None:
        raise UsageProblem("--detach needs a running system: start one with `lumina up --detach`")
    screen = Screen(console=err(), quiet=wishes.json or going.dry_run)
    with screen.shown():
        node_file = session_node_file(home, wishes)
        try:
            plan = Plan(node_file=node_file, agents=not going.dry_run or node_file is not None)
            async with system(home, plan=plan, say=screen.starting) as place, bus(place, role="client") as connected:
                event = await begin(connected, place.own)
                if going.dry_run:
                    await _rehearse(connected, going=going, event=event)
                    return Exit.OK
                return await _begin_and_follow(connected, going=going, event=event, screen=screen)
        except BadConfiguration as error:
            if node_file is not None and not home.node_file.exists():
                option = "--model" if wishes.model_url is None else "--model-url"
                raise UsageProblem(f"{option}: {'; '.join(error.problems)}") from error
            raise
        finally:
            if node_file is not None:
                node_file.unlink(missing_ok=True)


async def _begin_and_follow(connected: Bus, *, going: Going, event: RunForked, screen: Screen) -> Exit:
    run = new_run_id()
    if changes_nothing(event) and not going.wishes.json:
        err().print(NOTHING_CHANGED, style="dim", markup=False)
    await connected.events.append(draft_fork(event, stream=run, time_ms=now_ms()))
    if event.supersedes and not any(
        isinstance(recorded.event, RunClosed) and recorded.stream == event.parent for recorded in going.story
    ):
        await cancel(event.parent, events=connected.events, reason=f"superseded by {run}")
    if going.wishes.detach:
        if going.wishes.json:
            print_json(json.dumps({"run": run}).encode())
        else:
            out().print(run)
        return Exit.OK
    asked = (each.event.request for each in going.where.history if isinstance(each.event, RunSubmitted))
    screen.request = event.request or next(asked, "")
    return await follow_to_end(connected, run=run, screen=screen, wishes=going.wishes)


async def _rehearse(connected: Bus, *, going: Going, event: RunForked) -> None:
    """Say what a fork would be, and whether every blob that it needs is there."""
    rehearsal = rehearse(going.where, event, stream=StreamId("r-rehearsal"), time_ms=now_ms())
    missing: list[str] = []
    for ref in rehearsal.blobs:
        try:
            await connected.blobs.get(ref.digest)
        except (BlobMissing, LogDamaged) as error:
            missing.append(str(error))
    shown = DryRun(
        where=going.where, event=event, rehearsal=rehearsal, missing=tuple(missing), story=tuple(going.story)
    )
    if going.wishes.json:
        print_json(as_json(shown))
    else:
        show(shown, console=out())


async def _found(home: Home, name: str) -> tuple[Recorded[Event], StreamId]:
    """Return the event that is meant, and the run that is to do without it."""
    if "@" in name:
        prefix, seq = run_and_seq(name)
        async with source(home, name=prefix) as origin:
            _check_live(origin)
            story = await story_of(origin.run, events=origin.events)
            named = next((recorded for recorded in story if recorded.seq == seq), None)
            if named is None:
                raise UsageProblem(
                    f"record {seq} is none of {origin.run}; `lumina show {origin.run} --events` lists them"
                )
            return named, origin.run
    if len(name) < ID_CHARACTERS_MIN or not set(name) <= set("0123456789abcdef"):
        raise UsageProblem(
            f"{name!r} is no event: give RUN@SEQ, or {ID_CHARACTERS_MIN} or more letters of its id, as `lumina logs "
            "RUN --json` shows it"
        )
    async with reading(home) as (connected, _):
        found = [recorded async for recorded in connected.events.read() if recorded.id.startswith(name)]
    match found:
        case [one]:
            return one, one.stream
        case []:
            raise UsageProblem(f"no event has an id that begins with {name!r}; `lumina logs RUN --json` shows ids")
        case _:
            several = ", ".join(recorded.id for recorded in found[:4])
            raise UsageProblem(f"{name!r} fits several events: {several}; give more of the id")
