"""The training corpus of the demo model: what is mixed, what is held out, the chat format."""

from collections.abc import Iterator
from dataclasses import dataclass
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


def samples(*, seed: int, part: str = "train") -> Iterator[Sample]:
    """Yield the mixture for ever: tasks, plans and repairs."""
    rng = Random(seed)  # noqa: S311 - nothing secret
    while True:
        draw = rng.random()
        if draw < 0.70:
            yield task_sample(rng, part=part)
        elif draw < 0.85:
            yield plan_sample(rng, part=part)
        else:
            yield repair_sample(rng, part=part)
