"""`lumina dataset` on real runs: rows with their proof, made again and executed again; what was changed is found."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.command import Lumina, sum_request

from lumina.cli.demo_stage import demo_requests, newspaper

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[tuple[Lumina, Path]]:
    """Return a data folder with three runs, where nothing runs, and the file of their rows.

    The demo model scraped a page that is gone by now; a server's model mended its code; another one had it right.
    """
    lumina = Lumina(home=tmp_path_factory.mktemp("dataset") / "home")
    lumina.home.mkdir()
    tables = [f'[[models]]\nid = "{habit}"\nurl = "{zoo}/{habit}/v1"\n' for habit in ("adds", "mends")]
    (lumina.home / "node.toml").write_text("\n".join(tables))
    with newspaper() as host:
        news = next(each for each in demo_requests(host) if each.hosts)
        arguments = [part for each in news.hosts for part in ("--allow-host", each)]
        assert lumina("run", "--model", "lumina-demo", *arguments, news.request).code == 0
    for model in ("mends", "adds"):
        assert lumina("run", "--model", model, sum_request(f"{model}_1")).code == 0
    file = lumina.home.parent / "rows.jsonl"
    written = lumina("dataset", "--all", "-o", str(file))
    assert written.code == 0, written
    assert "4 row(s)" in written.err
    yield lumina, file
    lumina.end()


def read(file: Path) -> list[Row]:
    """Return the rows of a file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rows_carry_their_proof(rows: tuple[Lumina, Path]) -> None:
    """Three acceptances and one repair: prompt, code, verdict, ids, digests, and where the log stood."""
    found = read(rows[1])
    assert [(row["kind"], row["answer"]["model"]) for row in found] == [
        ("accepted", "lumina-demo"),
        ("accepted", "mends"),
        ("repair", "mends"),
        ("accepted", "adds"),
    ]
    for row in found:
        answer = row["answer"]
        assert set(answer["events"]) == {"request", "lease", "generation", "validation", "execution"}
        assert {"prompt", "code", "generation.effect", "generation.raw", "execution.raw"} <= set(answer["digests"])
        assert (answer["validation"], answer["execution"]) == ("passed", "passed")
        assert answer["prompt"][-1]["role"] == "user"
        assert row["log"]["seq"] > 0
        assert len(row["log"]["digest"]) == 64
    repair = found[2]
    assert "return a + c" in repair["faulty"]["code"]
    assert repair["faulty"]["validation"] == "failed"
    assert "execution" not in repair["faulty"]["events"]
    assert any("c" in line for line in repair["feedback"])
    assert "return a + b" in repair["answer"]["code"]
    assert "return a + c" in repair["answer"]["prompt"][-2]["text"]


def test_every_row_is_made_and_executed_again(rows: tuple[Lumina, Path]) -> None:
    """All rows hold; the scraper runs on the page that it had, though nobody serves it any more."""
    lumina, file = rows
    ended = lumina("dataset", "verify", str(file))
    assert ended.code == 0, ended
    assert "4 row(s), every row holds; 4 execution(s) repeated" in ended.err
    quick = lumina("dataset", "verify", str(file), "--no-execute", "--limit", "2")
    assert quick.code == 0, quick
    assert "2 row(s), every row holds; nothing executed" in quick.err


def changed(row: Row, *path: str | int, to: object) -> Row:
    """Return a copy of a row with one value changed."""
    copy: Row = json.loads(json.dumps(row))
    inside: Any = copy
    for step in path[:-1]:
        inside = inside[step]
    assert inside[path[-1]] != to
    inside[path[-1]] = to
    return copy


TAMPERED: tuple[tuple[Callable[[Row], Row], str], ...] = (
    (lambda row: changed(row, "answer", "code", to="print(1)\n"), "answer.code"),
    (lambda row: changed(row, "answer", "prompt", 0, "text", to="Do something else."), "answer.prompt[0].text"),
    (lambda row: changed(row, "answer", "digests", "code", to="0" * 64), "answer.digests.code"),
    (lambda row: changed(row, "answer", "digests", "generation.effect", to="0" * 64), "generation.effect"),
    (lambda row: changed(row, "answer", "model", to="a-better-one"), "answer.model"),
    (lambda row: changed(row, "answer", "sampling", "seed", to=1), "answer.sampling.seed"),
    (lambda row: changed(row, "answer", "execution", to="failed"), "answer.execution"),
    (lambda row: changed(row, "answer", "events", "lease", to="0" * 32), "answer.events.lease"),
    (lambda row: changed(row, "accepted", to="0" * 32), "no step is accepted by"),
    (lambda row: changed(row, "run", to="r-nowhere"), "r-nowhere"),
    (lambda row: changed(row, "log", "digest", to="0" * 64), "log: record"),
    (lambda row: changed(row, "log", "log", to="another"), "the row comes of the log another"),
    (lambda row: {**row, "score": 11}, "it is no row"),
)


def test_every_change_is_found(rows: tuple[Lumina, Path]) -> None:
    """Each row that was changed in one place is reported with the place, and exit code 1; the good one is not."""
    lumina, file = rows
    good = read(file)[3]
    tampered = file.with_name("tampered.jsonl")
    lines = [json.dumps(tamper(good)) for tamper, _ in TAMPERED]
    tampered.write_text("\n".join([json.dumps(good), *lines, "{"]) + "\n")
    ended = lumina("dataset", "verify", str(tampered), "--no-execute", "--json")
    assert ended.code == 1, ended
    faults = {int(fault["line"]): str(fault["reason"]) for fault in ended.events}
    assert list(faults) == list(range(2, len(TAMPERED) + 3))
    for number, (_, words) in enumerate(TAMPERED, start=2):
        assert words in faults[number], faults[number]
    assert "it is no row" in faults[len(TAMPERED) + 2]


def test_an_exported_file_proves_rows_too(rows: tuple[Lumina, Path]) -> None:
    """With --from the rows of a run are checked against its exported file; a run that is not in it is reported."""
    lumina, file = rows
    run = read(file)[1]["run"]
    bundle = lumina.home.parent / "run.lumina"
    assert lumina("export", run, "-o", str(bundle)).code == 0
    ended = lumina("dataset", "verify", str(file), "--from", str(bundle), "--no-execute", "--json")
    assert ended.code == 1, ended
    assert [fault["line"] for fault in ended.events] == [1, 4]
    of_file = lumina.home.parent / "of-file.jsonl"
    assert lumina("dataset", str(bundle), "-o", str(of_file)).code == 0
    assert [row["kind"] for row in read(of_file)] == ["accepted", "repair"]
    again = lumina("dataset", "verify", str(of_file), "--from", str(bundle))
    assert again.code == 0, again
    assert lumina("dataset", "verify", str(of_file), "--no-execute").code == 0


def test_a_file_of_rows_is_not_replaced_unasked(rows: tuple[Lumina, Path]) -> None:
    """Another file of that name is kept, and so is a device; with --force the rows are written."""
    lumina, file = rows
    other = file.with_name("other.jsonl")
    other.write_text("mine")
    run = read(file)[3]["run"]
    refused = lumina("dataset", run, "-o", str(other))
    assert (refused.code, "--force" in refused.err, other.read_text()) == (2, True, "mine"), refused
    assert lumina("dataset", run, "-o", "/dev/null", "--force").code == 2
    assert lumina("dataset", run, "-o", str(other), "--force").code == 0
    assert [row["kind"] for row in read(other)] == ["accepted"]


def test_dataset_wants_to_know_what(rows: tuple[Lumina, Path]) -> None:
    """Neither runs nor --all, or both, is a wrong call; so is a file that is not there."""
    lumina, _ = rows
    for arguments in ((), ("--all", "r-a"), ("verify",), ("verify", "nowhere.jsonl")):
        assert lumina("dataset", *arguments).code == 2
