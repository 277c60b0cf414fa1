r"""In which forms a text that is to be hidden may stand elsewhere. Pure.

A model quotes what it is told inside of string literals, a program prints it with `repr`, a page is asked for with it
in its address. So texts are compared with their escapes undone (`\"`, `\n`, `\u00e9`, `\xc3\xa9`, `%C3%A9`,
`&quot;`), in one normal form of Unicode, and without regard to case, accents and blanks; and what Base64 and
hexadecimal digits make of a text is looked for. Compression, encryption, other encodings and paraphrases are not seen.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import unescape
from typing import Final
from unicodedata import category, normalize
from urllib.parse import unquote

UNDONE_MAX: Final = 6
"""Escapes inside of escapes are undone so deep."""
ENCODED_MIN: Final = 9
"""Shorter parts of Base64 and of hexadecimal digits are not looked for."""

_ESCAPE: Final = re.compile(
    r"(?P<units>(?:\\u[0-9a-fA-F]{4})+)"
    r"|(?P<bytes>(?:\\x[0-9a-fA-F]{2}|\\[0-3][0-7]{2})+)"
    r"|\\U(?P<long>[0-9a-fA-F]{8})"
    r"|\\u\{(?P<braced>[0-9a-fA-F]{1,6})\}"
    r"|\\(?P<one>[abfnrtv'\"\\/`])"
)
_BYTE: Final = re.compile(r"\\x([0-9a-fA-F]{2})|\\([0-3][0-7]{2})")
_NUMBER: Final = re.compile(r"&#(?:[xX]([0-9a-fA-F]{1,6})|([0-9]{1,7}));")
_ONE: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ENCODINGS: Final = ("utf-8", "latin-1")
"""What escaped bytes may stand for: `repr` of bytes means the first, `ascii` of a text the second."""
_IGNORED: Final = frozenset({"Mn", "Me", "Cf"})
"""Accents, and characters that nobody sees."""
_URLSAFE: Final = str.maketrans("-_", "+/")
_SEPARATORS: Final = re.compile(r"[\s:]+")


def plain(text: str) -> str:
    """Return a text as it is compared: without regard to case and blanks."""
    return " ".join(text.casefold().split())


def normal(text: str) -> str:
    """Return a text as it is compared: also without regard to accents, and to how Unicode writes a character."""
    if text.isascii():
        return plain(text)
    apart = normalize("NFKD", normalize("NFKD", text).casefold())
    return plain("".join(each for each in apart if category(each) not in _IGNORED))


def undone(text: str) -> Iterator[str]:
    """Yield a text, and what it is with its escapes undone, one kind after the other and again, each once."""
    seen = {text}
    yield text
    for encoding in _ENCODINGS:
        inner = text
        for _ in range(UNDONE_MAX):
            before = inner
            for kind in _KINDS:
                inner = kind(inner, encoding)
                if inner not in seen:
                    seen.add(inner)
                    yield inner
            if inner == before:
                break


def forms(text: str) -> frozenset[str]:
    """Return a text, and what it is with its escapes undone, as they are compared."""
    return frozenset(form for each in undone(text) for form in _compared(each))


def _compared(text: str) -> Iterator[str]:
    """Yield what is compared of a text: a plus sign may be a blank in an address."""
    yield plain(text)
    yield normal(text)
    if "+" in text:
        yield normal(text.replace("+", " "))


class Needles:
    """Texts that are looked for in others, all at once: the time does not depend on how many they are.

    Args:
        length: Shorter ones are not taken.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._by_start: dict[str, set[str]] = {}

    def add(self, needle: str) -> None:
        """Look for this one, too."""
        if len(needle) >= self._length:
            self._by_start.setdefault(needle[: self._length], set()).add(needle)

    def found_in(self, text: str) -> bool:
        """Return whether one of them stands in a text."""
        by_start, length = self._by_start, self._length
        if not by_start:
            return False
        for at in range(len(text) - length + 1):
            if text[at : at + length] in by_start:
                candidates = by_start[text[at : at + length]]
                if any(text.startswith(needle, at) for needle in candidates):
                    return True
        return False


class Encoded:
    """Finds texts in Base64, with either alphabet and anywhere in a word, and in hexadecimal digits."""

    def __init__(self) -> None:
        self._base64 = Needles(ENCODED_MIN)
        self._hex = Needles(ENCODED_MIN)

    def add(self, texts: Iterable[str]) -> None:
        """Look for these, too."""
        for text in texts:
            for form in {text, normalize("NFC", text), normalize("NFD", text)}:
                content = form.encode(errors="replace")
                self._hex.add(content.hex())
                for before in range(3):
                    self._base64.add(_base64_of(content, before=before))

    def found_in(self, text: str) -> bool:
        """Return whether a text holds one of them."""
        dense = _SEPARATORS.sub("", text)
        return self._base64.found_in(dense.translate(_URLSAFE)) or self._hex.found_in(dense.lower())


def _base64_of(content: bytes, *, before: int) -> str:
    """Return the part of the Base64 of a text that has content alone in it, when so many bytes stand before it."""
    whole = b64encode(bytes(before) + content).decode().rstrip("=")
    return whole[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]


def _without_backslashes(text: str, encoding: str) -> str:
    def character(found: re.Match[str]) -> str:
        groups = found.groupdict()
        if (units := groups["units"]) is not None:
            return bytes.fromhex(units.replace("\\u", "")).decode("utf-16-be", "replace")
        if (escaped := groups["bytes"]) is not None:
            content = bytes(int(hexes, 16) if hexes else int(octal, 8) for hexes, octal in _BYTE.findall(escaped))
            return _decoded(content, encoding=encoding)
        if (one := groups["one"]) is not None:
            return _ONE.get(one, one)
        return _character(int(groups["long"] or groups["braced"], 16)) or found[0]

    return _ESCAPE.sub(character, text) if "\\" in text else text


def _decoded(content: bytes, *, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _without_percents(text: str, encoding: str) -> str:
    return unquote(text, encoding=encoding) if "%" in text else text


def _without_entities(text: str, encoding: str) -> str:
    del encoding  # entities name characters, not bytes
    return unescape(_NUMBER.sub(_numbered, text)) if "&" in text else text


def _numbered(found: re.Match[str]) -> str:
    """Return what a number stands for; `html.unescape` drops control characters."""
    return _character(int(found[1], 16) if found[1] else int(found[2])) or found[0]


def _character(point: int) -> str | None:
    return chr(point) if point <= 0x10FFFF else None


_KINDS: Final = (_without_backslashes, _without_percents, _without_entities)
