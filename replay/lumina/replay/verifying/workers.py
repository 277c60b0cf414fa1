"""A worker's part of a history: derive effect and outcome again from the request and the recorded raw result."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec

from lumina.agents.gathering import gathered
from lumina.agents.ports import Conclusion, Raw, Recording, Worker
from lumina.bus.errors import BlobMissing
from lumina.bus.log import Blobs, Records
from lumina.bus.subjects import Filter
from lumina.bus.workers import WORKER_ROLES
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.execution import ExecutionFinished
from lumina.events.generation import GenerationFinished
from lumina.events.ids import EventId
from lumina.events.node import ModelUnloaded
from lumina.events.record import Head, Recorded, chain, draft_answer
from lumina.events.validation import ValidationFinished
from lumina.events.values import BlobRef
from lumina.replay.cast import Inputs
from lumina.replay.comparing import first_difference, undecided
from lumina.replay.errors import BlobLost
from lumina.replay.report import Difference
from lumina.replay.verifying.keepers import FAILURES

KEPT_BYTES_MAX: Final = 4 * 2**20
SIZES_MAX: Final = 4_096
REQUESTS_MAX: Final = 4_096
"""How many unanswered requests are kept. Those of ended runs are never answered; older ones are looked up again."""
ASKING: Final = ("governor", "orchestrator")
"""Whose records workers answer."""

Outcome = GenerationFinished | ValidationFinished | ExecutionFinished | ModelUnloaded


class Needs(Protocol):
    """Where the contents of blobs come from."""

    async def __call__(self, digest: str, *, named_by: Recorded[Event]) -> bytes:
        """Return the content. Raises BlobLost."""
        ...


class Shelf:
    """Blobs, with an error that says who needs them.

    What was read last is kept: one code is read by the specialist, the validator and the sandbox. Of more it is known
    that they are whole; one that was forgotten is read again.

    Attributes:
        found: How many blobs were read and found whole; one that was read again counts again.
    """

    def __init__(self, blobs: Blobs, *, sizes_max: int = SIZES_MAX) -> None:
        self._blobs = blobs
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0
        self._sizes: dict[str, int] = {}
        self._sizes_max = sizes_max
        self.found = 0

    async def __call__(self, digest: str, *, named_by: Recorded[Event]) -> bytes:
        """Return the content. Raises BlobLost."""
        content = self._kept.pop(digest, None)
        if content is None:
            content = await self._read(digest, named_by=named_by)
            self._kept_bytes += len(content)
        self._kept[digest] = content
        while self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= len(self._kept.pop(next(iter(self._kept))))
        return content

    async def _read(self, digest: str, *, named_by: Recorded[Event]) -> bytes:
        try:
            content = await self._blobs.get(digest)
        except BlobMissing as error:
            where = f"record {named_by.seq} ({named_by.type} {named_by.id})"
            raise BlobLost(f"blob {digest}, which {where} names: {error}") from error
        self.found += 1
        return content

    async def size(self, digest: str, *, named_by: Recorded[Event]) -> int:
        """Return the length of a whole blob in bytes. Raises BlobLost."""
        size = self._sizes.pop(digest, None)
        if size is None:
            size = len(await self(digest, named_by=named_by))
        self._sizes[digest] = size
        if len(self._sizes) > self._sizes_max:
            del self._sizes[next(iter(self._sizes))]
        return size


class WorkerProof:
    """All workers, following a history. Hand it every record in order.

    Args:
        workers: By the name under which they write.
        shelf: Where the blobs are.
        events: Where requests are looked up that came long ago.
        requests_max: How many are kept.
    """

    def __init__(
        self,
        workers: Mapping[str, Worker[Any, Any]],
        *,
        shelf: Needs,
        events: Records,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        self._workers = workers
        self._shelf = shelf
        self._events = events
        self._requests_max = requests_max
        self._forgot = False
        self._inputs = {name: Inputs(WORKER_ROLES[name].filters) for name in workers}
        self._requests: dict[tuple[EventId, str], Recorded[Event]] = {}
        self.equal: dict[str, int] = dict.fromkeys(workers, 0)

    def notice(self, recorded: Recorded[Event]) -> None:
        """Remember a record that some worker answers."""
        for name, inputs in self._inputs.items():
            if inputs.hold(recorded):
                self._requests[recorded.id, name] = recorded
                if len(self._requests) > self._requests_max:
                    del self._requests[next(iter(self._requests))]
                    self._forgot = True

    async def take(self, recorded: Recorded[Event]) -> Difference | None:
        """Return how an outcome differs from what is derived; None when it doesn't, and for other records.

        Raises:
            BlobLost: A blob that is needed for it is not there.
        """
        if recorded.agent not in self._workers:
            return None
        event = recorded.event
        request = None
        if recorded.causation is not None:
            request = self._requests.pop((recorded.causation, recorded.agent), None)
            if request is None and self._forgot:
                request = await self._looked_up(recorded, cause=recorded.causation)
        if request is None or not isinstance(event, Outcome):
            return undecided(recorded)
        worker = self._workers[recorded.agent]
        raw, ref = await self._raw(event, worker=worker, outcome=recorded)

        async def found(digests: Sequence[str]) -> list[bytes]:
            return [await self._shelf(digest, named_by=request) for digest in digests]

        blobs = await gathered(worker, request, get=found)
        try:
            effect = sha256(encode(worker.prepare(request, blobs=blobs))).hexdigest()
            recording = Recording(effect=effect, raw=raw, ref=ref)
            conclusion = worker.conclude(request, recording, blobs=blobs)
        except FAILURES as error:
            decided = f"{worker.name} fails on this request: {type(error).__name__}: {error}"
            return Difference(field="record", recorded=recorded.type, decided=decided)
        difference = _compared(recorded, request=request, conclusion=conclusion, time_ms=raw.ended_at_ms)
        if difference is None:
            for content in conclusion.blobs:
                await self._shelf(sha256(content).hexdigest(), named_by=recorded)
            self.equal[worker.name] += 1
        return difference

    async def _looked_up(self, outcome: Recorded[Event], *, cause: EventId) -> Recorded[Event] | None:
        """Return the request that an outcome answers, unless it was answered before."""
        which = Filter(stream=outcome.stream, agent=outcome.agent)
        async with aclosing(self._events.read((which,), until=outcome.seq - 1)) as records:
            async for each in records:
                if each.causation == cause:
                    return None
        for agent in ASKING:
            request = await self._events.find(cause, stream=outcome.stream, agent=agent)
            if request is not None and request.seq < outcome.seq and self._inputs[outcome.agent].hold(request):
                return request
        return None

    async def _raw(self, event: Outcome, *, worker: Worker[Any, Any], outcome: Recorded[Event]) -> tuple[Raw, BlobRef]:
        content = await self._shelf(event.raw.digest, named_by=outcome)
        try:
            raw: Raw = msgspec.json.decode(content, type=worker.raw_type)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            reason = f"the raw result of record {outcome.seq} ({outcome.type}), blob {event.raw.digest}: {error}"
            raise BlobLost(reason) from error
        return raw, BlobRef(digest=event.raw.digest, size=len(content), media_type="application/json")


def _compared(
    recorded: Recorded[Event], *, request: Recorded[Event], conclusion: Conclusion, time_ms: int
) -> Difference | None:
    """Return how an outcome differs from the derived one. Its place in its chain is the log's, and was checked."""
    draft = draft_answer(conclusion.event, to=request, agent=recorded.agent, ordinal=0, time_ms=time_ms)
    derived, _ = chain(draft, after=Head(position=recorded.position - 1, digest=recorded.previous))
    return first_difference(recorded, derived)
