"""The yardstick: nats-py as it comes, on the same server and with the same messages as the log holds."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RePublish, StoreCompression, StreamConfig
from tests.bench.figures import Figure, latency, percentile
from tests.bench.history import History
from tests.bench.stage import ROOT, served

from lumina.bus.startup import Sync
from lumina.cli.place import Place
from lumina.events.codec import encode
from lumina.events.record import to_headers

PART = "raw nats-py"
STREAM = "BENCH"
FETCH = 100
PENDING_MAX = 1_000


class Sent(NamedTuple):
    """A message as the log would hold it."""

    payload: bytes
    headers: dict[str, str]


class Yardstick(NamedTuple):
    """Medians in milliseconds: an awaited publish, and a hop of two of them with a pull in between."""

    publish_ms: float
    hop_ms: float


def messages() -> list[Sent]:
    """Return the messages of ten runs, with the headers of an append but for its expectations."""
    history = History()
    history.extend(130)
    return [
        Sent(encode(recorded.event), {**to_headers(recorded), "Nats-Msg-Id": recorded.id})
        for recorded in history.records
    ]


@asynccontextmanager
async def admin(place: Place) -> AsyncIterator[Client]:
    """Connect with nats-py alone."""
    endpoint = place.endpoint("admin")
    client = await nats.connect(endpoint.url, nkeys_seed_str=endpoint.seed, inbox_prefix=endpoint.inbox_prefix)
    try:
        yield client
    finally:
        await client.close()


async def measure(sync: Sync, *, count: int) -> tuple[list[Figure], Yardstick]:
    """Return the lines of the yardstick, and its medians."""
    sent = messages()
    size = sum(len(each.payload) for each in sent) // len(sent)
    async with served(sync) as place, admin(place) as client, admin(place) as other:
        js = client.jetstream(publish_async_max_pending=PENDING_MAX)
        # Like the log: compressed, republished, with direct gets.
        republish = RePublish(src="bench.>", dest="bench-tail.>")
        await js.add_stream(
            StreamConfig(
                name=STREAM,
                subjects=["bench.>"],
                allow_direct=True,
                compression=StoreCompression.S2,
                republish=republish,
            )
        )
        awaited = await _awaited(js, sent, count=count)
        fenced = await _fenced(js, sent, count=count)
        pipelined = await _pipelined(js, sent, count=count * 4)
        pulled = await _pulled(js, count=count * 4)
        hops = await _hops(client, other, sent=sent, count=count)
    raw = percentile(awaited, 0.5)
    note = f"{size} B body, 14 headers"
    return [
        latency(PART, "publish, awaited", samples=awaited, sync=sync, raw=raw, note=note),
        latency(PART, "publish behind an expected sequence", samples=fenced, sync=sync, raw=raw),
        Figure(part=PART, what="publish, pipelined", sync=sync, count=count * 4, per_s=pipelined),
        Figure(part=PART, what=f"pull {FETCH} at once and acknowledge", sync=sync, count=count * 4, per_s=pulled),
        latency(PART, "hop: publish, pull one, publish, hear it", samples=hops, sync=sync, raw=raw),
    ], Yardstick(raw, percentile(hops, 0.5))


async def _awaited(js: JetStreamContext, sent: Sequence[Sent], *, count: int) -> list[float]:
    samples = []
    for number in range(count):
        each = sent[number % len(sent)]
        headers = {**each.headers, "Nats-Msg-Id": f"a{number}"}
        started = time.perf_counter()
        await js.publish("bench.awaited", each.payload, headers=headers)
        samples.append((time.perf_counter() - started) * 1000)
    return samples


async def _fenced(js: JetStreamContext, sent: Sequence[Sent], *, count: int) -> list[float]:
    samples, last = [], 0
    for number in range(count):
        each = sent[number % len(sent)]
        headers = {**each.headers, "Nats-Msg-Id": f"f{number}", "Nats-Expected-Last-Subject-Sequence": str(last)}
        started = time.perf_counter()
        last = (await js.publish("bench.fenced", each.payload, headers=headers)).seq
        samples.append((time.perf_counter() - started) * 1000)
    return samples


async def _pipelined(js: JetStreamContext, sent: Sequence[Sent], *, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        each = sent[number % len(sent)]
        await js.publish_async("bench.pulled", each.payload, headers={**each.headers, "Nats-Msg-Id": f"p{number}"})
    await js.publish_async_completed()
    return count / (time.perf_counter() - started)


async def _pulled(js: JetStreamContext, *, count: int) -> float:
    pull = await js.pull_subscribe("bench.pulled", durable="pulled", stream=STREAM)
    got = 0
    started = time.perf_counter()
    while got < count:
        for message in await pull.fetch(FETCH, timeout=10):
            await message.ack()
            got += 1
    return got / (time.perf_counter() - started)


async def _hops(client: Client, other: Client, *, sent: Sequence[Sent], count: int) -> list[float]:
    """Let `other` answer what `client` publishes, and measure until `client` hears the answer."""
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    await client.subscribe("bench-tail.answer", cb=heard.put)
    await client.flush()
    js, its = client.jetstream(), other.jetstream()
    pull = await its.pull_subscribe("bench.question", durable="answers", stream=STREAM)

    async def answer() -> None:
        for number in range(count):
            (message,) = await pull.fetch(1, timeout=30)
            each = sent[number % len(sent)]
            await its.publish("bench.answer", each.payload, headers={**each.headers, "Nats-Msg-Id": f"x{number}"})
            await message.ack()

    samples = []
    task = asyncio.create_task(answer())
    for number in range(count):
        each = sent[number % len(sent)]
        started = time.perf_counter()
        await js.publish("bench.question", each.payload, headers={**each.headers, "Nats-Msg-Id": f"q{number}"})
        await heard.get()
        samples.append((time.perf_counter() - started) * 1000)
    await task
    return samples


def disk(*, count: int) -> Figure:
    """Return how long this disk takes to make 2 kB safe, which is what `always` pays for every write."""
    samples = []
    with tempfile.TemporaryFile(dir=ROOT / ".cache") as file:
        for _ in range(count):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(2_048))
            os.fdatasync(file.fileno())
            samples.append((time.perf_counter() - started) * 1000)
    return latency("disk", "write 2 kB and fdatasync", samples=samples)
