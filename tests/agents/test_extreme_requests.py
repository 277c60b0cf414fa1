"""No request, however odd, stops the orchestrator: it keeps all runs, and would stop at the same record for ever."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agents.run_scene import DEMO, LAYERS, NEWS, NPC, ROCK, SMALL, WINK, Scene, ended, submitted

from lumina.agents.literals import as_json
from lumina.events.run import ModelChoice, RunOptions, RunPlanned, RunStatus

LONG = "x" * 130
LISTED = ", ".join(f"p{number}" for number in range(17))
LAYER = "Using Pillow, layer 'a.png' and 'b.png' and save the result as"
WORDS = " or ".join(f"'w{number}'" for number in range(17))
EXTREMES = (
    f"Write a Python function called {LONG} that returns 1.",
    f"Write a Python function f({LISTED}) that returns 1.",
    f"Write a Python function f that takes {LONG} and returns 1.",
    f"Write a Python function f(a). f({'1,' * 2500}1) == 1",
    f'Write a Python function f(a). f(1) == "{"y" * 4500}"',
    f"Generate rock-paper-scissors in JavaScript; it returns {WORDS}.",
    f"{LAYER} 'gemälde.png'.",
    f"{LAYER} '{LONG}.png'.",
    f"Generate Python code for an NPC dialogue tree named {LONG} where if player says 'hello', NPC responds 'x'.",
    f"Generate Python code for an NPC dialogue tree where if player says '{'h' * 4500}', NPC responds 'x'.",
    f"Generate Python code for an NPC dialogue tree where if player says 'x', NPC responds '{'h' * 4500}'.",
    f"Scrape the titles from http://127.0.0.1:8000/{LONG * 5}.",
    r'Write a Python function f(a). f("\ud800") == 1',
)
PIECES = st.sampled_from(
    (ROCK, NPC, NEWS, LAYERS, WINK, *EXTREMES, LONG, LISTED, WORDS, "f(", ")", "'", '"', "\n", "1. ", " == ", "save ")
)


@pytest.mark.parametrize("request_", EXTREMES)
@pytest.mark.parametrize("model", [DEMO, SMALL])
def test_a_demand_that_no_contract_can_hold_is_left_out(request_: str, model: ModelChoice) -> None:
    """The run is planned or refused; names, files, cases and addresses beyond all limits stop nobody."""
    scene = Scene()
    options = RunOptions(plan=False, hosts=("127.0.0.1:8000",))
    scene.submit(submitted(request_, models=(model,), options=options))
    assert scene.closed is not None or any(isinstance(record.event, RunPlanned) for record in scene.records)


@given(st.lists(PIECES | st.text(max_size=20), min_size=1, max_size=8).map("".join))
@settings(max_examples=60, deadline=None)
def test_anything_is_planned_or_refused(request_: str) -> None:
    """Pieces of requests in any order, with any text between them."""
    scene = Scene()
    scene.submit(submitted(request_[:20_000] or ".", models=(SMALL,), options=RunOptions(plan=False)))
    assert scene.records


def test_an_address_that_is_too_long_fails_its_step() -> None:
    """It says how long it may be."""
    scene = Scene()
    options = RunOptions(plan=False, hosts=("127.0.0.1:8000",))
    scene.submit(submitted(f"Scrape the titles from http://127.0.0.1:8000/{LONG * 5}", options=options))
    assert ended(scene) == (RunStatus.REFUSED, "an address of 672 characters is too long; at most 500 are fetched")


def test_half_a_character_is_no_value() -> None:
    """JSON can write the half of a pair of surrogates, and UTF-8, in which events stand, can't."""
    assert as_json(r'"\ud800"') is None
    assert as_json(r'"\ud83d\ude00"') == '"😀"'


@pytest.mark.parametrize("word", ["a" * 6_000, "1" * 6_000, "a." * 3_000, "a-" * 3_000])
def test_a_long_word_is_thought_about_for_a_moment(word: str) -> None:
    """The keeper of all runs has no minutes for one request: time grows with its length, not with the square of it."""
    began = time.process_time()
    for request in (f"{LAYER} '{word}' and '{word}'.", f"Write a Python function f(a) that says '{word}' or '{word}'."):
        scene = Scene()
        scene.submit(submitted(request, models=(SMALL,), options=RunOptions(plan=False)))
        assert scene.records
    assert time.process_time() - began < 4.0
