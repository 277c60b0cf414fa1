"""Which fields of an exported run are hidden, so that a value which was asked to be hidden is found nowhere. Pure.

The value is followed: a field or a blob that holds a hidden text, or that is a part of one, is hidden, too. In the
place of a hidden field stands its digest, so the record stays checkable (`lumina.bus.archive_format.check_hidden`).
The digests have no salt: a short value can be found by trying.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from lumina.bus.archive_format import NEVER_HIDDEN, Line, field_digest, fields_of, hide
from lumina.events.catalogue import EVENT_TYPES, WRITERS
from lumina.replay.bundles.disguises import Encoded, Needles, forms, plain, undone
from lumina.replay.errors import NotRedactable

TEXT_CHARACTERS_MIN: Final = 8
"""A shorter hidden text is hidden where it stands, and not looked for elsewhere: it would be found everywhere."""
PART_CHARACTERS_MIN: Final = 12
"""A text of this length that is a part of a hidden one is hidden, too."""
NESTED_MAX: Final = 3
"""JSON in texts in JSON, and bytes in Base64, are looked into so deep."""

_PUBLIC: Final = frozenset(EVENT_TYPES) | {agent for writers in WRITERS.values() for agent in writers}
"""Words that every file holds in its envelopes."""
_NO_SECRETS: Final = frozenset({"media_type"})
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_STANDARD: Final = str.maketrans("-_", "+/")
_BLOB: Final = re.compile(r"[0-9a-f]{64}")


class Redaction:
    """What is to be hidden in one file. First `learn` every record, then `redact` every record, and ask for blobs.

    Args:
        names: Of fields, at any depth.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.blobs: set[str] = set()
        self.found: set[str] = set()
        self._known: set[str] = set()
        self._texts: set[str] = set()
        self._needles = Needles(TEXT_CHARACTERS_MIN)
        self._encoded = Encoded()
        self._all_texts = ""
        forbidden = self.names & {"type", *(name for names in NEVER_HIDDEN.values() for name in names)}
        if forbidden:
            raise NotRedactable(f"{min(forbidden)} can't be hidden: by it the records are proved to be all")

    def learn(self, line: Line) -> None:
        """Take note of the values that are to be hidden."""
        for name, value in _named(msgspec.json.decode(line.body)):
            self._known.add(name)
            if name in self.names:
                self.found.add(name)
                for string in _strings(value):
                    self._learn_text(string)

    def learn_blob(self, content: bytes) -> None:
        """Take note of what stands in a blob that a hidden field names: elsewhere it is hidden, too."""
        self._learn_text(content.decode(errors="replace"))

    def _learn_text(self, string: str) -> None:
        for inner in _unpacked(string):
            for text in {inner, *inner.splitlines()}:
                if _is_looked_for(plain(text)):
                    self._texts.update(filter(_is_looked_for, forms(text)))
                    self._encoded.add(undone(text))
            if _BLOB.fullmatch(inner):
                self.blobs.add(inner)

    def check(self, streams: Iterable[str]) -> None:
        """Check, when everything is learnt, that it can be hidden.

        Raises:
            NotRedactable: A name is of no field, or a value stands in an envelope, which can't be hidden.
        """
        unknown = self.names - self.found
        if unknown:
            known = ", ".join(sorted(self._known - {"type"}))
            raise NotRedactable(f"no record has a field {min(unknown)!r}; there are: {known}")
        for stream in streams:
            if any(text in stream for text in self._texts):
                raise NotRedactable(f"{stream!r} holds a text that is to be hidden, and is part of every envelope")
        self._all_texts = "\0".join(sorted(self._texts))
        for text in self._texts:
            self._needles.add(text)

    def redact(self, line: Line) -> Line:
        """Return the record without what is hidden."""
        event_type = line.headers.get("ce-type", "")
        kept = {"type", *NEVER_HIDDEN.get(event_type, ())}
        hidden: dict[str, str] = {}
        for name, text in fields_of(line.body).items():
            if name not in kept and self._hides(name, msgspec.json.decode(text)):
                hidden[name] = field_digest(text)
        return hide(line, names=hidden) if hidden else line

    def hides_blob(self, digest: str, *, content: bytes) -> bool:
        """Return whether a blob is left out."""
        return digest in self.blobs or self._holds(content.decode(errors="replace"))

    def _hides(self, name: str, value: Any) -> bool:
        if name in self.names or any(inner in self.names for inner, _ in _named(value)):
            return True
        return any(self._holds(string) for string in _strings(value))

    def _holds(self, string: str) -> bool:
        """Return whether a text holds a hidden one, or is a part of one, also inside of JSON and Base64 in it."""
        return any(self._holds_form(inner) for inner in _unpacked(string))

    def _holds_form(self, string: str) -> bool:
        for form in forms(string):
            if len(form) >= PART_CHARACTERS_MIN and form in self._all_texts:
                return True
            if self._needles.found_in(form):
                return True
        return any(self._encoded.found_in(each) for each in undone(string))


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every field of a JSON value, at any depth."""
    match value:
        case dict():
            for name, inner in value.items():
                yield str(name), inner
                yield from _named(inner)
        case list():
            for inner in value:
                yield from _named(inner)
        case _:
            pass  # texts and numbers have no fields


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, but for those that say nothing about anybody."""
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                if name not in _NO_SECRETS:
                    yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)
        case _:
            pass  # numbers are hidden where they stand


def _is_looked_for(text: str) -> bool:
    """Return whether a hidden text, as it is compared, is looked for elsewhere."""
    return len(text) >= TEXT_CHARACTERS_MIN and text not in _PUBLIC


def _unpacked(string: str, *, depth: int = 0) -> Iterator[str]:
    """Yield a text, and what stands in it if it is JSON or Base64."""
    yield string
    if depth == NESTED_MAX:
        return
    if string[:1] in {"{", "[", '"'}:
        try:
            value = msgspec.json.decode(string)
        except (msgspec.DecodeError, RecursionError):
            return
        for inner in _strings(value):
            yield from _unpacked(inner, depth=depth + 1)
    elif _BASE64.fullmatch(string):
        bare = string.rstrip("=").translate(_STANDARD)
        try:
            inside = b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode(errors="replace")
        except Base64Error:
            return
        yield from _unpacked(inside, depth=depth + 1)
