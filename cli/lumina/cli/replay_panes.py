"""What `lumina replay` shows about a moment, as texts: for a pane of the stepper and for paper alike.

Whatever comes from a record is text and only text: no markup is read in it, control characters are escaped.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from rich.text import Text

from lumina.cli.words import shorten
from lumina.events.base import Event
from lumina.events.record import Recorded, rfc3339
from lumina.replay.report import Difference
from lumina.replay.stepping.moments import Moment
from lumina.replay.stepping.plain import Change
from lumina.replay.stepping.timeline import Decided, Told
from lumina.replay.stepping.why import Why
from lumina.sandbox.rendering import escape

VALUE_CHARACTERS_MAX: Final = 160
TEXT_LINES_MAX: Final = 40
CAUSES_SHOWN: Final = 12
"""Of a long chain, at each end."""
OPEN_VALUES_MAX: Final = 400
BULKY_VALUES_MAX: Final = 12
BULKY: Final = frozenset({"announced", "ask", "definition", "models", "offers", "planned", "specialist", "submitted"})
"""Parts of states that rarely change. With more values than these a part is not opened for people; JSON has it all."""

_DIGEST: Final = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{20}|[0-9a-f]{52})\b")

NOTHING_RUNS: Final = "nothing is run and no model is called"


def line(*parts: str | tuple[str, str]) -> Text:
    """Return one line of parts with their styles; foreign text in them stays text."""
    safe = (escape(part) if isinstance(part, str) else (escape(part[0]), part[1]) for part in parts)
    return Text.assemble(*safe)


def heading(words: str) -> Text:
    """Return the heading of a part."""
    return line((words, "bold"))


def headline(recorded: Recorded[Event], *, says: str, marks: Sequence[str] = ()) -> Text:
    """Return a record in one line: sequence, time, agent, type, words, marks."""
    clock = rfc3339(recorded.time_ms)[11:23]
    shown = f"  [{', '.join(marks)}]" if marks else ""
    return line(
        f"{recorded.seq:>7} {clock} ",
        (f"{recorded.agent:<12} ", "cyan"),
        f"{recorded.type:<28} {says}",
        (shown, "red" if "differs" in marks else "yellow"),
    )


def record_lines(moment: Moment) -> Iterator[Text]:
    """Yield the record: in words, its envelope, its event."""
    yield heading(moment.says)
    if moment.marks:
        yield line(("marks: ", "dim"), (", ".join(moment.marks), "yellow"))
    if moment.others:
        yield line((f"{moment.others} record(s) of other runs stand before it", "dim"))
    yield from difference_lines(moment.difference, problem=moment.problem)
    yield from outline(moment.record)


def why_lines(moment: Moment) -> Iterator[Text]:
    """Yield why the record was written, what led to it, and what was decided in answer."""
    yield from difference_lines(moment.difference, problem=moment.problem)
    yield line(("rule    ", "dim"), moment.why.rule)
    if moment.why.reason:
        yield line(("reason  ", "dim"), _brief(moment.why.reason))
    yield heading("decided in answer")
    yield from decided_lines(moment.decided)
    yield heading("because of")
    if not moment.causes:
        yield line(("nothing in the log: it comes from outside", "dim"))
    left_out = len(moment.causes) - 2 * CAUSES_SHOWN
    for number, cause in enumerate(moment.causes):
        if left_out <= 0 or not CAUSES_SHOWN <= number < CAUSES_SHOWN + left_out:
            yield _told(cause)
        elif number == CAUSES_SHOWN:
            yield line((f"      … {left_out} records between", "dim"))


def decided_lines(decided: Sequence[Decided], *, indent: str = "", told_later: bool = False) -> Iterator[Text]:
    """Yield each decision with its reason; with `told_later` without it, unless it is not in the log at all."""
    if not decided:
        yield line((f"{indent}nothing", "dim"))
    for each in decided:
        marks = [mark for mark, holds in (("late", each.late), ("not in the log", each.missing)) if holds]
        text = Text.assemble(indent, "→ ", _told(each))
        if marks:
            text.append(f"  [{', '.join(marks)}]", style="yellow")
        yield text
        if told_later and not each.missing:
            continue
        yield line((f"{indent}    {reason_words(each.why)}", "dim"))
        for different in difference_lines(each.difference):
            yield Text.assemble(indent, "    ", different)


def reason_words(why: Why) -> str:
    """Return the rule and the reason in one line."""
    return f"why: {why.rule}{f': {_brief(why.reason)}' if why.reason else ''}"


def _told(told: Told) -> Text:
    where = "      -" if told.seq is None else f"{told.seq:>7}"
    return line(f"{where} ", (f"{told.agent} ", "cyan"), f"{told.type.rpartition('.')[0]}: {told.says}")


def difference_lines(difference: Difference | None, *, problem: str = "") -> Iterator[Text]:
    """Yield how a record differs from what is decided now, or why that can't be told; nothing when all is well."""
    if problem:
        yield line((f"not derived here: {_brief(problem)}", "yellow"))
    if difference is not None:
        yield line((f"differs in {difference.field} from what is decided now", "bold red"))
        yield line(("  recorded  ", "red"), shorten(difference.recorded, limit=VALUE_CHARACTERS_MAX))
        yield line(("  decided   ", "red"), shorten(difference.decided, limit=VALUE_CHARACTERS_MAX))


def changed_lines(changed: Sequence[Change], *, of: Sequence[str] | None = None, indent: str = "") -> Iterator[Text]:
    """Yield what changed, one field a line; with `of` only of these agents and projections."""
    shown = [each for each in changed if of is None or owner(each) in of]
    if not shown:
        yield line((f"{indent}nothing", "dim"))
    for each in shown:
        before, after = short(each.before), short(each.after)
        yield line(f"{indent}{each.path}  ", (before, "red"), " → ", (after, "green"))


def owner(change: Change) -> str:
    """Return the agent or projection whose state or row changed."""
    return change.path.partition(".")[0]


def short(value: Any) -> str:
    """Return a value in one line, digests and ids by their beginning."""
    if value is msgspec.UNSET:
        return "∅"
    text = value if isinstance(value, str) and value else msgspec.json.encode(value, order="sorted").decode()
    return shorten(_brief(text), limit=VALUE_CHARACTERS_MAX)


def _brief(text: str) -> str:
    """Return a text with digests and ids cut to their beginning."""
    return _DIGEST.sub(r"\1…", text)


def table_lines(tables: dict[str, list[Any]]) -> Iterator[Text]:
    """Yield the rows of a projection."""
    for table, rows in tables.items():
        yield heading(f"{table}: {len(rows)} row(s)")
        for number, row in enumerate(rows):
            if number:
                yield Text("")
            yield from outline(row, indent="  ")


def outline(value: Any, *, indent: str = "") -> Iterator[Text]:
    """Yield a plain value, one field a line; parts that are too large stay closed."""
    if isinstance(value, dict):
        for key, each in value.items():
            limit = BULKY_VALUES_MAX if key in BULKY else OPEN_VALUES_MAX
            yield from _field(f"{indent}{key}: ", each, indent=indent, limit=limit)
    elif isinstance(value, list):
        for each in value:
            yield from _field(f"{indent}- ", each, indent=indent, limit=OPEN_VALUES_MAX)
    else:
        yield line(f"{indent}{short(value)}")


def _field(label: str, value: Any, *, indent: str, limit: int) -> Iterator[Text]:
    if isinstance(value, dict | list) and value:
        size = _leaves(value)
        if size > limit:
            yield line((label, "cyan"), (f"… {size} values", "dim"))
            return
        yield line((label.rstrip(), "cyan"))
        yield from outline(value, indent=f"{indent}  ")
    elif isinstance(value, str) and "\n" in value.rstrip("\n"):
        yield line((label, "cyan"), ("|", "dim"))
        lines = value.rstrip("\n").split("\n")
        for each in lines[:TEXT_LINES_MAX]:
            yield line(f"{indent}  {each}")
        if len(lines) > TEXT_LINES_MAX:
            yield line((f"{indent}  … {len(lines) - TEXT_LINES_MAX} more lines", "dim"))
    else:
        yield line((label, "cyan"), short(value))


def _leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_leaves, value.values()))
    return sum(map(_leaves, value)) if isinstance(value, list) else 1
