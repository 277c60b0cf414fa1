"""Runs a worker: one request at a time, heartbeats while it works, acknowledged when the outcome is in the log.

Exactly once on the record, at least once on the effect: an instance that dies between the effect and its outcome
leaves the request to another one, and the slot of the outcome is filled once, whoever comes first.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from typing import Any

import anyio
import msgspec
import structlog

from lumina.agents.gathering import gathered
from lumina.agents.ports import Progress, Raw, Recording, Worker
from lumina.bus.errors import (
    BlobMissing,
    BlobsFull,
    BusError,
    CheckpointFailed,
    LogFull,
    LogUnavailable,
    PayloadTooLarge,
)
from lumina.bus.log import Blobs, Delivery, EventLog, Live
from lumina.bus.subjects import Filter, live_subject
from lumina.bus.together import both, together
from lumina.bus.workers import HEARTBEAT_S
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.ids import StreamId
from lumina.events.record import Recorded, draft_answer
from lumina.events.run import RunClosed
from lumina.events.values import BlobRef

CLOSED_POLL_S = 0.5
RETRY_DELAY_S = 2.0
GIVE_BACK_S_MAX = 1.0

log = structlog.get_logger(__name__)


class LiveProgress:
    """Says on the live subjects of one run how its effect goes on."""

    def __init__(self, live: Live, *, agent: str, request: Recorded[Event], now_ms: Callable[[], int]) -> None:
        self._live = live
        self._subject = live_subject(request.stream, agent=agent, what="progress")
        self._request = request
        self._now_ms = now_ms

    async def __call__(self, phase: str, **figures: float | str) -> None:
        """Publish one line of JSON: phase, request id, time, figures."""
        line = {"phase": phase, "request": self._request.id, "time_ms": self._now_ms(), **figures}
        await self._live.say(self._subject, payload=msgspec.json.encode(line))


class WorkerRunner:
    """One instance of a worker role at work on one log."""

    def __init__(
        self,
        worker: Worker[Any, Any],
        *,
        events: EventLog,
        blobs: Blobs,
        live: Live,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._worker = worker
        self._now_ms = now_ms
        self._events = events
        self._blobs = blobs
        self._live = live

    async def run(self) -> None:
        """Answer requests for as long as the log lasts."""
        log.info("worker.ready", agent=self._worker.name)
        async with aclosing(self._events.work(self._worker.name)) as deliveries:
            async for delivery in deliveries:
                await self.answer(delivery)

    async def answer(self, delivery: Delivery) -> None:
        """Bring one request to its outcome, or give it back: when the bus fails underneath, or this is cancelled.

        Raises whatever a defect of the worker raises. Then the request was put aside before: it would come again, and
        end one instance after the other. Its run goes on by its deadlines.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._beat, delivery)
                await self._answer(delivery)
                tasks.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(GIVE_BACK_S_MAX, shield=True):
                await self._return(delivery, delay_s=0.0)
            raise
        except Exception as error:
            if not _is_outage(error):
                log.error("worker.defect", agent=self._worker.name, run=delivery.recorded.stream, reason=_leaf(error))
                await self._ack(delivery)
            raise

    async def _answer(self, delivery: Delivery) -> None:
        request = delivery.recorded
        progress = LiveProgress(self._live, agent=self._worker.name, request=request, now_ms=self._now_ms)
        blobs: Mapping[str, bytes] = {}
        lack = ""
        try:
            try:
                blobs = await gathered(self._worker, request, get=self._contents)
            except BlobMissing as error:
                lack = str(error)
            # Asked last: whoever stood still for longer than the ack wait finds here that another has answered, and
            # does not load a model whose memory was given to others meanwhile.
            answered, closed = await both(partial(self._is_answered, request), partial(self._is_closed, request.stream))
        except LogUnavailable as error:
            await self._give_back(delivery, reason=str(error), progress=progress)
            return
        if answered or (closed and lack):  # what it was about is lost, and so is the interest in it
            await self._ack(delivery)
            return
        if lack:
            await self._give_back(delivery, reason=lack, progress=progress)
            return
        effect = self._worker.prepare(request, blobs=blobs)
        raw, outage = (None, "") if closed else await self._try(effect, delivery=delivery, progress=progress)
        if outage:
            await self._give_back(delivery, reason=outage, progress=progress)
            return
        if raw is None:
            raw = self._worker.stopped(request, ended_at_ms=self._now_ms())
        if raw is not None:
            await self._insist(request, effect=effect, raw=raw, blobs=blobs, progress=progress)
        await self._ack(delivery)

    async def _contents(self, digests: Sequence[str]) -> Sequence[bytes]:
        return await together(*(partial(self._blobs.get, digest) for digest in digests))

    async def _is_answered(self, request: Recorded[Event]) -> bool:
        slot = draft_answer(request.event, to=request, agent=self._worker.name, ordinal=0).id
        return await self._events.find(slot, stream=request.stream, agent=self._worker.name) is not None

    async def _is_closed(self, stream: StreamId) -> bool:
        return await self._events.last(Filter(stream=stream, event=RunClosed)) is not None

    async def _try(self, effect: msgspec.Struct, *, delivery: Delivery, progress: Progress) -> tuple[Raw | None, str]:
        """Do the effect. Returns what it returned, None when its run ended meanwhile; or what this machine lacks."""
        raw: Raw | None = None
        outage = ""
        try:
            raw = await self._perform(effect, delivery=delivery, progress=progress)
        except* OSError as group:
            outage = _leaf(group)
        return raw, outage

    async def _perform(self, effect: msgspec.Struct, *, delivery: Delivery, progress: Progress) -> Raw | None:
        """Do the effect; None when its run ended or another instance answered meanwhile. Nothing is left running."""
        raw: Raw | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_when_settled, delivery.recorded, tasks.cancel_scope)
            raw = await self._worker.perform(effect, progress=progress)
            tasks.cancel_scope.cancel()
        return raw

    async def _beat(self, delivery: Delivery) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_S)
            try:
                await delivery.in_progress()
            except LogUnavailable as error:
                log.warning("worker.heartbeat_lost", agent=self._worker.name, reason=str(error))

    async def _stop_when_settled(self, request: Recorded[Event], scope: anyio.CancelScope) -> None:
        while True:
            await anyio.sleep(CLOSED_POLL_S)
            try:
                if await self._is_closed(request.stream) or await self._is_answered(request):
                    log.info("worker.stopped", agent=self._worker.name, run=request.stream)
                    scope.cancel()
            except LogUnavailable as error:
                log.warning("worker.blind", agent=self._worker.name, reason=str(error))

    async def _insist(
        self,
        request: Recorded[Event],
        *,
        effect: msgspec.Struct,
        raw: Raw,
        blobs: Mapping[str, bytes],
        progress: Progress,
    ) -> None:
        """Record the outcome; an outage or a full disk delays it, but a finished effect is not thrown away."""
        while True:
            try:
                await self._record(request, effect=effect, raw=raw, blobs=blobs)
            except (LogUnavailable, LogFull, BlobsFull, CheckpointFailed) as error:
                log.warning("worker.waiting", agent=self._worker.name, run=request.stream, reason=str(error))
                await progress("waiting", reason=str(error))
                await anyio.sleep(RETRY_DELAY_S)
            else:
                return

    async def _record(
        self, request: Recorded[Event], *, effect: msgspec.Struct, raw: Raw, blobs: Mapping[str, bytes]
    ) -> None:
        body = encode(raw)
        ref = BlobRef(digest=sha256(body).hexdigest(), size=len(body), media_type="application/json")
        recording = Recording(effect=sha256(encode(effect)).hexdigest(), raw=raw, ref=ref)
        conclusion = self._worker.conclude(request, recording, blobs=blobs)
        await together(*(partial(self._blobs.put, content) for content in (body, *conclusion.blobs)))
        draft = draft_answer(conclusion.event, to=request, agent=self._worker.name, ordinal=0, time_ms=raw.ended_at_ms)
        standing = await self._events.append(draft)
        log.info("worker.answered", agent=self._worker.name, type=standing.type, run=request.stream, seq=standing.seq)

    async def _ack(self, delivery: Delivery) -> None:
        try:
            await delivery.ack()
        except LogUnavailable as error:  # it comes again, and is found settled
            log.warning("worker.ack_lost", agent=self._worker.name, reason=str(error))

    async def _give_back(self, delivery: Delivery, *, reason: str, progress: Progress) -> None:
        log.warning("worker.gives_back", agent=self._worker.name, run=delivery.recorded.stream, reason=reason)
        await progress("waiting", reason=reason)
        await self._return(delivery, delay_s=RETRY_DELAY_S)

    async def _return(self, delivery: Delivery, *, delay_s: float) -> None:
        try:
            await delivery.retry(delay_s=delay_s)
        except LogUnavailable as error:  # it comes again after the ack wait
            log.warning("worker.give_back_lost", agent=self._worker.name, reason=str(error))


def _is_outage(error: Exception) -> bool:
    """Whether the same request may be answered another time: the bus failed, not the worker."""
    if isinstance(error, ExceptionGroup):
        return any(_is_outage(each) for each in error.exceptions)
    return isinstance(error, BusError) and not isinstance(error, PayloadTooLarge)


def _leaf(error: BaseException) -> str:
    """Return the type and the words of the first exception in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
