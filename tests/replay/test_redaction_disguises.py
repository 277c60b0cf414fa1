"""A hidden text that is quoted, escaped or encoded is hidden, too: as a property, for each way of writing it."""

from base64 import b64encode, encodebytes, urlsafe_b64encode
from collections.abc import Callable
from html import escape
from typing import Final
from unicodedata import normalize
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.replay.test_bundle_redaction import line_of, plain

from lumina.bus.archive_format import check_hidden
from lumina.events.catalogue import EVENT_TYPES, WRITERS
from lumina.replay.bundles.disguises import normal
from lumina.replay.bundles.redaction import TEXT_CHARACTERS_MIN, Redaction

SECRETS = st.text(st.characters(codec="utf-8"), min_size=TEXT_CHARACTERS_MIN, max_size=60)
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


def json_of(text: str) -> str:
    """Return a text as a JSON text, with other characters than ASCII escaped by code units."""
    units = text.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


DISGUISES: Final[dict[str, Callable[[str], str]]] = {
    "as it is": str,
    "JSON": lambda text: msgspec.json.encode(text).decode(),
    "JSON in a JSON text": lambda text: msgspec.json.encode(msgspec.json.encode(text).decode()).decode(),
    "JSON code units": json_of,
    "JSON in Base64": lambda text: b64encode(msgspec.json.encode({"deep": [text]})).decode(),
    "JSON behind a prefix": lambda text: "Answer: " + msgspec.json.encode({"text": text}).decode(),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "braces": lambda text: "".join(f"\\u{{{ord(each):x}}}" for each in text),
    "NFC": lambda text: normalize("NFC", text),
    "NFD": lambda text: normalize("NFD", text),
    "NFKC": lambda text: normalize("NFKC", text),
    "NFKD": lambda text: normalize("NFKD", text),
    "percent": lambda text: quote(text, safe=""),
    "percent and plus": quote_plus,
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "percent in JSON": lambda text: msgspec.json.encode({"url": f"http://a/?q={quote(text)}"}).decode(),
    "HTML": escape,
    "HTML numbers": lambda text: "".join(f"&#x{ord(each):x};" for each in text),
    "Base64": lambda text: b64encode(text.encode()).decode(),
    "Base64 with lines": lambda text: encodebytes(text.encode()).decode(),
    "Base64 of more": lambda text: b64encode(f"a{text}b".encode()).decode(),
    "urlsafe Base64": lambda text: urlsafe_b64encode(text.encode()).decode(),
    "urlsafe Base64 without padding": lambda text: urlsafe_b64encode(f"ab{text}".encode()).decode().rstrip("="),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal with colons": lambda text: text.encode().hex(":").upper(),
}
PUBLIC: Final = frozenset(EVENT_TYPES) | {agent for writers in WRITERS.values() for agent in writers}
"""Words of every envelope are not looked for."""
WHOLE: Final = frozenset({"JSON in Base64"})
"""Found when they are the whole text: encoded again after another encoding."""


def redaction_of(secret: str) -> Redaction:
    """Return a redaction that hides a text."""
    redaction = Redaction(("alpha",))
    redaction.learn(line_of({"alpha": secret}))
    redaction.check([])
    return redaction


@pytest.mark.parametrize("name", DISGUISES)
@given(secret=SECRETS, before=WORDS, after=WORDS)
def test_a_disguised_text_is_hidden(name: str, secret: str, before: str, after: str) -> None:
    """Inside of other words, in a field and in a blob, as text and as JSON, however it is written."""
    assume(min(len(plain(secret)), len(normal(secret))) >= TEXT_CHARACTERS_MIN)
    assume(plain(secret) not in PUBLIC)
    written = DISGUISES[name](secret)
    if name.startswith("NF"):
        before, after = f"{before} ", f" {after}"  # a sequence of accents has an order of its own
    quoted = written if name in WHOLE else f"{before} {written} {after}"
    redaction = redaction_of(secret)
    line = line_of({"beta": "harmless", "gamma": [{"deep": quoted}]})
    redacted = redaction.redact(line)
    assert redacted.hidden == ("gamma",)
    assert msgspec.json.encode(written).decode()[1:-1] not in redacted.body
    check_hidden(redacted)
    for content in (quoted.encode(), msgspec.json.encode({"text": quoted}), b64encode(quoted.encode())):
        assert redaction.hides_blob("0" * 64, content=content)


def test_a_request_that_is_echoed_in_a_program_is_hidden() -> None:
    """A request with quotes, written by a model into a string literal, in the raw result of the generation."""
    request = 'Write "Hello, Grüße & more" for Ada.\nThen print the word "done" 100% of the time.'
    program = (
        f'print({request.splitlines()[1]!a})\nprint("{request.splitlines()[0].replace(chr(34), chr(92) + chr(34))}")\n'
    )
    raw = msgspec.json.encode({"reply": {"text": f"```python\n{program}```"}, "counts": [12]})
    redaction = redaction_of(request)
    assert redaction.hides_blob("0" * 64, content=program.encode())
    assert redaction.hides_blob("0" * 64, content=raw)


def test_harmless_texts_stay() -> None:
    """Escapes, digests, Base64 and addresses that hold nothing of it are not hidden."""
    redaction = redaction_of("Greet Ada Lovelace\nwith 'quotes' and Grüße")
    kept = line_of(
        {
            "beta": 'print("a\\n\\x41\\u00e9 %41 &amp;")',
            "gamma": ["ab" * 32, b64encode(b"a page about something else entirely").decode()],
            "delta": "https://example.org/?q=ada%20byron&x=1+2",
        }
    )
    assert redaction.redact(kept) == kept
