"""Submits a run and follows it to its end. Ctrl-C becomes a fact on the log before anything is torn down."""

import base64
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

import anyio

from lumina.agents.specialist_files import MEDIA_TYPE, to_ref
from lumina.agents.specialist_folders import SpecialistFile
from lumina.bus.log import Blobs, EventLog, Live
from lumina.bus.subjects import Filter, live_agent, live_filter
from lumina.cli.outage import end_when_away
from lumina.events.base import Event
from lumina.events.contract import Case
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Recorded
from lumina.events.run import ModelChoice, RunCancelRequested, RunClosed, RunOptions, RunSubmitted, SpecialistRef
from lumina.events.values import BlobRef, FileRef

CANCEL_WAIT_S = 5.0


def new_run_id() -> StreamId:
    """Return a fresh run id: `r-` and 80 random bits in base 32, lower case."""
    return StreamId("r-" + base64.b32encode(os.urandom(10)).decode().lower())


def now_ms() -> int:
    """Return milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


async def store(content: bytes, *, blobs: Blobs, media_type: str) -> BlobRef:
    """Put a blob and return its reference."""
    return BlobRef(digest=await blobs.put(content), size=len(content), media_type=media_type)


async def specialist_refs(files: Sequence[SpecialistFile], *, blobs: Blobs) -> tuple[SpecialistRef, ...]:
    """Store the definitions of all usable specialists and return what a run knows of them."""
    return tuple(
        [
            to_ref(file.definition, blob=await store(file.content, blobs=blobs, media_type=MEDIA_TYPE))
            for file in files
            if file.definition is not None
        ]
    )


async def submit(event: RunSubmitted, *, events: EventLog, run: StreamId) -> Recorded[Event]:
    """Append `run.submitted` and return its record."""
    return await events.append(
        Draft(
            event=event,
            id=root_event_id(run, name="run.submitted"),
            stream=run,
            agent="client",
            time_ms=now_ms(),
            causation=None,
        )
    )


async def build_submission(
    *,
    request: str,
    options: RunOptions,
    models: tuple[ModelChoice, ...],
    specialists: Sequence[SpecialistFile],
    files: Mapping[str, bytes],
    cases: tuple[Case, ...],
    blobs: Blobs,
) -> RunSubmitted:
    """Return the event that asks for work, after its blobs are stored."""
    return RunSubmitted(
        request=request,
        options=options,
        specialists=await specialist_refs(specialists, blobs=blobs),
        models=models,
        files=tuple(
            [
                FileRef(name=name, blob=await store(content, blobs=blobs, media_type="application/octet-stream"))
                for name, content in files.items()
            ]
        ),
        cases=cases,
    )


async def cancel(run: StreamId, *, events: EventLog, reason: str) -> None:
    """Ask for the end of a run."""
    await events.append(
        Draft(
            event=RunCancelRequested(reason=reason),
            id=root_event_id(run, name="run.cancel_requested"),
            stream=run,
            agent="client",
            time_ms=now_ms(),
            causation=None,
        )
    )


async def follow_run(
    run: StreamId,
    *,
    url: str,
    events: EventLog,
    live: Live,
    on_record: Callable[[Recorded[Event]], None],
    on_chatter: Callable[[str, bytes], None],
    cancel_on_interrupt: bool = True,
) -> Recorded[Event]:
    """Hand over everything that happens in a run until it is closed, and return that last record.

    The first Ctrl-C or SIGTERM appends `run.cancel_requested` and waits for the run to close; a second one raises
    KeyboardInterrupt at once.

    Raises:
        SystemProblem: The NATS server at `url` is away for long.
    """
    closed: Recorded[Event] | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_when_away, url)
        tasks.start_soon(_hear, live, run, on_chatter)
        if cancel_on_interrupt:
            tasks.start_soon(_cancel_on_signal, run, events)
        async with aclosing(events.follow((Filter(stream=run),))) as records:
            async for recorded in records:
                on_record(recorded)
                if isinstance(recorded.event, RunClosed):
                    closed = recorded
                    break
        tasks.cancel_scope.cancel()
    assert closed is not None, "following ends with run.closed"
    return closed


async def _hear(live: Live, run: StreamId, on_chatter: Callable[[str, bytes], None]) -> None:
    async for subject, payload in live.hear(live_filter(run)):
        on_chatter(live_agent(subject), payload)


async def _cancel_on_signal(run: StreamId, events: EventLog) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            break
        await cancel(run, events=events, reason="interrupted by the user")
        with anyio.move_on_after(CANCEL_WAIT_S):
            async for _ in signals:
                break
    raise KeyboardInterrupt
