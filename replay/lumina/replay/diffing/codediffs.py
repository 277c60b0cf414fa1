"""How the code of two attempts differs, as a unified diff: between two runs, or from one attempt to the next. Pure."""

from collections.abc import Iterator, Mapping
from difflib import unified_diff
from itertools import pairwise
from typing import Final

import msgspec

from lumina.replay.diffing.attempts import Attempt, Ladders, StepStory
from lumina.replay.explaining.evidence import Evidence, evidence_of

DIFF_LINES_MAX: Final = 400
"""Of one diff; what is longer is cut, and says so."""


class CodeDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Two programs and how they differ.

    Attributes:
        step: Of both attempts.
        attempt_a: And `attempt_b`: their numbers.
        code_a: And `code_b`: their digests.
        between: Of one run: how the first of the two ended, in words.
        evidence: Of one run: what was wrong with it.
        lines: The diff, without line feeds; empty when the programs are equal.
    """

    step: int
    attempt_a: int
    attempt_b: int
    code_a: str
    code_b: str
    between: str = ""
    evidence: tuple[Evidence, ...] = ()
    lines: tuple[str, ...] = ()


def codes_of(told: Ladders) -> set[str]:
    """Return the digests of all code that attempts brought."""
    return {
        attempt.code.digest
        for story in told.steps.values()
        for attempt in story.attempts.values()
        if attempt.code is not None
    }


def between_runs(a: Ladders, b: Ladders, *, blobs: Mapping[str, bytes]) -> tuple[CodeDiff, ...]:
    """Return the diffs of the attempts of the same number in two runs whose code differs."""
    found: list[CodeDiff] = []
    for number, story in a.steps.items():
        other = b.steps.get(number)
        for index, one in story.attempts.items():
            two = None if other is None else other.attempts.get(index)
            if two is not None and one.code is not None and two.code is not None and one.code != two.code:
                found.append(between(number, one, two, blobs=blobs))
    return tuple(found)


def between_attempts(told: Ladders, *, blobs: Mapping[str, bytes]) -> tuple[CodeDiff, ...]:
    """Return, for each step, the diffs from every attempt with code to the next one with code, equal ones included."""
    return tuple(each for story in told.steps.values() for each in _consecutive(story, blobs=blobs))


def between(step: int, one: Attempt, two: Attempt, *, blobs: Mapping[str, bytes]) -> CodeDiff:
    """Return how the code of two attempts differs; both have code."""
    assert one.code is not None
    assert two.code is not None
    return CodeDiff(
        step=step,
        attempt_a=one.event.attempt,
        attempt_b=two.event.attempt,
        code_a=one.code.digest,
        code_b=two.code.digest,
        lines=_diff(one.code.digest, two.code.digest, blobs=blobs),
    )


def _consecutive(story: StepStory, *, blobs: Mapping[str, bytes]) -> Iterator[CodeDiff]:
    with_code = [attempt for _, attempt in sorted(story.attempts.items()) if attempt.code is not None]
    for one, two in pairwise(with_code):
        fault = story.decisive(one)
        evidence = () if fault is None else evidence_of(fault, blobs=blobs)
        between_them = f"attempt {one.event.attempt}: {'no fault' if fault is None else fault.kind.words}"
        diff = between(story.planned.number, one, two, blobs=blobs)
        yield msgspec.structs.replace(diff, between=between_them, evidence=evidence)


def _diff(one: str, two: str, *, blobs: Mapping[str, bytes]) -> tuple[str, ...]:
    if one == two:
        return ()
    missing = [digest for digest in (one, two) if digest not in blobs]
    if missing:
        return tuple(f"the code {digest[:12]} is not there" for digest in missing)
    a, b = (blobs[digest].decode("utf-8", "replace").splitlines() for digest in (one, two))
    lines = list(unified_diff(a, b, fromfile=one[:12], tofile=two[:12], lineterm=""))
    if len(lines) > DIFF_LINES_MAX:
        lines[DIFF_LINES_MAX:] = [f"… {len(lines) - DIFF_LINES_MAX} more lines"]
    return tuple(lines)
