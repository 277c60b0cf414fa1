"""What simulated models write, and what simulated tools and programs make of it.

A program carries its fate in a comment. So linters and sandboxes say the same about the same code, whoever asks them
and however often, as the real ones do; and a model that is asked again may write something else, as real ones may.
"""

import json
import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from lumina.agents.validating import ToolRun
from lumina.events.contract import Form
from lumina.replay.simulation.draws import Draws
from lumina.sandbox.port import Ended, RunResult
from lumina.sandbox.programs import Program


class Fate(Enum):
    """What is wrong with an answer: CUT and PROSE have no program; the rest is found by tools, or by running it."""

    GOOD = "good"
    LINT = "lint"
    SYNTAX = "syntax"
    WRONG = "wrong"
    RAISES = "raises"
    PROSE = "prose"
    CUT = "cut"


WEIGHTS: Final = (
    *[Fate.GOOD] * 55,
    *[Fate.LINT] * 12,
    *[Fate.SYNTAX] * 6,
    *[Fate.WRONG] * 10,
    *[Fate.RAISES] * 7,
    *[Fate.PROSE] * 6,
    *[Fate.CUT] * 4,
)
VARIANTS: Final = 3
"""Of each program: a model says the same again now and then."""
_FATE: Final = re.compile(r"# fate: (\w+)")
_EXITED: Final = RunResult(ended=Ended.EXITED, exit_code=0, wall_ms=20)
_PYLINT_CLEAN: Final = b'{"messages": [], "statistics": {}}'
_UNDEFINED: Final = (
    b'[{"code": "F821", "message": "Undefined name `nn`", "location": {"row": 2, "column": 12},'
    b' "end_location": {"row": 2, "column": 14}, "filename": "main.py"}]'
)
_BAD_SYNTAX: Final = b'{"line": 1, "column": 5, "message": "invalid syntax", "text": "def"}'


def fate_of_answer(draws: Draws, *, seed: int, ask: int) -> Fate:
    """Return what the answer to the `ask`-th call with a sampling seed is worth."""
    return draws.pick("answer", seed, ask, of=WEIGHTS)


def answer(draws: Draws, *, seed: int, ask: int) -> tuple[str, bool]:
    """Return the text of an answer to an ask for code, and whether it was cut."""
    fate = fate_of_answer(draws, seed=seed, ask=ask)
    variant = draws.between("variant", seed, ask, low=1, high=VARIANTS)
    code = f"def twice(n):\n    return 2 * n  # fate: {fate.value} {variant}\n"
    match fate:
        case Fate.PROSE:
            return "I would write a function that doubles its argument.", False
        case Fate.CUT:
            return f"```python\n{code[:20]}", True
        case _:
            return f"Here it is.\n```python\n{code}```\n", False


def plan_answer(draws: Draws, *, seed: int, ask: int, brief: str) -> str:
    """Return the text of an answer to an ask for a plan: one step per sentence, or nonsense."""
    if draws.chance("plan", seed, ask, percent=25):
        return draws.pick("nonsense", seed, ask, of=("[]", "no plan", '[{"kind": "poem", "brief": "x"}]'))
    tasks = [part.strip() for part in brief.split("\n") if part.strip()]
    return json.dumps([{"kind": "function", "brief": task} for task in tasks])


def fate_in(code: str) -> Fate:
    """Return the fate that a program carries; what carries none is good."""
    found = _FATE.search(code)
    return Fate(found.group(1)) if found is not None else Fate.GOOD


def tool_run(tool: str, *, code: str) -> ToolRun:
    """Return what a linter prints about a program."""
    fate = fate_in(code)
    match tool, fate:
        case "compile", Fate.SYNTAX:
            result = RunResult(ended=Ended.EXITED, exit_code=1, stdout=_BAD_SYNTAX, wall_ms=20)
        case "ruff", Fate.LINT:
            result = RunResult(ended=Ended.EXITED, exit_code=1, stdout=_UNDEFINED, wall_ms=20)
        case "ruff", _:
            result = RunResult(ended=Ended.EXITED, exit_code=0, stdout=b"[]", wall_ms=20)
        case "pylint", _:
            result = RunResult(ended=Ended.EXITED, exit_code=0, stdout=_PYLINT_CLEAN, wall_ms=20)
        case _:
            result = _EXITED
    return ToolRun(tool=tool, confined=True, result=result)


def run_of(program: Program) -> RunResult:
    """Return what running a program leaves behind."""
    fate = fate_in(program.code)
    if fate is Fate.RAISES or program.form is not Form.FUNCTION:
        failed = fate in {Fate.RAISES, Fate.WRONG}
        stderr = b"Traceback (most recent call last):\nValueError: no such number\n" if failed else b""
        return RunResult(ended=Ended.EXITED, exit_code=1 if failed else 0, stderr=stderr, wall_ms=30)
    lines = [
        {"call": number, "turn": turn, "value": _doubled(call.arguments, wrong=fate is Fate.WRONG)}
        for number, call in enumerate(program.calls)
        for turn in range(call.repeat)
    ]
    return RunResult(ended=Ended.EXITED, exit_code=0, results=_lines(lines), wall_ms=30)


def _doubled(arguments: str, *, wrong: bool) -> object:
    first = next(iter(json.loads(arguments)), 0)
    return 2 * first + wrong if isinstance(first, int | float) else first


def _lines(lines: Sequence[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
