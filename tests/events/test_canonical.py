"""One encoding for equal values, whatever they were made from; and a digest that some fields may be left out of."""

import json
from hashlib import sha256
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from lumina.events.codec import encode
from lumina.events.contract import Limits
from lumina.events.generation import Sampling
from lumina.events.record import fields_digest
from lumina.events.run import RunCancelRequested
from lumina.events.values import Canonical, Value, checked_by_decoder

NUMBERS = st.integers(29_998, 30_002) | st.integers(0, 2**40)


class Plain(Canonical, frozen=True, kw_only=True):
    number: int = 30_000
    ratio: float = 1.0
    words: tuple[str, ...] = ("a", "b")
    limits: Limits = Limits()


class Longer(Canonical, frozen=True, kw_only=True):
    """`Plain` as a later version has it."""

    number: int = 30_000
    added: str = "nothing"
    ratio: float = 1.0
    words: tuple[str, ...] = ("a", "b")
    limits: Limits = Limits()
    more: tuple[int, ...] = (1, 2)


class Small(Value, frozen=True, kw_only=True):
    size: Annotated[int, Meta(le=9)]


@given(number=NUMBERS, ratio=st.sampled_from((1.0, 0.5)), words=st.sampled_from((["a", "b"], ["a"], [])))
def test_equal_values_have_equal_bytes(number: int, ratio: float, words: list[str]) -> None:
    """A default is left out, however the value that equals it came about: computed, decoded, or the default itself."""
    built = Plain(number=number, ratio=ratio, words=tuple(words), limits=Limits(wall_ms=int("10000")))
    text = {"number": number, "ratio": ratio, "words": words, "limits": {"wall_ms": 10_000}}
    decoded = msgspec.json.decode(json.dumps(text), type=Plain)
    assert built == decoded
    assert encode(built) == encode(decoded)
    written = json.loads(encode(built))
    assert ("number" in written, "ratio" in written) == (number != 30_000, ratio != 1.0)
    assert "limits" not in written


@given(number=NUMBERS)
def test_a_later_field_leaves_older_bytes_as_they_are(number: int) -> None:
    """What an older version wrote, read by a newer one with more fields, is written again as it was."""
    body = encode(Plain(number=number, words=("x",)))
    assert encode(msgspec.json.decode(body, type=Longer)) == body


def test_a_number_is_not_taken_for_another_type() -> None:
    """True equals 1, and 1 equals 1.0; a default takes the place only of what has its type as well."""
    assert encode(Plain(number=30_000, ratio=1)) == b'{"ratio":1}'
    assert encode(Sampling(temperature=0.0, seed=1, tokens_max=5, top_p=1.0)) == (
        b'{"temperature":0.0,"seed":1,"tokens_max":5}'
    )


def test_what_a_decoder_has_checked_is_checked_outside_of_it_as_before() -> None:
    """Within the block the decoder checks; after it, also after a failure in it, every constructor does."""
    with checked_by_decoder(), pytest.raises(msgspec.ValidationError, match="size"):
        msgspec.json.decode(b'{"size":10}', type=Small)
    with pytest.raises(msgspec.ValidationError, match="size"):
        Small(size=10)


BODIES = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)),
    min_size=1,
    max_size=6,
)


@given(fields=BODIES, draw=st.data())
def test_fields_can_be_hidden_and_the_rest_be_checked(fields: dict[str, object], draw: st.DataObject) -> None:
    """With their digests in the place of some fields the digest over all is the same; any change is another one."""
    body = msgspec.json.encode(fields)
    whole = fields_digest(body)
    hidden = draw.draw(st.sets(st.sampled_from(sorted(fields))))
    digests = {name: sha256(msgspec.json.encode(fields[name])).hexdigest() for name in hidden}
    shown = msgspec.json.encode({name: None if name in hidden else value for name, value in fields.items()})
    assert fields_digest(shown, hidden=digests) == whole
    changed = draw.draw(st.sampled_from(sorted(fields)))
    if changed in hidden:
        other = fields_digest(shown, hidden={**digests, changed: "0" * 64})
    else:
        other = fields_digest(
            msgspec.json.encode({**msgspec.json.decode(shown), changed: [fields[changed]]}), hidden=digests
        )
    assert other != whole


def test_the_digest_over_fields_is_what_the_document_says() -> None:
    """One line `name digest` per field, in their order: docs/events.md."""
    body = encode(RunCancelRequested(reason="Grüße"))
    lines = "".join(
        f"{name} {sha256(text.encode()).hexdigest()}\n"
        for name, text in (("type", '"run.cancel_requested.v1"'), ("reason", '"Grüße"'))
    )
    assert fields_digest(body) == sha256(lines.encode()).hexdigest()
