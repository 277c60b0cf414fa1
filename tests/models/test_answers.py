"""What a text is good for: nothing passes that is not of the right form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumina.events.contract import Form, Language, OutputContract
from lumina.models.answers import Code, Cut, Plan, Unusable, plan_schema, read_code, read_plan, without_thoughts
from lumina.models.backend import Finish

PYTHON = OutputContract(language=Language.PYTHON, form=Form.FUNCTION, entry="double")
JAVASCRIPT = OutputContract(language=Language.JAVASCRIPT, form=Form.FUNCTION, entry="play")
CODE = "def double(x):\n    return 2 * x\n"
KINDS = ("scraper", "game", "function")


def code(text: str, *, contract: OutputContract = PYTHON, finish: Finish = Finish.STOP) -> Code | Cut | Unusable:
    return read_code(text, contract=contract, finish=finish)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        CODE.rstrip(),
        f"\n\n{CODE}\n\n",
        CODE.replace("\n", "\r\n"),
        f"```python\n{CODE}```",
        f"```py\n{CODE}\n```\n",
        f"~~~~python\n{CODE}~~~~",
        f"```\n{CODE}```",
        f"Sure!\n\n```python\n{CODE}```\nThis doubles x.",
        f"```html\n<b>no</b>\n```\n```python\n{CODE}```",
        f"```python\nprint(1)\n```\nand the whole:\n```python\n{CODE}```",
        f"Use it as `double(2)`:\n```python\nprint(double(2))\n```\n```python\n{CODE}```",
        f"<think>Let me see. ```python\nwrong\n``` no</think>\n```python\n{CODE}```",
        f"I should double it.\n</think>\n{CODE}",
        "1. First:\n   ```python\n   def double(x):\n       return 2 * x\n   ```",
        f"```python\n{CODE}",
        f"Here is the function:\n{CODE}",
        f"```Python title=x.py\n{CODE}```",
    ],
)
def test_the_program_is_found_in_what_models_wrap_it_in(text: str) -> None:
    """It ends in one line feed, and what was taken is always the same program."""
    read = code(text)
    assert isinstance(read, Code)
    assert read.text == CODE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        (" \n\t\n", "the answer is empty"),
        ("```python\n```", "code block is empty"),
        ("I am sorry, but I can't help with that.", "prose without code"),
        ("The function should double its argument and return it.", "prose without code"),
        ("```javascript\nconst a = 1;\n```", "has code of javascript, but none of python"),
        ("<think>I will never stop thinking about def double(x):", "the answer is empty"),
    ],
)
def test_text_without_a_program_is_unusable(text: str, reason: str) -> None:
    """And it is said what was found instead."""
    read = code(text)
    assert isinstance(read, Unusable)
    assert reason in read.reason


def test_what_was_taken_from_among_other_things_is_said() -> None:
    """A plain program needs no words."""
    assert code(CODE) == Code(CODE)
    assert code(f"```python\n{CODE}```") == Code(CODE)
    wrapped = code(f"Yes.\n```python\n{CODE}```")
    assert isinstance(wrapped, Code)
    assert wrapped.how == "the python block of an answer with other text"


def test_a_cut_answer_counts_only_if_its_program_is_complete() -> None:
    """A model that goes on talking has answered; one that was cut in its code has not."""
    assert isinstance(code(CODE, finish=Finish.LENGTH), Cut)
    assert isinstance(code(f"```python\n{CODE}", finish=Finish.LENGTH), Cut)
    assert isinstance(code(f"```python\n{CODE}```\nAnd so on and so", finish=Finish.LENGTH), Code)


def test_javascript_is_read_likewise() -> None:
    """Fences, plain code and prose."""
    program = "function play(a) {\n  return a;\n}\n\nmodule.exports = { play };\n"
    assert code(program, contract=JAVASCRIPT) == Code(program)
    assert code(f"```js\n{program}```", contract=JAVASCRIPT) == Code(program)
    assert isinstance(code("Rock beats scissors; scissors beat paper.", contract=JAVASCRIPT), Unusable)


@given(st.text(max_size=400), st.sampled_from([PYTHON, JAVASCRIPT]), st.sampled_from(list(Finish)))
def test_no_text_breaks_the_reader(text: str, contract: OutputContract, finish: Finish) -> None:
    """Whatever a model says, there is an answer about it, and code ends in exactly one line feed."""
    read = read_code(text, contract=contract, finish=finish)
    if isinstance(read, Code):
        assert read.text.endswith("\n")
        assert not read.text.endswith("\n\n")
        assert read.text.strip()


ITEMS = [{"kind": "scraper", "brief": "Scrape the news."}, {"kind": "game", "brief": "Write a game."}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ITEMS),
        json.dumps(ITEMS, indent=2) + "\n",
        f"```json\n{json.dumps(ITEMS)}\n```",
        f"Here is the plan: {json.dumps(ITEMS)}. Good luck!",
        json.dumps({"steps": ITEMS}),
        f"<think>[1, 2]</think>{json.dumps(ITEMS)}",
        json.dumps([{**item, "note": "x"} for item in ITEMS]),
    ],
)
def test_a_plan_is_found_in_what_models_wrap_it_in(text: str) -> None:
    """In order, with kinds and briefs."""
    read = read_plan(text, kinds=KINDS, finish=Finish.STOP)
    assert isinstance(read, Plan)
    assert [(item.kind, item.brief) for item in read.items] == [(item["kind"], item["brief"]) for item in ITEMS]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no plan"),
        ("First scrape, then play.", "no plan"),
        ("[]", "no plan"),
        (json.dumps(ITEMS * 5), "no plan"),
        ('[{"kind": "scraper"}]', "each with a kind and a brief"),
        ('[{"kind": "poem", "brief": "Write one."}]', "has the kind 'poem'; known: scraper, game, function"),
        ('[{"kind": "game", "brief": "  "}]', "entry 1 of the plan has an empty brief"),
        ('{"kind": "game", "brief": "x"}', "no plan"),
        ("[" * 100_000, "no plan"),
        ('[{"kind": "game", "brief": ' + "1" * 5_000 + "}]", "no plan"),
    ],
)
def test_what_is_no_plan_is_unusable(text: str, reason: str) -> None:
    """Unknown kinds and empty briefs included."""
    read = read_plan(text, kinds=KINDS, finish=Finish.STOP)
    assert isinstance(read, Unusable)
    assert reason in read.reason


def test_a_plan_that_was_cut_is_not_read() -> None:
    """Even if what is there would parse."""
    assert isinstance(read_plan(json.dumps(ITEMS), kinds=KINDS, finish=Finish.LENGTH), Cut)


def test_half_characters_in_a_plan_become_question_marks() -> None:
    """JSON can write them, the log can't."""
    read = read_plan('[{"kind": "game", "brief": "a\\ud800b"}]', kinds=KINDS, finish=Finish.STOP)
    assert isinstance(read, Plan)
    assert read.items[0].brief == "a?b"


@given(st.text(max_size=300))
def test_no_text_breaks_the_plan_reader(text: str) -> None:
    """Whatever a model says, there is an answer about it."""
    read_plan(text, kinds=KINDS, finish=Finish.STOP)
    without_thoughts(text)


def test_the_schema_names_the_kinds() -> None:
    """And limits the number of entries."""
    schema = plan_schema(KINDS)
    assert schema["items"]["properties"]["kind"] == {"enum": list(KINDS)}
    assert (schema["minItems"], schema["maxItems"]) == (1, 8)


def test_code_of_another_language_is_no_prose() -> None:
    """It is code, and named as that."""
    javascript = OutputContract(language=Language.JAVASCRIPT, form=Form.SCRIPT)
    read = code("def shoes(text):\n    pass\n", contract=javascript)
    assert isinstance(read, Unusable)
    assert read.reason.startswith("the answer is code of python, but javascript was asked for: 'def shoes")
    read = code("function shoes(text) {", contract=PYTHON)
    assert isinstance(read, Unusable)
    assert "code of javascript" in read.reason
