"""The sandbox agent with the real tier: the five kinds, programs that lie, refusals, cancelling, replay."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from PIL import Image
from tests.agents.worker_at_work import Blobs, answer, concluded, quiet, recorded
from tests.sandbox import small_site
from tests.sandbox.at_work import alive

from lumina.agents.executing import ExecutionRaw
from lumina.agents.sandbox import Sandbox
from lumina.events.codec import encode
from lumina.events.contract import Case, Form, Language, Limits, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.values import FileRef

pytestmark = pytest.mark.anyio

PY, JS = Language.PYTHON, Language.JAVASCRIPT
PASSED, FAILED = ExecutionVerdict.PASSED, ExecutionVerdict.FAILED


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Return one agent for all tests, whose tier passed its self-test."""
    agent = Sandbox()
    (report,) = agent.check()
    assert report.available, f"{report.reason}; run: {report.command}"
    return agent


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve a small web site on loopback."""
    with small_site.served() as address:
        yield address


def request(
    code: str,
    contract: OutputContract,
    *,
    blobs: Blobs,
    files: tuple[FileRef, ...] = (),
    urls: tuple[str, ...] = (),
    limits: Limits | None = None,
    tier: str = "bubblewrap",
) -> ExecutionRequested:
    """Return a request for one program."""
    return ExecutionRequested(
        step=1,
        attempt=1,
        code=blobs.add(code.encode()),
        contract=contract,
        tier=tier,
        files=files,
        urls=urls,
        limits=limits or Limits(wall_ms=8_000),
    )


async def run(
    sandbox: Sandbox, code: str, contract: OutputContract, *, files: tuple[tuple[str, bytes], ...] = (), **more: object
) -> ExecutionFinished:
    """Run code and return the outcome, after deriving it again from what was recorded."""
    blobs = Blobs()
    refs = tuple(blobs.file(name, content) for name, content in files)
    asked = request(code, contract, blobs=blobs, files=refs, **more)  # type: ignore[arg-type] # tests know the names
    outcome = await answer(sandbox, asked, blobs=blobs)
    again = concluded(Sandbox(tiers={}), outcome.request, outcome.body, blobs=blobs)
    assert again == outcome.conclusion
    assert encode(again.event) == encode(outcome.conclusion.event)
    assert isinstance(again.event, ExecutionFinished)
    return again.event


def function(language: Language, *cases: Case, entry: str = "beats") -> OutputContract:
    """Return a contract for one function."""
    return OutputContract(language=language, form=Form.FUNCTION, entry=entry, cases=cases)


BEATS = (
    Case(arguments='["rock", "scissors"]', one_of=('"win"',)),
    Case(arguments='["rock", "paper"]', one_of=('"lose"', '"draw"'), repeat=3),
)
GAME = """function beats(mine, yours) {
  const order = { rock: "scissors", paper: "rock", scissors: "paper" };
  console.log("playing", mine);
  if (mine === yours) return "draw";
  return order[mine] === yours ? "win" : "lose";
}
module.exports = { beats };
"""


async def test_a_game_in_javascript_is_called_with_its_cases(sandbox: Sandbox) -> None:
    """A function in JavaScript returns what the cases permit; what it prints is shown beside."""
    finished = await run(sandbox, GAME, function(JS, *BEATS))
    assert (finished.verdict, finished.exit_code) == (PASSED, 0), finished.detail
    assert finished.stdout == "playing rock\n" * 4
    assert [check.passed for check in finished.checks] == [True, True, True]


async def test_a_dialogue_in_python_is_called_with_its_cases(sandbox: Sandbox) -> None:
    """A function in Python, also a coroutine; `__main__` parts are not run."""
    code = 'async def reply(text):\n    return {"says": text.upper()}\nif __name__ == "__main__":\n    input()\n'
    finished = await run(
        sandbox, code, function(PY, Case(arguments='["hello"]', one_of=('{"says": "HELLO"}',)), entry="reply")
    )
    assert finished.verdict is PASSED, finished.detail


async def test_a_mistake_is_told_with_its_line_and_traceback(sandbox: Sandbox) -> None:
    """The traceback has the program's name and no path, no frame of the driver."""
    code = "def half(x):\n    return x / zero\n"
    finished = await run(sandbox, code, function(PY, Case(arguments="[4]", one_of=("2",)), entry="half"))
    assert finished.verdict is FAILED
    assert finished.exit_code == 1
    assert "NameError: name 'zero' is not defined (line 2)" in finished.checks[1].detail
    assert 'File "main.py", line 2, in half' in finished.stderr
    assert "call_python" not in finished.stderr
    assert "/code" not in finished.stderr
    javascript = await run(
        sandbox,
        "function half(x) {\n  return x / zero;\n}\nmodule.exports = { half };\n",
        function(JS, BEATS[0], entry="half"),
    )
    assert "ReferenceError: zero is not defined (line 2)" in javascript.checks[1].detail
    assert "main.js:2" in javascript.stderr
    assert "/lumina" not in javascript.stderr


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
for fd in range(3, 64):
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


def layer(colour: tuple[int, int, int, int]) -> bytes:
    """Return a PNG of one colour."""
    kept = io.BytesIO()
    Image.new("RGBA", (16, 16), colour).save(kept, "PNG")
    return kept.getvalue()


async def test_four_layers_become_one_picture(sandbox: Sandbox) -> None:
    """A Pillow script composites the files of the request; the picture comes out and its pixels are right."""
    names = ("base.png", "tunic.png", "boots.png", "face.png")
    colours = ((255, 0, 0, 255), (0, 255, 0, 0), (0, 0, 255, 128), (0, 0, 0, 0))
    code = "from PIL import Image\n\nbase = Image.open('base.png').convert('RGBA')\n"
    for name in names[1:]:
        code += f"base.alpha_composite(Image.open('{name}').convert('RGBA'), (0, 0))\n"
    code += "base.save('hero.png')\n"
    files = tuple((name, layer(colour)) for name, colour in zip(names, colours, strict=True))
    blobs = Blobs()
    asked = request(
        code,
        OutputContract(language=PY, form=Form.FILE, artifact="hero.png"),
        blobs=blobs,
        files=tuple(blobs.file(name, content) for name, content in files),
    )
    conclusion = (await answer(sandbox, asked, blobs=blobs)).conclusion
    assert isinstance(conclusion.event, ExecutionFinished)
    assert conclusion.event.verdict is PASSED, conclusion.event.detail
    (artifact,) = conclusion.event.artifacts
    assert (artifact.name, artifact.blob.media_type) == ("hero.png", "image/png")
    (content,) = conclusion.blobs
    assert Image.open(io.BytesIO(content)).getpixel((3, 3)) == (127, 0, 128, 255)


TIMELINE = """const timeline = {
  defaults: { duration: 0.5, ease: "power1.inOut" },
  repeat: -1,
  steps: [
    { target: "#left_eye", vars: { scaleY: 0.1, duration: 0.2 } },
    { target: "#mouth, .cheek", vars: { scaleX: 1.3, attr: { src: "smile.png" } }, at: "<" },
    { target: "#left_eye", vars: { scaleY: 1, rotation: "+=20" }, at: "+=0.5" },
  ],
};
module.exports = { timeline };
"""


async def test_a_timeline_is_played_by_the_real_gsap(sandbox: Sandbox) -> None:
    """The configuration is exported in one sandbox and played in another; every target moves."""
    finished = await run(sandbox, TIMELINE, OutputContract(language=JS, form=Form.TIMELINE))
    assert finished.verdict is PASSED, finished.detail
    details = {check.name: check.detail for check in finished.checks}
    assert "3 steps, 3 tweens, 1.5 s, repeated for ever" in details["plays"]
    assert details["#mouth moves"] == "scaleX, attr.src"
    assert details["#left_eye moves"] == "scaleY, rotation"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("power1.inOut", "power9.inOut", "unknown ease"),
        ("duration: 0.2", 'duration: "fast"', "duration is not a number"),
        ("duration: 0.2", "duration: NaN", "not a finite number"),
        ("scaleY: 0.1, ", "", "vars animate nothing"),
        ('"#left_eye", vars: { scaleY: 0.1', '"", vars: { scaleY: 0.1', "target is not a selector"),
        ("#mouth, .cheek", "#mouth,, 7cheek", "is not a CSS selector"),
        ('"+=0.5"', '"later"', "is not a position"),
        ("repeat: -1", 'repeat: "forever"', "repeat is not a number"),
        ("steps: [", "steps: [], other: [", "needs a list of steps"),
        ("duration: 0.2", "onComplete() {}", "is a function"),
        ("module.exports = { timeline };", "", "does not export a timeline"),
        ("module.exports = { timeline };", "process.exit(0);", "ended before it exported"),
        ("steps: [", "steps: [ { target: document.body },", "document is not defined"),
    ],
)
async def test_what_gsap_would_swallow_is_found(sandbox: Sandbox, old: str, new: str, says: str) -> None:
    """Unknown eases, texts for numbers, empty steps, wrong selectors and positions, functions, no export."""
    assert old in TIMELINE
    finished = await run(sandbox, TIMELINE.replace(old, new), OutputContract(language=JS, form=Form.TIMELINE))
    assert finished.verdict is FAILED
    assert says in finished.detail


def scraper(url: str) -> str:
    """Return a scraper as specialists write it."""
    return f'''import json

import requests
from bs4 import BeautifulSoup


def scrape(url):
    response = requests.get(url, timeout=10)
    response.raise_for_status()
    soup = BeautifulSoup(response.text, "html.parser")
    rows = []
    for item in soup.select("article")[:2]:
        rows.append({{"title": item.select_one("h2").get_text(strip=True), "url": item.select_one("a")["href"]}})
    return rows


print(json.dumps(scrape("{url}")))
'''


ROWS = OutputContract(language=PY, form=Form.ROWS, fields=("title", "url"), rows_max=2)


async def test_a_scraper_reads_recorded_pages(sandbox: Sandbox, site: str) -> None:
    """The page is fetched outside and served inside; the program notices no difference."""
    finished = await run(sandbox, scraper(f"{site}/news"), ROWS, urls=(f"{site}/news",))
    assert finished.verdict is PASSED, (finished.detail, finished.stderr)
    assert finished.stdout == '[{"title": "First", "url": "/1"}, {"title": "Second", "url": "/2"}]\n'


async def test_other_addresses_are_refused_and_named(sandbox: Sandbox, site: str) -> None:
    """Only what was fetched beforehand is served, not even another page of the same site."""
    finished = await run(sandbox, scraper(f"{site}/missing"), ROWS, urls=(f"{site}/news",))
    assert finished.verdict is FAILED
    assert f"Refused: GET {site}/missing" in finished.detail
    secure = await run(sandbox, scraper("https://example.com/"), ROWS, urls=(f"{site}/news",))
    assert "Refused: CONNECT example.com:443" in secure.detail


async def test_the_proxy_is_no_way_round_the_network(sandbox: Sandbox, site: str) -> None:
    """Without the proxy there is nothing: direct connections to the very same site fail."""
    code = f"import requests\ns = requests.Session()\ns.trust_env = False\nprint(s.get('{site}/news').text)\n"
    finished = await run(sandbox, code, ROWS, urls=(f"{site}/news",))
    assert finished.verdict is FAILED
    assert "Second" not in finished.stdout


async def test_pages_that_nobody_serves_are_no_fault_of_the_program(sandbox: Sandbox) -> None:
    """When no page can be fetched, nothing is run and the outcome says why."""
    finished = await run(sandbox, scraper("http://127.0.0.1:1/"), ROWS, urls=("http://127.0.0.1:1/",))
    assert finished.verdict is ExecutionVerdict.UNAVAILABLE
    assert "could not be fetched" in finished.detail


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
