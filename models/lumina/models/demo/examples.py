"""Requests in the demo model's range, to show to people and to start from.

There is no `in_range(request)`: which wordings work is known only by trying, so
what decides is the validation of the answer.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from . import corpus, words
from .record import KINDS

_TRIES: Final = 3000
_READ: Final = 3000
_SHARED: Final = 5
_KNOWN: Final = frozenset(words.WORDS) | frozenset(words.TALK)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One kind of request: what can be asked, and one way to ask for it."""

    kind: str
    description: str
    example: str


_SHAPES: Final = (
    Shape(
        kind="animation",
        description="A GSAP timeline configuration (JavaScript): steps, durations, ease, repeat",
        example=(
            "Generate a GSAP timeline configuration object for a 2D character. The animation should first make the "
            "'left_eye_lid' and 'right_eye_lid' elements close (scaleY: 0) over 0.2 seconds, then open back "
            "(scaleY: 1) over 0.2 seconds. After a 0.1 second pause, the 'mouth' element should change its 'src' "
            "attribute to 'smile.png' over 0.3 seconds."
        ),
    ),
    Shape(
        kind="scraper",
        description="A web scraper (Python, requests and BeautifulSoup): page, items, fields, limit",
        example=(
            "Scrape the titles and URLs of the first 5 articles from the 'Technology' section of news.example.com."
        ),
    ),
    Shape(
        kind="game",
        description="One rule of a game as a JavaScript function: dice, damage, levels, guesses, scores",
        example=(
            "Generate JavaScript code for a simple rock-paper-scissors game function that takes playerChoice and "
            "returns 'win', 'lose', or 'tie'"
        ),
    ),
    Shape(
        kind="dialogue",
        description="What a character answers (Python): one to five lines and a default reply",
        example=(
            "Generate Python code for an NPC dialogue tree where if player says 'hello', NPC responds "
            "'Greetings, traveler!', and if player says 'quest', NPC responds 'I have no quests for you today.'"
        ),
    ),
    Shape(
        kind="layers",
        description="Image layers composited with Pillow (Python): files, places, opacity, size",
        example=(
            "Generate a Python script using Pillow to layer 'base_character.png', 'green_tunic.png' (at coordinates "
            "10,20), 'leather_boots.png' (at 12,80), and 'surprised_face.png' (at 14,8). Ensure all layers are "
            "transparent PNGs and composite them correctly. Save the output as 'generated_character.png'."
        ),
    ),
    Shape(
        kind="function",
        description="A small function on a list, a text or a number (Python)",
        example="Write a Python function called sum_even that returns the sum of all even numbers in numbers.",
    ),
)


def shapes() -> tuple[Shape, ...]:
    """Return one shape for each kind, in the order of `KINDS`."""
    return _SHAPES


def example(kind: str, *, seed: int) -> str:
    """Return a request of `kind` with slots filled from `seed`, in ordinary words where possible.

    Raises:
        ValueError: `kind` is none of `KINDS`.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; one of {', '.join(KINDS)}")
    rng = Random(seed)  # noqa: S311 - nothing secret
    request = ""
    for _ in range(_TRIES):
        request = " ".join(corpus.task(rng, part="train", kind=kind).request.split())
        if not request[0].islower() and _ordinary(request):
            return request
    return request


def _ordinary(request: str) -> bool:
    """Return whether no word of `request` was made up for training."""
    text = "".join(f" {letter}" if letter.isupper() else letter if letter.isalpha() else " " for letter in request)
    return all(len(part) < 3 or part in _KNOWN or part in _plain() for part in text.lower().split())


@cache
def _plain() -> frozenset[str]:
    """Return the words of the wordings themselves: those that several requests share."""
    rng = Random(0)  # noqa: S311 - nothing secret
    seen: dict[str, int] = {}
    for _ in range(_READ):
        request = corpus.task(rng, part="train").request.lower()
        for part in {*"".join(letter if letter.isalpha() else " " for letter in request).split()}:
            seen[part] = seen.get(part, 0) + 1
    return frozenset(part for part, count in seen.items() if count >= _SHARED)
