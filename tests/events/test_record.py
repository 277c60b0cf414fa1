"""Records: ids that are derived, envelopes that travel in headers, and chains that show every change."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumina.events.base import Event
from lumina.events.errors import InvalidEvent, UnknownEvent
from lumina.events.ids import EventId, StreamId, event_id, root_event_id
from lumina.events.record import (
    NO_DIGEST,
    Draft,
    Head,
    Recorded,
    chain,
    draft_answer,
    from_headers,
    from_rfc3339,
    rfc3339,
    to_headers,
)
from lumina.events.run import RunCancelRequested

ENVELOPE = Path(__file__).parent / "golden" / "envelope.json"
STREAM = StreamId("r-golden")
TIMES_MS = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999, where RFC 3339 ends


def _draft(reason: str = "enough", *, time_ms: int = 1_763_717_400_123) -> Draft[RunCancelRequested]:
    return Draft(
        event=RunCancelRequested(reason=reason),
        id=root_event_id(STREAM, name=f"cancel/{reason}"),
        stream=STREAM,
        agent="client",
        time_ms=time_ms,
        causation=None,
    )


def _written(count: int) -> list[tuple[Recorded[RunCancelRequested], bytes]]:
    head, written = Head(), []
    for number in range(count):
        recorded, body = chain(_draft(str(number)), after=head)
        head = Head(seq=number + 1, position=recorded.position, digest=recorded.digest)
        written.append((recorded, body))
    return written


def test_the_golden_envelope_has_not_changed() -> None:
    """The headers, the body and the digest of one known record are, to the letter, what they were."""
    golden = json.loads(ENVELOPE.read_text())
    first, _ = chain(_draft(), after=Head())
    answer = draft_answer(RunCancelRequested(reason="Grüße"), to=first, agent="client", ordinal=0)
    recorded, body = chain(answer, after=Head(seq=1, position=first.position, digest=first.digest))
    assert to_headers(recorded) == golden["headers"]
    assert body.decode() == golden["body"]
    assert from_headers(golden["headers"], body=golden["body"].encode(), seq=2) == msgspec.structs.replace(
        recorded, seq=2
    )


def test_headers_are_printable_ascii() -> None:
    """Any NATS client can carry them."""
    recorded, _ = chain(_draft("Grüße"), after=Head())
    assert all(value.isascii() and value.isprintable() for value in to_headers(recorded).values())


def test_an_id_names_a_slot() -> None:
    """The same decision has the same id; another cause, writer or ordinal has another."""
    cause, other = EventId("a" * 32), EventId("b" * 32)
    same = event_id(cause, agent="governor", ordinal=0)
    assert same == event_id(cause, agent="governor", ordinal=0)
    others = {
        event_id(other, agent="governor", ordinal=0),
        event_id(cause, agent="sandbox", ordinal=0),
        event_id(cause, agent="governor", ordinal=1),
    }
    assert len(others | {same}) == 4


def test_an_answer_carries_its_cause_and_time() -> None:
    """A keeper's answer has the time of its trigger, a worker's the time that it gives."""
    trigger, _ = chain(_draft(), after=Head())
    kept = draft_answer(RunCancelRequested(reason=""), to=trigger, agent="orchestrator", ordinal=0)
    worked = draft_answer(RunCancelRequested(reason=""), to=trigger, agent="sandbox", ordinal=0, time_ms=5)
    assert (kept.time_ms, kept.causation, kept.stream) == (trigger.time_ms, trigger.id, trigger.stream)
    assert worked.time_ms == 5


@given(st.integers(1, 12))
def test_a_chain_counts_and_links(count: int) -> None:
    """Positions count from 1, each record names the digest of the one before it, the first names none."""
    records = [recorded for recorded, _ in _written(count)]
    assert [recorded.position for recorded in records] == list(range(1, count + 1))
    assert [recorded.previous for recorded in records] == [NO_DIGEST, *(each.digest for each in records[:-1])]
    assert len({recorded.digest for recorded in records}) == count


@given(st.data())
def test_no_byte_of_a_body_can_change_unnoticed(draw: st.DataObject) -> None:
    """Whichever bit of the body is flipped, reading the record fails."""
    recorded, body = chain(_draft("a reason"), after=Head())
    place = draw.draw(st.integers(0, len(body) - 1))
    damaged = bytearray(body)
    damaged[place] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(InvalidEvent, match="record 7"):
        from_headers(to_headers(recorded), body=bytes(damaged), seq=7)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("ce-id", "f" * 32),
        ("ce-type", "step.failed.v1"),
        ("ce-source", "/lumina/sandbox"),
        ("ce-time", "2026-11-21T09:30:00.124Z"),
        ("ce-subject", "r-other"),
        ("ce-causationid", "f" * 32),
        ("ce-luminaposition", "2"),
        ("ce-luminaprevious", "1" * 64),
        ("ce-luminadigest", "1" * 64),
    ],
)
def test_no_part_of_the_envelope_can_change_unnoticed(header: str, value: str) -> None:
    """Another id, type, writer, time, stream, cause or place: reading the record fails."""
    recorded, body = chain(_draft(), after=Head())
    with pytest.raises(InvalidEvent, match="record 3"):
        from_headers({**to_headers(recorded), header: value}, body=body, seq=3)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("ce-specversion", "1.1"),
        ("ce-source", "client"),
        ("ce-time", "2025-11-21T09:30:00.123+00:00"),
        ("ce-time", "2025-11-21T09:30:00.1230Z"),
        ("ce-dataschema", "urn:lumina:run.closed.v1"),
        ("ce-datacontenttype", "text/plain"),
        ("ce-correlationid", "r-other"),
        ("ce-traceparent", f"00-{'1' * 32}-{'1' * 16}-01"),
        ("ce-luminaposition", " +1"),
        ("ce-luminaposition", "1_"),
        ("ce-luminaposition", "\u0661"),
        ("ce-causationid", ""),
        ("ce-luminaextra", "1"),
        ("CE-Type", "run.closed.v1"),
    ],
)
def test_an_envelope_has_one_notation(header: str, value: str) -> None:
    """No attribute can be changed, added or written in another way, whatever the digest covers."""
    recorded, body = chain(_draft(time_ms=1_763_717_400_123), after=Head())
    headers = to_headers(recorded)
    assert headers["ce-time"] == "2025-11-21T09:30:00.123Z"
    with pytest.raises(InvalidEvent, match=f"record 3.*({header}|envelope)"):
        from_headers({**headers, header: value}, body=body, seq=3)


def test_an_envelope_is_complete() -> None:
    """Each attribute that is left out is missed, of roots and of answers; headers of the server are not looked at."""
    first, first_body = chain(_draft(), after=Head())
    answer = draft_answer(RunCancelRequested(reason="x"), to=first, agent="client", ordinal=0)
    for recorded, body in ((first, first_body), chain(answer, after=Head(position=1, digest=first.digest))):
        headers = {**to_headers(recorded), "Nats-Msg-Id": "any", "Traceparent": "any"}
        assert from_headers(headers, body=body, seq=3).digest == recorded.digest
        for name in to_headers(recorded):
            with pytest.raises(InvalidEvent, match="record 3"):
                from_headers({key: text for key, text in headers.items() if key != name}, body=body, seq=3)


@pytest.mark.parametrize("header", ["ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "ce-luminaposition"])
@pytest.mark.parametrize("value", [None, "", "\n", "nonsense and blanks"])
def test_a_malformed_envelope_is_located(header: str, value: str | None) -> None:
    """A header that is missing or makes no sense is an invalid record, and its sequence is named."""
    recorded, body = chain(_draft(), after=Head())
    headers = {name: text for name, text in to_headers(recorded).items() if name != header}
    if value is not None:
        headers[header] = value
    with pytest.raises(InvalidEvent, match="record 9"):
        from_headers(headers, body=body, seq=9)


def test_a_whole_record_of_an_unknown_type_says_so() -> None:
    """A record whose digest is right but whose type is new asks for an upgrade instead of crying damage."""
    recorded, body = chain(_draft(), after=Head())
    headers = to_headers(recorded)

    class Dreamt(Event, frozen=True, kw_only=True, tag="run.dreamt.v7"):
        """Not in the catalogue."""

    foreign, body = chain(
        Draft(event=Dreamt(), id=recorded.id, stream=STREAM, agent="client", time_ms=1, causation=None), after=Head()
    )
    headers = to_headers(foreign)
    with pytest.raises(UnknownEvent):
        from_headers(headers, body=body, seq=1)


@given(TIMES_MS)
def test_times_survive_rfc3339(time_ms: int) -> None:
    """Every millisecond up to the year 9999 is read again as it was written, in UTC, with three digits."""
    text = rfc3339(time_ms)
    assert from_rfc3339(text) == time_ms
    assert text.endswith("Z")
    assert len(text) == 24


def test_a_time_with_an_offset_is_the_same_moment() -> None:
    """Writers in other languages may use another offset."""
    assert from_rfc3339("2026-11-21T10:30:00.250+01:00") == from_rfc3339("2026-11-21T09:30:00.250Z")


@given(st.text(st.characters(codec="utf-8"), max_size=200), TIMES_MS)
def test_any_record_survives_its_headers(reason: str, time_ms: int) -> None:
    """Whatever the text and the time, headers and body give the record back."""
    recorded, body = chain(_draft(reason, time_ms=time_ms), after=Head())
    assert from_headers(to_headers(recorded), body=body, seq=1) == msgspec.structs.replace(recorded, seq=1)
