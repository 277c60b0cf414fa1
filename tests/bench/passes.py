"""How fast logs of growing length are read, verified, folded and decided again."""

import sys
from collections.abc import Sequence

import anyio
import msgspec
from tests.bench.figures import Figure
from tests.bench.history import History
from tests.bench.raw import PENDING_MAX, admin
from tests.bench.reading import READERS, Pass
from tests.bench.stage import ROOT, served

from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.nats_transport import connect
from lumina.bus.subjects import subject_of
from lumina.cli.place import Place, bus
from lumina.events.codec import encode
from lumina.events.record import to_headers

PART = "whole log"
BLOBS_AT_ONCE = 32
WORDS = {
    "read": "read and check",
    "verify": "verify, with invariants",
    "fold": "fold into the store",
    "orchestrator": "recover the orchestrator",
    "governor": "recover the governor",
}


async def measure(sizes: Sequence[int]) -> list[Figure]:
    """Return the rates on logs of these sizes."""
    history, stored = History(), 0
    figures: list[Figure] = []
    async with served("default") as place:
        for size in sizes:
            known = set(history.blobs) if stored else set()
            history.extend(size)
            await _store(place, history, after=stored, known=known)
            stored = len(history.records)
            figures += [_figure(what, await _pass(place, what=what)) for what in READERS]
    return figures


def _figure(what: str, done: Pass) -> Figure:
    memory = f"+{done.memory_bytes / 2**20:.0f} MiB, {done.seconds:.2f} s"
    per_cpu_s = f"{done.events / done.cpu_s:,.0f} per CPU s"
    return Figure(
        part=PART, what=WORDS[what], count=done.events, per_s=done.events / done.seconds, note=f"{memory}, {per_cpu_s}"
    )


async def _pass(place: Place, *, what: str) -> Pass:
    command = [sys.executable, "-m", "tests.bench.reading", what, "--url", place.url, "--home", str(place.home.root)]
    done = await anyio.run_process(command, cwd=ROOT, stderr=None)
    return msgspec.json.decode(done.stdout, type=Pass)


async def _store(place: Place, history: History, *, after: int, known: set[str]) -> None:
    """Bring what is new into the server as it is; the log's records are not awaited one by one."""
    async with connect(place.endpoint("admin")) as transport:
        blobs = JetStreamBlobs(transport)
        contents = iter([content for digest, content in history.blobs.items() if digest not in known])

        async def put() -> None:
            for content in contents:
                await blobs.put(content)

        async with anyio.create_task_group() as tasks:
            for _ in range(BLOBS_AT_ONCE):
                tasks.start_soon(put)
    async with admin(place) as client:
        js = client.jetstream(publish_async_max_pending=PENDING_MAX)
        acks = []
        for recorded in history.records[after:]:
            subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
            acks.append(await js.publish_async(subject, encode(recorded.event), headers=to_headers(recorded)))
        for ack in acks:
            await ack
    async with bus(place, role="client") as connected:
        stored = await connected.events.last_seq()
        assert stored == len(history.records), f"{stored} of {len(history.records)} records were stored"
