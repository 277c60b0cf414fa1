"""Faulty answers with the error a validator reports and the answer that is right."""

# ruff: noqa: E501, SIM905 - wordings and word lists read better in long lines

import re
from dataclasses import dataclass
from random import Random
from typing import Final

from . import words
from .record import PYTHON_KINDS, Task

FIX: Final = "Fix the code."
"""What the user says after the error."""

_SWAPS: Final = (
    (">=", ">"),
    (" > ", " >= "),
    (" < ", " > "),
    ("max(", "min("),
    ("min(", "max("),
    ("upper", "lower"),
    ("===", "!=="),
    (" + ", " - "),
    (" - ", " + "),
    ("scaleX", "scaleY"),
    ("scaleY", "scaleX"),
    ("x: ", "y: "),
    ("y: ", "x: "),
    ("opacity", "rotation"),
    ("floor", "ceil"),
    ("% 2 == 0", "% 2 != 0"),
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w{2,}")
_STRING: Final = re.compile(r'"[^"\n]*"')
_NUMBER: Final = re.compile(r"(?<![\w.#])\d+(?:\.\d+)?(?![\w.])")
_KEYWORDS: Final = frozenset(
    """def return import from for and function const let module exports true false else
    with not None True False lambda int sum len range str max min sorted list dict Math random""".split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A wrong answer to a task and what the validator says about it."""

    code: str
    error: str


def fault(rng: Random, task: Task) -> Fault | None:
    """Return one fault injected into the reference, or None if this draw changed nothing."""
    makers = (
        _literal,
        _literal,
        _literal,
        _number,
        _number,
        _swap,
        _identifier,
        _identifier,
        _bracket,
        _bracket,
        _line,
    )
    made = rng.choice(makers)(rng, task)
    return None if made is None or made.code == task.code else made


def conversation(rng: Random, *, task: Task, made: Fault) -> str:
    """Return what the user says about the fault."""
    return f"{made.error[:160]}\n{rng.choice((FIX, FIX, FIX, 'Please correct it.'))}"


def _python(task: Task) -> bool:
    return task.kind in PYTHON_KINDS


def _replace(code: str, span: tuple[int, int], *, text: str) -> str:
    return code[: span[0]] + text + code[span[1] :]


def _line_of(code: str, position: int) -> int:
    return code.count("\n", 0, position) + 1


def _damaged(rng: Random, text: str) -> str:
    """Return `text` with one letter dropped, doubled or swapped with its neighbour."""
    at = rng.randrange(len(text) - 1)
    style = rng.randrange(3)
    if style == 0:
        return text[:at] + text[at + 1 :]
    if style == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _literal(rng: Random, task: Task) -> Fault | None:
    """Misspell or replace a word in a literal that the answer must contain."""
    wanted = [text for text in task.literals if len(text) > 2 and text in task.code and not text.isdigit()]
    if not wanted:
        return None
    literal = rng.choice(wanted)
    pieces = [found for found in re.finditer(r"[A-Za-z]{2,}", literal) if found.group() not in ("png", "com", "org")]
    if not pieces:
        return None
    piece = rng.choice(pieces)
    changed = _damaged(rng, piece.group()) if rng.random() < 0.6 else words.word(rng)
    wrong = literal[: piece.start()] + changed + literal[piece.end() :]
    code = task.code.replace(literal, wrong)
    missing = [text for text in dict.fromkeys(task.literals) if text not in code]
    if not missing:
        return None
    return Fault(code=code, error="Missing from the code: " + ", ".join(missing))


def _number(rng: Random, task: Task) -> Fault | None:
    """Change a number that the answer must contain."""
    places = list(_NUMBER.finditer(task.code))
    if not places:
        return None
    place = rng.choice(places)
    text = place.group()
    wrong = rng.choice(
        (text + str(rng.randint(0, 9)), str(rng.randint(0, 9)) + text.removeprefix("0."), text[::-1], text[:-1] or "7")
    )
    code = _replace(task.code, place.span(), text=wrong)
    if wrong == text or wrong.endswith(".") or text in _NUMBER.findall(code):
        return None
    return Fault(code=code, error=f"Missing from the code: {text}")


def _swap(rng: Random, task: Task) -> Fault | None:
    """Swap an operator or a property for one that looks alike; the error is a wrong result."""
    usable = [pair for pair in _SWAPS if pair[0] in task.code]
    if not usable or task.kind not in ("animation", "function"):
        return None
    right, wrong = rng.choice(usable)
    code = task.code.replace(right, wrong, 1)
    if task.kind == "animation":
        name = right.strip(": ")
        return Fault(code=code, error=f"Missing from the code: {name}") if name not in code else None
    error = wrong_result(task, code)
    return None if error is None else Fault(code=code, error=error)


def wrong_result(task: Task, code: str) -> str | None:
    """Return the first difference between our own generated `code` and the expectations.

    Only ever called with text made from this corpus's own tables.
    """
    calls = task.spec.get("calls")
    if not isinstance(calls, list):
        return None
    scope: dict[str, object] = {}
    exec(compile(code, "<corpus>", "exec"), scope)  # noqa: S102 - our own text, see above
    name, made = next((name, value) for name, value in scope.items() if name != "__builtins__")
    assert callable(made)
    for call in calls:
        shown = ", ".join(repr(argument) for argument in call["args"])
        try:
            result: object = made(*call["args"])
        except Exception as error:  # noqa: BLE001 - the fault may break anything
            return f"{type(error).__name__}: {error}"
        if result != call["expected"]:
            return f"Wrong result: {name}({shown[:60]}) returned {repr(result)[:60]}, expected {repr(call['expected'])[:60]}"
    return None


def _identifier(rng: Random, task: Task) -> Fault | None:
    """Misspell one use of a name; the error says that it is not defined."""
    outside = _STRING.sub(lambda found: " " * len(found.group()), task.code)
    places = [
        found for found in _IDENTIFIER.finditer(outside) if found.group() not in _KEYWORDS and _defined(found, outside)
    ]
    if not places:
        return None
    place = rng.choice(places)
    wrong = _damaged(rng, place.group())
    if wrong in outside:
        return None
    code = _replace(task.code, place.span(), text=wrong)
    line = _line_of(code, place.start())
    if _python(task):
        error = rng.choice(
            (
                f"line {line}: F821 Undefined name `{wrong}`",
                f"line {line}: F821 Undefined name `{wrong}`",
                f"NameError: name '{wrong}' is not defined",
                f"line {line}: E0602 Undefined variable '{wrong}'",
            )
        )
    else:
        error = rng.choice(
            (
                f"line {line}: '{wrong}' is not defined.",
                f"line {line}: no-undef '{wrong}' is not defined.",
                f"ReferenceError: {wrong} is not defined",
            )
        )
    return Fault(code=code, error=error)


def _defined(found: re.Match[str], code: str) -> bool:
    """Return whether this place uses a name, rather than an attribute, a key or a definition."""
    before, after = code[: found.start()], code[found.end() :]
    if before.endswith((".", "def ", "function ", "import ", "const ", "for ", "let ", "{ ")) or after.startswith(
        (":", "=", " =")
    ):
        return False
    return before.count(found.group()) > 0 and not before.endswith("from ") and " import " not in after.split("\n")[0]


def _bracket(rng: Random, task: Task) -> Fault | None:
    """Delete one closing bracket or quote; the error is the parser's."""
    places = [found.start() for found in re.finditer(r"[)\]}\"]", task.code)]
    if not places:
        return None
    place = rng.choice(places)
    code = _replace(task.code, (place, place + 1), text="")
    if _python(task):
        try:
            compile(code, "<corpus>", "exec")
        except SyntaxError as error:
            return Fault(code=code, error=f"SyntaxError: {error.msg} (line {error.lineno})")
        return None
    line = _line_of(code, place)
    if task.code[place] == '"':
        return Fault(code=code, error=f"line {line}: Parsing error: Unterminated string constant")
    following = code[place:].split(None, 1)
    token = re.match(r"\w+|.", following[0]) if following else None
    if token is None:
        return None
    return Fault(code=code, error=f"line {line}: Parsing error: Unexpected token {token.group()}")


def _line(rng: Random, task: Task) -> Fault | None:
    """Delete a line; the error names what is missing from it."""
    lines = task.code.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    gone = lines[at]
    code = "".join(lines[:at] + lines[at + 1 :])
    if gone.startswith("import ") and _python(task):
        name = gone.split()[1]
        where = next(index for index, text in enumerate(code.splitlines(), 1) if f"{name}." in text)
        return Fault(
            code=code,
            error=rng.choice(
                (f"line {where}: F821 Undefined name `{name}`", f"NameError: name '{name}' is not defined")
            ),
        )
    if gone.startswith("from ") and _python(task):
        name = gone.split()[-1]
        where = next(index for index, text in enumerate(code.splitlines(), 1) if name in text)
        return Fault(code=code, error=f"line {where}: F821 Undefined name `{name}`")
    if task.kind == "game" and gone.startswith("module"):
        return Fault(code=code, error=f"Missing from the code: module.exports = {{ {gone.split()[3]} }}")
    missing = [text for text in dict.fromkeys(task.literals) if text not in code]
    if missing and "{" not in gone.strip()[-1:] and "(" not in gone.strip()[-1:]:
        return Fault(code=code, error="Missing from the code: " + ", ".join(missing))
    return None
