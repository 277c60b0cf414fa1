"""Turning sentence frames into requests.

A frame is a text with alternatives, `[Write|Make|] a script`, that may nest, and
with slots, `{name}`. Alternatives are drawn first and slots are filled last, so
nothing that happens to a wording can touch the value of a slot.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
_SLOT: Final = re.compile(r"\{(\w+)\}")
_SPACES: Final = re.compile(r" {2,}")
_GAPS: Final = re.compile(r" +([.,;:])")

_IMPERATIVES: Final = (
    "[Write|Write|Create|Create|Make|Generate|Generate|Build|Implement|Code|Produce|Write me|Make me|Give me|Create]"
)
_ASKS: Final = (
    _IMPERATIVES + " {thing}",
    _IMPERATIVES + " {thing}",
    "[Please|please] [write|create|make|generate|build|give me|produce] {thing}",
    "I [need|want|would like|'d like|am looking for|could use] {thing}",
    "I [need|want] you to [write|create|make|generate|build] {thing}",
    "[Could|Can|Would] you [please|] [write|create|make|generate|build|give me] {thing}",
    "[Let us have|We need|We want|My game needs|My project needs|Our site needs] {thing}",
    "[{thing}|{thing} please|{thing} wanted|Needed: {thing}|Task: {thing}]",
    "[Help me write|Help me make|Show me|Come up with|Put together|Prepare|Set up] {thing}",
)
_HELD_ASKS: Final = (
    "[Whip up|Draft|Craft] {thing}",
    "[It would be great to have|What I am after is|I was hoping for] {thing}",
    "[Would you mind writing|Do you think you could do] {thing}",
)
_GREETINGS: Final = ("Hi, ", "Hello, ", "Hey, ", "Hi! ", "ok, ", "Next: ", "Lumina, ", "Hey Lumina, ", "So, ")
_THANKS: Final = (" Thanks.", " Thanks!", " Thank you.", " Please.", " Keep it simple.", " Code only.")


def expand(rng: Random, template: str) -> str:
    """Return `template` with one alternative drawn from each bracket, innermost first."""
    while (found := _CHOICE.search(template)) is not None:
        chosen = rng.choice(found.group(1).split("|"))
        template = template[: found.start()] + chosen + template[found.end() :]
    return _SPACES.sub(" ", template)


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Return `template` with every `{name}` replaced; KeyError for one without a value."""
    return _SLOT.sub(lambda found: slots[found.group(1)], template)


def ask(rng: Random, thing: str, *, held: bool) -> str:
    """Return a template that asks for `thing`, itself a template."""
    asked = expand(rng, rng.choice(_HELD_ASKS if held else _ASKS))
    return asked.replace("{thing}", expand(rng, thing)).replace("I 'd", "I'd")


def pick(rng: Random, frames: Sequence[str]) -> str:
    """Return one frame with its alternatives drawn."""
    return expand(rng, rng.choice(frames))


def roughen(rng: Random, template: str) -> str:
    """Return `template` as typed in a hurry or in a letter: case, greeting, full stop."""
    template = _GAPS.sub(r"\1", template.strip())
    if rng.random() < 0.08:
        template = rng.choice(_GREETINGS) + _lower_first(template)
    elif rng.random() < 0.3:
        template = _lower_first(template)
    elif template[0].islower():
        template = template[0].upper() + template[1:]
    if rng.random() < 0.3:
        template = template.removesuffix(".")
    elif rng.random() < 0.08 and template[-1] in ".!?":
        template += rng.choice(_THANKS)
    return template


def listed(rng: Random, parts: Sequence[str]) -> str:
    """Return "a, b and c", with or without the last comma."""
    if len(parts) == 1:
        return parts[0]
    last = rng.choice((" and ", " and ", ", and ", " & ", ", ") if len(parts) > 2 else (" and ", " and ", " & ", ", "))
    return ", ".join(parts[:-1]) + last + parts[-1]


def _lower_first(template: str) -> str:
    if template.startswith(("I ", "I'", "NPC", "GSAP", "PNG", "Python", "JavaScript", "JS", "Pillow")):
        return template
    return template[0].lower() + template[1:]
