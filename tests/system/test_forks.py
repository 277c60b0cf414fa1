"""Forks as a user has them: real runs of the demo model that go on from any of their records, and are proved."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image
from tests.system.command import Lumina, running, sum_request, until

REQUEST = (
    "1. Generate a Python script using Pillow to layer 'base_character.png' and 'green_tunic.png' (at coordinates "
    "4,5). Save the output as 'generated_character.png'.\n"
    "2. Generate a Python script using Pillow to layer 'generated_character.png' and 'hat.png' (at coordinates 2,3). "
    "Save the output as 'end.png'."
)
MOVED = (
    "Generate a Python script using Pillow to layer 'generated_character.png' and 'hat.png' (at coordinates 7,8). "
    "Save the output as 'end.png'."
)
COLOURS = {"base_character.png": "olive", "green_tunic.png": "green", "hat.png": "red"}


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A completed run in a running system."""

    lumina: Lumina
    run: str
    events: list[dict[str, Any]]

    def seq(self, kind: str, *, step: int = 0) -> int:
        """Return the place of the first event of a type that is about a step."""
        found = (event for event in self.events if event["type"].startswith(kind))
        return int(next(event["seq"] for event in found if step in {0, _step(event)}))

    def at(self, kind: str, *, step: int = 0) -> str:
        """Return RUN@SEQ for such an event."""
        return f"{self.run}@{self.seq(kind, step=step)}"


def _step(event: dict[str, Any]) -> int:
    """Return the step that an event is about, 0 for none."""
    return int(event["data"].get("ask", event["data"]).get("step", 0))


def _records(lumina: Lumina, run: str) -> list[dict[str, Any]]:
    return lumina("logs", run, "--json").events


def _artifacts(events: list[dict[str, Any]]) -> list[str]:
    """Return the digests of the files that the steps of a closed run made."""
    closed = next(event["data"] for event in events if event["type"] == "run.closed.v1")
    assert closed["status"] == "completed", closed
    return [result["artifacts"][0]["blob"]["digest"] for result in closed["results"]]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[Parent]:
    """Return a run of two steps, of which the second one reads the file that the first one makes."""
    lumina = Lumina(home=tmp_path_factory.mktemp("forks") / "home")
    lumina.home.mkdir()
    models = (f'[[models]]\nid = "{habit}"\nurl = "{zoo}/{habit}/v1"\n' for habit in ("slow", "adds"))
    (lumina.home / "node.toml").write_text("".join(models))
    options = []
    for name, colour in COLOURS.items():
        Image.new("RGBA", (20, 20), colour).resize((12, 12)).save(lumina.home.parent / name)
        options += ["--with", name]
    with running(lumina, "--specialists", "2"):  # one is busy with a model that does not answer
        ended = lumina("run", "--json", "--model", "lumina-demo", "--no-plan", *options, REQUEST)
        assert ended.code == 0, ended
        yield Parent(lumina=lumina, run=str(ended.events[0]["subject"]), events=ended.events)


def test_forks_of_one_parent_end_as_it_did(parent: Parent) -> None:
    """Three forks from three of its records, all at once: each makes the same files, and the parent stays as it is."""
    lumina = parent.lumina
    before = _records(lumina, parent.run)
    places = (parent.at("run.submitted"), parent.at("validation.requested", step=1), parent.at("step.accepted", step=1))
    forks = []
    for place in places:
        begun = lumina("fork", place, "--detach")
        assert begun.code == 0, begun
        forks.append(begun.out.strip())
    for run in forks:
        events = lumina("watch", run, "--json").events
        assert {event["subject"] for event in events} == {run}
        assert _artifacts(events) == _artifacts(before)
    assert _records(lumina, parent.run) == before
    listed = {row["run"]: row for row in lumina("runs", "--json").events}
    assert all(listed[run]["parent"] == parent.run for run in forks)
    assert [listed[run]["accepted"] for run in forks] == [2, 2, 2]
    shown = lumina("show", forks[-1], "--events")
    assert f"shared from {parent.run}" in shown.out
    assert "asked: 1. Generate" in shown.out
    assert f"forks {parent.run}" in shown.out


def test_another_brief_seed_and_limit_and_then_a_fork_of_that(parent: Parent) -> None:
    """The second step is done in other words on the file that the first one made; a fork of the fork does so again."""
    lumina = parent.lumina
    place = parent.at("generation.requested", step=2)
    changed = lumina(
        "fork", place, "--json", "--set", "seed=7", "--set", "attempts=3", "--edit-brief", MOVED, "-o", "moved"
    )
    assert changed.code == 0, changed
    asked = next(event["data"]["ask"] for event in changed.events if event["type"] == "generation.requested.v1")
    old = next(e["data"]["ask"] for e in parent.events if e["type"] == "generation.requested.v1" and _step(e) == 2)
    assert asked["brief"] == MOVED
    assert asked["sampling"]["seed"] != old["sampling"]["seed"]
    assert _artifacts(changed.events)[0] == _artifacts(parent.events)[0]
    assert _artifacts(changed.events)[1] != _artifacts(parent.events)[1]
    drawn = Image.open(io.BytesIO((lumina.home.parent / "moved" / "step-2" / "end.png").read_bytes()))
    assert drawn.size == (12, 12)
    forked = str(changed.events[0]["subject"])
    run_again = next(event for event in changed.events if event["type"] == "execution.requested.v1")
    again = lumina("fork", f"{forked}@{run_again['seq']}", "--json")
    assert again.code == 0, again
    repeated = next(event for event in again.events if event["type"] == "execution.requested.v1")
    assert repeated["data"] == run_again["data"]
    assert _artifacts(again.events) == _artifacts(changed.events)
    earlier = lumina("fork", f"{forked}@{parent.seq('execution.finished', step=1)}", "--dry-run", "--json")
    assert earlier.code == 0, earlier
    assert earlier.events[0]["parent"] == parent.run


def test_a_rehearsal_writes_nothing(parent: Parent) -> None:
    """`--dry-run` says what is shared, what is asked next and which files lie there; every blob is found."""
    lumina = parent.lumina
    before = lumina("logs", "--json").events[-1]["seq"]
    dry = lumina("fork", parent.at("generation.finished", step=2), "--dry-run", "--json")
    assert dry.code == 0, dry
    plan = dry.events[0]
    assert plan["missing"] == []
    assert [step["fate"] for step in plan["steps"]] == ["accepted, kept", "goes on"]
    assert [fact["type"] for fact in plan["next"]] == ["validation.requested.v1"]
    files = {file["name"]: file["blob"]["digest"] for file in plan["files"]}
    run = next(e["data"] for e in parent.events if e["type"] == "execution.requested.v1" and e["data"]["step"] == 2)
    assert files == {file["name"]: file["blob"]["digest"] for file in run["files"]}
    assert lumina("logs", "--json").events[-1]["seq"] == before


def test_an_execution_is_taken_back(parent: Parent) -> None:
    """What descends from an accepted step's execution is done again, the rest is kept, and the parent is superseded."""
    lumina = parent.lumina
    before = _records(lumina, parent.run)
    gone = next(event for event in before if event["type"] == "execution.finished.v1")
    dry = lumina("invalidate", gone["id"][:16], "--dry-run", "--json").events[0]
    assert dry["superseded"][0]["id"] == gone["id"]
    assert len(dry["shared"]) + len(dry["superseded"]) == len(before)
    ended = lumina("invalidate", gone["id"][:16], "--json")
    assert ended.code == 0, ended
    assert ended.types[:2] == ["run.forked.v1", "execution.requested.v1"]
    assert _artifacts(ended.events) == _artifacts(before)
    run = str(ended.events[0]["subject"])
    assert _records(lumina, parent.run) == before
    assert lumina("show", parent.run, "--json").events[0]["superseded_by"] == run


def test_a_run_that_hangs_goes_on_with_another_model(parent: Parent) -> None:
    """An open run is forked to a model that answers; taking its question back stops it, with the reason."""
    lumina = parent.lumina
    hanging = lumina("run", "--detach", "--model", "slow", "--no-plan", sum_request("forked_1")).out.strip()
    question = _until_asked(lumina, hanging)
    other = lumina("fork", f"{hanging}@{question}", "--model", "adds", "--json")
    assert other.code == 0, other
    assert other.types[:3] == ["run.forked.v1", "step.attempt_started.v1", "generation.requested.v1"]
    assert other.events[1]["data"]["model"] == "adds"
    rows = {row["run"]: row["phase"] for row in lumina("runs", "--json").events}
    assert rows[hanging] == "running"
    begun = lumina("invalidate", f"{hanging}@{question}", "--detach")
    assert begun.code == 0, begun
    run = begun.out.strip()
    closed = lumina("watch", hanging, "--json").events[-1]
    assert (closed["data"]["status"], closed["data"]["reason"]) == ("cancelled", f"superseded by {run}")
    assert lumina("cancel", run).code == 0
    assert lumina("watch", run, "--json").events[-1]["data"]["status"] == "cancelled"


def _until_asked(lumina: Lumina, run: str) -> int:
    """Return the place of a run's question to its model, once it is there."""

    def asked() -> int:
        kinds = {event["type"]: int(event["seq"]) for event in _records(lumina, run)}
        return kinds.get("generation.requested.v1", 0)

    return until(asked, within_s=30.0)


def test_every_fork_is_proved(parent: Parent) -> None:
    """The whole log with all forks, and one of them alone, is decided again and equal; the invariants hold."""
    lumina = parent.lumina
    every = lumina("verify", "--all", "--invariants")
    assert every.code == 0, every
    newest = lumina("runs", "--json", "--limit", "1").events[0]
    alone = lumina("verify", newest["run"], "--invariants")
    assert alone.code == 0, alone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fork", "{run}"), "--events"),
        (("fork", "{at}", "--model", "nobody"), "is not offered here"),
        (("invalidate", "{submitted}"), "without its submission"),
    ],
)
def test_a_wish_that_cannot_be_meant(parent: Parent, arguments: tuple[str, ...], words: str) -> None:
    """No place, a model that is not there, or an event that nothing can do without: one sentence and exit code 2."""
    names = {
        "run": parent.run,
        "at": parent.at("generation.requested", step=1),
        "submitted": parent.at("run.submitted"),
    }
    ended = parent.lumina(*(argument.format(**names) for argument in arguments))
    assert ended.code == 2, ended
    assert words in ended.err
