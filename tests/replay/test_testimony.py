"""What comes from outside can't be decided again, but its envelope and its bytes can be proved."""

from collections.abc import AsyncGenerator, Sequence
from hashlib import sha256

import msgspec
import pytest
from tests.replay.conftest import History
from tests.replay.test_verify import first, rewritten

from lumina.bus.memory import MemoryLog
from lumina.bus.stored import Stored
from lumina.bus.subjects import Filter, subject_of
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.errors import UnknownEvent
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import (
    NO_DIGEST,
    Draft,
    Head,
    Recorded,
    Sealed,
    chain,
    chain_digest,
    fields_digest,
    from_headers,
    headers_of,
)
from lumina.events.run import RunCancelRequested
from lumina.events.timer import TimerElapsed
from lumina.replay.report import Difference, Status
from lumina.replay.verifying.testimony import RECENT_SLOTS_MAX, OutsideProof
from lumina.replay.verifying.verify import verify_all

pytestmark = pytest.mark.anyio

RUN = StreamId("r-said")


class Standing(MemoryLog):
    """A log of one message."""

    def __init__(self, stored: Stored | None = None) -> None:
        """Hold it."""
        super().__init__()
        self.stored = stored

    async def originals(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Stored, None]:
        """Yield it."""
        if self.stored is not None:
            yield self.stored


def said(event: Event, *, name: str = "x", stream: StreamId = RUN, after: Head | None = None) -> Recorded[Event]:
    """Return a root record."""
    slot = root_event_id(stream, name=name)
    agent = "clock" if isinstance(event, TimerElapsed) else "client"
    draft = Draft(event=event, id=slot, stream=stream, agent=agent, time_ms=50, causation=None)
    return msgspec.structs.replace(chain(draft, after=after or Head())[0], seq=7)


def with_body(body: bytes, *, fields: str = "") -> tuple[Recorded[Event], Standing]:
    """Return a cancellation whose envelope is sound over this body, read from its headers, and a log that has it."""
    plain = said(RunCancelRequested(reason=""))
    sealed = Sealed(
        id=plain.id,
        type=plain.type,
        stream=plain.stream,
        agent=plain.agent,
        time_ms=plain.time_ms,
        causation=None,
        position=1,
        previous=NO_DIGEST,
        body=sha256(body).hexdigest(),
        fields=fields or fields_digest(body),
    )
    headers = headers_of(sealed, digest=chain_digest(sealed))
    recorded = from_headers(headers, body=body, seq=7)
    subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
    return recorded, Standing(Stored(7, subject, headers, body))


async def fault(recorded: Recorded[Event], log: Standing | None = None) -> Difference | None:
    """Return what the proof says of one record."""
    return await OutsideProof(log or Standing()).take(recorded)


async def test_the_fields_of_testimony_are_those_of_its_body() -> None:
    """A record whose envelope commits to the fields of another body is named, though every other digest is right."""
    body = encode(RunCancelRequested(reason="enough"))
    recorded, log = with_body(body, fields=fields_digest(encode(RunCancelRequested(reason="never"))))
    found = await fault(recorded, log)
    assert found == Difference(field="fields", recorded=recorded.fields, decided=fields_digest(body))
    assert await fault(*with_body(body)) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"run.cancel_requested.v1", "reason":"enough"}',
        b'{"reason":"enough","type":"run.cancel_requested.v1"}',
        b'{"type":"run.cancel_requested.v1","reason":"never","reason":"enough"}',
        b'{"type":"run.cancel_requested.v1","reason":"enoug\\u0068"}',
    ],
)
async def test_testimony_has_one_notation(body: bytes) -> None:
    """Blanks, another order, a field twice, another spelling: what stands there and what should are both told."""
    recorded, log = with_body(body)
    found = await fault(recorded, log)
    assert found is not None
    assert (found.field, found.recorded) == ("body", body.decode())
    assert found.decided == encode(recorded.event).decode()
    blind = await fault(recorded)
    assert blind is not None
    assert "unknown to this version, or another notation" in blind.decided


async def test_a_field_of_a_later_version_is_called_that() -> None:
    """It is no forgery: whoever reads it is asked to upgrade."""
    recorded, log = with_body(b'{"type":"run.cancel_requested.v1","reason":"enough","mood":"sad"}')
    with pytest.raises(UnknownEvent, match=r"record 7: run\.cancel_requested\.v1 has a field 'mood'.*upgrade"):
        await fault(recorded, log)


async def test_a_slot_is_filled_once() -> None:
    """A timer that elapses twice, a client's record with the id of another stream's: each is named."""
    timer = TimerElapsed(timer="t", due=3)
    name = "timer/t/3"
    proof = OutsideProof(Standing())
    one = said(timer, name=name)
    assert await proof.take(one) is None
    again = said(timer, name=name, after=Head(position=1, digest=one.digest))
    found = await proof.take(again)
    assert found is not None
    assert (found.field, found.recorded) == ("id", one.id)
    stolen = msgspec.structs.replace(said(RunCancelRequested(reason=""), stream=StreamId("r-other")), id=one.id)
    found = await proof.take(stolen)
    assert found is not None
    assert found.field == "id"


async def test_slots_of_an_open_run_are_never_forgotten(history: History) -> None:
    """However much is said beside it; of what is over, the newest are kept."""
    begun = first(history, "run.submitted.v1")
    proof = OutsideProof(Standing())
    assert await proof.take(begun) is None
    for number in range(RECENT_SLOTS_MAX + 1):
        timer = TimerElapsed(timer="t", due=number % 50)
        beside = said(timer, name=f"timer/t/{timer.due}", stream=StreamId(f"r-{number}"))
        assert await proof.take(beside) is None
    found = await proof.take(begun)
    assert found is not None
    assert found.field == "id"


@pytest.mark.parametrize("kind", ["run.submitted.v1", "node.announced.v1"])
async def test_nothing_caused_what_comes_from_outside(history: History, kind: str) -> None:
    """A root that names a cause is refused, with every digest made good."""
    log, blobs = history
    target = next(each for each in log.records if each.type == kind)
    changed = rewritten(log.records, lambda each: {"causation": "a" * 32} if each.id == target.id else {})
    report = await verify_all(changed, blobs)
    assert report.status is Status.DIVERGED
    assert report.divergence is not None
    assert (report.divergence.at.seq, report.divergence.difference.field) == (target.seq, "causation")
