"""The faults for which a server must run: whoever has the admin's key, or writes past Lumina, changes what is there.

Here the server's own checksums are right. What remains is what Lumina checks: digests, chains, the root of a run, the
subject, that the same decisions come out, and the checkpoints.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final

import anyio
import msgspec
from tests.faults.kinds import Fault
from tests.faults.store import Store, written_history

from lumina.bus.jetstream import JetStreamLog
from lumina.bus.nats_transport import connect
from lumina.bus.server import embedded_server
from lumina.bus.subjects import BLOB_STREAM, LOG_STREAM, subject_of
from lumina.bus.transport import Transport
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.execution import ExecutionFinished
from lumina.events.generation import GenerationFinished
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import (
    NO_DIGEST,
    Draft,
    Head,
    Recorded,
    chain,
    chain_digest,
    fields_digest,
    sealed_from,
    to_headers,
)
from lumina.events.run import RunClosed, RunSubmitted
from lumina.events.step import StepAccepted
from lumina.events.timer import TimerElapsed

API: Final = "$JS.API"
EXPIRED_S: Final = 1.5

Change = Callable[[Transport], Awaitable[None]]


async def _served(store: Store, change: Change) -> None:
    """Have the admin do something on a running server."""
    async with (
        embedded_server(store.root, die_with_parent=True) as server,
        connect(server.endpoint("admin")) as transport,
    ):
        await change(transport)


async def _call(transport: Transport, call: str, **body: Any) -> dict[str, Any]:
    answer = await transport.request(f"{API}.{call}", payload=msgspec.json.encode(body) if body else b"")
    said: dict[str, Any] = msgspec.json.decode(answer.payload)
    assert "error" not in said, said
    return said


async def _publish(
    transport: Transport,
    recorded: Recorded[Event],
    *,
    body: bytes,
    agent: str = "",
    headers: dict[str, str] | None = None,
) -> None:
    subject = subject_of(recorded.event, stream=recorded.stream, agent=agent or recorded.agent)
    await transport.request(subject, payload=body, headers=headers or to_headers(recorded))


def _draft(recorded: Recorded[Event], *, event: Event | None = None, name: str = "") -> Draft[Event]:
    return Draft(
        event=event or recorded.event,
        id=root_event_id(recorded.stream, name=name) if name else recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        time_ms=recorded.time_ms,
        causation=recorded.causation,
    )


def _last(records: Sequence[Recorded[Event]], kind: type[Event]) -> Recorded[Event]:
    return next(each for each in reversed(records) if isinstance(each.event, kind))


def appended() -> Iterator[Fault]:
    """Yield records that somebody added at the end, each wrong in one way only."""
    records = written_history().records
    closed, accepted, ran = (_last(records, kind) for kind in (RunClosed, StepAccepted, ExecutionFinished))
    head = Head(seq=closed.seq, position=closed.position, digest=closed.digest)
    further, body = chain(_draft(accepted, name="forged"), after=head)
    cases: dict[str, tuple[Recorded[Event], bytes, str]] = {
        "names another predecessor": (*chain(_draft(accepted, name="f"), after=_moved(head, digest="1" * 64)), ""),
        "leaves out a position": (*chain(_draft(accepted, name="f"), after=_moved(head, position=99)), ""),
        "begins a chain that is there": (*chain(_draft(accepted, name="f"), after=Head()), ""),
        "stands there already": (ran, encode(ran.event), ""),
        "speaks in another's name": (further, body, "governor"),
        "has another digest": (msgspec.structs.replace(further, digest="2" * 64), body, ""),
        "has other bytes": (further, body.replace(b"step", b"stop"), ""),
        "is whole, behind the end of its run": (further, body, ""),
    }
    for name, (forged, content, agent) in cases.items():

        def change(store: Store, forged: Recorded[Event] = forged, content: bytes = content, agent: str = agent) -> Any:
            return _served(store, lambda transport: _publish(transport, forged, body=content, agent=agent))

        yield Fault(kind="forged record at the end", name=name, store="small", inject=change)


def misdescribed() -> Iterator[Fault]:
    """Yield a sound timer at the end, which would be believed, with another envelope around it."""
    records = written_history().records
    run = _last(records, RunClosed).stream
    slot = root_event_id(run, name="timer/forged/1")
    event, time_ms = TimerElapsed(timer="forged", due=1), records[-1].time_ms
    clock = [each for each in records if (each.stream, each.agent) == (run, "clock")]
    after = Head(position=clock[-1].position, digest=clock[-1].digest) if clock else Head()
    draft = Draft(event=event, id=slot, stream=run, agent="clock", time_ms=time_ms, causation=None)
    sound, body = chain(draft, after=after)
    other = msgspec.structs.replace(sound, fields=fields_digest(encode(TimerElapsed(timer="forged", due=2))))
    other = msgspec.structs.replace(other, digest=_digest_of(other))
    cases = {
        "another correlation": {**to_headers(sound), "ce-correlationid": "r-other"},
        "another notation of its place": {**to_headers(sound), "ce-luminaposition": f"+{sound.position}"},
        "an attribute more": {**to_headers(sound), "ce-luminanote": "believe me"},
        "no trace": {name: text for name, text in to_headers(sound).items() if name != "ce-traceparent"},
        "the fields of another body": to_headers(other),
    }
    for name, headers in cases.items():

        def change(store: Store, headers: dict[str, str] = headers) -> Any:
            return _served(store, lambda transport: _publish(transport, sound, body=body, headers=headers))

        yield Fault(kind="forged envelope", name=name, store="small", inject=change)


def _digest_of(recorded: Recorded[Event]) -> str:
    return chain_digest(sealed_from(to_headers(recorded), seq=0))


def _moved(head: Head, *, position: int | None = None, digest: str | None = None) -> Head:
    return Head(seq=head.seq, position=position or head.position, digest=digest or head.digest)


def rewritten() -> Iterator[Fault]:
    """Yield logs written anew with one other record, and more or less of what follows made to fit."""
    records = written_history().records
    victims: dict[str, tuple[Recorded[Event], dict[str, Any]]] = {
        "an outcome": (_last(records[:200], ExecutionFinished), {"wall_ms": 77}),
        "a decision": (_last(records[:200], StepAccepted), {"attempt": 2}),
        "a model's words": (_last(records[:200], GenerationFinished), {"effect": NO_DIGEST}),
        "a request": (_last(records[:200], RunSubmitted), {"request": "Write a Python function called sub."}),
    }
    for name, (victim, fields) in victims.items():
        event = msgspec.structs.replace(victim.event, **fields)
        for how, depth in (("alone", 0), ("with its chain", 1), ("with its chain and the root of its run", 2)):
            changed = _rewrite(records, seq=victim.seq, event=event, depth=depth)

            def inject(store: Store, changed: Sequence[Recorded[Event]] = changed) -> Any:
                return _served(store, lambda transport: _write_anew(transport, changed))

            yield Fault(kind="rewritten history", name=f"{name}, {how}", store="small", inject=inject)


def _rewrite(records: Sequence[Recorded[Event]], *, seq: int, event: Event, depth: int) -> list[Recorded[Event]]:
    """Return the records with another event at `seq`; 1: its chain fits again; 2: the end of its run, too."""
    run = records[seq - 1].stream
    heads: dict[tuple[str, str], Head] = {}
    changed: list[Recorded[Event]] = []
    for recorded in records:
        key = (recorded.stream, recorded.agent)
        written = recorded
        if recorded.seq == seq:
            written = _again(recorded, event=event, after=heads.get(key, Head()))
        elif recorded.stream == run and recorded.seq > seq and depth:
            now = recorded.event
            if isinstance(now, RunClosed) and depth == 2:
                now = _closed(now, changed=changed, run=run)
            written = _again(recorded, event=now, after=heads[key] if key in heads else Head())
        heads[key] = Head(seq=recorded.seq, position=written.position, digest=written.digest)
        changed.append(written)
    return changed


def _again(recorded: Recorded[Event], *, event: Event, after: Head) -> Recorded[Event]:
    written, _ = chain(_draft(recorded, event=event), after=after)
    return msgspec.structs.replace(written, seq=recorded.seq)


def _closed(closed: RunClosed, *, changed: Sequence[Recorded[Event]], run: StreamId) -> RunClosed:
    digests: dict[str, list[str]] = {}
    for recorded in changed:
        if recorded.stream == run:
            digests.setdefault(recorded.agent, []).append(recorded.digest)
    chains = tuple(
        msgspec.structs.replace(head, digest=digests[head.agent][head.count - 1] if head.count else head.digest)
        for head in closed.chains
    )
    root = sha256("".join(f"{head.agent} {head.count} {head.digest}\n" for head in chains).encode()).hexdigest()
    return msgspec.structs.replace(closed, chains=chains, root=root)


async def _write_anew(transport: Transport, records: Sequence[Recorded[Event]]) -> None:
    """Replace the whole log; the id stays."""
    config = (await _call(transport, f"STREAM.INFO.{LOG_STREAM}"))["config"]
    await _call(transport, f"STREAM.DELETE.{LOG_STREAM}")
    config["metadata"] = {name: value for name, value in config["metadata"].items() if not name.startswith("_nats")}
    await _call(transport, f"STREAM.CREATE.{LOG_STREAM}", **config)
    for recorded in records:
        await _publish(transport, recorded, body=encode(recorded.event))


def administered() -> Iterator[Fault]:
    """Yield what an administrator can do to streams."""

    def update(stream: str, **settings: Any) -> Change:
        async def change(transport: Transport) -> None:
            config = (await _call(transport, f"STREAM.INFO.{stream}"))["config"]
            await _call(transport, f"STREAM.UPDATE.{stream}", **(config | settings))

        return change

    async def expire(transport: Transport) -> None:
        config = (await _call(transport, f"STREAM.INFO.{LOG_STREAM}"))["config"]
        short = {"max_age": 100_000_000, "duplicate_window": 100_000_000}
        await _call(transport, f"STREAM.UPDATE.{LOG_STREAM}", **(config | short))
        await anyio.sleep(EXPIRED_S)
        await _call(transport, f"STREAM.UPDATE.{LOG_STREAM}", **config)

    def say(call: str, **body: Any) -> Change:
        async def change(transport: Transport) -> None:
            await _call(transport, call, **body)

        return change

    async def anew(transport: Transport) -> None:
        await _write_anew(transport, [])

    async def add_chunk(transport: Transport) -> None:
        blob = next(iter(written_history().blobs))
        await transport.request(f"$O.LUMINA_BLOBS.C.{blob}", payload=b"more")

    cases = [
        ("loosened settings", "age limit of the log", update(LOG_STREAM, max_age=10**18)),
        ("loosened settings", "count limit of the log", update(LOG_STREAM, max_msgs=10_000)),
        ("loosened settings", "age limit of the blobs", update(BLOB_STREAM, max_age=10**18)),
        ("records expired", "all, settings put back", expire),
        ("deleted stream", "the log", say(f"STREAM.DELETE.{LOG_STREAM}")),
        ("deleted stream", "the log, made anew with its id", anew),
        ("deleted stream", "the blobs", say(f"STREAM.DELETE.{BLOB_STREAM}")),
        ("purged blobs", "all", say(f"STREAM.PURGE.{BLOB_STREAM}")),
        ("purged blobs", "but 20", say(f"STREAM.PURGE.{BLOB_STREAM}", keep=20)),
        ("purged blobs", "one message", say(f"STREAM.MSG.DELETE.{BLOB_STREAM}", seq=3)),
        ("changed blob", "another chunk", add_chunk),
    ]
    for kind, name, change in cases:

        def inject(store: Store, change: Change = change) -> Any:
            return _served(store, change)

        yield Fault(kind=kind, name=name, store="small", inject=inject)


def written_on(old_copy: Fault) -> Fault:
    """Return the fault after which somebody, past the gate, writes to an old copy until it is as long again."""

    async def write_on(transport: Transport) -> None:
        log = JetStreamLog(transport)
        run = StreamId("r-another")
        while await log.last_seq() < len(written_history().records) + 3:
            due = await log.last_seq()
            slot = root_event_id(run, name=f"timer/other/{due}")
            event = TimerElapsed(timer="other", due=due)
            await log.append(Draft(event=event, id=slot, stream=run, agent="clock", time_ms=due, causation=None))

    async def inject(store: Store) -> None:
        old_copy.inject(store)
        await _served(store, write_on)

    return Fault(kind="old copy", name="all files, then written on", store="small", inject=inject)
