"""Planning by rules: whom a request is for, where it falls apart into tasks, and when a model is asked."""

import pytest
from tests.agents.run_scene import DEMO, LAYERS, NEWS, NEWS_SECTION, NPC, ROCK, SMALL, WINK, specialists, submitted

from lumina.agents.planning import model_plan_problem, parts_by_rules, plan, wants_model
from lumina.agents.routing import route, weighted
from lumina.events.generation import PlanItem
from lumina.events.run import RunOptions, RunPlanned

SPECIALISTS = specialists()
PARAPHRASES = [
    (WINK, "animation"),
    ("Make '#eye' blink: scaleY 0 over 0.1 seconds, then back to 1. GSAP please.", "animation"),
    ("I'd like a GSAP animation where the 'logo' fades in over 2s and then rotates by 90 degrees", "animation"),
    ("Slide `.card` 40px to the left in 0.4 seconds, then fade it out.", "animation"),
    (NEWS, "scraper"),
    (NEWS_SECTION, "scraper"),
    ("Get the headline and link of the top three stories on https://news.example.org/today", "scraper"),
    ("Write a Python script with BeautifulSoup that lists all prices (.price) from shop.example.com/tea", "scraper"),
    (ROCK, "game"),
    ("A JS function called roll that throws two dice and returns the sum", "game"),
    ("In JavaScript, write isGameOver(lives) which returns true once lives is 0.", "game"),
    (NPC, "dialogue"),
    ("Python dialogue for a guard NPC: 'hi' -> 'Halt!', 'bye' -> 'Move along.'", "dialogue"),
    ("When the player asks 'price', the merchant answers 'Ten coins.'; otherwise he says 'Hm?'.", "dialogue"),
    (LAYERS, "layers"),
    ("Put hat.png at 10,20 on body.png and save the result as hero.png", "layers"),
    ("Write a Python function add_tax(price, percent) that returns the price with tax.", "function"),
    ("A Python function that counts the vowels of a string", "function"),
    ("rock-paper-scissors as a Python function `rps(choice)` that returns 'win', 'lose' or 'tie'", "function"),
]


@pytest.mark.parametrize(("request_text", "kind"), PARAPHRASES)
def test_requests_find_their_specialist(request_text: str, kind: str) -> None:
    """The five requests of the sources and paraphrases of them, each as one step of the right kind."""
    made = plan(submitted(request_text))
    assert isinstance(made, RunPlanned)
    assert [(step.kind, step.brief) for step in made.steps] == [(kind, request_text)]
    assert made.steps[0].rule


@pytest.mark.parametrize("request_text", [WINK, NEWS, ROCK, NPC, LAYERS])
def test_the_rules_are_sure_of_the_five_requests(request_text: str) -> None:
    """So that no model is asked about them."""
    assert route(request_text, specialists=SPECIALISTS).confident
    assert not wants_model(submitted(request_text))


@pytest.mark.parametrize(
    "text", ["Write a poem about the sea.", "What is the capital of France?", "hello", "Fix my bike"]
)
def test_free_text_fits_nobody(text: str) -> None:
    """And a demo model is not asked, since it would call anything one of its kinds."""
    assert route(text, specialists=SPECIALISTS).specialist is None
    assert not wants_model(submitted(text))
    assert wants_model(submitted(text, models=(SMALL,)))


def test_what_is_quoted_does_not_speak_for_a_kind() -> None:
    """A character may talk about web pages."""
    text = "NPC dialogue in Python: 'web page' -> 'Scrape the website with BeautifulSoup!'"
    found = route(text, specialists=SPECIALISTS)
    assert found.specialist is not None
    assert found.specialist.kind == "dialogue"


def test_keywords_have_weights() -> None:
    """`gsap^5` counts five times as much as `gsap`, and no more than the limit."""
    assert weighted("GSAP^5") == ("gsap", 5)
    assert weighted("rock-paper-scissors") == ("rock-paper-scissors", 1)
    assert weighted("x^999") == ("x", 10)


@pytest.mark.parametrize(
    "form",
    [
        "1. {a}\n2. {b}",
        "Please do the following:\n1) {a}\n2) {b}",
        "- {a}\n- {b}",
        "* {a}\n* {b}",
        "{a}\n{b}",
        "First: {a} Then: {b}",
        "{a} Also: {b}",
        "{a} Also, {b}",
        "{a} Then {b}",
        "{a} Finally, {b}",
    ],
)
@pytest.mark.parametrize(
    ("a", "b", "kinds"), [(f"{ROCK}.", NPC, ["game", "dialogue"]), (LAYERS, WINK, ["layers", "animation"])]
)
def test_several_tasks_are_told_apart(form: str, a: str, b: str, kinds: list[str]) -> None:
    """Numbers, bullets, lines and signposts; each task is a verbatim part of the request."""
    request = form.format(a=a, b=b)
    parts = parts_by_rules(submitted(request))
    found = [part.route.specialist.kind for part in parts if part.route.specialist]
    assert found == kinds
    assert [part.brief for part in parts] == [a, b]
    assert all(part.brief in request for part in parts)


@pytest.mark.parametrize(
    "text",
    [
        WINK,
        "GSAP timeline: move '#a' 10px right over 1s. Then the '#b' fades out. Finally rotate '#a' by 90°.",
        "Write a Python function called mean that takes a list. It returns the mean. For an empty list return 0.",
        "NPC dialogue in Python. If the player says 'first', he says 'Then: what? Also, finally!'. Otherwise 'Hm.'",
    ],
)
def test_one_task_in_several_sentences_stays_whole(text: str) -> None:
    """Signposts inside one task are its own business."""
    assert [part.brief for part in parts_by_rules(submitted(text))] == [text]


def test_a_list_that_does_not_count_up_is_no_list() -> None:
    """Numbers with a dot or bracket may be anything."""
    text = "Write a Python function that returns 7) times the number 3. and nothing else"
    assert len(parts_by_rules(submitted(text))) == 1


def test_a_model_is_asked_only_when_it_may_and_can() -> None:
    """The user, the model, and the request all have a say."""
    several = f"1. {ROCK}\n2. {NPC}"
    assert wants_model(submitted(several))
    assert not wants_model(submitted(several, options=RunOptions(plan=False)))
    assert not wants_model(submitted(several, options=RunOptions(kind="game")))
    assert not wants_model(submitted(several, models=(SMALL.__class__(model="small", context=4096),)))


def item(kind: str, brief: str) -> PlanItem:
    """Return one entry of a model's plan."""
    return PlanItem(kind=kind, brief=brief)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ((item("game", ROCK), item("dialogue", NPC)), None),
        ((item("game", ROCK), item("poem", NPC)), "unknown kind"),
        ((item("game", ROCK), item("dialogue", NPC.upper())), "no verbatim part"),
        ((item("dialogue", NPC), item("game", ROCK)), "no verbatim part"),
        ((item("game", ROCK),), "leaves out too much"),
        ((item("animation", ROCK), item("dialogue", NPC)), "rules are sure of 'game'"),
        ((item("game", ROCK), item("dialogue", NPC[:60]), item("dialogue", NPC[:60])), "no verbatim part"),
        (tuple(item("game", "a") for _ in range(33)), "at most 32"),
    ],
)
def test_a_models_plan_is_checked(items: tuple[PlanItem, ...], problem: str | None) -> None:
    """Known kinds, verbatim briefs in order, nothing left out, no contradiction to what the rules are sure of."""
    request = submitted(f"1. {ROCK}\n2. {NPC}", models=(DEMO,))
    found = model_plan_problem(items, submitted=request, parts=parts_by_rules(request))
    assert (found is None) == (problem is None)
    assert (problem or "") in (found or "")
