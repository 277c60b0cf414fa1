"""Breakpoints: expressions in JMESPath (https://jmespath.org) that hold at some records and not at others. Pure.

JMESPath is a standard for questions to JSON: it reads, computes nothing else, and always ends. The bare name of an
event type, such as `validation.finished`, is short for `starts_with(type, 'validation.finished.')`.
"""

import re
import warnings
from difflib import get_close_matches
from typing import Any, Final

import jmespath.exceptions
import jmespath.functions
import jmespath.parser
import msgspec

from lumina.events.base import Event
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.record import Recorded, rfc3339
from lumina.replay.errors import BadBreakpoint
from lumina.replay.stepping.plain import plain

CHARACTERS_MAX: Final = 1_000
_WORD: Final = re.compile(r"(?P<name>[a-z_]+\.[a-z_]+)(?P<version>\.v\d+)?")
_FIELDS: Final = frozenset({"event"})
"""Of a record, those that have fields themselves: `event.verdict` is a question, not the type of an event."""
_FUNCTIONS: Final[dict[str, Any]] = jmespath.functions.Functions.FUNCTION_TABLE


def as_json(recorded: Recorded[Event]) -> dict[str, Any]:
    """Return a record as breakpoints see it."""
    return {
        "seq": recorded.seq,
        "type": recorded.type,
        "agent": recorded.agent,
        "stream": recorded.stream,
        "time": rfc3339(recorded.time_ms),
        "time_ms": recorded.time_ms,
        "id": recorded.id,
        "causation": recorded.causation,
        "position": recorded.position,
        "digest": recorded.digest,
        "event": plain(recorded.event),
    }


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a breakpoint holds at a record; `problem` says why it could not be told."""

    holds: bool
    problem: str = ""


class Breakpoint:
    """One expression, ready to be asked.

    Raises:
        BadBreakpoint: It is not one; the message shows the place of the mistake.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._compiled = _compiled(_written_out(expression.strip()))

    def look(self, recorded: Recorded[Event]) -> Verdict:
        """Return whether it holds. What a function refuses at this record, for instance null for a text, does not."""
        try:
            found = self._compiled.search(as_json(recorded))
        except jmespath.exceptions.JMESPathError as error:
            return Verdict(holds=False, problem=" ".join(str(error).split()))
        except RecursionError:
            return Verdict(holds=False, problem="it is nested too deeply")
        return Verdict(holds=found is not None and found is not False and found not in ("", [], {}))


def _written_out(expression: str) -> str:
    """Return the expression that the bare name of an event type stands for; all others as they are."""
    word = _WORD.fullmatch(expression)
    if word is None or word["name"].split(".")[0] in _FIELDS:
        return expression
    known = sorted({tag.rsplit(".", 1)[0] for tag in EVENT_TYPES})
    if word["version"]:
        if expression not in EVENT_TYPES:
            raise BadBreakpoint(f"no event is called {expression}; there is {', '.join(_like(expression, known))}")
        return f"type == '{expression}'"
    if word["name"] not in known:
        raise BadBreakpoint(f"no event is called {expression}; there is {', '.join(_like(expression, known))}")
    return f"starts_with(type, '{expression}.')"


def _like(name: str, known: list[str]) -> list[str]:
    category = [each for each in known if each.startswith(f"{name.partition('.')[0]}.")]
    return category or get_close_matches(name, known) or known


def _compiled(expression: str) -> jmespath.parser.ParsedResult:
    if len(expression) > CHARACTERS_MAX:
        raise BadBreakpoint(f"the expression has {len(expression):,} characters; the limit is {CHARACTERS_MAX:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PendingDeprecationWarning)  # of a literal that is no JSON
            parsed = jmespath.parser.Parser().parse(expression)
    except PendingDeprecationWarning as error:
        place = expression.index("`")
        raise _at(expression, place, why="no JSON stands between these backticks; write texts as 'text'") from error
    except jmespath.exceptions.EmptyExpressionError as error:
        raise BadBreakpoint("the expression is empty") from error
    except jmespath.exceptions.LexerError as error:
        raise _at(expression, error.lexer_position, why=error.message) from error
    except jmespath.exceptions.ParseError as error:
        raise _at(expression, error.lex_position, why=_parse_reason(error)) from error
    except RecursionError as error:
        raise BadBreakpoint("the expression is nested too deeply") from error
    _check_functions(parsed.parsed, expression=expression)
    return parsed


def _parse_reason(error: jmespath.exceptions.ParseError) -> str:
    if isinstance(error, jmespath.exceptions.IncompleteExpressionError):
        return "something is missing"
    if isinstance(error.token_value, int):
        return f"write numbers between backticks: `{error.token_value}`"
    return f"{error.token_value!r} can't stand there" if error.token_value else "something is missing"


def _check_functions(node: Any, *, expression: str) -> None:
    """Refuse functions that do not exist or take another number of arguments, before any record is looked at."""
    if not isinstance(node, dict):
        return
    children = node.get("children", [])
    if node.get("type") == "function_expression":
        name = str(node["value"])
        found = re.search(rf"\b{re.escape(name)}\s*\(", expression)
        place = 0 if found is None else found.start()
        if name not in _FUNCTIONS:
            close = get_close_matches(name, list(_FUNCTIONS), n=1)
            raise _at(expression, place, why=f"no function {name}" + (f"; there is {close[0]}" if close else ""))
        signature = _FUNCTIONS[name]["signature"]
        variadic = bool(signature) and signature[-1].get("variadic", False)
        if len(children) < len(signature) or (len(children) > len(signature) and not variadic):
            count = f"{len(signature)}{' or more' if variadic else ''}"
            raise _at(expression, place, why=f"{name} takes {count} arguments, not {len(children)}")
    for child in children:
        _check_functions(child, expression=expression)


def _at(expression: str, place: int | None, *, why: str) -> BadBreakpoint:
    where = min(len(expression), place or 0)
    return BadBreakpoint(f"column {where + 1}: {why}\n  {expression}\n  {' ' * where}^")
