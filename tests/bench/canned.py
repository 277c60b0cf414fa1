"""What instant effects return: raw outcomes as real ones look, for a request for a Python function that adds."""

from typing import assert_never

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.agents.specialist import Call, Effect, Hopeless, SpecialistRaw, Unload
from lumina.agents.validating import ToolRun, ValidationEffect, ValidationRaw
from lumina.events.contract import Case
from lumina.models.backend import Finish, Reply
from lumina.sandbox.port import Ended, RunResult

MODEL = "bench"
NODE_FILE = f'[[models]]\nid = "{MODEL}"\nurl = "http://127.0.0.1:9/v1"\nslots = 16\n'
"""The governor has leases to give; nobody ever calls that server."""
REQUEST = "Write a Python function called add that takes a and b and returns their sum."
CASES = (Case(arguments="[2, 3]", one_of=("5",)), Case(arguments="[-1, 1]", one_of=("0",)))

_SAID = {"compile": b"", "ruff": b"[]", "pylint": b'{"messages": [], "statistics": {"score": 10.0}}'}
_RESULTS = b'{"call":0,"turn":0,"value":5}\n{"call":1,"turn":0,"value":0}\n'


def said(effect: Effect, *, now_ms: int, token: str) -> SpecialistRaw:
    """Return what a model that needs no time says; `token` makes the code another one each time."""
    match effect:
        case Call():
            text = f"```python\ndef add(a, b):\n    # {token}\n    return a + b\n```\n"
            reply = Reply(
                text=text, finish=Finish.STOP, prompt_tokens=210, generated_tokens=31, prompt_ms=0, generate_ms=0
            )
            return SpecialistRaw(ended_at_ms=now_ms, counts=(210,), context=effect.context, reply=reply)
        case Unload():
            return SpecialistRaw(ended_at_ms=now_ms, was_loaded=True)
        case Hopeless():
            return SpecialistRaw(ended_at_ms=now_ms)
        case _:
            assert_never(effect)


def read(effect: ValidationEffect, *, now_ms: int) -> ValidationRaw:
    """Return what tools that need no time find in good code."""
    tools = tuple(
        ToolRun(tool=tool, confined=True, result=RunResult(ended=Ended.EXITED, exit_code=0, stdout=_SAID[tool]))
        for tool in effect.tools
    )
    return ValidationRaw(ended_at_ms=now_ms, tools=tools)


def ran(effect: ExecutionEffect, *, now_ms: int) -> ExecutionRaw:
    """Return what a good program that needs no time leaves behind."""
    del effect
    return ExecutionRaw(ended_at_ms=now_ms, runs=(RunResult(ended=Ended.EXITED, exit_code=0, results=_RESULTS),))
