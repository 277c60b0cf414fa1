"""Drives a worker as its runner does, but without a log: needs, prepare, perform, record, conclude."""

from hashlib import sha256
from typing import Any

import msgspec

from lumina.agents.ports import Conclusion, Raw, Recording, Worker
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Head, Recorded, chain
from lumina.events.values import BlobRef, FileRef


class Blobs(dict[str, bytes]):
    """Content by digest."""

    def add(self, content: bytes, *, media_type: str = "text/plain") -> BlobRef:
        """Keep `content` and return how events name it."""
        digest = sha256(content).hexdigest()
        self[digest] = content
        return BlobRef(digest=digest, size=len(content), media_type=media_type)

    def file(self, name: str, content: bytes) -> FileRef:
        """Keep a file's content and return how events name it."""
        return FileRef(name=name, blob=self.add(content))


class Outcome(msgspec.Struct, kw_only=True):
    """What a worker made of a request, and all that it was made from."""

    request: Recorded[Event]
    effect: msgspec.Struct
    raw: Raw
    body: bytes
    conclusion: Conclusion


async def quiet(phase: str, **figures: float | str) -> None:
    """Tell nobody how an effect goes on."""
    del phase, figures


def recorded(event: Event) -> Recorded[Event]:
    """Return an event as the orchestrator's first record of a run."""
    draft = Draft(
        event=event,
        id=root_event_id(StreamId("r-test"), name="test"),
        stream=StreamId("r-test"),
        agent="orchestrator",
        time_ms=1_700_000_000_000,
        causation=None,
    )
    return chain(draft, after=Head())[0]


async def answer(worker: Worker[Any, Any], event: Event, *, blobs: Blobs) -> Outcome:
    """Have a request answered for real. Only the blobs that the worker asks for reach it."""
    request = recorded(event)
    needed = {digest: blobs[digest] for digest in worker.needs(request)}
    effect = worker.prepare(request, blobs=needed)
    raw = await worker.perform(effect, progress=quiet)
    body = encode(raw)
    return Outcome(
        request=request, effect=effect, raw=raw, body=body, conclusion=concluded(worker, request, body, blobs=needed)
    )


def concluded(
    worker: Worker[Any, Any], request: Recorded[Event], body: bytes, *, blobs: dict[str, bytes]
) -> Conclusion:
    """Return the conclusion from what stands in the log and in the blobs alone, as replay does."""
    effect = sha256(encode(worker.prepare(request, blobs=blobs))).hexdigest()
    raw = msgspec.json.decode(body, type=worker.raw_type)
    ref = BlobRef(digest=sha256(body).hexdigest(), size=len(body), media_type="application/json")
    return worker.conclude(request, Recording(effect=effect, raw=raw, ref=ref), blobs=blobs)
