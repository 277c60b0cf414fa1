"""What drivers report, read with suspicion: the program under test can write to the same descriptor. Pure.

A line that is not exactly what the protocol says makes the whole report worthless from there on.
"""

import json
import re
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

LINES_MAX: Final = 10_000
NESTING_MAX: Final = 200
_MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""Texts, to the end when they are not closed, and the brackets outside of them."""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of one turn of one call; call -1 is the loading of the program."""

    call: Annotated[int, Meta(ge=-1)]
    turn: Annotated[int, Meta(ge=0)]
    value: msgspec.Raw | UnsetType = UNSET
    error: str | UnsetType = UNSET


class ExportLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The timeline that a program exports, or why there is none."""

    timeline: msgspec.Raw | UnsetType = UNSET
    error: str | UnsetType = UNSET


class RefusedLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that the server of recorded pages did not serve."""

    refused: str


class TargetEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One target and which of its properties took more than one value."""

    target: str
    moved: tuple[str, ...]


class TimelineEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen when GSAP played a timeline. `seconds` is one repetition."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    steps: int = 0
    tweens: int = 0
    seconds: float = 0.0
    endless: bool = False
    gsap: str = ""
    targets: tuple[TargetEvidence, ...] = ()


def result_lines(results: bytes) -> tuple[ResultLine, ...] | None:
    """Return the lines of a function driver; None when anything else stands there."""
    lines = results.split(b"\n")
    if lines.pop() != b"" or len(lines) > LINES_MAX or nested_too_deeply(results):
        return None
    try:
        return tuple(msgspec.json.decode(line, type=ResultLine) for line in lines)
    except (msgspec.DecodeError, RecursionError):
        return None


def exported_timeline(results: bytes) -> bytes | None:
    """Return the only line of an export when it has a timeline: a JSON object with the key `timeline`."""
    line = export_line(results)
    return None if line is None or line.timeline is UNSET else results


def export_line(results: bytes) -> ExportLine | None:
    """Return what an export says, None when it is not one line of the protocol."""
    if nested_too_deeply(results):
        return None
    try:
        return msgspec.json.decode(results, type=ExportLine)
    except (msgspec.DecodeError, RecursionError):
        return None


def timeline_evidence(results: bytes) -> TimelineEvidence | None:
    """Return what the player reported, None when it did not get that far."""
    if nested_too_deeply(results):
        return None
    try:
        return msgspec.json.decode(results, type=TimelineEvidence)
    except (msgspec.DecodeError, RecursionError):
        return None


def refused_attempts(results: bytes) -> tuple[str, ...]:
    """Return what a program asked the network for in vain, each once; lines of other kinds are left out."""
    attempts: dict[str, None] = {}
    for line in results.split(b"\n")[:LINES_MAX]:
        with suppress(msgspec.DecodeError, RecursionError):
            attempts[msgspec.json.decode(line, type=RefusedLine).refused] = None
    return tuple(attempts)


def parsed(text: str | bytes) -> object:
    """Return the value of a JSON text. Raises ValueError, also for NaN, infinities and bottomless nesting."""

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    if nested_too_deeply(text):
        raise ValueError("nested too deeply")
    return json.loads(text, parse_constant=refuse)


def nested_too_deeply(text: str | bytes) -> bool:
    """Whether arrays and objects stand more than `NESTING_MAX` deep in a JSON text.

    A parser's own limit depends on how deep its caller stands: the same bytes would be read here and refused there.
    """
    marks = text if isinstance(text, str) else text.decode("latin-1")
    if marks.count("[") + marks.count("{") <= NESTING_MAX:
        return False
    depth = 0
    for mark in _MARKS.finditer(marks):
        if mark[0] in {"[", "{"}:
            depth += 1
            if depth > NESTING_MAX:
                return True
        elif mark[0] in {"]", "}"}:
            depth -= 1
    return False


def same(left: object, right: object) -> bool:
    """Whether two JSON values have the same type and value. A boolean is no number, 1 and 1.0 are one number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and left == right
