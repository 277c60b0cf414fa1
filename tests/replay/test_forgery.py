"""Nothing that an agent wrote can be changed by one who can make every digest good again."""

from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.replay.test_verify import rewritten

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events.base import Event
from lumina.events.codec import decode, encode
from lumina.events.errors import InvalidEvent
from lumina.events.record import Recorded
from lumina.replay.report import Report, Status
from lumina.replay.verifying.verify import verify_all

OUTSIDE = {"client", "node", "clock"}
History = tuple[MemoryLog, MemoryBlobs]
Path = tuple[str | int, ...]


def leaves(value: Any, *, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every text, number and truth value, and of every list and object that can lose an item."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, at=(*at, key))
    elif isinstance(value, list):
        if value:
            yield at
        for number, item in enumerate(value):
            yield from leaves(item, at=(*at, number))
    elif value is not None:
        yield at


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value + 0.25
        case str() if len(value) in {32, 64} and set(value) <= set("0123456789abcdef"):
            return value[1:] + value[0]
        case str():
            return value + "x"
        case _:
            return value[:-1]


def forged(event: Event, *, at: Path, event_type: str) -> Event | None:
    """Return the event with another value at a path; None when its type does not allow that value."""
    body = msgspec.json.decode(encode(event))
    inner = body
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = changed(inner[at[-1]])
    try:
        return decode(msgspec.json.encode(body), event_type=event_type)
    except InvalidEvent:
        return None


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(draw=st.data())
def test_no_value_in_any_decision_can_be_changed(history: History, draw: st.DataObject) -> None:
    """Whichever value of whichever record of an agent is changed, with all chains closed again, it is named."""
    log, blobs = history
    target = draw.draw(st.sampled_from([each for each in log.records if each.agent not in OUTSIDE]))
    body = msgspec.json.decode(encode(target.event))
    at = draw.draw(st.sampled_from([path for path in leaves(body) if path != ("type",)]))
    event = forged(target.event, at=at, event_type=target.type)
    assume(event is not None and event != target.event)

    def change(each: Recorded[Event]) -> dict[str, Any]:
        return {"event": event} if each.id == target.id else {}

    async def verified() -> Report:
        return await verify_all(rewritten(log.records, change), blobs)

    report = anyio.run(verified)
    assert report.status is not Status.OK, at
    place = report.damage.seq if report.damage is not None else report.divergence and report.divergence.at.seq
    assert place == target.seq, (at, report.lines())
