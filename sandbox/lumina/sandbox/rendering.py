"""Text of untrusted programs, made safe to show, to store and to send back to a model. Pure.

Control, format, surrogate, private and separator characters are escaped, so that no terminal, database or log can be
driven by what a program printed. Paths in tracebacks are the same on every machine.
"""

import re
import unicodedata
from typing import Final

from lumina.events.values import TEXT_CHARACTERS_MAX, clip

_ESCAPED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_KEPT: Final = frozenset("\n\t")
_PLACES: Final = (
    (re.compile(r"(?:file://)?/code/"), ""),
    (re.compile(r"/opt/python/lib/python3\.\d+/"), "python/"),
    (re.compile(r"/usr/lib/python3(?:\.\d+)?/"), "python/"),
    (re.compile(r"/opt/packages/"), "packages/"),
)
TRACEBACK_LINES_MAX: Final = 20


def escape(text: str) -> str:
    r"""Return `text` with everything that is not plain text as `\xNN`, `\uNNNN` or `\UNNNNNNNN`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in _KEPT or unicodedata.category(character) not in _ESCAPED
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def render(raw: bytes, *, limit: int = TEXT_CHARACTERS_MAX) -> str:
    """Return the bytes that a program printed as at most `limit` characters, head and tail, with stable paths."""
    text = escape(raw.decode("utf-8", "replace").replace("\r\n", "\n"))
    for pattern, replacement in _PLACES:
        text = pattern.sub(replacement, text)
    return clip(text, limit=limit)


def sentence(text: str, *, limit: int = 500) -> str:
    """Return `text` on one line of at most `limit` characters, escaped."""
    line = " ".join(escape(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def last_lines(text: str, *, count: int = TRACEBACK_LINES_MAX) -> str:
    """Return the last `count` lines: where a traceback says what happened."""
    return "\n".join(text.rstrip("\n").split("\n")[-count:])
