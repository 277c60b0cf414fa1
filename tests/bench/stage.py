"""A system to measure: an embedded server in a fresh folder, and agents as processes of their own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import msgspec
import nats
import psutil
from tests.bench.canned import NODE_FILE

from lumina.bus.address import Running, find_running
from lumina.bus.server import embedded_server
from lumina.bus.startup import Sync
from lumina.bus.subjects import Filter
from lumina.cli.home import Home
from lumina.cli.place import Place, bus
from lumina.cli.session import agent_command
from lumina.events.node import NodeAnnounced

ROOT = Path(__file__).resolve().parents[2]
KEEPERS = ("orchestrator", "governor")
WORKERS = ("specialist", "validator", "sandbox")
READY_S_MAX = 60.0
STOP_S_MAX = 10.0


@contextmanager
def fresh_home() -> Iterator[Home]:
    """Make a data folder for the time of the block, on the disk of the checkout: a RAM disk would flatter fsync."""
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache, ignore_cleanup_errors=True) as folder:
        home = Home(root=Path(folder))
        home.ensure()
        home.node_file.write_text(NODE_FILE)
        yield home


@asynccontextmanager
async def served(sync: Sync) -> AsyncIterator[Place]:
    """Run a server with a fresh log, and no agents."""
    with fresh_home() as home:
        async with embedded_server(home.root, sync=sync, die_with_parent=True) as server:
            yield Place(home=home, url=server.url, own=True)


class Clock:
    """Reads how much processor time the agents and the server have had."""

    def __init__(self, roles: Sequence[str], *, pids: Sequence[int], server: Running | None) -> None:
        assert server is not None, "the server runs"
        self._processes = {role: psutil.Process(pid) for role, pid in zip(roles, pids, strict=True)}
        self._processes["nats-server"] = psutil.Process(server.pid)

    def cpu_ms(self) -> dict[str, float]:
        """Return milliseconds by process, user and system together, since each started."""
        read = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: (times.user + times.system) * 1000 for name, times in read.items()}


async def messages(place: Place) -> int:
    """Return how many messages the server has received and sent."""
    endpoint = place.endpoint("system")
    client = await nats.connect(endpoint.url, nkeys_seed_str=endpoint.seed)
    try:
        answer = await client.request("$SYS.REQ.SERVER.PING.STATSZ", timeout=5)
    finally:
        await client.close()
    facts = msgspec.json.decode(answer.data, type=_Answer).statsz
    return facts.received.msgs + facts.sent.msgs


class _Count(msgspec.Struct):
    msgs: int


class _Facts(msgspec.Struct):
    sent: _Count
    received: _Count


class _Answer(msgspec.Struct):
    statsz: _Facts


@contextmanager
def processes(place: Place, roles: Sequence[str]) -> Iterator["Clock"]:
    """Run agents for the time of the block: keepers as they are, workers with instant effects."""
    started = [_process(place, role) for role in roles]
    try:
        yield Clock(roles, pids=[process.pid for process in started], server=find_running(place.home.root))
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(STOP_S_MAX)


def _process(place: Place, role: str) -> subprocess.Popen[bytes]:
    if role in KEEPERS:
        command = agent_command(place, role=role, name=role, parent=os.getpid())
    else:
        where = ("--url", place.url, "--home", str(place.home.root), "--parent", str(os.getpid()))
        command = (sys.executable, "-m", "tests.bench.instant", role, *where)
    with (place.home.logs / f"{role}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


async def wait_announced(place: Place) -> None:
    """Wait until the governor has announced the node."""
    with anyio.fail_after(READY_S_MAX):
        async with (
            bus(place, role="client") as connected,
            aclosing(connected.events.follow((Filter(event=NodeAnnounced),))) as records,
        ):
            await anext(records)
