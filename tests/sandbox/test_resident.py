"""Tools that stand ready say what they would say when started anew, and survive what happens to them."""

import json
import time
from contextlib import suppress
from threading import Event as Flag
from threading import Thread, Timer

import psutil
import pytest

from lumina.sandbox.bubblewrap import Bubblewrap
from lumina.sandbox.linters import RESIDENT, lint_job, resident_job
from lumina.sandbox.node_tools import node_modules
from lumina.sandbox.policy import Layout
from lumina.sandbox.port import Ended, RunResult
from lumina.sandbox.resident import Resident
from lumina.sandbox.roots import linter_layout

TIMEOUT_MS = 40_000
PYTHON = (
    "print(y)\n",
    "import requests\nrequests.gett(1)\n",
    "def f(:\n",
    "from PIL import Image\nImage.open('a').convert('RGBA').save('b')\n",
    "# pylint: disable=all\nprint(y)\n",
    "# pylint: skip-file\nprint(y)\n",
)
JAVASCRIPT = (
    "const x = ;",
    "module.exports = { f: () => missing };\n",
    "/* eslint-disable */ const unused = 1;\n",
    "module.exports = { f: (a) => a };\n",
)


def layout() -> Layout:
    """Return what the tools see."""
    return linter_layout(node_modules=str(node_modules()))


@pytest.fixture(scope="module")
def residents() -> dict[str, Resident]:
    """Return both tools, for all tests."""
    return {tool: Resident(resident_job(tool), layout=layout) for tool in RESIDENT}


@pytest.fixture(scope="module")
def anew() -> Bubblewrap:
    """Return a tier in which a tool is started for each program."""
    return Bubblewrap(layout=layout)


def messages(tool: str, result: RunResult) -> list[object]:
    """Return what a tool found, without the statistics around it."""
    said = json.loads(result.stdout)
    found = said["messages"] if tool == "pylint" else said[0]["messages"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("tool", "code"), [*(("pylint", code) for code in PYTHON), *(("eslint", code) for code in JAVASCRIPT)]
)
def test_the_answer_is_that_of_a_fresh_start(
    residents: dict[str, Resident], anew: Bubblewrap, tool: str, code: str
) -> None:
    """The same findings and the same exit code."""
    kept = residents[tool].read(code, timeout_ms=TIMEOUT_MS, stop=Flag())
    fresh = anew.run(lint_job(tool, code=code, timeout_ms=TIMEOUT_MS), stop=Flag())
    assert messages(tool, kept) == messages(tool, fresh)
    assert kept.exit_code == fresh.exit_code
    assert kept.ended is Ended.EXITED


def test_one_reading_leaves_nothing_for_the_next(residents: dict[str, Resident]) -> None:
    """The same program gets the same answer, whatever was read in between; and at once."""
    before = [residents["pylint"].read(code, timeout_ms=TIMEOUT_MS, stop=Flag()) for code in PYTHON]
    started = time.monotonic()
    after = [residents["pylint"].read(code, timeout_ms=TIMEOUT_MS, stop=Flag()) for code in reversed(PYTHON)]
    assert time.monotonic() - started < len(PYTHON) * 1.5
    assert [result.stdout for result in before] == [result.stdout for result in reversed(after)]


def kill_own(marker: str) -> int:
    """Kill the living descendants of this process whose command line has `marker`; return how many there were."""
    killed = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if marker in " ".join(child.cmdline()):
                child.kill()
                killed += 1
    return killed


@pytest.mark.parametrize(("tool", "code"), [("pylint", PYTHON[0]), ("eslint", JAVASCRIPT[1])])
def test_a_killed_tool_is_started_again(residents: dict[str, Resident], tool: str, code: str) -> None:
    """Whoever asks next gets an answer and notices nothing but the time."""
    expected = residents[tool].read(code, timeout_ms=TIMEOUT_MS, stop=Flag())
    assert kill_own(f"resident_{tool}") > 0
    assert residents[tool].read(code, timeout_ms=TIMEOUT_MS, stop=Flag()).stdout == expected.stdout


def test_a_slow_answer_ends_the_tool_and_not_the_caller(residents: dict[str, Resident]) -> None:
    """The clock and the caller's wish hold; the next program is answered again."""
    slow = "x = [" + "1," * 1_000_000 + "];"
    assert residents["eslint"].read(slow, timeout_ms=300, stop=Flag()).ended is Ended.WALL
    stop = Flag()
    stop.set()
    assert residents["eslint"].read(slow, timeout_ms=TIMEOUT_MS, stop=stop).ended is Ended.STOPPED
    assert residents["eslint"].read(JAVASCRIPT[0], timeout_ms=TIMEOUT_MS, stop=Flag()).exit_code == 1


def test_several_threads_take_turns(residents: dict[str, Resident]) -> None:
    """Programs that come at once are answered one after the other, each with its own answer."""
    answers: dict[int, int | None] = {}

    def ask(number: int) -> None:
        code = f"module.exports = {{ f: () => missing{number} }};\n"
        result = residents["eslint"].read(code, timeout_ms=TIMEOUT_MS, stop=Flag())
        assert f"missing{number}" in result.stdout.decode()
        answers[number] = result.exit_code

    threads = [Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_MS / 1000)
    assert answers == dict.fromkeys(range(6), 1)


def test_an_idle_tool_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without programs nothing of it runs, and the next one is answered all the same."""
    monkeypatch.setattr("lumina.sandbox.resident.IDLE_S", 0.2)
    resident = Resident(resident_job("eslint"), layout=layout)
    assert resident.read(JAVASCRIPT[0], timeout_ms=TIMEOUT_MS, stop=Flag()).exit_code == 1
    time.sleep(1.0)
    late = Flag()
    Timer(30, late.set).start()
    assert resident.read(JAVASCRIPT[0], timeout_ms=TIMEOUT_MS, stop=late).exit_code == 1


def test_a_warm_tool_answers_at_once() -> None:
    """What was started ahead is ready when the first program comes."""
    resident = Resident(resident_job("eslint"), layout=layout)
    resident.warm()
    time.sleep(4)
    result = resident.read(JAVASCRIPT[0], timeout_ms=TIMEOUT_MS, stop=Flag())
    assert result.exit_code == 1
    assert result.wall_ms < 1_500
