"""How fast logs of growing length are read, verified, folded and decided again, and with how much memory."""

import sys
from collections.abc import Sequence

import anyio
import msgspec
from tests.bench.figures import Figure, percentile
from tests.bench.history import Fresh, History
from tests.bench.raw import PENDING_MAX, admin
from tests.bench.reading import Pass
from tests.bench.stage import ROOT, served
from tests.bench.streaming import PASSES

from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.nats_transport import connect
from lumina.bus.subjects import subject_of
from lumina.cli.place import Place, bus
from lumina.events.codec import encode
from lumina.events.record import to_headers

PART = "whole log"
YARDSTICK = "1,000 events, OpenHands' yardstick"
CHUNK_EVENTS = 20_000
BLOBS_AT_ONCE = 32
REPETITIONS = 15
WORDS = {
    "read": "read and check",
    "verify": "verify",
    "invariants": "verify, with invariants",
    "state": "read, check and fold to the state",
    "fold": "fold into the store",
    "orchestrator": "recover the orchestrator",
    "governor": "recover the governor",
}
THEIRS_MS = {"replay": 29.49, "recovery": 57.50}
"""Published for 1,000 events: reference/peers.md section 4, from their `scripts/event_sourcing_benchmarks`."""


async def measure(sizes: Sequence[int]) -> list[Figure]:
    """Return the rates on logs of these sizes, and what 1,000 events take beside published figures."""
    history = History()
    figures: list[Figure] = []
    async with served("default") as place:
        for size in sizes:
            while history.events < size:
                history.extend(min(size, history.events + CHUNK_EVENTS))
                await _store(place, history.drain(), events=history.events)
            if size == min(sizes):
                figures += await _yardstick(place)
            for what, words in WORDS.items():
                sys.stderr.write(f"bench: {size:,} events: {words}\n")
                (done,) = await _passes(place, what=what)
                figures.append(_figure(words, done))
    return figures


async def measure_alone(sizes: Sequence[int]) -> list[Figure]:
    """Return the rates without a server: bytes in memory are read with all checks, and what is over is forgotten."""
    figures: list[Figure] = []
    for size in sizes:
        for what, words in WORDS.items():
            if what not in PASSES:
                continue
            sys.stderr.write(f"bench: {size:,} events without a server: {words}\n")
            (done,) = await _alone(what, events=size)
            figures.append(_figure(words, done, part=f"{PART}, no server"))
    return figures


async def _yardstick(place: Place) -> list[Figure]:
    """Return how long the shortest log takes in a process that has read it once, beside what others publish."""
    lines = []
    for what, ours, words in (
        ("replay", "state", "replay: read, check and fold to the state"),
        ("recovery", "orchestrator", "recovery: start a keeper, which decides all again"),
    ):
        lines.append(Figure(part=YARDSTICK, what=f"{what}, theirs", p50_ms=THEIRS_MS[what], note="published, theirs"))
        for done, where in (
            (await _alone(ours, events=1_000, repeat=REPETITIONS), "from memory; processor time"),
            (await _passes(place, what=ours, repeat=REPETITIONS), "from a NATS server"),
        ):
            samples = [1000 * each.seconds * 1000 / each.events for each in done]
            cpu_ms = percentile([1000 * each.cpu_s * 1000 / each.events for each in done], 0.5)
            lines.append(
                Figure(
                    part=YARDSTICK,
                    what=words,
                    count=len(samples),
                    p50_ms=percentile(samples, 0.5),
                    p99_ms=percentile(samples, 0.99),
                    note=f"{where}; best {min(samples):.1f} ms, median processor time {cpu_ms:.1f} ms",
                )
            )
    return lines


async def _alone(what: str, *, events: int, repeat: int = 1) -> list[Pass]:
    command = [sys.executable, "-m", "tests.bench.streaming", what, str(events), "--repeat", str(repeat)]
    done = await anyio.run_process(command, cwd=ROOT, stderr=None)
    return msgspec.json.decode(done.stdout, type=list[Pass])


def _figure(words: str, done: Pass, *, part: str = PART) -> Figure:
    memory = f"+{done.memory_bytes / 2**20:.0f} MiB, {done.seconds:.2f} s"
    per_cpu_s = f"{done.events / done.cpu_s:,.0f} per CPU s"
    return Figure(
        part=part, what=words, count=done.events, per_s=done.events / done.seconds, note=f"{memory}, {per_cpu_s}"
    )


async def _passes(place: Place, *, what: str, repeat: int = 1) -> list[Pass]:
    where = ("--url", place.url, "--home", str(place.home.root))
    command = [sys.executable, "-m", "tests.bench.reading", what, *where, "--repeat", str(repeat)]
    done = await anyio.run_process(command, cwd=ROOT, stderr=None)
    return msgspec.json.decode(done.stdout, type=list[Pass])


async def _store(place: Place, fresh: Fresh, *, events: int) -> None:
    """Bring what is new into the server as it is; the log's records are not awaited one by one."""
    async with connect(place.endpoint("admin")) as transport:
        blobs = JetStreamBlobs(transport)
        contents = iter(fresh.blobs.values())

        async def put() -> None:
            for content in contents:
                await blobs.put(content)

        async with anyio.create_task_group() as tasks:
            for _ in range(BLOBS_AT_ONCE):
                tasks.start_soon(put)
    async with admin(place) as client:
        js = client.jetstream(publish_async_max_pending=PENDING_MAX)
        acks = []
        for recorded in fresh.records:
            subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
            acks.append(await js.publish_async(subject, encode(recorded.event), headers=to_headers(recorded)))
        for ack in acks:
            await ack
    async with bus(place, role="client") as connected:
        stored = await connected.events.last_seq()
        assert stored == events, f"{stored} of {events} records were stored"
