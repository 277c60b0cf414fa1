"""`lumina run`: the main job, with nothing configured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import typer

from lumina.agents.specialist_folders import SpecialistFile, load_folders
from lumina.bus.subjects import Filter
from lumina.cli.app import HomeOption, app, err, out, print_json, work
from lumina.cli.errors import Refused, SystemProblem, UsageProblem
from lumina.cli.exits import Exit, exit_of
from lumina.cli.following import build_submission, follow_run, new_run_id, submit
from lumina.cli.home import Home
from lumina.cli.lines import event_line
from lumina.cli.place import Bus, Place, bus
from lumina.cli.results import gather, show_result, write_files
from lumina.cli.screen import Screen
from lumina.cli.session import Plan, read_system, system
from lumina.cli.tasks import Task, cases_of, check_request, hosts_typed, read_files, read_task
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.node import ModelOffer, NodeAnnounced
from lumina.events.record import Recorded
from lumina.events.run import ModelChoice, RunClosed, RunOptions
from lumina.models.errors import BadConfiguration
from lumina.models.node import DEMO_MODEL
from lumina.replay.forking.places import shared_by


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the options of one call ask for."""

    task: Task
    base: Path
    json: bool
    detach: bool
    output: Path | None
    nats_url: str | None = None
    model_url: str | None = None
    api_key: str | None = None
    sync: str = "always"


@app.command()
def run(
    request: Annotated[str | None, typer.Argument(help="What to do, in words.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A task as TOML; options override it.")] = None,
    kind: Annotated[str | None, typer.Option(help="Insist on a kind of specialist (`lumina specialists`).")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model id or GGUF file; repeat for larger ones to fall back on. With --model-url, its name."),
    ] = None,
    model_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, e.g. http://host:1234/v1.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Name of the environment variable with its key.")] = None,
    with_file: Annotated[list[str] | None, typer.Option("--with", help="A file to put beside the program.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="HOST[:PORT] whose pages may be fetched.")] = None,
    allow_cloud: Annotated[bool, typer.Option("--allow-cloud", help="Ask models on machines of others, too.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole run (default 300).")] = None,
    attempts: Annotated[int | None, typer.Option(help="Attempts per step (default 8).")] = None,
    seed: Annotated[int | None, typer.Option(help="For all sampling (default 0).")] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Plan by rules alone.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for code and files (default: lumina-out/RUN).")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit to the running system and return.")] = False,
    nats_url: Annotated[str | None, typer.Option(envvar="LUMINA_NATS_URL", help="Use this NATS server.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="One event per line on standard output.")] = False,
    home: HomeOption = None,
) -> None:
    """Do a task: plan it, have small models write the code, validate it, run it in a sandbox, repair it.

    Exit codes: 0 completed, 1 failed, 2 usage, 3 partial, 4 refused, 124 timeout, 130 interrupted.
    """

    async def job(found: Home) -> Exit:
        task = _task(request, file=file)
        changes = {
            "kind": kind,
            "models": model,
            "files": with_file,
            "allow_hosts": allow_host,
            "allow_cloud": allow_cloud or None,
            "timeout_s": timeout,
            "attempts_max": attempts,
            "seed": seed,
            "plan": False if no_plan else None,
        }
        task = _overridden(task, {key: value for key, value in changes.items() if value is not None})
        wishes = Wishes(
            task=task,
            base=file.parent if file and not with_file else Path(),
            json=json_lines,
            detach=detach,
            output=output,
            nats_url=nats_url,
            model_url=model_url,
            api_key=api_key,
        )
        return await run_once(found, wishes)

    raise typer.Exit(work(job, home=home))


def _task(request: str | None, *, file: Path | None) -> Task:
    if (request is None) == (file is None):
        raise UsageProblem('give either a request or --file: lumina run "..." | lumina run --file task.toml')
    return read_task(file) if file is not None else Task(request=request or "")


def _overridden(task: Task, changes: dict[str, object]) -> Task:
    try:
        return msgspec.convert({**msgspec.to_builtins(task), **changes}, Task)
    except msgspec.ValidationError as error:
        words, _, path = str(error).rpartition(" - at `$.")
        raise UsageProblem(f"{path.rstrip('`')}: {words[:1].lower()}{words[1:]}" if words else str(error)) from error


async def run_once(home: Home, wishes: Wishes) -> Exit:
    """Do one run from the request to the exit code."""
    request = check_request(wishes.task.request)
    check_kind(load_folders([home.specialists]), kind=wishes.task.kind)
    files = read_files(wishes.task.files, base=wishes.base)
    if wishes.detach and read_system(home) is None:
        raise UsageProblem("--detach needs a running system: start one with `lumina up --detach`")
    screen = Screen(console=err(), quiet=wishes.json)
    with screen.shown():
        node_file = session_node_file(home, wishes)
        try:
            plan = Plan(node_file=node_file, nats_url=wishes.nats_url)
            async with system(home, plan=plan, say=screen.starting) as place, bus(place, role="client") as connected:
                code, _ = await submit_and_follow(
                    place, connected, wishes=wishes, request=request, files=files, screen=screen
                )
                return code
        except BadConfiguration as error:
            if node_file is not None and not home.node_file.exists():
                option = "--model" if wishes.model_url is None else "--model-url"
                raise UsageProblem(f"{option}: {'; '.join(error.problems)}") from error
            raise
        finally:
            if node_file is not None:
                node_file.unlink(missing_ok=True)


async def submit_and_follow(
    place: Place, connected: Bus, *, wishes: Wishes, request: str, files: Mapping[str, bytes], screen: Screen
) -> tuple[Exit, StreamId]:
    """Submit a run and follow it to its end; with `detach`, only submit it. Returns the exit code and the run's id."""
    screen.starting("submitting")
    task = wishes.task
    offers = await offered(connected)
    options = RunOptions(
        attempts_max=task.attempts_max,
        tokens_max=task.tokens_max,
        timeout_ms=int(task.timeout_s * 1000),
        hosts=tuple(dict.fromkeys((*hosts_typed(request), *task.allow_hosts))),
        kind=task.kind,
        seed=task.seed,
        plan=task.plan,
        cloud=task.allow_cloud,
    )
    chosen = choose_models(offers, wanted=wanted_models(wishes), own=place.own)
    submission = await build_submission(
        request=request,
        options=options,
        models=permitted_models(chosen, allow_cloud=task.allow_cloud),
        specialists=specialists_of(place.home, kind=task.kind),
        files=files,
        cases=cases_of(task),
        blobs=connected.blobs,
    )
    run_id = new_run_id()
    await submit(submission, events=connected.events, run=run_id)
    if wishes.detach:
        if wishes.json:
            print_json(json.dumps({"run": run_id}).encode())
        else:
            out().print(run_id)
        return Exit.OK, run_id
    return await follow_to_end(connected, run=run_id, screen=screen, wishes=wishes), run_id


async def follow_to_end(
    connected: Bus, *, run: StreamId, screen: Screen, wishes: Wishes, watching: bool = False
) -> Exit:
    """Follow a run to its end, show its result, and return the exit code.

    Who only watches writes no files, and Ctrl-C leaves the run alone.
    """
    records: list[Recorded[Event]] = []

    def on_record(recorded: Recorded[Event]) -> None:
        records.append(recorded)
        screen.record(recorded)
        if wishes.json:
            print_json(event_line(recorded))

    closed = await follow_run(
        run,
        url=connected.url,
        events=connected.events,
        live=connected.live,
        on_record=on_record,
        on_chatter=lambda agent, payload: screen.chatter(agent, payload=payload),
        cancel_on_interrupt=not watching,
    )
    screen.hide()
    outcome = gather([*await shared_by(records, events=connected.events), *records])
    folder = wishes.output or Path("lumina-out") / run
    written = [] if watching else await write_files(outcome, blobs=connected.blobs, folder=folder)
    if not wishes.json:
        await show_result(outcome, blobs=connected.blobs, console=out(), written=written)
    assert isinstance(closed.event, RunClosed)
    return exit_of(closed.event.status)


async def offered(connected: Bus) -> tuple[ModelOffer, ...]:
    """Return what the node offers now."""
    announced = await connected.events.last(Filter(event=NodeAnnounced))
    if announced is None or not isinstance(announced.event, NodeAnnounced):
        raise SystemProblem("no node has announced its models: is a governor running? (`lumina ps`)")
    return announced.event.models


def choose_models(offers: Sequence[ModelOffer], *, wanted: Sequence[str], own: bool) -> tuple[ModelChoice, ...]:
    """Return the models that a run may use: those named, else the user's own, else the demo model."""
    by_name = {offer.model: offer for offer in offers}
    missing = [name for name in wanted if name not in by_name]
    if missing:
        hint = "" if own else "; add it to node.toml and restart `lumina up`, or stop the system with `lumina down`"
        raise UsageProblem(f"model {missing[0]!r} is not offered here; these are: {', '.join(by_name)}{hint}")
    names = wanted or [name for name in by_name if name != DEMO_MODEL] or list(by_name)
    return tuple(
        ModelChoice(
            model=name,
            context=by_name[name].context,
            plans=by_name[name].plans,
            bare=by_name[name].bare,
            cloud=by_name[name].cloud,
        )
        for name in names
    )


def permitted_models(chosen: Sequence[ModelChoice], *, allow_cloud: bool) -> tuple[ModelChoice, ...]:
    """Return the models that may be asked; those on machines of others are left out, and named, unless permitted.

    Raises:
        Refused: None is left.
    """
    away = [choice.model for choice in chosen if choice.cloud and not allow_cloud]
    if away and len(away) == len(chosen):
        names = ", ".join(away)
        raise Refused(f"your request would leave this machine for {names}; permit that with --allow-cloud")
    if away:
        said = f"left out, since they run on machines of others: {', '.join(away)} (--allow-cloud permits them)"
        err().print(said, style="yellow", markup=False, soft_wrap=True)
    return tuple(choice for choice in chosen if choice.model not in away)


def specialists_of(home: Home, *, kind: str | None) -> list[SpecialistFile]:
    """Return the usable specialists; a broken file is named on standard error and left out."""
    files = load_folders([home.specialists])
    for broken in files:
        if broken.definition is None:
            said = f"specialist {broken.origin} is left out: {'; '.join(broken.problems)}"
            err().print(said, style="yellow", markup=False, soft_wrap=True)
    check_kind(files, kind=kind)
    return [file for file in files if file.definition is not None]


def check_kind(files: Sequence[SpecialistFile], *, kind: str | None) -> None:
    """Raise UsageProblem when a kind is insisted on that no usable specialist has."""
    kinds = sorted({file.definition.kind for file in files if file.definition is not None})
    if kind is not None and kind not in kinds:
        raise UsageProblem(f"no specialist answers the kind {kind!r}; these do: {', '.join(kinds)}")


def wanted_models(wishes: Wishes) -> list[str]:
    """Return the names that the models of one call have among the offers."""
    if wishes.model_url is not None:
        return [_url_model_id(wishes)]
    return [Path(name).stem if is_model_file(name) else name for name in wishes.task.models]


def is_model_file(name: str) -> bool:
    """Return whether a model is named by its file."""
    return name.endswith(".gguf") or ("/" in name and Path(name).exists())


def _url_model_id(wishes: Wishes) -> str:
    host = urlsplit(wishes.model_url or "").netloc or "server"
    return (wishes.task.models or [host.replace("[", "").replace("]", "")])[0]


def session_node_file(home: Home, wishes: Wishes) -> Path | None:
    """Write the node configuration of this session: the home's, and the models that the options name.

    Returns None when the options name none. The models of a running system are its own.
    """
    tables = [
        {"id": Path(name).stem, "path": str(Path(name).expanduser().absolute())}
        for name in wishes.task.models
        if wishes.model_url is None and is_model_file(name)
    ]
    if wishes.model_url is not None:
        table = {"id": _url_model_id(wishes), "url": wishes.model_url}
        if wishes.api_key:
            table["api_key"] = f"${{{wishes.api_key}}}"
        tables.append(table)
    if not tables or read_system(home) is not None:
        return None
    home.ensure()
    base = home.node_file.read_text() if home.node_file.exists() else ""
    # A JSON string is a TOML basic string, so the tables can be written without a TOML library.
    added = "".join(
        "\n[[models]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()) for table in tables
    )
    path = home.root / f"session-{new_run_id()}.toml"
    path.write_text(base + "\n" + added)
    path.chmod(0o600)
    return path
