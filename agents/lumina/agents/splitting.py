"""Where a request falls into several tasks. Every task is a verbatim part of the request."""

import re
from collections.abc import Callable
from typing import Final

from lumina.agents.literals import quotes

TASKS_MAX: Final = 32
PREAMBLE_CHARACTERS_MAX: Final = 120

_NUMBERED_LINE: Final = re.compile(r"^[ \t]*\(?(\d{1,2})[.)][ \t]+", re.MULTILINE)
_NUMBERED_INLINE: Final = re.compile(r"(?:^|(?<=[\s:;.,]))\(?(\d{1,2})[.)]\s+(?=[A-Za-z`'\"])")
_BULLET: Final = re.compile(r"^[ \t]*[-*•–][ \t]+", re.MULTILINE)
_LINE: Final = re.compile(r"\n+")
_SIGNPOST: Final = (
    r"(?:and\s+)?(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|then|next|after that|afterwards|finally|lastly|also|plus|"
    r"in addition|additionally|and then|and also|and)\s*[,:]?"
)
_SENTENCE: Final = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?]['\"`’”)]))\s+(?:{_SIGNPOST}\s+)?(?=\S)", re.IGNORECASE)
_CLAUSE: Final = re.compile(
    r"(?:;\s*(?:and\s+)?(?:also|then)?[,:]?|,?\s+and\s+(?:also|then)|,\s+then)\s+(?=\S)", re.IGNORECASE
)
_OPENING: Final = re.compile(rf"^\s*{_SIGNPOST}\s+", re.IGNORECASE)
_NEW_TASK: Final = re.compile(
    r"^(?:please |now |could you |can you |i (?:also )?(?:need|want|would like) (?:you to )?|we (?:also )?need )?"
    r"(?:write|create|make|generate|build|implement|code|produce|give me|scrape|extract|collect|fetch|"
    r"layer|composite|compose|animate|design|get|list|develop|program|need|want|show me|put together)\b|"
    r"^(?:a|an|some|another)\b.{0,40}\b(?:function|script|scraper|timeline|animation|dialogue|dialog|program)\b",
    re.IGNORECASE,
)

StandsAlone = Callable[[str], bool]
"""Whether a piece of text is a task of its own, judged by what it asks for."""


def split_tasks(request: str, *, stands_alone: StandsAlone) -> tuple[str, ...]:
    """Return the tasks of a request, in order; the whole request when it is one.

    Numbers and bullets are believed. Lines, sentences and clauses count as tasks of their own only if each begins
    like one and `stands_alone`; others belong to the task before them.
    """
    for marks in (_NUMBERED_LINE, _BULLET, _NUMBERED_INLINE):
        tasks = _listed(request, marks)
        if 2 <= len(tasks) <= TASKS_MAX:
            return tasks
    for marks in (_LINE, _SENTENCE, _CLAUSE):
        tasks = _spoken(request, marks, stands_alone=stands_alone)
        if 2 <= len(tasks) <= TASKS_MAX:
            return tasks
    return (trimmed(request),)


def trimmed(task: str) -> str:
    """Return a task without the signpost before it and without loose ends."""
    task = task.strip()
    opening = _OPENING.match(task)
    if opening is not None and (task[: opening.end()].rstrip().endswith((",", ":")) or _is_new(task[opening.end() :])):
        task = task[opening.end() :]
    return task.strip().rstrip(";,").rstrip()


def _listed(request: str, marks: re.Pattern[str]) -> tuple[str, ...]:
    """Return the entries of a list whose entries begin with `marks`; numbers must count up from 1."""
    found = list(marks.finditer(request))
    if marks.groups and [int(mark.group(1)) for mark in found] != list(range(1, len(found) + 1)):
        return ()
    if not found or len(request[: found[0].start()].strip()) > PREAMBLE_CHARACTERS_MAX:
        return ()
    ends = [*(mark.start() for mark in found[1:]), len(request)]
    tasks = (trimmed(request[mark.end() : end]) for mark, end in zip(found, ends, strict=True))
    return tuple(task for task in tasks if task)


def _spoken(request: str, marks: re.Pattern[str], *, stands_alone: StandsAlone) -> tuple[str, ...]:
    """Return the pieces between `marks` that are tasks, each with the pieces after it that are not."""
    places = [mark for mark in marks.finditer(request) if not _is_quoted(request, mark.start())]
    edges = [*(mark.start() for mark in places[1:]), len(request)]
    spans: list[tuple[int, int]] = [(0, len(request))]
    for mark, edge in zip(places, edges, strict=False):
        start = spans[-1][0]
        before, piece = trimmed(request[start : mark.start()]), trimmed(request[mark.end() : edge])
        if _is_new(piece) and stands_alone(piece) and stands_alone(before):
            spans[-1] = (start, mark.start())
            spans.append((mark.end(), len(request)))
    tasks = tuple(task for task in (trimmed(request[start:end]) for start, end in spans) if task)
    return tasks if all(stands_alone(task) for task in tasks) else ()


def _is_new(piece: str) -> bool:
    return _NEW_TASK.match(piece) is not None


def _is_quoted(request: str, place: int) -> bool:
    """Return whether `place` lies between double quotes or backticks, or in a single-quoted text."""
    return any(quote.start < place < quote.end for quote in quotes(request))
