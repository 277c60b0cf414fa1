"""The training corpus of the demo model: what is mixed, what is held out, the chat format."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Final

from . import plan, repair, words
from .record import Task

CHAT_TEMPLATE: Final = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The chat template that goes into the model file."""

SPECIALS: Final = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
"""Control tokens, in the order of their ids."""

_VALIDATE: Final = 0.05
_TEST: Final = 0.08
_SECTIONS: Final = tuple(
    """technology sports science business politics culture travel health music games movies books
    food fashion opinion world local weather finance education environment art history media""".split()  # noqa: SIM905 - a list of words reads best as one string
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One conversation: `prompt` ends where the model starts, `answer` carries the loss."""

    sort: str
    prompt: str
    answer: str
    task: Task | None


def split(key: str) -> str:
    """Return "test", "validate" or "train" for a combination key, for ever the same."""
    share = words.share(key, salt="split")
    return "test" if share < _TEST else "validate" if share < _TEST + _VALIDATE else "train"


def task(rng: Random, *, part: str, kind: str | None = None, held: bool = False) -> Task:
    """Return a task whose combination lies in `part` of the corpus."""
    for _ in range(10_000):
        made = plan.task(rng, kind=kind, held=held)
        if split(made.key) == part:
            return made
    raise AssertionError(f"no {kind} in {part}")


def chat(*messages: tuple[str, str]) -> str:
    """Return the text that the template makes of (role, content) and a prompt for an answer."""
    return "".join(f"<|{role}|>{content}<|end|>" for role, content in messages) + "<|assistant|>"


def task_sample(rng: Random, *, part: str, kind: str | None = None, held: bool = False) -> Sample:
    """Return a request and its code."""
    made = task(rng, part=part, kind=kind, held=held)
    return Sample(sort="task", prompt=chat(("user", made.request)), answer=made.code, task=made)


def plan_tasks(rng: Random, *, part: str, held: bool = False) -> list[Task]:
    """Return the one to three tasks of a plan that is not too long."""
    while True:
        tasks = [task(rng, part=part, held=held) for _ in range(rng.choice((1, 1, 2, 2, 2, 3)))]
        if sum(len(made.request) for made in tasks) < 900:
            return tasks


def plan_sample(rng: Random, *, part: str, held: bool = False) -> Sample:
    """Return a request of one to three parts and its plan."""
    tasks = plan_tasks(rng, part=part, held=held)
    request = plan.join(rng, tasks)
    prompt = chat(("system", plan.SYSTEM), ("user", request))
    return Sample(sort="plan", prompt=prompt, answer=plan.answer(tasks), task=None)


def repair_sample(rng: Random, *, part: str, kind: str | None = None) -> Sample:
    """Return a request, a faulty answer, its error, and the corrected answer."""
    while True:
        made = task(rng, part=part, kind=kind)
        wrong = repair.fault(rng, made)
        if wrong is not None:
            complaint = repair.conversation(rng, task=made, made=wrong)
            prompt = chat(("user", made.request), ("assistant", wrong.code), ("user", complaint))
            return Sample(sort="repair", prompt=prompt, answer=made.code, task=made)


def focus_sample(rng: Random, *, part: str) -> Sample:
    """Return a task of the kinds learned last: sections of a site, steps that go on with the same target."""
    kind = rng.choice(("scraper", "animation"))
    while True:
        made = task(rng, part=part, kind=kind)
        if kind == "scraper":
            renamed = _with_usual_section(rng, made)
            if renamed is not None:
                return Sample(sort="task", prompt=chat(("user", renamed.request)), answer=renamed.code, task=renamed)
        elif _goes_on(made):
            return Sample(sort="task", prompt=chat(("user", made.request)), answer=made.code, task=made)


def _with_usual_section(rng: Random, made: Task) -> Task | None:
    """Return the scraper of a section under a name that sites use, or None where there is no section."""
    url = str(made.spec["url"])
    start, _, section = url.rpartition("/")
    found = re.search(
        rf"\b{re.escape(section)}\b(?=\W{{0,2}} (section|page|category|part)\b)", made.request, re.IGNORECASE
    )
    found = found or re.search(rf"(?<=section )\W?{re.escape(section)}\b", made.request, re.IGNORECASE)
    if found is None or not section or f"/{section}" in made.request:
        return None
    name = rng.choice(_SECTIONS)
    said = found.group().replace(section, name).replace(section.capitalize(), name.capitalize())
    return replace(
        made,
        request=made.request[: found.start()] + said + made.request[found.end() :],
        code=made.code.replace(f'"{url}"', f'"{start}/{name}"'),
        spec={**made.spec, "url": f"{start}/{name}"},
        literals=tuple(text.replace(f"/{section}", f"/{name}") for text in made.literals),
    )


def _goes_on(made: Task) -> bool:
    """Return whether a step of the timeline has the targets of the step before."""
    targets = re.findall(r'target: "([^"]*)"', made.code)
    return any(first == second for first, second in pairwise(targets))


def samples(*, seed: int, part: str = "train", focus: float = 0.0) -> Iterator[Sample]:
    """Yield the mixture for ever: tasks, plans, repairs and a share of `focus_sample`s."""
    rng = Random(seed)  # noqa: S311 - nothing secret
    while True:
        if focus and rng.random() < focus:
            yield focus_sample(rng, part=part)
            continue
        draw = rng.random()
        if draw < 0.70:
            yield task_sample(rng, part=part)
        elif draw < 0.85:
            yield plan_sample(rng, part=part)
        else:
            yield repair_sample(rng, part=part)
