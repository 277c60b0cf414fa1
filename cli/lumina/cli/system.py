"""`lumina up`, `down`, `ps` and `agent`: the system as processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import anyio
import msgspec
import psutil
import typer
from rich.table import Table

from lumina.bus.address import find_running
from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, table_out, work
from lumina.cli.errors import Damaged, SystemProblem, UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.place import AGENTS, Place
from lumina.cli.session import Plan, SystemFile, agent_command, read_system, started
from lumina.cli.supervise import last_line
from lumina.models.node import load_config

DETACH_S_MAX = 40.0
DOWN_S_MAX = 30.0
POLL_S = 0.1


@app.command()
def up(
    specialists: Annotated[int, typer.Option(min=1, max=32, help="How many specialist processes share the work.")] = 1,
    sync: Annotated[str, typer.Option(help="always: a power cut loses nothing. default: up to 2 minutes.")] = "always",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    nats_url: Annotated[str | None, typer.Option(envvar="LUMINA_NATS_URL", help="Use this NATS server.")] = None,
    home: HomeOption = None,
) -> None:
    """Start the system: NATS server and all agents, supervised; stop it with Ctrl-C or `lumina down`."""

    async def job(found: Home) -> Exit:
        _refuse_second(found)
        if sync not in {"always", "default"}:
            raise UsageProblem(f"--sync is always or default, not {sync!r}")
        load_config(found.node_file, environ=os.environ)
        if detach:
            return await _up_in_background(found)
        mode: Literal["always", "default"] = "always" if sync == "always" else "default"
        return await _up(found, plan=Plan(specialists=specialists, sync=mode, nats_url=nats_url))

    raise typer.Exit(work(job, home=home))


def _refuse_second(home: Home) -> None:
    running = read_system(home)
    if running is not None:
        raise SystemProblem(
            f"a system runs on {home.root} already (process {running.pid}): use it, or stop it with `lumina down`"
        )


async def _up(home: Home, *, plan: Plan) -> Exit:
    console = err()
    async with started(home, plan=plan, say=lambda words: console.print(words, style="dim")) as (place, supervisor):
        names = ", ".join(child.spec.name for child in supervisor.children)
        console.print(
            f"up: {names} on {place.url}, data in {home.root}; stop with Ctrl-C or `lumina down`", soft_wrap=True
        )
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        console.print("stopping", style="dim")
    return Exit.OK


async def _up_in_background(home: Home) -> Exit:
    """Start this very command again without --detach, in a session of its own, and wait until it is up."""
    home.ensure()
    log_file = home.logs / "up.log"
    command = [sys.executable, "-m", "lumina.cli", *[one for one in sys.argv[1:] if one not in {"--detach", "-d"}]]
    with log_file.open("ab") as stderr:
        process = subprocess.Popen(  # noqa: ASYNC220 - it is left running, nothing waits for it
            command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True
        )
    deadline = time.monotonic() + DETACH_S_MAX
    while time.monotonic() < deadline:
        system = read_system(home)
        if system is not None and system.ready:
            out().print(f"up: process {system.pid}, {system.url}", soft_wrap=True)
            return Exit.OK
        if process.poll() is not None:
            break
        await anyio.sleep(POLL_S)
    if process.poll() is None:
        process.terminate()  # nobody would know of it
    said = last_line(log_file).removeprefix("lumina: ")
    if process.returncode == Exit.DAMAGED:
        raise Damaged(said)
    where = "" if "(log: " in said else f" (log: {log_file})"
    raise SystemProblem(f"it did not come up: {said or 'it said nothing'}{where}")


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop the running system: agents first, then the NATS server."""

    async def job(found: Home) -> Exit:
        running = read_system(found)
        if running is None:
            out().print("nothing runs")
            return Exit.OK
        os.kill(running.pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_S_MAX
        while read_system(found) is not None or find_running(found.root) is not None:
            if time.monotonic() > deadline:
                raise SystemProblem(f"process {running.pid} does not stop after {DOWN_S_MAX:.0f} s: `lumina ps`")
            await anyio.sleep(POLL_S)
        out().print("down")
        return Exit.OK

    raise typer.Exit(work(job, home=home))


@app.command()
def ps(json_lines: JsonOption = False, home: HomeOption = None) -> None:
    """Show the processes of the running system."""

    async def job(found: Home) -> Exit:
        await anyio.lowlevel.checkpoint()
        running = read_system(found)
        if running is None:
            if json_lines:
                print_json(b"null")
            else:
                out().print("nothing runs; start it with `lumina up`")
            return Exit.OK
        if json_lines:
            print_json(msgspec.json.encode(running))
        else:
            table_out(_ps_table(running))
        return Exit.OK

    raise typer.Exit(work(job, home=home))


def _ps_table(running: SystemFile) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "STATE", "PID", "RESTARTS", "FOR", "MEMORY", "REASON"):
        table.add_column(heading, overflow="fold")
    for child in running.children:
        seconds = max(0, int(time.time() - child.since))
        table.add_row(
            child.name,
            child.state,
            str(child.pid or "-"),
            str(child.restarts),
            f"{seconds} s",
            _memory(child.pid),
            child.reason,
        )
    return table


def _memory(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).memory_info().rss / 2**20:.0f} MiB" if pid else "-"
    except psutil.NoSuchProcess:
        return "-"


@app.command()
def agent(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(AGENTS)}.")],
    name: Annotated[str | None, typer.Option(help="For its log; several instances of one role may run.")] = None,
    nats_url: Annotated[str | None, typer.Option(envvar="LUMINA_NATS_URL", help="Use this NATS server.")] = None,
    node_file: Annotated[Path | None, typer.Option(help="Another node configuration.")] = None,
    home: HomeOption = None,
) -> None:
    """Run one agent alone, joined to the running system, until Ctrl-C."""

    async def job(found: Home) -> tuple[str, ...]:
        await anyio.lowlevel.checkpoint()
        if role not in AGENTS:
            raise UsageProblem(f"there is no agent {role!r}; there are: {', '.join(AGENTS)}")
        url = nats_url
        if url is None:
            running = find_running(found.root)
            if running is None:
                raise SystemProblem(f"no NATS server runs on {found.root}: start `lumina up`, or give --nats-url")
            url = running.url
        return agent_command(Place(home=found, url=url), role=role, name=name or role, node_file=node_file)

    command = work(job, home=home)
    os.execv(command[0], command)
