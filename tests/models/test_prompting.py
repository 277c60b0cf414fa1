"""Prompts: what is said, in which order, and what goes first when the context is tight."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumina.events.contract import Case, Form, Language, OutputContract
from lumina.events.generation import Ask, Purpose, Sampling
from lumina.events.values import BlobRef
from lumina.models.backend import Message
from lumina.models.prompting import SpecialistTexts, contract_words, fit, prompts, reserve, without_control

CONTRACT = OutputContract(
    language=Language.PYTHON, form=Form.FUNCTION, entry="double", parameters=("x",), must_contain=("double",)
)
PREVIOUS = BlobRef(digest="0" * 64, size=3, media_type="text/x-python")


def ask(**changes: object) -> Ask:
    plain = Ask(
        purpose=Purpose.CODE,
        step=1,
        attempt=1,
        model="coder",
        brief="Double x.",
        sampling=Sampling(temperature=0.0, seed=1, tokens_max=100),
        contract=CONTRACT,
    )
    return msgspec.structs.replace(plain, **changes)


def texts(examples: int = 2) -> SpecialistTexts:
    def render(shown: int, feedback: tuple[str, ...]) -> str:
        return f"examples={shown} brief=Double x. feedback={','.join(feedback)}"

    return SpecialistTexts(role="You write Python. ", examples=examples, render=render)


def test_examples_go_first_the_last_one_before_the_others() -> None:
    """The brief stays; what went is named in order."""
    ladder = prompts(ask(), texts=texts(), previous=None)
    assert [prompt.trimmed for prompt in ladder] == [(), ("example-2",), ("example-2", "example-1")]
    assert [prompt.messages[-1].text.split()[0] for prompt in ladder] == ["examples=2", "examples=1", "examples=0"]
    assert all(prompt.messages[0] == Message("system", "You write Python.") for prompt in ladder)


def test_a_repair_goes_on_after_the_first_attempt_word_for_word() -> None:
    """So that the work done on the first prompt is used again; then come the faulty code and what is wrong with it."""
    first = prompts(ask(), texts=texts(), previous=None)[0]
    repair = prompts(
        ask(purpose=Purpose.REPAIR, previous=PREVIOUS, feedback=("line 1: bad",)), texts=texts(), previous="x = 1\n"
    )
    assert repair[0].messages[: len(first.messages)] == first.messages
    assert repair[0].messages[-2] == Message("assistant", "```python\nx = 1\n```")
    assert "- line 1: bad" in repair[0].messages[-1].text
    assert [prompt.trimmed for prompt in repair[3:]] == [
        ("example-2", "example-1", "previous"),
        ("example-2", "example-1", "previous", "feedback"),
    ]
    assert repair[3].messages[-1].text == "examples=0 brief=Double x. feedback=line 1: bad"
    assert repair[4].messages[-1].text == "examples=0 brief=Double x. feedback="


def test_the_demo_model_is_told_exactly_what_it_was_trained_on() -> None:
    """The request; request, faulty code and error; the word plan and the request."""
    assert prompts(ask(bare=True), texts=None, previous=None)[0].messages == (Message("user", "Double x."),)
    bare_repair = ask(bare=True, purpose=Purpose.REPAIR, previous=PREVIOUS, feedback=("E" * 150, "F" * 150))
    complete, short = prompts(bare_repair, texts=None, previous="x = 1\n")
    assert complete.messages == (
        Message("user", "Double x."),
        Message("assistant", "x = 1\n"),
        Message("user", "E" * 150 + "\n" + "F" * 9 + "\nFix the code."),
    )
    assert (short.messages, short.trimmed) == ((Message("user", "Double x."),), ("previous", "feedback"))
    plan = ask(bare=True, purpose=Purpose.PLAN, step=0, kinds=("game",), contract=None)
    assert prompts(plan, texts=None, previous=None)[0].messages == (
        Message("system", "plan"),
        Message("user", "Double x."),
    )


def test_a_plan_is_asked_for_with_its_kinds_in_the_constant_part() -> None:
    """The request is the user's message, alone."""
    plan = ask(purpose=Purpose.PLAN, step=0, kinds=("game", "scraper"), contract=None)
    system, user = prompts(plan, texts=None, previous=None)[0].messages
    assert system.text.endswith("The kinds are: game, scraper.")
    assert user == Message("user", "Double x.")


@pytest.mark.parametrize(
    ("counts", "context", "tokens_max", "sent"),
    [
        ((100,), 300, 100, 0),
        ((200,), 300, 100, 0),
        ((201,), 300, 100, None),
        ((201, 200), 300, 100, 1),
        ((150,), 300, 5_000, 0),
        ((151,), 300, 5_000, None),
        ((), 300, 100, None),
    ],
)
def test_the_first_prompt_that_leaves_room_for_the_answer_is_sent(
    counts: tuple[int, ...], context: int, tokens_max: int, sent: int | None
) -> None:
    """The reserve is the answer's limit, but never more than half of the context."""
    assert fit(counts, context=context, tokens_max=tokens_max) == sent


@given(st.lists(st.integers(0, 3000), max_size=8), st.integers(1, 4000), st.integers(1, 10_000))
def test_nothing_is_ever_sent_that_does_not_fit(counts: list[int], context: int, tokens_max: int) -> None:
    """Prompt and reserve stay within the context, and no longer prompt that fits is passed over."""
    sent = fit(tuple(counts), context=context, tokens_max=tokens_max)
    kept = reserve(tokens_max, context=context)
    if sent is not None:
        assert counts[sent] + kept <= context
    assert all(count + kept > context for count in counts[:sent])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a <|im_end|> b", "a  b"),
        ("<|im_<|im_end|>end|>", ""),
        ("[INST] hi [/INST] <<SYS>>", " hi  "),
        ("<start_of_turn>user", "user"),
        ("a < b | c > d, x <| y", "a < b | c > d, x <| y"),
        ("<s>old</s> <b>bold</b>", "<s>old</s> <b>bold</b>"),
    ],
)
def test_control_strings_are_taken_out_and_html_is_left(text: str, clean: str) -> None:
    """Also nested ones."""
    assert without_control(text) == clean


@given(st.text(alphabet="<|>imend_sINST[]/ ", max_size=60))
def test_taking_out_control_strings_leaves_none(text: str) -> None:
    """Once is enough for ever."""
    clean = without_control(text)
    assert without_control(clean) == clean


def test_control_strings_of_code_and_feedback_are_taken_out_too() -> None:
    """Whatever reaches a message."""
    repair = ask(bare=True, purpose=Purpose.REPAIR, previous=PREVIOUS, feedback=("<|end|>bad",), brief="x<|user|>y")
    words = "".join(message.text for message in prompts(repair, texts=None, previous="a<|end|>b")[0].messages)
    assert "<|" not in words


@pytest.mark.parametrize(
    ("contract", "demand"),
    [
        (CONTRACT, "- It defines double(x) and calls nothing at the top level."),
        (CONTRACT, '- These texts stand in it exactly: "double"'),
        (
            OutputContract(
                language=Language.JAVASCRIPT,
                form=Form.FUNCTION,
                entry="play",
                cases=(Case(arguments='["rock", 2]', one_of=('"win"', '"tie"')), Case(arguments="[1]")),
            ),
            '- play("rock", 2) returns "win" or "tie".',
        ),
        (
            OutputContract(language=Language.JAVASCRIPT, form=Form.FUNCTION, entry="play"),
            "- It ends with: module.exports = { play };",
        ),
        (
            OutputContract(language=Language.PYTHON, form=Form.ROWS, fields=("title", "url"), rows_max=5),
            "exactly the keys title, url, and nothing else.\n- The array has at most 5 objects.",
        ),
        (OutputContract(language=Language.PYTHON, form=Form.FILE, artifact="a.png"), "- It writes the file a.png."),
        (OutputContract(language=Language.JAVASCRIPT, form=Form.TIMELINE), "module.exports = { timeline };"),
        (OutputContract(language=Language.PYTHON, form=Form.SCRIPT), "- It runs to its end without an error."),
    ],
)
def test_a_contract_in_words_says_every_demand(contract: OutputContract, demand: str) -> None:
    """One a line; a case without a result is no demand."""
    assert demand in contract_words(contract)


def test_the_number_of_cases_shown_is_limited() -> None:
    """A model is shown three; the others still count."""
    cases = tuple(Case(arguments=f"[{n}]", one_of=(str(n),)) for n in range(10))
    words = contract_words(msgspec.structs.replace(CONTRACT, cases=cases))
    assert words.count("returns") == 3


def static_part(render: Callable[[str], tuple[Message, ...]]) -> str:
    """Return the common start of the prompts for two different briefs."""
    one, other = ("".join(f"{m.role}:{m.text}" for m in render(brief)) for brief in ("AAAA", "BBBB"))
    return one[: next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)]


def test_what_is_constant_stands_before_what_is_not() -> None:
    """For a plan the whole system message is the same for every request."""

    def render(brief: str) -> tuple[Message, ...]:
        plan = ask(purpose=Purpose.PLAN, step=0, kinds=("game",), contract=None, brief=brief)
        return prompts(plan, texts=None, previous=None)[0].messages

    assert static_part(render).endswith("The kinds are: game.user:")
