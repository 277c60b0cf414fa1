"""Constraints hold from the moment that a value exists."""

import msgspec
import pytest

from lumina.events.base import category_of, type_of
from lumina.events.catalogue import CATEGORIES, EVENT_TYPES, SPOKEN_BY, WRITERS, Agent
from lumina.events.codec import decode
from lumina.events.errors import InvalidEvent, UnknownEvent
from lumina.events.run import RunCancelRequested, RunOptions, RunSubmitted
from lumina.events.step import StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.values import TEXT_CHARACTERS_MAX, BlobRef, FileName, Identifier, Instance, Name, clip


@pytest.mark.parametrize("request_length", [0, 20_001])
def test_a_request_is_1_to_20000_characters(request_length: int) -> None:
    """An empty request and one of 20,001 characters can't be built; the message names the field."""
    with pytest.raises(msgspec.ValidationError, match=r"\$\.request"):
        RunSubmitted(request="x" * request_length, options=RunOptions(), specialists=(), models=())


def test_the_longest_request_is_taken() -> None:
    """20,000 characters are a request."""
    submitted = RunSubmitted(request="x" * 20_000, options=RunOptions(), specialists=(), models=())
    assert len(submitted.request) == 20_000


@pytest.mark.parametrize("attempts_max", [0, 100, -1])
def test_attempts_are_bounded(attempts_max: int) -> None:
    """A run can't be allowed no attempt, nor a hundred."""
    with pytest.raises(msgspec.ValidationError, match=r"\$\.attempts_max"):
        RunOptions(attempts_max=attempts_max)


def test_a_wrong_type_is_refused_when_built() -> None:
    """A text where a number belongs is refused by the constructor, not only by the decoder."""
    with pytest.raises(msgspec.ValidationError, match=r"\$\.due"):
        TimerElapsed(timer="run-timeout", due="soon")  # type: ignore[arg-type]  # the mistake under test


def test_a_nested_mistake_is_located() -> None:
    """The path of a mistake inside a nested value reaches down to it."""
    body = b'{"type":"step.failed.v1","step":1,"attempts":300,"refused":false,"reason":""}'
    with pytest.raises(InvalidEvent, match=r"step\.failed\.v1: .*\$\.attempts"):
        decode(body, event_type="step.failed.v1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'{"type":"step.failed.v1"}',
        b'{"type":"run.closed.v1","reason":""}',
        b'{"reason":"\xff"}',
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_a_body_that_does_not_fit_is_invalid(body: bytes) -> None:
    """Broken JSON, missing fields, a foreign tag and bytes that are no UTF-8 are invalid, whatever the sender."""
    with pytest.raises(InvalidEvent):
        decode(body, event_type="step.failed.v1")


def test_an_unknown_type_is_told_from_an_invalid_one() -> None:
    """A type of a newer version says that an upgrade reads it."""
    with pytest.raises(UnknownEvent, match="upgrade"):
        decode(b"{}", event_type="run.dreamt.v7")


def test_unknown_fields_are_ignored_and_missing_ones_defaulted() -> None:
    """A newer writer may add fields, an older one may lack those that have defaults."""
    body = b'{"type":"run.cancel_requested.v1","reason":"enough","mood":"calm"}'
    assert decode(body, event_type="run.cancel_requested.v1") == RunCancelRequested(reason="enough")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Name, "lumina/demo:q8_0@1", ["", "two words", "-x", "x" * 121, "name\n"]),
        (Instance, "lumina-demo#0", ["lumina-demo", "#0", "lumina-demo#1000", "lumina-demo#0\n"]),
        (Identifier, "$winner_2", ["2x", "a b", "", "x\n"]),
        (FileName, "out.png", ["../out.png", "a/b", ".hidden", "", "out.png\n"]),
    ],
)
def test_names_hold_nothing_that_could_be_misread(kind: object, good: str, bad: list[str]) -> None:
    """Names take no blanks, folders or line feeds, not even one at the end, which `$` alone lets through."""
    assert msgspec.convert(good, kind) == good
    for text in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(text, kind)


def test_a_digest_is_64_lower_case_hexadecimal_digits() -> None:
    """Upper case or another length would give one content two names."""
    for digest in ("A" * 64, "a" * 63, "a" * 64 + "\n"):
        with pytest.raises(msgspec.ValidationError, match=r"\$\.digest"):
            BlobRef(digest=digest, size=1, media_type="text/plain")


def test_events_are_immutable() -> None:
    """A fact can't be changed."""
    fact = StepFailed(step=1, attempts=None, refused=True, reason="no sandbox")
    with pytest.raises(AttributeError):
        fact.step = 2  # type: ignore[misc]  # the mistake under test


def test_clip_keeps_head_and_tail() -> None:
    """A long text is cut in the middle, says how much is gone, and never gets longer than the limit."""
    text = "head" + "x" * 10_000 + "tail"
    cut = clip(text)
    assert len(cut) <= TEXT_CHARACTERS_MAX
    assert cut.startswith("head")
    assert cut.endswith("tail")
    assert "characters cut" in cut


@pytest.mark.parametrize("limit", [0, 1, 10, 40, 100])
def test_clip_reaches_no_limit_too_small(limit: int) -> None:
    """However small the limit, it is kept."""
    assert len(clip("y" * 200, limit=limit)) <= limit


def test_every_type_has_a_writer_and_a_proper_tag() -> None:
    """Each type is `category.past_tense.vN`, known under that tag, and somebody may write it."""
    writers = set(Agent.__args__)  # type: ignore[attr-defined]  # typing says nothing of a Literal's arguments
    for tag, kind in EVENT_TYPES.items():
        category, name, version = tag.split(".")
        assert tag == type_of(kind)
        assert category == category_of(tag)
        assert category in CATEGORIES
        assert name
        assert version.removeprefix("v").isdecimal()
        assert WRITERS[kind]
        assert set(WRITERS[kind]) <= writers
    assert set(SPOKEN_BY) <= writers
