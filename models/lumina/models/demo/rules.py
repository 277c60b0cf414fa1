"""Small rules that a function can follow, and how people ask for one.

`game` and `function` both ask for one function with one rule; what differs is
the language and the table of rules.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from . import phrasing, words

Call = tuple[list[object], list[float], object]
"""Arguments, values of the random source, and the expected result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule, as text in a request, as code and as expectations.

    Attributes:
        name: The default name of the function.
        parameters: Default names of the parameters.
        does: Ways to say it; `!` marks verbs that take the s of the third person.
        body: Lines of code, with `{p0}` for parameters and `{constant}`s.
        constants: Draws the values that the request names.
        calls: Gives calls with what they must return.
        nouns: Ways to name such a function with a noun, as in "a dice function".
    """

    name: str
    parameters: tuple[str, ...]
    does: tuple[str, ...]
    body: str
    constants: Callable[[Random], dict[str, str]]
    calls: Callable[[dict[str, str]], list[Call]]
    nouns: tuple[str, ...] = ()


def nothing(_: Random) -> dict[str, str]:
    """Return no constants."""
    return {}


def number(rng: Random, *, below: int = 100) -> str:
    """Return a positive whole number as digits."""
    return str(rng.choice((rng.randint(2, 12), rng.randint(2, below), rng.randrange(10, max(20, below * 2), 10))))


_FRAMES: Final = (
    "{ask:a [{lang}|{lang}|] function [called|named|] {named} that {s}.}",
    "{ask:a [{lang}|{lang}|] function [called|named|] {named} that {s}.}",
    "{ask:a [{lang}|] function [called|named|] {named} [in {lang}|] which {s}.}",
    "{ask:a [{lang}|] function [called|named|] {named} to {i}.}",
    "{ask:a function {named} [in {lang}|]. It [should {i}|{s}].}",
    "{ask:{named} in {lang}. It [should {i}|{s}].}",
    "{lang}: {named} {s}.",
    "{lang} function {named} that {s}.",
    "{lang} function [called|named] {named}: {i}.",
    "[In {lang}, write|Using {lang}, write|In {lang}, create] a function {named} that {s}.",
    "{named} [should {i}|{s}]. [Use {lang}|{lang}|{lang} please|In {lang}].",
    "[Function|The function] {named} [should {i}|{s}][ in {lang}|].",
)
_UNNAMED: Final = (
    "{ask:{lang} code for [a function|a simple function|a game function|a small function] that {s}.}",
    "{ask:a [simple|small|] {lang} [game|] function that {s}.}",
    "{ask:a [simple|small|] {lang} [game|] function to {i}.}",
    "{i} in {lang}.",
    "{i}[, {lang}| with {lang}| using {lang}].",
    "{lang}: {i}.",
    "{lang} function that {s}.",
    "[Write|I need|Give me] {lang} code that {s}.",
    "[Write|I need|Create|Make] a function that {s}[| in {lang}].",
)
_HELD: Final = (
    "[The job of|All] {named} [is|does is] to {i}. Language: {lang}.",
    "{ask:{named} ({lang}), whose purpose is to {i}.}",
    "Think of {named}, a {lang} function: it {s}.",
)
_NOUN: Final = (
    "{ask:{lang} code for [a|a simple|the] {noun}.}",
    "{ask:[a|a simple|the] {noun} in {lang}.}",
    "{lang}: [a|a simple|] {noun}.",
    "[a|a simple|] {noun} in {lang}.",
)
_NOUN_NAMED: Final = (
    "{ask:{lang} code for [a|a simple|the] {noun}. [Name it|Call it|Its name is|The name is] {named}.}",
    "{ask:[a|a simple|the] {noun} in {lang}, called {named}.}",
    "{lang}: {named}, [a|a simple] {noun}.",
)
_NAMED: Final = (
    "{name}",
    "{name}",
    "{name}({params})",
    "{name}({params})",
    "`{name}`",
    "'{name}'",
    "`{name}({params})`",
    "{name}()",
    '"{name}"',
)
_TAKES: Final = (
    " takes {list} and",
    " takes {list} and",
    " gets {list} and",
    " is given {list} and",
    " accepts {list} and",
)
_TAIL: Final = (
    " It takes {list}.",
    " Parameters: {params}.",
    " The parameters are {list}.",
    " The [parameter is|input is] {list}.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """A request and what it names: unnamed functions keep their rule's names."""

    request: str
    name: str | None
    parameters: tuple[str, ...]


def wording(rng: Random, rule: Rule, *, constants: dict[str, str], name: str, language: str, held: bool) -> Wording:
    """Return a request for `rule` in `language`, with or without its name and parameters."""
    named = held or rng.random() < 0.75
    frame = rng.choice(_HELD if held else _FRAMES if named else _UNNAMED)
    if rule.nouns and not held and rng.random() < 0.4:
        frame = rng.choice(_NOUN_NAMED if named else _NOUN).replace("{noun}", phrasing.pick(rng, rule.nouns))
    reference = rng.choice(_NAMED) if named else ""
    if reference.endswith("()") and rule.parameters:
        reference = "{name}"
    parameters = rule.parameters
    told = "{params}" in reference
    says = phrasing.pick(rng, rule.does)
    if rule.parameters and not told and "that {s}" in frame and rng.random() < 0.35:
        frame = frame.replace("that {s}", "that" + rng.choice(_TAKES) + " {s}", 1)
        told = True
    tail = ""
    if rule.parameters and not told and named and rng.random() < 0.25:
        tail = phrasing.pick(rng, _TAIL)
        told = True
    if told and rng.random() < 0.4:
        parameters = tuple(_parameter(rng, language) for _ in rule.parameters)
        parameters = parameters if len(set(parameters)) == len(parameters) else rule.parameters
    frame = frame.replace("{lang}", _language(rng, language)).replace("{named}", reference)
    frame = frame.replace("{s}", third_person(says)).replace("{i}", says.replace("!", ""))
    if frame.startswith("{ask:"):
        frame = phrasing.ask(rng, frame[5:-1].removesuffix("."), held=held) + "."
    frame = phrasing.expand(rng, frame) + tail
    slots = dict(constants)
    slots |= {f"p{index}": text for index, text in enumerate(parameters)}
    slots |= {"name": name, "params": ", ".join(parameters), "list": " and ".join(parameters)}
    request = phrasing.fill(phrasing.roughen(rng, frame), slots).replace("..", ".").replace(" ,", ",")
    return Wording(request=request, name=name if named else None, parameters=parameters)


def body(rule: Rule, *, constants: dict[str, str], parameters: tuple[str, ...]) -> str:
    """Return the rule's lines of code with names and constants in place."""
    slots = constants | {f"p{index}": text for index, text in enumerate(parameters)}
    return phrasing.fill(rule.body, slots)


def third_person(text: str) -> str:
    """Return `text` with the s of the third person on the verbs marked by `!`."""
    text = text.replace("have!", "has").replace("multiply!", "multiplies").replace("apply!", "applies")
    return re.sub(r"(ch|ss|sh)!", r"\1es", text).replace("!", "s")


def _parameter(rng: Random, language: str) -> str:
    return words.snake(rng) if language == "Python" else words.camel(rng)


def _language(rng: Random, language: str) -> str:
    if language == "Python":
        return rng.choice(("Python", "Python", "Python", "python"))
    return rng.choice(("JavaScript", "JavaScript", "JavaScript", "JS", "JS", "javascript", "Node"))
