"""The sandbox agent with the real tier: honest programs of all kinds, and their mistakes."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image
from tests.agents.execution_at_work import BEATS, JS, PY, checked_sandbox, function, request, run
from tests.agents.worker_at_work import Blobs, answer
from tests.sandbox import small_site

from lumina.agents.sandbox import Sandbox
from lumina.events.contract import Case, Form, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionVerdict

pytestmark = pytest.mark.anyio

PASSED, FAILED = ExecutionVerdict.PASSED, ExecutionVerdict.FAILED


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Return one agent for all tests, whose tier passed its self-test."""
    return checked_sandbox()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve a small web site on loopback."""
    with small_site.served() as address:
        yield address


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
