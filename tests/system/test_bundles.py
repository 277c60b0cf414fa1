"""A run in one file as its users have it: exported here, proved on a machine that has nothing, frozen into a test."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.command import Lumina

DECIDES_OTHERWISE = """
import pytest
from lumina.agents import ladder


@pytest.fixture(autouse=True)
def later_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "ANSWER_TOKENS_MAX", 20)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lumina, str, str]]:
    """Return a data folder with one real run of the demo model, its id and its request."""
    lumina = Lumina(home=tmp_path_factory.mktemp("bundles") / "home")
    request = next(example["request"] for example in lumina("examples", "--json").events if example["kind"] == "game")
    ended = lumina("run", "--json", str(request))
    assert ended.types[-1] == "run.closed.v1", ended
    yield lumina, str(ended.events[0]["subject"]), str(request)
    lumina.end()


@pytest.fixture(scope="module")
def file(recorded: tuple[Lumina, str, str]) -> Path:
    """Return the run's file."""
    lumina, run, _ = recorded
    ended = lumina("export", run[:9])
    assert ended.code == 0, ended
    return lumina.home.parent / f"{run}.lumina"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Lumina]:
    """Return the command on a machine without node, bubblewrap, models or anything else on its path."""
    bare = {"PATH": str(tmp_path / "nothing"), "LUMINA_NODE": str(tmp_path / "nothing" / "node")}
    lumina = Lumina(home=tmp_path / "elsewhere", environ=bare)
    yield lumina
    lumina.end()


def test_a_run_is_proved_on_another_machine(recorded: tuple[Lumina, str, str], file: Path, elsewhere: Lumina) -> None:
    """Import, verify and show work from the file alone: no server is started, and all says the same as at home."""
    lumina, run, request = recorded
    imported = elsewhere("import", str(file))
    assert imported.code == 0, imported
    assert "decided again: " in imported.out

    report = elsewhere("verify", run[2:8], "--invariants", "--json").events[0]
    assert report == lumina("verify", run, "--invariants", "--json").events[0]
    assert (report["status"], report["closed"]) == ("ok", 1)
    assert elsewhere("show", run).out == lumina("show", run).out
    (entry,) = elsewhere("import", "--list", "--json").events
    assert (entry["run"], entry["request"], entry["verdict"]) == (run, request[:200], "proved")
    assert not (elsewhere.home / "nats").exists()

    rows = elsewhere("runs", "--json").events
    assert [(row["run"], row["imported"]) for row in rows] == [(run, True)]
    assert elsewhere("import", "--remove", run).code == 0
    gone = elsewhere("verify", run)
    assert (gone.code, "no run is called" in gone.err) == (2, True), gone


def test_a_file_is_read_where_it_is(recorded: tuple[Lumina, str, str], file: Path, elsewhere: Lumina) -> None:
    """Without an import, too, commands take the path of a file in the place of a run."""
    _, _, request = recorded
    assert elsewhere("show", str(file), "--json").events[0]["request"] == request
    assert not (elsewhere.home / "nats").exists()


def test_equal_runs_make_equal_files_and_none_is_lost(recorded: tuple[Lumina, str, str], file: Path) -> None:
    """A file that is there is kept; with --force the same bytes are written again."""
    lumina, run, _ = recorded
    before = file.read_bytes()
    refused = lumina("export", run)
    assert (refused.code, "--force" in refused.err) == (2, True), refused
    assert lumina("export", run, "--force").code == 0
    assert file.read_bytes() == before


def test_the_whole_log_in_a_file(recorded: tuple[Lumina, str, str], elsewhere: Lumina) -> None:
    """`export --all` holds every record; the file is proved as a log, and each run in it by its name."""
    lumina, run, _ = recorded
    assert lumina("export", "--all", "--force", "-o", "all.lumina", "--json").events[0]["runs"] == [run]
    path = str(lumina.home.parent / "all.lumina")
    assert "the log: ok" in elsewhere("verify", path).out
    assert f"{run}: ok" in elsewhere("verify", f"{path}#{run[:6]}").out
    missing = elsewhere("verify", f"{path}#r-none")
    assert (missing.code, "FILE#RUN" in missing.err) == (2, True), missing


def test_what_is_hidden_stays_hidden(recorded: tuple[Lumina, str, str], elsewhere: Lumina) -> None:
    """A redacted run holds the request nowhere; it is proved whole, and said not to be decided again."""
    lumina, run, request = recorded
    said = lumina("export", run, "--redact", "request", "--redact", "stdout", "-o", "red.lumina", "--force")
    assert (said.code, "not be decided again" in said.out) == (0, True), said
    path = lumina.home.parent / "red.lumina"
    with zipfile.ZipFile(path) as members:
        contents = [members.read(name) for name in members.namelist()]
    assert not any(request[:60].encode() in content for content in contents)
    verified = elsewhere("verify", str(path))
    assert (verified.code, "whole, but not decided again" in verified.out) == (4, True), verified
    refused = elsewhere("verify", str(path), "--invariants")
    assert (refused.code, "no invariants can be checked" in refused.err) == (4, True), refused
    assert elsewhere("import", str(path)).code == 4
    shown = elsewhere("show", str(path))
    assert (shown.code, "without its request" in shown.err) == (1, True), shown
    unknown = lumina("export", run, "--redact", "nonsense", "-o", "no.lumina")
    assert (unknown.code, "no record has a field 'nonsense'" in unknown.err) == (2, True), unknown
    assert not (lumina.home.parent / "no.lumina").exists()


@pytest.mark.parametrize(
    ("name", "command", "code", "said"),
    [
        ("missing", "import", 2, "there is no file"),
        ("cut", "verify", 5, "its end is missing"),
        ("flipped", "import", 5, "changed since it was written"),
    ],
)
def test_a_file_that_is_wrong_is_refused(
    file: Path, elsewhere: Lumina, name: str, command: str, code: int, said: str
) -> None:
    """One sentence and the exit code say what is wrong; nothing is imported."""
    whole, wrong = file.read_bytes(), elsewhere.home.parent / f"{name}.lumina"
    changed = bytearray(whole)
    changed[2_000] ^= 4
    contents = {"cut": whole[: len(whole) // 2], "flipped": bytes(changed)}
    if name in contents:
        wrong.write_bytes(contents[name])
    ended = elsewhere(command, str(wrong))
    assert (ended.code, said in ended.out + ended.err) == (code, True), ended
    assert not list(elsewhere.home.glob("imports/*"))


def _pytest(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_frozen_run_is_a_test(recorded: tuple[Lumina, str, str], tmp_path: Path) -> None:
    """The written test is green as it stands, and red with the place for other code and for a changed file."""
    lumina, run, _ = recorded
    folder = tmp_path / "frozen"
    frozen = lumina("freeze", run, "-o", str(folder))
    assert frozen.code == 0, frozen
    assert sorted(path.name for path in folder.iterdir()) == [f"{run}.lumina", f"test_{run.replace('-', '_')}.py"]
    code, said = _pytest(folder)
    assert (code, "1 passed" in said) == (0, True), said

    asked = next(event for event in lumina("logs", run, "--json").events if event["type"] == "generation.requested.v1")
    (folder / "conftest.py").write_text(DECIDES_OTHERWISE)
    code, said = _pytest(folder)
    assert (code, f"diverged at record {asked['seq']}" in said) == (1, True), said
    assert "tokens_max" in said
    (folder / "conftest.py").unlink()

    path = folder / f"{run}.lumina"
    content = bytearray(path.read_bytes())
    content[3_000] ^= 1
    path.write_bytes(content)
    code, said = _pytest(folder)
    assert (code, "damaged" in said) == (1, True), said
    assert "record " in said
