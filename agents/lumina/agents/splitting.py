"""Where a request falls into several tasks. Every task is a verbatim part of the request."""

import re
from collections.abc import Callable
from typing import Final

from lumina.agents.literals import quotes, without_quotes

TASKS_MAX: Final = 32
PREAMBLE_CHARACTERS_MAX: Final = 120
LINE_CHARACTERS_MIN: Final = 20

_NUMBERED_LINE: Final = re.compile(r"^[ \t]*\(?(\d{1,2})[.)][ \t]+", re.MULTILINE)
_NUMBERED_INLINE: Final = re.compile(r"(?:^|(?<=[\s:;.,]))\(?(\d{1,2})[.)]\s+(?=[A-Za-z`'\"])")
_BULLET: Final = re.compile(r"^[ \t]*[-*•–][ \t]+", re.MULTILINE)
_LINE: Final = re.compile(r"\n+")
_HEADED: Final = re.compile(
    r"(?:^|(?<=\s))(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|then|next|also|plus|finally|lastly|afterwards|"
    r"(?:and|after) (?:also|then|that))\s*:\s+",
    re.IGNORECASE,
)
_CONTINUES: Final = re.compile(
    r"^(?:it|its|they|them|the|this|that|these|use|using|with|each|every|otherwise|if|when|and|or|to|on|in|for|at|by|as|"
    r"parameters?|return|returns|default|name|call|repeat|loop|ease|duration|wait|after|all|only|make sure|ensure|keep|"
    r"respect|save|output|limit|fields?|no|not|at most|stop|thanks?|thank you|please|code)\b[^:]",
    re.IGNORECASE,
)
_CONDITION: Final = re.compile(
    r"^(?:if|when|upon|asked|told|otherwise|says?|it|they|he|she|to|on|for)\b", re.IGNORECASE
)
_SIGNPOSTED: Final = re.compile(
    r"(?:[.!?]['\"`)]?\s+|\n\s*|;\s*)(?:and )?(?:also|then|second|third|next|finally|lastly|plus|after that)\b|\n\s*\S",
    re.IGNORECASE,
)
_SIGNPOST: Final = (
    r"(?:and\s+)?(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|then|next|after that|afterwards|finally|lastly|also|plus|"
    r"in addition|additionally|and then|and also|and)\s*[,:]?"
)
_SENTENCE: Final = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?]['\"`’”)]))\s+(?:{_SIGNPOST}\s+)?(?=\S)", re.IGNORECASE)
_CLAUSE: Final = re.compile(
    r"(?:;\s*(?:and\s+)?(?:also|then)?[,:]?|,?\s+and\s+(?:also|then)|,\s+then)\s+(?=\S)", re.IGNORECASE
)
_OPENING: Final = re.compile(rf"^\s*{_SIGNPOST}\s+", re.IGNORECASE)
_PRODUCTS: Final = (
    r"(?:function|script|scraper|timeline|animation|dialogue|dialog|program|code|config\w*|npc|chat|conversation)"
)
_COURTESY: Final = (
    r"(?:(?:hi|hello|hey|ok|so|hey lumina|lumina)[,!]? )?(?:please |now )?"
    r"(?:(?:could|can|would) you (?:please |mind )?|"
    r"(?:i|we)(?:'d| would)? (?:also )?(?:need|want|like) (?:you )?(?:to )?|"
    r"help me (?:to )?)?"
)
_ORDER: Final = re.compile(
    rf"^{_COURTESY}(?:write|create|generate|build|implement|code|produce|give me|scrape|extract|collect|fetch|get|list|"
    r"pull|grab|read|find|parse|layer|composite|compose|stack|overlay|merge|open|load|take|animate|design|develop|program|"
    r"show me|put together|come up with|roll|play|return|compute|calculate|check)\b",
    re.IGNORECASE,
)
_PRODUCT: Final = re.compile(
    rf"^(?:\S+\s+){{0,5}}?(?:a|an|some|me|javascript|python|gsap|pillow|js|node)\b(?:\s+\S+){{0,4}}?\s+{_PRODUCTS}\b|"
    rf"^(?:javascript|python|gsap|pillow|js)\b.{{0,40}}?(?:{_PRODUCTS}|:)",
    re.IGNORECASE,
)

KindOf = Callable[[str], tuple[str | None, bool]]
"""Which kind of task a piece of text is, judged by itself, None when it fits none; and whether that is sure."""


def split_tasks(request: str, *, kind_of: KindOf) -> tuple[str, ...]:
    """Return the tasks of a request, in order; the whole request when it is one.

    Numbers and bullets are believed. Lines, sentences and clauses count as tasks of their own only if they begin like
    one and are of another kind than what stands before them, or name another product; else they belong to that.
    """
    for marks in (_NUMBERED_LINE, _BULLET, _NUMBERED_INLINE):
        tasks = _listed(request, marks)
        believed = marks is not _NUMBERED_INLINE or all(_begins_like_a_task(task) for task in tasks)
        if believed and 2 <= len(tasks) <= TASKS_MAX:
            return tasks
    headed = _listed(request, _HEADED)
    if 2 <= len(headed) <= TASKS_MAX and all(kind_of(task)[0] is not None for task in headed):
        return headed
    for marks in (_LINE, _SENTENCE, _CLAUSE):
        tasks = _spoken(request, marks, kind_of=kind_of)
        if 2 <= len(tasks) <= TASKS_MAX:
            return tasks
    return (request.strip() or request,)


def trimmed(task: str) -> str:
    """Return a task without the signpost before it and without loose ends."""
    task = task.strip()
    opening = _OPENING.match(task)
    if opening is not None and (
        task[: opening.end()].rstrip().endswith((",", ":")) or _ORDER.match(task[opening.end() :])
    ):
        task = task[opening.end() :]
    return task.strip().rstrip(";,").rstrip()


def _listed(request: str, marks: re.Pattern[str]) -> tuple[str, ...]:
    """Return the entries of a list whose entries begin with `marks`; numbers must count up from 1.

    What stands before the first entry is an entry too when the first mark is a word such as `Also:`.
    """
    found = [mark for mark in marks.finditer(request) if not _is_quoted(request, mark.start())]
    if marks.groups and [int(mark.group(1)) for mark in found] != list(range(1, len(found) + 1)):
        return ()
    if not found:
        return ()
    before = request[: found[0].start()].strip()
    if marks is not _HEADED and len(before) > PREAMBLE_CHARACTERS_MAX:
        return ()
    opened = (before,) if marks is _HEADED and not found[0].group().lower().startswith("first") else ()
    ends = [*(mark.start() for mark in found[1:]), len(request)]
    tasks = (*opened, *(trimmed(request[mark.end() : end]) for mark, end in zip(found, ends, strict=True)))
    return tuple(task for task in tasks if task)


def _spoken(request: str, marks: re.Pattern[str], *, kind_of: KindOf) -> tuple[str, ...]:
    """Return the pieces between `marks` that are tasks, each with the pieces after it that are not."""
    places = [mark for mark in marks.finditer(request) if not _is_quoted(request, mark.start())]
    edges = [*(mark.start() for mark in places[1:]), len(request)]
    spans: list[tuple[int, int]] = [(0, len(request))]
    for mark, edge in zip(places, edges, strict=False):
        start = spans[-1][0]
        before, piece = trimmed(request[start : mark.start()]), trimmed(request[mark.end() : edge])
        if _is_new(piece, before=before, kind_of=kind_of) or (marks is _LINE and _is_line_of_its_own(piece, kind_of)):
            spans[-1] = (start, mark.start())
            spans.append((mark.end(), len(request)))
    return tuple(task for task in (trimmed(request[start:end]) for start, end in spans) if task)


def may_be_several(request: str) -> bool:
    """Return whether lines or signposts such as `Then` leave room for more than one task."""
    return _SIGNPOSTED.search(request.strip()) is not None


def _is_line_of_its_own(line: str, kind_of: KindOf) -> bool:
    return len(line) >= LINE_CHARACTERS_MIN and _CONTINUES.match(line) is None and kind_of(line)[0] is not None


def _is_new(piece: str, *, before: str, kind_of: KindOf) -> bool:
    """Return whether `piece` begins another task than `before`."""
    if not _begins_like_a_task(piece):
        return False
    (kind, sure), (kind_before, sure_before) = kind_of(piece), kind_of(before)
    if kind is None or kind_before is None:
        return False
    return _PRODUCT.match(without_quotes(piece)) is not None or (kind != kind_before and sure and sure_before)


def _begins_like_a_task(piece: str) -> bool:
    """Return whether `piece` begins with an order or names what is to be made."""
    if _CONDITION.match(piece) is not None:
        return False
    return _ORDER.match(piece) is not None or _PRODUCT.match(without_quotes(piece)) is not None


def _is_quoted(request: str, place: int) -> bool:
    """Return whether `place` lies between double quotes or backticks, or in a single-quoted text."""
    return any(quote.start < place < quote.end for quote in quotes(request))
