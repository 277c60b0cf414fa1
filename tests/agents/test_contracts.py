"""Contracts: what a request says literally, and nothing that right code might not have."""

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agents.run_scene import LAYERS, NEWS, NEWS_SECTION, NPC, ROCK, WINK, specialists

from lumina.agents import literals
from lumina.agents.contracts import contract_for, fields, function_name, parameters
from lumina.agents.dialogue_pairs import UNKNOWN_WORDS, dialogue
from lumina.events.contract import Case, OutputContract
from lumina.models.demo import plan as demo

SPECIALISTS = {specialist.kind: specialist for specialist in specialists()}


def contract(kind: str, brief: str, *, cases: tuple[Case, ...] = ()) -> OutputContract:
    """Return the contract of a brief for the specialist of a kind."""
    return contract_for(brief, specialist=SPECIALISTS[kind], cases=cases)


def test_rock_paper_scissors_has_its_moves_and_results() -> None:
    """Each move is played twenty times; any of the three words will do."""
    found = contract("game", ROCK)
    assert (found.entry, found.parameters) == (None, ("playerChoice",))
    assert [case.arguments for case in found.cases] == ['["rock"]', '["paper"]', '["scissors"]']
    assert {case.one_of for case in found.cases} == {('"win"', '"lose"', '"tie"')}
    assert {case.repeat for case in found.cases} == {20}


def test_a_dialogue_has_a_case_per_pair() -> None:
    """What the player says, and the reply word for word."""
    found = contract("dialogue", NPC)
    calls = {json.loads(case.arguments)[0]: json.loads(case.one_of[0]) for case in found.cases}
    assert calls == {"hello": "Greetings, traveler!", "quest": "I have no quests for you today."}


def test_a_default_reply_is_tried_with_unknown_words() -> None:
    """The request says what everything else gets."""
    found = contract("dialogue", "NPC in Python: 'hi' -> 'Hello.'. Otherwise he says 'Hm?'.")
    assert [json.loads(case.arguments)[0] for case in found.cases] == ["hi", UNKNOWN_WORDS]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("if the player says 'a', NPC replies 'b'", (("a", "b"),)),
        ('"a" -> "b"; "c" => "d"', (("a", "b"), ("c", "d"))),
        ("reply with 'b' when the player says 'a'", (("a", "b"),)),
        ("If asked `a`, he says `b`. If asked `c`, she `d`.", (("a", "b"), ("c", "d"))),
        ("called 'greet_all': 'a' gives 'b'", (("a", "b"),)),
        ("says 'a' and 'b' and 'c'", ()),
        ("the words 'a' 'b'", ()),
        ("'a' -> 'b', 'a' -> 'c'", ()),
    ],
)
def test_pairs_are_read_only_without_doubt(text: str, pairs: tuple[tuple[str, str], ...]) -> None:
    """Arrows, verbs and both directions; an odd or unclear list of quoted texts claims nothing."""
    assert dialogue(text).pairs == pairs


def test_a_scraper_has_fields_and_a_limit() -> None:
    """Keys in the singular, the address as a literal."""
    found = contract("scraper", NEWS)
    assert (found.fields, found.rows_max) == (("title", "url"), 5)
    assert found.must_contain == ("http://127.0.0.1:8000/news",)
    assert literals.implied_addresses(NEWS_SECTION)[0] == "https://news.example.com/technology"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Get the titles from the URL https://a.example.com", ("title",)),
        ("Get titles (`.title`), prices and authors of all books on a.example.com", ("title", "price", "author")),
        ("Read the page title.html and print it", ()),
        ("Get all 'url' things", ()),
    ],
)
def test_fields_are_the_things_asked_for(text: str, found: tuple[str, ...]) -> None:
    """Not words in quotes, selectors, addresses or file names."""
    assert fields(text) == found


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("the first 5 articles", 5),
        ("the first twelve articles", 12),
        ("at most 30 rows", 30),
        ("Limit: 7.", 7),
        ("only the first three", 3),
        ("the 25 newest posts", 25),
        ("titles of 8 posts", 8),
        ("all posts from 'first 3 class'", 0),
        ("https://example.com/first 9px", 0),
        ("all articles", 0),
    ],
)
def test_limits_are_read_in_digits_and_words(text: str, limit: int) -> None:
    """Zero when the request names none."""
    assert literals.limit(text) == limit


def test_layers_have_files_and_an_artifact() -> None:
    """The file after `save ... as` is what must exist afterwards."""
    found = contract("layers", LAYERS)
    assert found.artifact == "generated_character.png"
    assert set(found.must_contain) == {
        "base_character.png",
        "green_tunic.png",
        "leather_boots.png",
        "surprised_face.png",
        "generated_character.png",
    }


def test_a_timeline_has_its_elements() -> None:
    """Names of elements and files, but not the quoted name of an attribute."""
    assert contract("animation", WINK).must_contain == ("left_eye_lid", "right_eye_lid", "mouth", "smile.png")
    assert contract("animation", "Move #a and .b-c 'slowly' over 1s").must_contain == ("#a", ".b-c")


@pytest.mark.parametrize(
    ("text", "name", "names"),
    [
        ("a function called add_up that adds", "add_up", ()),
        ("Write `add(a, b)` in Python", "add", ("a", "b")),
        ("a function 'total' that sums", "total", ()),
        ("a Python function that takes price and percent and returns the sum", None, ("price", "percent")),
        ("a function that takes a list and returns the sum", None, ()),
        ("a JavaScript function to flip a coin", None, ()),
        ("dialogue for an NPC called Bob", None, ()),
        ("Name: greet_all. It takes text.", "greet_all", ("text",)),
        ("function in Python for sorting", None, ()),
        ("Call it `mean`.", "mean", ()),
    ],
)
def test_names_are_taken_only_when_they_are_named(text: str, name: str | None, names: tuple[str, ...]) -> None:
    """A character's name is not the function's, and prose names no parameters."""
    assert function_name(text) == name
    assert parameters(text, name=name) == names


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        (
            "function add(a, b): add(1, 2) returns 3, add('x', 'y') == 'xy'",
            [("[1, 2]", ["3"]), ('["x", "y"]', ['"xy"'])],
        ),
        ("`coin()` returns 'heads' or 'tails'", [("[]", ['"heads"', '"tails"'])]),
        ("`level(5)` returns 2 if the bonus is on", []),
        ("`next(player)` returns 'O' if player is 'X'", []),
    ],
)
def test_stated_calls_become_cases(text: str, cases: list[tuple[str, list[str]]]) -> None:
    """Only calls with plain values and results without conditions."""
    found = contract("function", text).cases
    assert [(case.arguments, list(case.one_of)) for case in found] == cases


def test_cases_of_the_user_win() -> None:
    """What the request says stays out then."""
    mine = (Case(arguments="[1]", one_of=("2",)),)
    assert contract("dialogue", NPC, cases=mine).cases == mine


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_no_contract_refuses_the_reference_answer(seed: int) -> None:
    """On the demo corpus: every text that a contract demands stands in the reference, and names and limits agree."""
    task = demo.task(Random(seed), held=seed % 10 == 0)
    found = contract(task.kind, task.request)
    assert [text for text in found.must_contain if text not in task.code] == []
    if found.entry is not None:
        assert f"def {found.entry}(" in task.code or f"function {found.entry}(" in task.code
        assert not found.parameters or f"{found.entry}({', '.join(found.parameters)})" in task.code
    if task.kind == "scraper":
        wanted = task.spec["fields"]
        assert isinstance(wanted, dict)
        assert set(found.fields) <= set(wanted)
        assert found.rows_max in {0, task.spec["limit"] or 0}
    if task.kind == "layers":
        assert found.artifact in {None, task.spec["save"]}


@given(st.text(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_text_has_a_contract(text: str) -> None:
    """Whatever somebody types, reading it never fails and never makes an invalid contract."""
    for kind in SPECIALISTS:
        contract(kind, text)
    literals.addresses(text)
    literals.implied_addresses(text)
