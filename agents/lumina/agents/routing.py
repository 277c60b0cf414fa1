"""Which kind of specialist a piece of work is for: weighted keywords, strong signals, and the language asked for."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

import msgspec

from lumina.agents.contracts import function_name, parameters
from lumina.agents.dialogue_pairs import dialogue
from lumina.agents.literals import names_a_site, without_quotes
from lumina.events.contract import Form, Language
from lumina.events.run import SpecialistRef

SCORE_FITTING_MIN: Final = 2
"""Below this a kind does not fit at all."""
SCORE_CONFIDENT_MIN: Final = 5
LEAD_CONFIDENT_MIN: Final = 2
"""A kind is chosen with confidence when it scores enough and leads the next one by this."""
WEIGHT_MAX: Final = 10

# A pattern that settles the kind nearly alone, its weight, and the words for it in `PlannedStep.rule`.
_SIGNALS: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "animation": (
        (r"\bgsap\b", 8, "it names GSAP"),
        (r"\b(?:timeline|animation) (?:config|object|configuration)", 6, "it wants a timeline configuration"),
        (r"\b(?:scaleX|scaleY|yoyo)\b", 5, "it names tween properties"),
        (r"(?<![\w/])[#.][a-z][\w-]*\b.{0,60}?\b(?:over|in|for) [\d.]+ ?s(?:ec|\b)", 5, "it moves elements over time"),
        (
            (
                r"\b(?:fade|rotate|slide|scale|move|animate|shrink|grow|spin|tilt|push|shift)s?\b.{0,70}?"
                r"\b[\d.]+ ?(?:s|px|seconds?|deg|degrees|pixels)\b"
            ),
            4,
            "it moves things by amounts",
        ),
    ),
    "scraper": (
        (r"\bscrap(?:e|er|es|ing)\b", 8, "it says to scrape"),
        (r"\bbeautifulsoup\b|\bbs4\b", 8, "it names BeautifulSoup"),
        (r"https?://\S+", 4, "it names a web address"),
        (
            (
                r"\b(?:titles?|links?|urls?|prices?|headlines?|names|authors?)\b.{0,60}?\b(?:from|on|at|of)\b.{0,60}?"
                r"(?:https?://|\.(?:com|org|net|io|dev|test)\b)"
            ),
            4,
            "it wants things of a page",
        ),
    ),
    "layers": (
        (r"\b(?:pillow|pil)\b", 8, "it names Pillow"),
        (r"\.(?:png|webp)\b.*\.(?:png|webp)\b", 5, "it names several pictures"),
        (
            r"\b(?:layer|composite|overlay|paste|stack)s?\b.{0,60}?\.png\b.{0,80}?\.png\b",
            4,
            "it puts pictures on each other",
        ),
    ),
    "game": (
        (r"\brock\W+paper\W+(?:and\W+|or\W+)?scissors\b", 6, "it wants rock-paper-scissors"),
        (r"\btic-?tac-?toe\b", 5, "it wants tic-tac-toe"),
        (
            r"\b(?:javascript|js|node)\b.{0,60}?\bfunction\b|\bfunction\b.{0,80}?\b(?:javascript|js|node)\b",
            4,
            "it wants a JavaScript function",
        ),
    ),
    "dialogue": (
        (r"\bnpc\b", 6, "it speaks of an NPC"),
        (r"\bdialog(?:ue)?\b", 6, "it wants a dialogue"),
        (
            r"\b(?:player|someone|you|user) (?:says?|asks?)\b.{0,60}?\b(?:responds?|repl(?:y|ies)|answers?|says?)\b",
            6,
            "it says who answers what",
        ),
    ),
    "function": (
        (r"\bpython\b.{0,60}?\bfunction\b|\bfunction\b.{0,100}?\bpython\b", 5, "it wants a Python function"),
        (r"\bdef [a-z_]\w*\(", 6, "it gives a Python signature"),
        (r"\bfunction\s+(?:called|named)?\s*[`'\"]?[a-z_]\w*\(", 3, "it gives a signature"),
    ),
}
_JAVASCRIPT: Final = re.compile(r"\b(?:javascript|js|node(?:\.?js)?|gsap)\b", re.IGNORECASE)
_PYTHON: Final = re.compile(r"\b(?:python|pillow|pil|beautifulsoup|bs4)\b", re.IGNORECASE)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The kind chosen for a piece of work.

    Attributes:
        specialist: Whom it is for; None when no kind fits.
        confident: Whether the words leave no doubt.
        rule: Why, in words for people.
    """

    specialist: SpecialistRef | None
    confident: bool
    rule: str


def route(brief: str, *, specialists: Sequence[SpecialistRef]) -> Route:
    """Return who is to do `brief`. Free scripts are nobody's first choice and never chosen here."""
    text = without_quotes(brief)
    language = named_language(text)
    seen = _seen(brief)
    scored: list[tuple[int, int, SpecialistRef, str]] = []
    for index, specialist in enumerate(specialists):
        if specialist.form is Form.SCRIPT or (language is not None and specialist.language is not language):
            continue
        score, reason = _score(text, specialist, seen=seen)
        if language is specialist.language and specialist.form is Form.FUNCTION:
            score += 1
        scored.append((score, -index, specialist, reason))
    scored.sort(key=lambda entry: entry[:2], reverse=True)
    if not scored or scored[0][0] < SCORE_FITTING_MIN:
        return Route(specialist=None, confident=False, rule="no kind fits")
    best = scored[0]
    second = scored[1][0] if len(scored) > 1 else 0
    confident = best[0] >= SCORE_CONFIDENT_MIN and best[0] - second >= LEAD_CONFIDENT_MIN
    return Route(specialist=best[2], confident=confident, rule=best[3])


def named_language(text: str) -> Language | None:
    """Return the one language that `text` names, None for neither or both."""
    javascript, python = _JAVASCRIPT.search(text) is not None, _PYTHON.search(text) is not None
    if javascript == python:
        return None
    return Language.JAVASCRIPT if javascript else Language.PYTHON


def _score(text: str, specialist: SpecialistRef, *, seen: Sequence[tuple[str, int, str]]) -> tuple[int, str]:
    """Return how much speaks for a specialist, and what."""
    lower = text.lower()
    total = 0
    words: list[tuple[int, str]] = []
    for keyword in specialist.keywords:
        word, weight = weighted(keyword)
        if _word_pattern(word).search(lower):
            total += weight
            words.append((weight, word))
    reasons: list[str] = []
    for pattern, weight, reason in _SIGNALS.get(specialist.kind, ()):
        if _signal_pattern(pattern).search(text):
            total += weight
            reasons.append(reason)
    for kind, weight, reason in seen:
        if kind == specialist.kind:
            total += weight
            reasons.append(reason)
    words.sort(key=lambda entry: -entry[0])
    if words:
        reasons.append("words: " + ", ".join(word for _, word in words[:4]))
    return total, "; ".join(dict.fromkeys(reasons))


def _seen(brief: str) -> tuple[tuple[str, int, str], ...]:
    """Return what the literal parts of a request say for a kind: (kind, weight, words)."""
    found: list[tuple[str, int, str]] = []
    if dialogue(brief).pairs:
        found.append(("dialogue", 10, "it says who answers what"))
    if names_a_site(without_quotes(brief)):
        found.append(("scraper", 4, "it names a site"))
    name = function_name(brief)
    names = " ".join((name or "", *parameters(brief, name=name)))
    if re.search(r"[a-z][A-Z]", names):
        found.append(("game", 3, "its names are written as in JavaScript"))
    elif name is not None and "_" in name:
        found.append(("function", 1, "its name is written as in Python"))
    return tuple(found)


def weighted(keyword: str) -> tuple[str, int]:
    """Return the word and the weight of a keyword: `gsap^5` is ("gsap", 5), `gsap` is ("gsap", 1)."""
    word, mark, weight = keyword.rpartition("^")
    if mark and weight.isdigit():
        return word.lower(), min(int(weight), WEIGHT_MAX)
    return keyword.lower(), 1


@cache
def _word_pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")


@cache
def _signal_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)
