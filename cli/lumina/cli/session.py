"""Brings a system up for as long as a command needs one, or joins the one that runs already.

`lumina up` and `lumina run` start the same thing: the embedded NATS server, its streams and consumers, and the agents
as supervised processes.
"""

import fcntl
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TextIO

import anyio
import anyio.abc
import msgspec
import psutil
import structlog

from lumina.bus.address import find_running
from lumina.bus.errors import ServerFailed
from lumina.bus.server import embedded_server
from lumina.bus.subjects import Filter
from lumina.bus.topology import ensure_topology
from lumina.cli.errors import REPAIR, Damaged, SystemProblem, first_leaf
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.place import Place, bus
from lumina.cli.supervise import RESTARTS_MAX, Child, ChildSpec, Supervisor
from lumina.events.node import NodeAnnounced
from lumina.models.errors import ModelError
from lumina.models.llama_pool import LlamaPool
from lumina.models.node import load_config

READY_S_MAX = 30.0
DECIDED_PER_S_MIN = 2_000
"""Records that an agent decides again when it starts, on a slow machine: a long log takes its time."""
POLL_S = 0.05
ALONE_S = 4.0
"""A server that has no agents for longer is one that somebody keeps in order to read."""

log = structlog.get_logger(__name__)


class ChildRow(msgspec.Struct, frozen=True, kw_only=True):
    """One agent process in `system.json`."""

    name: str
    state: str
    pid: int
    restarts: int
    since: float
    reason: str = ""


class SystemFile(msgspec.Struct, frozen=True, kw_only=True):
    """`<home>/system.json`: what a supervisor has under it, for `ps` and `down`."""

    pid: int
    started: float
    url: str
    ready: bool = False
    children: tuple[ChildRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to start.

    Attributes:
        specialists: How many specialist processes.
        sync: Whether every write of the log is on the disk before it is acknowledged.
        node_file: Another node configuration than the home's.
        agents: None at all for a command that only reads.
        restarts_max: Of one process within a minute, before it is given up.
        nats_url: A server of somebody else's instead of the embedded one.
    """

    specialists: int = 1
    sync: Literal["always", "default"] = "always"
    node_file: Path | None = None
    agents: bool = True
    restarts_max: int = RESTARTS_MAX
    nats_url: str | None = None


def read_system(home: Home) -> SystemFile | None:
    """Return what the running supervisor wrote, None when none runs."""
    try:
        system = msgspec.json.decode(home.system_file.read_bytes(), type=SystemFile)
        process = psutil.Process(system.pid)
        alive = abs(process.create_time() - system.started) < 1.0
    except (FileNotFoundError, msgspec.MsgspecError, psutil.NoSuchProcess):
        return None
    return system if alive else None


def _write_system(home: Home, *, url: str, children: Sequence[Child], ready: bool) -> None:
    rows = tuple(
        ChildRow(
            name=child.spec.name,
            state=child.state,
            pid=child.pid,
            restarts=child.restarts,
            since=child.since,
            reason=child.reason,
        )
        for child in children
    )
    own = psutil.Process()
    system = SystemFile(pid=own.pid, started=own.create_time(), url=url, ready=ready, children=rows)
    new = home.system_file.with_suffix(f".{os.getpid()}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(system)))
    new.replace(home.system_file)


def child_specs(place: Place, plan: Plan) -> list[ChildSpec]:
    """Return the agent processes of a system."""
    specialists = [f"specialist-{number}" for number in range(1, plan.specialists + 1)]
    names = {
        "orchestrator": "orchestrator",
        "governor": "governor",
        **dict.fromkeys(specialists, "specialist"),
        "validator": "validator",
        "sandbox": "sandbox",
    }
    return [
        ChildSpec(
            name=name,
            command=agent_command(place, role=role, name=name, node_file=plan.node_file, parent=os.getpid()),
            log_file=place.home.logs / f"{name}.log",
        )
        for name, role in names.items()
    ]


def agent_command(
    place: Place, *, role: str, name: str, node_file: Path | None = None, parent: int = 0
) -> tuple[str, ...]:
    """Return the command line of one agent process."""
    command = [sys.executable, "-m", "lumina.cli.agent", role, "--url", place.url]
    command += ["--home", str(place.home.root), "--name", name]
    if node_file is not None:
        command += ["--node-file", str(node_file)]
    if parent:
        command += ["--parent", str(parent)]
    return tuple(command)


@asynccontextmanager
async def system(home: Home, *, plan: Plan, say: Callable[[str], None] = lambda _: None) -> AsyncIterator[Place]:
    """Join the running system, or start one for the time of the block.

    Raises:
        SystemProblem: It can't be started; the message says why and what to do.
        ServerFailed: The embedded server can't be started.
    """
    home.ensure()
    async with _ended_plainly(), AsyncExitStack() as stack:
        with home.start_file.open("a") as starts:  # one at a time finds out whether there is a system to join
            await _locked(starts, say=say)
            found = await _find(home, plan=plan, say=say)
            if found is not None:
                stack.enter_context(_joined(home))
            if isinstance(found, SystemFile):
                place = Place(home=home, url=found.url)
            else:  # A server alone is kept by somebody who only reads, as `lumina logs -f`.
                start = plan if found is None else replace(plan, nats_url=found)
                place, _ = await stack.enter_async_context(started(home, plan=start, say=say))
        yield place
        if found is None:
            await _others_gone(home, say=say)


@asynccontextmanager
async def _ended_plainly() -> AsyncIterator[None]:
    """Let a generator that reads the log end early: the task groups in the block would wrap what ends it."""
    try:
        yield
    except BaseExceptionGroup as group:
        _, reasons = group.split(GeneratorExit)
        if reasons is None:
            raise first_leaf(group) from None
        raise


async def _find(home: Home, *, plan: Plan, say: Callable[[str], None]) -> SystemFile | str | None:
    """Return the system that runs already, the address of a server without agents, or None.

    One that is just being started is waited for, and so is one that is just being stopped.
    """
    deadline = time.monotonic() + READY_S_MAX
    alone_s = time.monotonic() + ALONE_S
    while True:
        running = read_system(home)
        if running is not None and plan.nats_url not in {None, running.url}:
            return None
        if running is not None and (running.ready or not plan.agents or time.monotonic() > deadline):
            return running
        server = find_running(home.root) if plan.nats_url is None else None
        if running is None and server is None:
            return None
        if running is None and server is not None and (not plan.agents or time.monotonic() > alone_s):
            return server.url
        say("waiting for the system that another command starts or stops")
        await anyio.sleep(POLL_S)


@contextmanager
def _joined(home: Home) -> Iterator[None]:
    """Tell the owner of the running system that somebody else uses it."""
    with home.joined_file.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


async def _others_gone(home: Home, *, say: Callable[[str], None]) -> None:
    """Wait until nobody else uses the system that this command started, before it is taken down."""
    with home.joined_file.open("a") as file:
        await _locked(file, say=say)


async def _locked(file: TextIO, *, say: Callable[[str], None]) -> None:
    """Lock a file, for as long as it is open, as soon as nobody else has it locked."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that uses this system")
            await anyio.sleep(POLL_S)
        else:
            return


@asynccontextmanager
async def started(
    home: Home, *, plan: Plan, say: Callable[[str], None] = lambda _: None
) -> AsyncIterator[tuple[Place, Supervisor]]:
    """Start a system and stop it at the end of the block: agents first, then the server."""
    home.ensure()
    if plan.agents:
        load_config(plan.node_file or home.node_file, environ=os.environ)  # one clear sentence now, not five logs later
    async with anyio.create_task_group() as tasks:
        url = plan.nats_url
        if url is None:
            say("starting the embedded NATS server")
            url = await tasks.start(_keep_server, home, plan)
        place = Place(home=home, url=url, own=True)
        if plan.nats_url is not None:
            await ensure_topology(place.endpoint("admin"))
        async with _agents(place, plan=plan, say=say) as supervisor:
            yield place, supervisor
        tasks.cancel_scope.cancel()


async def _keep_server(home: Home, plan: Plan, *, task_status: anyio.abc.TaskStatus[str]) -> None:
    """Run the embedded server, and start it again on the same port when it dies; clients reconnect by themselves."""
    for attempt in range(plan.restarts_max + 1):
        async with embedded_server(home.root, sync=plan.sync, die_with_parent=True) as running:
            if attempt == 0:
                task_status.started(running.url)
            code = await running.wait()
            log.warning("server.died", exit_code=code, restarts=attempt)
    raise ServerFailed(
        f"the NATS server died {plan.restarts_max + 1} times; what it said is in {home.root / 'nats' / 'server.log'}"
    )


@asynccontextmanager
async def _agents(place: Place, *, plan: Plan, say: Callable[[str], None]) -> AsyncIterator[Supervisor]:
    specs = child_specs(place, plan) if plan.agents else []
    ready = False

    def changed(children: Sequence[Child]) -> None:
        _write_system(place.home, url=place.url, children=children, ready=ready)

    supervisor = Supervisor(specs, changed=changed, restarts_max=plan.restarts_max)
    if not specs:
        yield supervisor
        return
    since_ms = time.time_ns() // 1_000_000
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            say("starting the agents")
            await _wait_ready(place, supervisor, since_ms=since_ms)
            ready = True
            changed(supervisor.children)
            yield supervisor
            tasks.cancel_scope.cancel()
    finally:
        await _end_models(place.home)
        place.home.system_file.unlink(missing_ok=True)


async def _end_models(home: Home) -> None:
    """End the model processes, which otherwise wait a while for a specialist that is started again."""
    with anyio.CancelScope(shield=True):
        try:
            await LlamaPool(home.runtime).clear()
        except ModelError as error:
            log.warning("model.stays", reason=str(error))


async def _wait_ready(place: Place, supervisor: Supervisor, *, since_ms: int) -> None:
    """Wait until the governor has announced this node; give up when an agent is given up."""
    with anyio.move_on_after(READY_S_MAX) as waiting:
        async with bus(place, role="client") as connected:
            waiting.deadline += await connected.events.last_seq() / DECIDED_PER_S_MIN
            while True:
                announced = await connected.events.last(Filter(event=NodeAnnounced))
                if announced is not None and announced.time_ms >= since_ms:
                    return
                if supervisor.failed:
                    break
                await anyio.sleep(POLL_S)
    failed = supervisor.failed
    if failed:
        child = failed[0]
        if child.exit_code == Exit.DAMAGED:
            raise Damaged(child.said if REPAIR in child.said else f"{child.said}; {REPAIR}")
        raise SystemProblem(f"{child.spec.name} does not start: {child.reason} (log: {child.spec.log_file})")
    raise SystemProblem(f"the agents were not ready in time; their logs are in {place.home.logs}")
