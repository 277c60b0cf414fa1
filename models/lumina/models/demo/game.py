"""Requests for a rule of a game, answered by a JavaScript function."""

import math
from random import Random
from typing import Final

from . import words
from .game_rules import RULES
from .record import Task
from .rules import body, wording

_VERBS: Final = ("get", "check", "roll", "play", "calc", "compute", "is", "apply", "do", "handle", "decide", "next")


def example(rng: Random, *, held: bool = False) -> Task:
    """Return one request for a game rule; `held` draws from the wordings kept for evaluation."""
    rule = RULES[0] if rng.random() < 0.1 else rng.choice(RULES)
    constants = rule.constants(rng)
    name = rule.name if rng.random() < 0.3 else words.camel(rng, verbs=_VERBS)
    asked = wording(rng, rule, constants=constants, name=name, language="JavaScript", held=held)
    name = asked.name or rule.name
    parameters = asked.parameters
    lines = body(rule, constants=constants, parameters=parameters)
    code = f"function {name}({', '.join(parameters)}) {{\n{lines}\n}}\n\nmodule.exports = {{ {name} }};\n"
    calls: list[dict[str, object]] = []
    for arguments, drawn, expected in rule.calls(constants):
        assert not isinstance(expected, float) or math.isfinite(expected)
        calls.append({"args": arguments, "random": drawn, "expected": expected})
    return Task(
        kind="game",
        request=asked.request,
        code=code,
        key=f"game/{rule.name}/{words.share(name + str(sorted(constants.values()))):.2f}",
        held_wording=held,
        spec={"name": asked.name, "rule": rule.name, "calls": calls},
        literals=((asked.name,) if asked.name else ()) + tuple(constants.values()),
    )
