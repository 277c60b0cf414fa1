"""The demo model's corpus: deterministic, held out by combination, and right."""

import hashlib
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import pytest

from lumina.models import demo as package
from lumina.models.demo import corpus, examples, plan, repair
from lumina.models.demo.record import KINDS, PYTHON_KINDS, Task

_FOLDER: Final = Path(str(package.__file__)).parent


def _tasks(kind: str, *, count: int = 150, held: bool = False) -> list[Task]:
    rng = Random(11)
    return [plan.task(rng, kind=kind, held=held) for _ in range(count)]


def test_the_same_seed_gives_the_same_samples() -> None:
    """A corpus is its seed."""
    first = list(islice(corpus.samples(seed=3), 200))
    assert first == list(islice(corpus.samples(seed=3), 200))
    assert first != list(islice(corpus.samples(seed=4), 200))


def test_a_combination_is_in_one_part_only() -> None:
    """Training never sees a key of the test part."""
    rng = Random(5)
    for part in ("train", "validate", "test"):
        for kind in KINDS:
            assert corpus.split(corpus.task(rng, part=part, kind=kind).key) == part


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_contains_every_literal(kind: str, held: bool) -> None:
    """What the request names is in the code, and the code ends in one newline."""
    for task in _tasks(kind, held=held):
        assert [text for text in task.literals if text not in task.code] == []
        assert task.code.endswith("\n")
        assert not task.code.endswith("\n\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_has_no_leftovers_of_its_frame(kind: str) -> None:
    """Slots are filled and alternatives are drawn."""
    for task in _tasks(kind, count=400):
        assert not set("{}[]|") & set(task.request), task.request


@pytest.mark.parametrize("kind", PYTHON_KINDS)
def test_python_answers_compile(kind: str) -> None:
    """Reference answers are Python."""
    for task in _tasks(kind):
        compile(task.code, "answer.py", "exec")


def test_python_answers_please_ruff(tmp_path: Path) -> None:
    """Reference answers pass the linter that validates the model's answers."""
    for kind in PYTHON_KINDS:
        for index, task in enumerate(_tasks(kind, count=15)):
            (tmp_path / f"{kind}_{index}.py").write_text(task.code)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_functions_return_what_they_promise() -> None:
    """The expectations of a function were computed apart from its code."""
    for task in _tasks("function", count=400):
        assert repair.wrong_result(task, task.code) is None


def test_dialogues_answer_as_asked() -> None:
    """Each line of the player gets its reply, the rest the default."""
    for task in _tasks("dialogue"):
        scope: dict[str, object] = {}
        exec(task.code, scope)
        talk = next(value for name, value in scope.items() if name != "__builtins__")
        assert callable(talk)
        pairs = task.spec["pairs"]
        assert isinstance(pairs, list)
        assert [talk(f" {say.upper()} ") for say, _ in pairs] == [reply for _, reply in pairs]
        assert talk("zzz") == (task.spec["default"] or "...")


@pytest.mark.parametrize("part", ["train", "test"])
def test_focus_stays_in_its_part_and_right(part: str) -> None:
    """What the second stage adds keeps the hold-out, and renamed sections are in code and request."""
    rng = Random(3)
    for _ in range(60):
        made = corpus.focus_sample(rng, part=part).task
        assert made is not None
        assert corpus.split(made.key) == part
        assert all(text in made.code for text in made.literals)
        if made.kind == "scraper":
            assert f'"{made.spec["url"]}"' in made.code


def test_a_plan_repeats_its_parts_word_for_word() -> None:
    """Every brief of a plan is part of the request, and the plan is JSON."""
    rng = Random(2)
    for _ in range(200):
        tasks = corpus.plan_tasks(rng, part="train")
        request = plan.join(rng, tasks)
        steps = json.loads(plan.answer(tasks))
        assert [step["kind"] for step in steps] == [task.kind for task in tasks]
        assert all(step["brief"] in request for step in steps)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_the_code_and_says_something(kind: str) -> None:
    """Injected faults differ from the reference and come with an error."""
    rng = Random(8)
    faults = [(task, repair.fault(rng, task)) for task in _tasks(kind, count=200)]
    made = [(task, fault) for task, fault in faults if fault is not None]
    assert len(made) > 60
    assert all(fault.code != task.code and fault.error for task, fault in made)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_reproducible_requests(kind: str) -> None:
    """An example is a function of kind and seed."""
    assert examples.example(kind, seed=1) == examples.example(kind, seed=1)
    assert len({examples.example(kind, seed=seed) for seed in range(5)}) == 5


def test_an_unknown_kind_has_no_example() -> None:
    """A kind that nobody knows is refused by name."""
    with pytest.raises(ValueError, match="sculpture"):
        examples.example("sculpture", seed=1)


def test_there_is_one_shape_for_each_kind() -> None:
    """The shapes shown to people cover the kinds, once each."""
    assert tuple(shape.kind for shape in examples.shapes()) == KINDS


def test_the_model_file_is_the_one_that_was_measured() -> None:
    """File, checksum and report belong together."""
    digest = hashlib.sha256((_FOLDER / "demo.gguf").read_bytes()).hexdigest()
    assert (_FOLDER / "demo.gguf.sha256").read_text().split() == [digest, "demo.gguf"]
    report = json.loads((Path(__file__).parents[2] / "models/training/report.json").read_text())
    assert report["file_sha256"] == digest
