"""What a request says word for word: quoted texts, addresses, files, selectors, names, numbers, lists of values.

Nothing here guesses what was meant. Each function returns what stands in the text, in its order.
"""

import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_QUOTED: Final = re.compile(
    r"""(?<![A-Za-z0-9_])'((?:[^'\n]|(?<=\w)'(?=\w))*)'(?![A-Za-z0-9_])|"([^"\n]*)"|`([^`\n]*)`|‘([^’\n]*)’|“([^”\n]*)”"""
)
_ADDRESS: Final = re.compile(r"""https?://[^\s'"`<>()\[\]{}|\\^]+""")
_ENDINGS: Final = (
    "com|org|net|edu|gov|io|dev|app|ai|info|news|test|local|example|co|uk|de|fr|nl|eu|ch|at|it|es|us|ca|jp"
)
_BARE_ADDRESS: Final = re.compile(
    rf"(?<![\w@./:#-])((?:localhost|(?:\d{{1,3}}\.){{3}}\d{{1,3}}|(?:[a-z0-9-]+\.)+(?:{_ENDINGS}))(?::\d{{1,5}})?(?:/[\w./~%+-]*)?)(?![\w@-])",
    re.IGNORECASE,
)
_SECTION: Final = re.compile(
    r"the (?:'|\"|`|)([A-Za-z][\w-]*)(?:'|\"|`|) (?:section|page|category|part) (?:of|on|at) \S|"
    r"(?:,|\()\s*section (?:'|\"|`|)([A-Za-z][\w-]*)",
    re.IGNORECASE,
)
_FILE: Final = re.compile(r"(?<!\w)\w[\w.-]{0,119}\.(?:png|jpe?g|gif|webp|bmp|svg|txt|csv|json|html)\b", re.IGNORECASE)
"""Begun at words alone and bounded, as file names are: without that it takes time by the square of a long word, and the
keeper of all runs would think about one request for minutes."""
_SELECTOR: Final = re.compile(r"(?<![\w&/=.#'\"`-])[#.][A-Za-z_][\w-]*(?![\w.(/-]*\.(?:png|jpe?g|svg))")
_PICTURE: Final = re.compile(r"\.(?:png|jpe?g|gif|webp|bmp)$", re.IGNORECASE)
_TRAILING: Final = ".,;:!?'\""
_WORDS: Final[tuple[str, ...]] = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER: Final = rf"(?P<n>\d{{1,4}}|{'|'.join(_WORDS[1:])})"
_LIMITS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        (
            rf"\b(?:first|top|latest|newest|up to|at most|no more than|only|maximum of|limit of)\s+{_NUMBER}\b"
            r"(?!\s*(?:px|%|\.\d))"
        ),
        rf"\b{_NUMBER}\s+(?:first|latest|newest|top)\b",
        rf"\blimit(?:ed)?(?: it| them)?(?:\s*:|\s+to)\s*{_NUMBER}\b",
        rf"\b(?:stop after|not more than|take|take the first)\s+{_NUMBER}\b",
        (
            rf"\b(?:of|from|for|list|get|fetch|extract|pull|collect|scrape|grab|give me|show me|read)\s+{_NUMBER}\s+"
            r"(?!px\b|pixels|seconds|second\b|%|percent|to\b|by\b|and\b|or\b)[a-z.`'\"]"
        ),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """A text between quotation marks. `start` and `end` are its place in the request, marks included."""

    text: str
    start: int
    end: int


def quotes(text: str) -> tuple[Quote, ...]:
    """Return the quoted texts; an apostrophe inside a word opens or closes nothing."""
    return tuple(
        Quote(text=next(part for part in found.groups() if part is not None), start=found.start(), end=found.end())
        for found in _QUOTED.finditer(text)
    )


def without_quotes(text: str) -> str:
    """Return `text` with every quoted text blanked out, files, addresses and selectors excepted."""
    for quote in quotes(text):
        kept = _FILE.search(quote.text) or _ADDRESS.search(quote.text) or quote.text.startswith(("#", "."))
        if not kept:
            text = text[: quote.start] + " " * (quote.end - quote.start) + text[quote.end :]
    return text


def addresses(text: str) -> tuple[str, ...]:
    """Return the web addresses that stand in full in `text`, punctuation after them left out."""
    return tuple(dict.fromkeys(found.group().rstrip(_TRAILING) for found in _ADDRESS.finditer(text)))


def implied_addresses(text: str) -> tuple[str, ...]:
    """Return addresses for sites that `text` names without `https://`, with the section that it names, if any.

    `the 'Technology' section of news.example.com` gives `https://news.example.com/technology`.
    """
    section = _SECTION.search(text)
    found: dict[str, None] = {}
    for site in (match.group(1).rstrip(_TRAILING) for match in _BARE_ADDRESS.finditer(_ADDRESS.sub(" ", text))):
        address = f"https://{site}"
        if section is not None and "/" not in site:
            found[f"{address}/{(section.group(1) or section.group(2)).lower()}"] = None
        found[address] = None
    return tuple(found)


def names_a_site(text: str) -> bool:
    """Return whether `text` names a site without `https://`, such as `news.example.com/today`."""
    return _BARE_ADDRESS.search(_ADDRESS.sub(" ", text)) is not None


def host_of(address: str) -> str:
    """Return `host` or `host:port` of an address, lower case; empty when it has none."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:  # for instance an unclosed bracket: this is no address
        return ""


def files(text: str) -> tuple[str, ...]:
    """Return the file names in `text`, without folders, each once."""
    return tuple(dict.fromkeys(found.group() for found in _FILE.finditer(_ADDRESS.sub(" ", text))))


def saved_file(text: str) -> str | None:
    """Return the picture that the request wants to be written: the last one announced as the result."""
    clean = _ADDRESS.sub(" ", text)
    last, end = None, 0
    announced = re.compile(
        r"\b(?:save[sd]?|saving|write|export|store|output|result|into|called|named?|final)\b", re.IGNORECASE
    )
    for found in _FILE.finditer(clean):
        if _PICTURE.search(found.group()) and announced.search(clean[max(end, found.start() - 60) : found.start()]):
            last = found.group()
        end = found.end()
    return last


def selectors(text: str) -> tuple[str, ...]:
    """Return the `#id` and `.class` selectors that stand free or in quotes in `text`."""
    clean = _ADDRESS.sub(" ", text)
    free = [found.group() for found in _SELECTOR.finditer(clean)]
    quoted = [quote.text for quote in quotes(clean) if re.fullmatch(r"[#.][A-Za-z_][\w-]*", quote.text)]
    return tuple(dict.fromkeys(free + quoted))


def limit(text: str) -> int:
    """Return how many things the request wants at most, in digits or words up to twenty; 0 when it does not say."""
    clean = without_quotes(_ADDRESS.sub(" ", text))
    for pattern in _LIMITS:
        if (found := pattern.search(clean)) is not None:
            said = found.group("n").lower()
            return int(said) if said.isdigit() else _WORDS.index(said)
    return 0


def as_json(source: str) -> str | None:
    """Return the JSON text of one value as written in Python, JavaScript or JSON; None if it is no plain value."""
    swapped = {"True": "true", "False": "false", "None": "null"}
    text = re.sub(r"'([^'\"\\]*)'", r'"\1"', source.strip())
    text = re.sub(r"\b(?:True|False|None)\b", lambda found: swapped[found.group()], text)
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False)
        written.encode()  # half a character, as JSON escapes can write it, can't stand in an event
    except (ValueError, RecursionError):
        return None
    return written
