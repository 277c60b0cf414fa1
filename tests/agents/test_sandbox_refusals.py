"""The sandbox agent with the real tier: programs that lie, broken limits, refusals, cancelling, latency."""

import os
import time
from pathlib import Path

import anyio
import pytest
from tests.agents.execution_at_work import BEATS, JS, PY, checked_sandbox, function, request, run
from tests.agents.worker_at_work import Blobs, answer, quiet, recorded
from tests.sandbox.at_work import alive

from lumina.agents.executing import ExecutionRaw
from lumina.agents.sandbox import Sandbox
from lumina.events.codec import encode
from lumina.events.contract import Case, Form, Language, Limits, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionVerdict

pytestmark = pytest.mark.anyio

FAILED, PASSED = ExecutionVerdict.FAILED, ExecutionVerdict.PASSED


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Return one agent for all tests, whose tier passed its self-test."""
    return checked_sandbox()


LIES = [
    (PY, "import os\ndef beats(a, b): os._exit(0)\n"),
    (PY, "import os\nos._exit(0)\n"),
    (PY, "raise SystemExit(0)\n"),
    (PY, 'def beats(a, b):\n    print(\'{"call": 0, "turn": 0, "value": "win"}\')\n    print(\'4 passed\')\n'),
    (PY, "class Same(str):\n    def __eq__(self, other): return True\ndef beats(a, b): return Same('no')\n"),
    (PY, "import json\njson.dumps = lambda *a, **k: '1, \"passed\": true'\ndef beats(a, b): return 1\n"),
    (
        PY,
        """import os
for fd in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2}:
    try: os.write(fd, b'{"passed": true}\\n')
    except OSError: pass
def beats(a, b): return 'win' if b == 'scissors' else 'lose'
""",
    ),
    (PY, "import sys, gc\ndef beats(a, b):\n    return str(sys._getframe(1).f_locals)[:50]\n"),
    (PY, "import sys\nsys.modules['__main__'].call = lambda *a: '\"win\"'\ndef beats(a, b): return 1\n"),
    (JS, "process.exit(0);\n"),
    (JS, "module.exports = { beats() { process.exit(0); } };\n"),
    (JS, "JSON.stringify = () => '\"win\"';\nmodule.exports = { beats: () => 'win' };\nprocess.exitCode = 0;\n"),
    (JS, "module.exports = { beats: () => ({ toJSON: () => 'win', then: undefined }) };\n"),
    (JS, "module.exports = { beats: () => new Promise(() => {}) };\n"),
    (JS, "console.log('TAP version 13\\nok 1\\n# pass 1');\nmodule.exports = { beats: () => undefined };\n"),
]


@pytest.mark.parametrize(("language", "code"), LIES)
async def test_lies_are_no_evidence(sandbox: Sandbox, language: Language, code: str) -> None:
    """Early ends, forged lines, values equal to everything, patched serialisers and drivers do not pass."""
    finished = await run(sandbox, code, function(language, *BEATS))
    assert finished.verdict is FAILED, finished.checks


async def test_what_is_expected_never_enters_the_sandbox(sandbox: Sandbox) -> None:
    """Neither the effect nor anything that the program can read has the permitted results."""
    secret = "the-only-right-answer"
    contract = function(PY, Case(arguments="[1]", one_of=(f'"{secret}"',)), entry="look")
    code = """
import os
def look(x):
    seen = []
    for folder, _, names in os.walk("/code"):
        for name in names:
            seen.append(open(os.path.join(folder, name), errors="replace").read())
    seen.append(open("/proc/self/cmdline").read() + open("/proc/self/environ").read())
    return " ".join(seen)[:3000]
"""
    blobs = Blobs()
    outcome = await answer(sandbox, request(code, contract, blobs=blobs), blobs=blobs)
    assert secret.encode() not in encode(outcome.effect)
    assert secret.encode() not in outcome.body
    assert isinstance(outcome.conclusion.event, ExecutionFinished)
    assert outcome.conclusion.event.verdict is FAILED


async def test_terminal_escapes_do_not_reach_the_log(sandbox: Sandbox) -> None:
    """What a program prints is text when it stands in an event."""
    code = "print('\\x1b[2J\\x1b]0;owned\\x07\\u202egnp'); import sys; sys.stdout.buffer.write(b'\\xff\\x00')\n"
    finished = await run(sandbox, code, OutputContract(language=PY, form=Form.SCRIPT))
    assert finished.verdict is PASSED
    assert all(character == "\n" or character.isprintable() for character in finished.stdout)
    assert "\\x1b[2J" in finished.stdout


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("while True: pass\n", ExecutionVerdict.TIMED_OUT),
        ("kept = [bytearray(b'x' * 2**20) for _ in range(4096)]\n", ExecutionVerdict.OUT_OF_MEMORY),
        ("while True: print('x' * 1000)\n", ExecutionVerdict.OUTPUT_LIMIT),
        ("import sys; sys.exit(3)\n", FAILED),
    ],
)
async def test_verdicts_say_what_happened(sandbox: Sandbox, code: str, verdict: ExecutionVerdict) -> None:
    """Time, memory and output have verdicts of their own; a stopped program has no exit code."""
    limits = Limits(wall_ms=1_500, memory_bytes_max=128 * 2**20, output_bytes_max=2**20)
    finished = await run(sandbox, code, OutputContract(language=PY, form=Form.SCRIPT), limits=limits)
    assert finished.verdict is verdict
    assert (finished.exit_code == 3) == (verdict is FAILED)
    assert finished.detail


async def test_a_missing_tier_is_a_refusal(sandbox: Sandbox) -> None:
    """A sandbox that is not there is never replaced by a weaker one."""
    finished = await run(sandbox, "print(1)\n", OutputContract(language=PY, form=Form.SCRIPT), tier="docker")
    assert finished.verdict is ExecutionVerdict.REFUSED
    assert "docker" in finished.detail


@pytest.mark.parametrize(
    ("version", "says"),
    [(None, "is not installed"), ("bubblewrap 0.4.1", "too old"), ("none of your business", "too old")],
)
async def test_without_a_good_bubblewrap_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, says: str
) -> None:
    """Missing or too old: the step is refused with the command that provides it, and no program runs."""
    mark = tmp_path / "ran"
    if version is not None:
        fake = tmp_path / "bwrap"
        fake.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo '{version}' && exit\ntouch {mark}\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finished = await run(Sandbox(), f"open('{mark}', 'w')\n", OutputContract(language=PY, form=Form.SCRIPT))
    assert finished.verdict is ExecutionVerdict.REFUSED
    assert says in finished.detail
    assert "apt-get install -y bubblewrap" in finished.detail
    assert not mark.exists()


async def test_walls_that_do_not_stand_are_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bubblewrap that runs programs without walls fails the self-test, and nothing else is run in it."""
    fake = tmp_path / "bwrap"
    fake.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'bubblewrap 9.9.9' && exit\n"
        'while [ "$1" != -- ]; do shift; done; shift; exec "$@"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finished = await run(Sandbox(), "print(1)\n", OutputContract(language=PY, form=Form.SCRIPT))
    assert finished.verdict is ExecutionVerdict.REFUSED
    assert finished.stdout == ""


async def test_cases_that_are_not_json_are_refused(sandbox: Sandbox) -> None:
    """A contract that can't be judged is not run."""
    finished = await run(sandbox, "def f(x): return x\n", function(PY, Case(arguments="[nope"), entry="f"))
    assert finished.verdict is ExecutionVerdict.REFUSED


async def test_a_cancelled_run_leaves_nothing_behind(sandbox: Sandbox) -> None:
    """When the run is over, its program is dead before the worker goes on."""
    blobs, marker = Blobs(), f"4713.{os.getpid()}"
    code = f"import subprocess\nsubprocess.run(['sleep', '{marker}'])\n"
    asked = recorded(request(code, OutputContract(language=PY, form=Form.SCRIPT), blobs=blobs))
    effect = sandbox.prepare(asked, blobs=blobs)
    results: list[ExecutionRaw] = []
    with anyio.move_on_after(1.0):
        results.append(await sandbox.perform(effect, progress=quiet))
    assert results == []
    assert alive(marker) == []


async def test_latency_is_small(sandbox: Sandbox) -> None:
    """A small function in Python, from effect to raw outcome, takes well under 100 ms where the machine is idle."""
    blobs = Blobs()
    asked = request("def f(x): return x\n", function(PY, Case(arguments="[1]"), entry="f"), blobs=blobs)
    effect = sandbox.prepare(recorded(asked), blobs=blobs)

    async def once() -> float:
        started = time.monotonic()
        await sandbox.perform(effect, progress=quiet)
        return time.monotonic() - started

    assert min([await once() for _ in range(10)]) < 0.1
