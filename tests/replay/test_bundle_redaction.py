"""Redaction as properties: no hidden text is left, and no change of what is left goes unnoticed."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lumina.bus.archive_format import Line, check_hidden
from lumina.bus.errors import ArchiveBroken
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Head, Sealed, chain_digest, fields_digest, headers_of
from lumina.replay.bundles.redaction import TEXT_CHARACTERS_MIN, Redaction

SECRETS = st.text(st.characters(codec="utf-8"), min_size=TEXT_CHARACTERS_MIN, max_size=60)
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = ("alpha", "beta", "gamma", "delta")


def plain(text: str) -> str:
    """Return a text without case and blanks, as it is looked for."""
    return " ".join(text.casefold().split())


def line_of(fields: dict[str, Any]) -> Line:
    """Return the first record of a chain with these fields."""
    body = msgspec.json.encode({"type": "run.submitted.v1", **fields})
    head = Head()
    sealed = Sealed(
        id=EventId("0" * 32),
        type="run.submitted.v1",
        stream=StreamId("r-1"),
        agent="client",
        time_ms=1_700_000_000_000,
        causation=None,
        position=head.position + 1,
        previous=head.digest,
        body=sha256(body).hexdigest(),
        fields=fields_digest(body),
    )
    return Line(seq=1, headers=headers_of(sealed, digest=chain_digest(sealed)), body=body.decode())


def all_texts(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value, and what is inside of Base64 and JSON in it."""
    match value:
        case str():
            yield value
            with suppress(Base64Error, ValueError):
                yield b64decode(value, validate=True).decode()
            try:
                inner = msgspec.json.decode(value)
            except msgspec.DecodeError:
                return
            if not isinstance(inner, str | int | float | None):
                yield from all_texts(inner)
        case dict():
            for each in value.values():
                yield from all_texts(each)
        case list():
            for each in value:
                yield from all_texts(each)
        case _:
            pass


@given(secret=SECRETS, before=WORDS, after=WORDS, how=st.integers(0, 5))
def test_a_hidden_text_is_found_nowhere(secret: str, before: str, after: str, how: int) -> None:
    """Quoted, nested, in other case, as Base64 or as JSON in a text: what was to be hidden is gone everywhere."""
    assume(len(plain(secret)) >= TEXT_CHARACTERS_MIN)
    quoted = f"{before}{secret}{after}"
    shapes: list[Any] = [
        quoted,
        [{"deep": [quoted]}],
        secret.upper(),
        b64encode(secret.encode()).decode(),
        msgspec.json.encode({"text": quoted}).decode(),
        {"one": before, "two": [after, f"{secret}\n"]},
    ]
    one = line_of({"alpha": secret, "beta": before})
    other = line_of({"beta": 1, "gamma": shapes[how], "delta": "harmless"})
    redaction = Redaction(("alpha",))
    for line in (one, other):
        redaction.learn(line)
    redaction.check(["r-1"])
    for line in (one, other):
        redacted = redaction.redact(line)
        found = list(all_texts(msgspec.json.decode(redacted.body)))
        assert secret not in redacted.body
        assert not any(plain(secret) in plain(text) for text in found)
        if redacted.hidden:
            check_hidden(redacted)
    assert "gamma" in redaction.redact(other).hidden or how == 2  # upper case may be another word, as with ß
    for content in (quoted.encode(), msgspec.json.encode({"raw": [quoted]}), msgspec.json.encode({"b": shapes[3]})):
        assert redaction.hides_blob("0" * 64, content=content)


@given(
    values=st.tuples(*[st.one_of(WORDS, st.integers(-9, 9), st.none(), st.lists(WORDS, max_size=2))] * len(NAMES)),
    hidden=st.sets(st.sampled_from(NAMES), min_size=1),
    at=st.integers(0, 10_000),
    other=st.characters(codec="utf-8"),
    how=st.sampled_from(("replace", "insert", "delete")),
)
def test_no_change_goes_unnoticed(values: tuple[Any, ...], hidden: set[str], at: int, other: str, how: str) -> None:
    """One character of a redacted body that is replaced, inserted or deleted: the record is refused."""
    line = line_of(dict(zip(NAMES, values, strict=True)))
    redaction = Redaction(hidden)
    redaction.learn(line)
    redaction.check([])
    redacted = redaction.redact(line)
    check_hidden(redacted)
    body, at = redacted.body, at % len(redacted.body)
    changed = {"replace": body[:at] + other + body[at + 1 :], "insert": body[:at] + other + body[at:]}.get(
        how, body[:at] + body[at + 1 :]
    )
    assume(changed != body)
    with pytest.raises(ArchiveBroken):
        check_hidden(msgspec.structs.replace(redacted, body=changed))


def test_parts_and_lines_of_a_hidden_text_are_hidden() -> None:
    """A brief that is a part of the request, and one line of it that is quoted, go with it; short words stay."""
    request = "Write a function that greets Ada Lovelace.\nThen print the greeting twice."
    line = line_of({"alpha": request, "beta": "greets Ada Lovelace", "gamma": "so: then  PRINT the greeting twice."})
    redaction = Redaction(("alpha",))
    redaction.learn(line)
    redaction.check([])
    assert redaction.redact(line).hidden == ("alpha", "beta", "gamma")
    kept = line_of({"beta": "Ada", "gamma": "function", "delta": ["Write", 3]})
    assert redaction.redact(kept) == kept


def test_the_type_of_a_media_is_no_secret() -> None:
    """A reference to a blob is followed by its digest, and not by what kind of content it has."""
    digest = "ab" * 32
    line = line_of({"alpha": {"digest": digest, "size": 3, "media_type": "text/x-python"}})
    redaction = Redaction(("alpha",))
    redaction.learn(line)
    redaction.check([])
    other = line_of({"beta": {"digest": "cd" * 32, "size": 3, "media_type": "text/x-python"}, "gamma": digest})
    assert redaction.redact(other).hidden == ("gamma",)
    assert redaction.hides_blob(digest, content=b"anything")
    assert not redaction.hides_blob("cd" * 32, content=b"anything")
