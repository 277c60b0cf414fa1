"""Runs inside a sandbox: loads `main.py`, calls one function of it, and reports each result as a line of JSON.

Arguments: the function's name (`-` for the last one that the program defines), the file with the calls
`[{"arguments": "[1, 2]", "repeat": 1}, ...]`. Only arguments come in here; what the results should be stays outside,
since the program under test shares this process and could read it. Lines: `{"call": 0, "turn": 0, "value": ...}`, or
`"error"` instead of `"value"`; call -1 is the loading. Standard library only.
"""

import json
import linecache
import os
import sys
import traceback
from collections.abc import Coroutine
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import TextIO

PROGRAM = "main.py"
ANY = "-"


class Failed(Exception):
    """The program itself is not what was asked for."""


def load(name: str) -> object:
    """Return what `main.py` calls `name`. It is not run as `__main__`."""
    with open(PROGRAM, encoding="utf-8") as opened:
        source = opened.read()
    module = ModuleType("main")
    module.__file__ = PROGRAM
    sys.modules["main"] = module
    code: CodeType = compile(source, PROGRAM, "exec")
    exec(code, module.__dict__)  # noqa: S102 - to run it is the purpose; the sandbox is around
    if name == ANY:
        defined = [value for key, value in module.__dict__.items() if not key.startswith("_") and is_own(value)]
        if not defined:
            raise Failed(f"{PROGRAM} does not define a function")
        return defined[-1]  # helpers come first
    if name not in module.__dict__:
        raise Failed(f"{PROGRAM} does not define {name}")
    return module.__dict__[name]


def is_own(value: object) -> bool:
    """Return whether `value` is a function that the program defines itself, not one that it imports."""
    return isinstance(value, FunctionType) and value.__module__ == "main"


def call(function: object, arguments: list[object]) -> str:
    """Return the result of a call as JSON."""
    if not callable(function):
        raise Failed(f"it is a {type(function).__name__}, not a function")
    value: object = function(*arguments)
    if isinstance(value, Coroutine):
        import asyncio  # noqa: PLC0415 - 40 ms that only coroutines need

        value = asyncio.run(value)
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Failed(f"it returned a {type(value).__name__} that is not JSON: {error}") from None


def explain(error: BaseException) -> str:
    """Return one line: the kind of error, what it says, and the last line of the program that was in it."""
    lines = [frame.lineno for frame in traceback.extract_tb(own_frames(error)) if frame.filename == PROGRAM]
    if isinstance(error, SyntaxError) and error.filename == PROGRAM:
        lines = [error.lineno]
    if isinstance(error, Failed):
        return str(error)
    said = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    return f"{said} (line {lines[-1]})" if lines else said


def own_frames(error: BaseException) -> TracebackType | None:
    """Return the traceback from the first frame of the program on."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename != PROGRAM:
        found = found.tb_next
    return found


def show(error: BaseException) -> None:
    """Print a traceback without the frames of this driver."""
    linecache.checkcache(PROGRAM)
    traceback.print_exception(type(error), error, own_frames(error), limit=-10)


def main() -> None:
    """Make all calls; exit with 1 when one of them failed."""
    name, calls_file = sys.argv[1:]
    report: TextIO = os.fdopen(int(os.environ.pop("LUMINA_RESULTS")), "w", encoding="utf-8")
    os.set_inheritable(report.fileno(), False)
    with open(calls_file, encoding="utf-8") as opened:
        calls = json.load(opened)
    sys.argv[:] = [PROGRAM]
    sys.path[0] = os.getcwd()
    failed = False

    def attempt(number: int, turn: int, function: object = None) -> object:
        nonlocal failed
        try:
            if number < 0:
                return load(name)
            value = call(function, json.loads(calls[number]["arguments"]))
            line = f'{{"call": {number}, "turn": {turn}, "value": {value}}}'
        except BaseException as error:  # noqa: BLE001 - SystemExit too is a way not to return a value
            if not failed:
                show(error)
            failed = True
            line = json.dumps({"call": number, "turn": turn, "error": explain(error)[:1000]})
        report.write(line + "\n")
        report.flush()
        return None

    function = attempt(-1, 0)
    if not failed:
        for number, each in enumerate(calls):
            for turn in range(each["repeat"]):
                attempt(number, turn, function)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
