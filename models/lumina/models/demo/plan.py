"""Requests with one to three parts, answered by a JSON plan with the parts verbatim."""

import json
from collections.abc import Sequence
from random import Random
from typing import Final

from . import animation, dialogue, function, game, layers, scraper
from .record import Task

SYSTEM: Final = "plan"
"""The system message that asks for a plan."""

_MAKERS: Final = {
    "animation": animation.example,
    "scraper": scraper.example,
    "game": game.example,
    "dialogue": dialogue.example,
    "layers": layers.example,
    "function": function.example,
}
_WEIGHTS: Final = {"animation": 22, "scraper": 18, "game": 16, "dialogue": 17, "layers": 18, "function": 9}


def task(rng: Random, *, kind: str | None = None, held: bool = False) -> Task:
    """Return one task of `kind`, or of a kind drawn by weight."""
    if kind is None:
        kind = rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
    return _MAKERS[kind](rng, held=held)


def answer(tasks: Sequence[Task]) -> str:
    """Return the plan for `tasks`: a JSON array of kinds and verbatim briefs."""
    return json.dumps([{"kind": task.kind, "brief": task.request} for task in tasks], ensure_ascii=False)


def join(rng: Random, tasks: Sequence[Task]) -> str:
    """Return one request that asks for all `tasks`, in one of many forms."""
    briefs = [task.request for task in tasks]
    if len(briefs) == 1:
        return briefs[0]
    style = rng.randrange(9)
    opening = rng.choice(
        (
            "",
            "",
            "",
            "I need a few things.\n",
            "Please do the following:\n",
            "Two things:\n" if len(briefs) == 2 else "Three things:\n",
            "Tasks:\n",
            "For my project: \n",
        )
    )
    match style:
        case 0:
            return opening + "\n".join(f"{index}. {brief}" for index, brief in enumerate(briefs, 1))
        case 1:
            bullet = rng.choice("-*")
            return opening + "\n".join(f"{bullet} {brief}" for brief in briefs)
        case 2:
            return opening + "\n".join(f"{index}) {brief}" for index, brief in enumerate(briefs, 1))
        case 3:
            return "\n".join(briefs)
        case 4:
            return "\n\n".join(briefs)
        case 5:
            return "First: " + _chain(briefs, (" Then: ", " Finally: ") if len(briefs) > 2 else (" Then: ",))
        case 6:
            return _chain(briefs, (" Also: ",) * (len(briefs) - 1))
        case 7:
            linked = rng.choice(
                (
                    " And then: ",
                    " After that: ",
                    " Second: ",
                    " Next: ",
                    " Then: ",
                    " Also, ",
                    " And ",
                    " And also ",
                    " Plus: ",
                    " Then ",
                )
            )
            if briefs[0][-1] not in ".!?":
                linked = rng.choice(
                    (", and also ", " and then ", "; then ", ", then ", " and ", " and also ", ". Then ")
                )
            return _chain(briefs, (linked, rng.choice((" Finally: ", " Third: ", " Lastly: ")))[: len(briefs) - 1])
        case _:
            return " ".join(briefs)


def _chain(briefs: Sequence[str], links: Sequence[str]) -> str:
    text = briefs[0]
    for link, brief in zip(links, briefs[1:], strict=True):
        text += link + brief
    return text
