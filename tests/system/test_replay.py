"""`lumina replay` as a user has it: a run of the demo model in print, as JSON, and in a terminal by keys."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import jmespath
import msgspec
import pytest
from tests.system.command import MARK, Lumina, running

REQUEST = (
    "Generate JavaScript code for a simple rock-paper-scissors game function that takes playerChoice and returns "
    "'win', 'lose', or 'tie'"
)
SCREEN_S_MAX = 60.0
DRIVER = """
from lumina.agents import ladder
from lumina.cli.main import main

ladder.ANSWER_TOKENS_MAX //= 8  # a later version of Lumina allows shorter answers
main()
"""

Recorded = tuple[Lumina, str, dict[str, int]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Return a running system in which the demo model has done one run, the run's id, and where its records stand."""
    command = Lumina(home=tmp_path_factory.mktemp("replay") / "home")
    with running(command):
        ended = command("run", "--json", REQUEST)
        assert ended.code == 0, ended
        run = str(ended.events[0]["subject"])
        yield command, run, {event["type"]: event["seq"] for event in command("logs", run, "--json").events}


def test_a_run_is_printed_with_what_was_decided_and_why(recorded: Recorded) -> None:
    """Every record is there in words, with its reasons and what followed; it is said that no model is called."""
    lumina, run, seqs = recorded
    shown = lumina("replay", run[:9])
    assert shown.code == 0, shown
    assert "nothing is run and no model is called" in shown.out.splitlines()[0]
    for seq in seqs.values():
        assert re.search(rf"^ +{seq} ", shown.out, re.MULTILINE), seq
    assert "why: a step that rests climbs the ladder (greedy): first attempt, greedy" in shown.out
    assert "every decision was made again and is equal" in shown.out


def test_one_record_as_json(recorded: Recorded) -> None:
    """`--at SEQ --json` is one object with all states and rows, the same each time; its paths lead somewhere."""
    lumina, run, seqs = recorded
    at = seqs["execution.requested.v1"]
    one, other = (lumina("replay", run, "--at", str(at), "--json") for _ in range(2))
    assert one.code == 0, one
    assert one.out == other.out
    (seen,) = one.events
    assert seen["record"]["seq"] == at
    assert set(seen["agents"]) == {"orchestrator", "governor", "specialist", "validator", "sandbox"}
    assert set(seen["projections"]) == {"runs", "attempts", "residency", "queue", "throughput"}
    assert seen["agents"]["orchestrator"]["steps"][0]["stage"]["is"] == "Executing"
    assert "module.exports" in seen["agents"]["sandbox"]["effect"]["program"]["code"]
    assert [each["seq"] for each in seen["decided"]] == [seqs["execution.finished.v1"]]
    assert [each["seq"] for each in seen["causes"]][-1] == seqs["run.submitted.v1"]
    stage = next(each for each in seen["changed"] if each["path"].endswith("stage.is"))
    assert jmespath.search(stage["path"], seen["agents"]) == stage["after"] == "Executing"
    (narrow,) = lumina("replay", run, "--at", str(at), "--json", "--agent", "sandbox").events
    assert narrow["agents"] == {"sandbox": seen["agents"]["sandbox"]}
    assert narrow["projections"] == {}


def test_breakpoints_and_bounds(recorded: Recorded) -> None:
    """It stops where an expression holds or at a sequence; one that never holds says so and fails."""
    lumina, run, seqs = recorded
    stopped = lumina("replay", run, "--break", "event.verdict=='passed' && agent=='sandbox'", "--json")
    assert stopped.code == 0, stopped
    assert stopped.events[-1]["record"]["type"] == "execution.finished.v1"
    first = seqs["run.submitted.v1"]
    assert stopped.events[0]["record"]["seq"] == first
    until = lumina("replay", run, "--until", str(first + 2), "--speed", "1000x", "--json")
    assert [event["record"]["seq"] for event in until.events] == [first, first + 1, first + 2]
    never = lumina("replay", run, "--break", "type=='nothing'")
    assert never.code == 1
    assert "holds at none of" in never.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("r-zzzzzz",), "r-zzzzzz"),
        (("RUN", "--at", "999999"), "lie between"),
        (("RUN", "--break", "type=="), "column 7"),
    ],
)
def test_a_wrong_call_is_refused(recorded: Recorded, arguments: tuple[str, ...], words: str) -> None:
    """One sentence that names what is wrong and what there is; exit code 2, nothing on standard output."""
    lumina, run, _seqs = recorded
    ended = lumina("replay", *(run if each == "RUN" else each for each in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


def test_an_exported_file_shows_the_same(recorded: Recorded, tmp_path: Path) -> None:
    """Without a data folder and a server the file of a run gives the same object to the byte."""
    lumina, run, seqs = recorded
    file = tmp_path / "run.lumina"
    assert lumina("export", run, "-o", str(file)).code == 0
    asked = ("--at", str(seqs["execution.finished.v1"]), "--json")
    alone = Lumina(home=tmp_path / "nothing", mark=lumina.mark)
    there = alone("replay", str(file), *asked)
    assert there.code == 0, there
    assert there.out == lumina("replay", run, *asked).out
    assert not alone.home.exists()


def test_a_decision_that_would_differ_now(recorded: Recorded) -> None:
    """Code that decides otherwise than what stands in the log: the record is shown with both values; exit code 3."""
    lumina, run, seqs = recorded
    environ = {**os.environ, "LUMINA_HOME": str(lumina.home), MARK: lumina.mark}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "replay", run], capture_output=True, text=True, env=environ, check=False
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert "differs in event.ask.sampling.tokens_max" in done.stdout
    assert f"the first is {seqs['generation.requested.v1']}" in done.stdout


def test_the_sandbox_files_are_written(recorded: Recorded, tmp_path: Path) -> None:
    """The program and what lay beside it come out of the log into an empty folder, and into no other."""
    lumina, run, _seqs = recorded
    folder = tmp_path / "files"
    written = lumina("replay", run, "--files", str(folder))
    assert written.code == 0, written
    assert sorted(path.name for path in folder.iterdir()) == [".calls.json", "main.js"]
    assert "module.exports" in (folder / "main.js").read_text()
    calls = msgspec.json.decode((folder / ".calls.json").read_bytes())
    assert calls[0]["repeat"] == 20
    again = lumina("replay", run, "--files", str(folder))
    assert again.code == 2
    assert "not an empty folder" in again.err


class Terminal:
    """A real terminal of 80 x 24 with a command in it."""

    def __init__(self, lumina: Lumina, *arguments: str, **environ: str) -> None:
        """Start the command."""
        self._master, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**os.environ, "LUMINA_HOME": str(lumina.home), MARK: lumina.mark, "TERM": "xterm-256color", **environ}
        command = [sys.executable, "-m", "lumina.cli", *arguments]
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=env, start_new_session=True, close_fds=True
        )
        os.close(inner)
        self.seen = ""

    def keys(self, keys: str) -> None:
        """Press keys."""
        self.seen = ""
        os.write(self._master, keys.encode())

    def wait_for(self, words: str) -> None:
        """Wait until words have been written to the screen."""
        deadline = time.monotonic() + SCREEN_S_MAX
        while words not in _shown(self.seen):
            assert time.monotonic() < deadline, f"{words!r} not in {_shown(self.seen)!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                self.seen += os.read(self._master, 65536).decode(errors="replace")

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written last."""
        deadline = time.monotonic() + SCREEN_S_MAX
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    break
        code = self.process.wait(timeout=SCREEN_S_MAX)
        os.close(self._master)
        return code, self.seen


def _shown(seen: str) -> str:
    return re.sub(r"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])", "", seen)


def test_stepping_in_a_terminal(recorded: Recorded) -> None:
    """Real keys in a real terminal: there and back, to a breakpoint, and out; without colours."""
    lumina, run, _seqs = recorded
    terminal = Terminal(lumina, "replay", run, "--step", "--break", "step.accepted", NO_COLOR="1")
    terminal.wait_for("every decision was made again and is equal")
    coloured = terminal.seen
    terminal.keys("G")
    terminal.wait_for("run completed")
    terminal.keys("g")
    terminal.wait_for("asked: Generate JavaScript")
    terminal.keys("b")
    terminal.wait_for("step.accepted holds here")
    terminal.keys("q")
    code, last = terminal.end()
    assert code == 0
    assert "\x1b[?1049l" in last  # back to the screen that was there before
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|38;[25]|48;[25])[;m]", coloured)
