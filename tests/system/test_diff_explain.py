"""`lumina diff` and `lumina explain` as a user has them, on real runs: failed, repaired, unreachable, out of time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.command import Lumina, running, sum_request, until
from tests.system.model_zoo import node_toml

TOP_TWO = "Write a Python function called top_two that returns the two largest numbers in values, sorted."
DICE = (
    "Generate JavaScript code for a game function called rollDice that takes sides and returns a number between 1 and "
    "sides"
)
DEMO = ("--model", "lumina-demo")
WISHES = {
    "failed": (*DEMO, TOP_TWO),
    "reseeded": (*DEMO, "--seed", "7", TOP_TWO),
    "repaired": (*DEMO, DICE),
    "bad": ("--model", "adds", "--attempts", "2", sum_request("bad_sum")),
    "nobody": ("--model", "nobody", "--attempts", "1", sum_request("never")),
    "again": ("--model", "adds", "--attempts", "2", sum_request("bad_sum")),
    "foreign": (*DEMO, "--attempts", "1", "Print [red]\x1b[31m\x07 twenty lucky numbers."),
    "late": ("--model", "slow", "--timeout", "1", sum_request("late")),
}


class Lived:
    """A running system and the runs that it has lived through, by name."""

    def __init__(self, lumina: Lumina, runs: dict[str, str]) -> None:
        self.lumina = lumina
        self.runs = runs

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Return what a command prints with `--json`."""
        ended = self.lumina(*arguments, "--json")
        assert ended.code == code, ended
        return ended.events[0]

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return the records of a run."""
        return self.lumina("logs", self.runs[name], "--json").events


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[Lived]:
    """Have a system running in which all these runs have ended; they ran beside each other."""
    command = Lumina(home=Path(tmp_path_factory.mktemp("story")) / "home")
    command.home.mkdir()
    (command.home / "node.toml").write_text(node_toml(zoo))
    with running(command, "--specialists", "2"):
        runs: dict[str, str] = {}
        for name, wishes in WISHES.items():
            submitted = command("run", "--detach", *wishes)
            assert submitted.code == 0, submitted
            runs[name] = submitted.out.strip()
        assert until(lambda: all(row["closed_ms"] for row in command("runs", "--json").events), within_s=120)
        yield Lived(command, runs)


def test_one_request_twice_does_not_differ(lived: Lived) -> None:
    """Two runs of one request with one seed: other ids and times, perhaps another instance, and exit code 0."""
    ended = lived.lumina("diff", lived.runs["bad"], lived.runs["again"])
    assert ended.code == 0, ended
    assert "nothing that matters differs" in ended.out


def test_two_seeds_part_at_the_first_other_answer(lived: Lived) -> None:
    """The seed is told as what was asked differently; then the first question, the first answer, and both codes."""
    told = lived.json("diff", lived.runs["failed"], lived.runs["reseeded"], code=1)
    comparison = told["comparison"]
    assert [(one["field"], one["a"], one["b"]) for one in comparison["asked"]] == [("options.seed", "0", "7")]
    assert "generation.requested.v1" in comparison["first"]["label"]
    assert comparison["first"]["a"]["because"][-1]["common"]
    assert "generation.finished.v1" in comparison["result"]["label"]
    (code, *_) = told["codes"]
    assert (code["step"], code["attempt_a"]) == (1, code["attempt_b"])
    assert any(line.startswith("-") for line in code["lines"])
    words = lived.lumina("diff", lived.runs["failed"], lived.runs["reseeded"])
    assert words.code == 1
    for expected in ("asked differently:", "options.seed", "first difference:", "first different result:", "(in both)"):
        assert expected in words.out
    listed = lived.lumina("diff", lived.runs["failed"], lived.runs["reseeded"], "--all")
    assert f"difference {comparison['different']}:" in listed.out


def test_the_attempts_of_one_run(lived: Lived) -> None:
    """How the code changed from attempt to attempt, with the fault between them; then two attempts by their numbers."""
    run = lived.runs["repaired"]
    ended = lived.lumina("diff", run)
    assert ended.code == 1, ended
    assert "its code did not pass validation" in ended.out
    assert "against attempt" in ended.out
    codes = lived.json("diff", run, code=1)["codes"]
    first, last = codes[0]["attempt_a"], codes[-1]["attempt_b"]
    one = lived.json("diff", f"{run}@1.{first}", f"{run}@1.{last}", code=1)["codes"][0]
    assert (one["code_a"], one["code_b"]) == (codes[0]["code_a"], codes[-1]["code_b"])
    assert lived.lumina("diff", f"{run}@1.{last}", f"{run}@1.{last}").code == 0


def test_a_failed_run_names_its_real_fault(lived: Lived) -> None:
    """The model repeats a program that can't be parsed: told are the error and the line, not only the repetition."""
    told = lived.json("explain", lived.runs["bad"])
    assert told["status"] == "failed"
    kinds = [link["type"] for link in told["chain"]]
    assert kinds == ["validation.finished.v1", "generation.finished.v1", "run.closed.v1"]
    assert "SyntaxError" in told["evidence"][0]["text"]
    assert told["evidence"][1] == {
        "record": told["chain"][0]["id"],
        "seq": told["chain"][0]["seq"],
        "what": "source",
        "text": "   2 |     return a +",
    }
    words = lived.lumina("explain", lived.runs["bad"])
    assert "the model gave the code of attempt 1 again, which had shown" in words.out
    assert "return a +" in words.out


def test_a_program_that_fails_shows_the_contract(lived: Lived) -> None:
    """The demand of the contract that the last program did not meet, and the models in their order."""
    words = lived.lumina("explain", lived.runs["failed"])
    assert words.code == 0, words
    assert "model 1: lumina-demo" in words.out
    assert "why it was not completed" in words.out
    told = lived.json("explain", lived.runs["failed"])
    records = {record["id"]: record for record in lived.records("failed")}
    assert {piece["record"] for piece in told["evidence"]} <= set(records)
    assert told["chain"][-1]["type"] == "run.closed.v1"


def test_a_model_that_is_not_there(lived: Lived) -> None:
    """Nobody listens at the model's address: the failed call is the reason."""
    told = lived.json("explain", lived.runs["nobody"])
    assert told["chain"][0]["type"] == "generation.finished.v1"
    assert "nobody gave no usable answer" in told["chain"][0]["words"]
    assert "127.0.0.1:9" in told["evidence"][0]["text"]


def test_a_run_out_of_time(lived: Lived) -> None:
    """The deadline that elapsed, and the question that nobody had answered."""
    told = lived.json("explain", lived.runs["late"])
    assert told["status"] == "timed_out"
    assert [link["type"] for link in told["chain"]] == ["timer.elapsed.v1", "run.closed.v1"]
    assert [piece["what"] for piece in told["evidence"]] == ["timer", "waiting"]
    assert "slow" in told["evidence"][1]["text"]


def test_a_completed_run_has_no_chain_of_faults(lived: Lived) -> None:
    """The failed attempts are told, then the acceptance."""
    told = lived.json("explain", lived.runs["repaired"])
    assert told["status"] == "completed"
    assert told["chain"] == []
    assert told["steps"][0]["attempts"][0]["first"]
    assert told["steps"][0]["attempts"][-1]["accepted"]


def test_an_event_back_and_forward(lived: Lived) -> None:
    """By run and sequence or by the beginning of its id: back to the submission, forward to the end."""
    records = lived.records("repaired")
    target = next(record for record in records if record["type"] == "validation.finished.v1")
    by_id = lived.json("explain", target["id"][:12], "--back")
    assert by_id["why"][0]["seq"] == target["seq"]
    assert by_id["why"][-1]["type"] == "run.submitted.v1"
    assert by_id["effects"] == []
    by_place = lived.json("explain", f"{lived.runs['repaired']}@{target['seq']}", "--forward", "--depth", "500")
    assert by_place["why"] == []
    assert by_place["followed"] == len(by_place["effects"])
    assert "run.closed.v1" in [effect["link"]["type"] for effect in by_place["effects"]]
    folded = lived.lumina("explain", f"{lived.runs['repaired']}@{records[0]['seq']}", "--depth", "2")
    assert "more that follow" in folded.out


def test_a_lease_says_why(lived: Lived) -> None:
    """Why this instance, what was unloaded for it, and who waited."""
    granted = next(record for record in lived.records("failed") if record["type"] == "lease.granted.v1")
    told = lived.json("explain", granted["id"])
    assert granted["data"]["reason"] in told["event"]["words"]
    assert "asked for lumina-demo for step 1 attempt 1" in told["lending"]["asked"]
    words = lived.lumina("explain", granted["id"])
    assert "the governor's reasons:" in words.out
    assert "reserved for it" in words.out


def test_a_fork_that_changes_nothing_does_not_differ(lived: Lived) -> None:
    """What a fork asks again stands in its parent's slots; its end is explained by the fault that both share."""
    run = lived.runs["bad"]
    asked = [record["seq"] for record in lived.records("bad") if record["type"] == "generation.requested.v1"]
    forked = lived.lumina("fork", f"{run}@{asked[-1]}", "--json")
    child = forked.events[-1]["subject"]
    assert child != run
    same = lived.lumina("diff", run, child)
    assert same.code == 0, same
    assert f"forks {run}@{asked[-1]}" in same.out
    assert lived.json("explain", child)["chain"][0] == lived.json("explain", run)["chain"][0]


def test_wrong_calls(lived: Lived) -> None:
    """What can't be meant ends with exit code 2 and one sentence that says what to do."""
    run = lived.runs["failed"]
    last = lived.records("failed")[-1]["seq"]
    for arguments, expected in (
        (("diff", "r-nothing", run), "lumina runs"),
        (("diff", f"{run}@1.1", run), "two attempts"),
        (("diff", f"{run}@1.99", f"{run}@1.1"), "has no attempt 99"),
        (("diff", f"{run}@7.1", f"{run}@1.1"), "has no step 7"),
        (("explain", "ffffffffffff"), "no run and no event"),
        (("explain", f"{run}@{last + 100_000}"), "is not of"),
        (("explain", run, "--back"), "need an event"),
    ):
        ended = lived.lumina(*arguments)
        assert ended.code == 2, (arguments, ended)
        assert expected in ended.err, (arguments, ended)


def test_foreign_text_stays_text(lived: Lived) -> None:
    """Control characters and markup in a request are shown as they are, and drive no terminal."""
    run = lived.runs["foreign"]
    for shown in (lived.lumina("explain", run), lived.lumina("diff", run, lived.runs["failed"])):
        assert "\x1b" not in shown.out
        assert "\x07" not in shown.out
        assert "[red]" in shown.out
