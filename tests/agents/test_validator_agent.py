"""The validator with the real tools: planted mistakes, code that wants to be let off, broken tools, replay."""

import shutil
from pathlib import Path

import pytest
from tests.agents.worker_at_work import Blobs, answer, concluded

from lumina.agents.validating import ValidationRaw
from lumina.agents.validator import Validator
from lumina.events.codec import encode
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.validation import Finding, Severity, ValidationFinished, ValidationRequested, ValidationVerdict

pytestmark = pytest.mark.anyio

PY, JS = Language.PYTHON, Language.JAVASCRIPT
PASSED, FAILED, ERROR = ValidationVerdict.PASSED, ValidationVerdict.FAILED, ValidationVerdict.ERROR
PYTHON_TOOLS = ("compile", "ruff")
ALL_PYTHON_TOOLS = ("compile", "ruff", "pylint")


@pytest.fixture(scope="module")
def validator() -> Validator:
    """Return one validator for all tests."""
    return Validator()


async def validate(
    validator: Validator,
    code: str,
    *,
    tools: tuple[str, ...],
    language: Language = PY,
    must_contain: tuple[str, ...] = (),
) -> tuple[ValidationFinished, ValidationRaw]:
    """Have code read, and derive the outcome again from what was recorded."""
    blobs = Blobs()
    asked = ValidationRequested(
        step=1,
        attempt=1,
        code=blobs.add(code.encode()),
        contract=OutputContract(language=language, form=Form.SCRIPT, must_contain=must_contain),
        tools=tools,
    )
    outcome = await answer(validator, asked, blobs=blobs)
    again = concluded(Validator(), outcome.request, outcome.body, blobs=blobs)
    assert encode(again.event) == encode(outcome.conclusion.event)
    assert isinstance(again.event, ValidationFinished)
    assert isinstance(outcome.raw, ValidationRaw)
    return again.event, outcome.raw


def errors(finished: ValidationFinished) -> list[Finding]:
    """Return the findings that fail."""
    return [finding for finding in finished.findings if finding.severity is Severity.ERROR]


SCRAPER = """import json

import requests
from bs4 import BeautifulSoup


def scrape(url):
    response = requests.get(url, timeout=10)
    response.raise_for_status()
    soup = BeautifulSoup(response.text, "html.parser")
    rows = []
    for item in soup.select("article")[:5]:
        rows.append({"title": item.select_one("h2").get_text(strip=True), "url": item.select_one("a")["href"]})
    return rows


print(json.dumps(scrape("http://news.example/")))
"""
LAYERS = """from PIL import Image

base = Image.open("base.png").convert("RGBA")
layer = Image.open("face.png").convert("RGBA")
layer.putalpha(layer.getchannel("A").point(lambda value: int(value * 0.5)))
base.alpha_composite(layer, (1, 2))
base.save("out.png")
"""


@pytest.mark.parametrize("code", [SCRAPER, LAYERS, "def greet(name):\n    return f'Hello {name}'\n"])
async def test_good_python_passes_all_tools(validator: Validator, code: str) -> None:
    """Scrapers and Pillow scripts, with the packages in sight, have no errors; the tools ran in a sandbox."""
    finished, raw = await validate(validator, code, tools=ALL_PYTHON_TOOLS)
    assert finished.verdict is PASSED, (finished.detail, finished.findings)
    assert all(tool.confined for tool in raw.tools)


@pytest.mark.parametrize(
    ("code", "rule", "line"),
    [
        ("def f(:\n    pass\n", "syntax", 1),
        ("x = 1\n  y = 2\n", "syntax", 2),
        ("print('a\n", "syntax", 1),
        ("await x\n", "syntax", 1),
        ("x = 1\nprint(y)\n", "F821", 2),
        ("'{}'.format()\n", "F524", 1),
        ("def f():\n    return 1\n    yield = 2\n", "syntax", 3),
    ],
)
async def test_faulty_python_is_rejected_where_it_is_wrong(
    validator: Validator, code: str, rule: str, line: int
) -> None:
    """Syntax and undefined names, with rule and line."""
    finished, _ = await validate(validator, code, tools=PYTHON_TOOLS)
    assert finished.verdict is FAILED
    assert (rule, line) in [(finding.rule, finding.line) for finding in errors(finished)]


async def test_pylint_finds_what_only_it_can(validator: Validator) -> None:
    """Members that a package does not have, and calls that lack arguments."""
    code = "import requests\nfrom PIL import Image\n\n\ndef two(a, b):\n    return a + b\n\n\n"
    code += "requests.gett('x')\nprint(Image.ANTIALIAS)\nprint(two(1))\n"
    finished, _ = await validate(validator, code, tools=("pylint",))
    assert [finding.rule for finding in errors(finished)] == ["no-member", "no-member", "no-value-for-parameter"]


async def test_unused_things_are_only_remarked(validator: Validator) -> None:
    """Warnings do not fail."""
    finished, _ = await validate(validator, "import os\n\n\ndef f():\n    x = 1\n", tools=PYTHON_TOOLS)
    assert finished.verdict is PASSED
    assert {finding.rule for finding in finished.findings} == {"F401", "F841"}


@pytest.mark.parametrize(
    ("code", "tool"),
    [
        ("# ruff: noqa\nprint(y)  # noqa\n", "ruff"),
        ("# pylint: skip-file\nprint(y)\n", "pylint"),
        ("# pylint: disable=all\nprint(y)\n", "pylint"),
    ],
)
async def test_code_can_not_excuse_itself(validator: Validator, code: str, tool: str) -> None:
    """Comments that switch a tool off do not, or are themselves the error."""
    finished, _ = await validate(validator, code, tools=(tool,))
    assert finished.verdict is FAILED


@pytest.mark.parametrize("tool", PYTHON_TOOLS)
async def test_deep_nesting_is_a_rejection(validator: Validator, tool: str) -> None:
    """Code on which parsers give up or die is rejected by it, and is no defect of the validator."""
    finished, _ = await validate(validator, "x = " + "-" * 200_000 + "1\n", tools=(tool,))
    assert finished.verdict is FAILED, finished.detail


async def test_good_javascript_passes(validator: Validator) -> None:
    """A CommonJS module as specialists write it."""
    code = "function add(a, b) {\n  return a + b;\n}\nmodule.exports = { add };\n"
    finished, raw = await validate(validator, code, tools=("eslint",), language=JS)
    assert finished.verdict is PASSED, (finished.detail, finished.findings)
    assert raw.tools[0].confined


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("const x = ;\n", "syntax"),
        ("function f( { return 1; }\n", "syntax"),
        ("module.exports = { f: () => undefinedName };\n", "no-undef"),
        ("const a = 1;\na = 2;\nmodule.exports = { a };\n", "no-const-assign"),
        ("while (true) {}\n", "no-constant-condition"),
        ("module.exports = { f: (x) => eval(x) };\n", "no-eval"),
        ("module.exports = { f: () => fetch('http://x.example') };\n", "no-restricted-globals"),
        ("/* eslint-disable */\nmodule.exports = { f: () => undefinedName };\n", "no-undef"),
        ("// eslint-disable-next-line no-undef\nmodule.exports = undefinedName;\n", "no-undef"),
    ],
)
async def test_broken_javascript_is_rejected(validator: Validator, code: str, rule: str) -> None:
    """Parse errors, undefined names, endless loops, eval; comments that silence ESLint do not."""
    finished, _ = await validate(validator, code, tools=("eslint",), language=JS)
    assert finished.verdict is FAILED
    assert rule in {finding.rule for finding in errors(finished)}


async def test_missing_texts_are_an_error(validator: Validator) -> None:
    """What the request named literally has to stand in the code."""
    finished, _ = await validate(validator, SCRAPER, tools=("compile",), must_contain=("article", "h3", ".price"))
    (finding,) = errors(finished)
    assert (finding.rule, finding.message) == ("missing-literal", "Missing from the code: h3, .price")


async def test_after_a_syntax_error_no_more_tools_run(validator: Validator) -> None:
    """What they would say about it is worth nothing."""
    finished, raw = await validate(validator, "def f(:\n", tools=ALL_PYTHON_TOOLS)
    assert finished.verdict is FAILED
    assert [tool.tool for tool in raw.tools] == ["compile"]


@pytest.mark.parametrize("tools", [(), ("tslint",), ("eslint",), ("compile", "tslint")])
async def test_tools_that_can_not_read_the_code_are_an_error(validator: Validator, tools: tuple[str, ...]) -> None:
    """No tool, an unknown one, one for another language: never a pass."""
    finished, _ = await validate(validator, "x = 1\n", tools=tools)
    assert finished.verdict is ERROR
    assert finished.detail


async def test_eslint_that_is_not_installed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome says which command installs it."""
    monkeypatch.setenv("LUMINA_NODE_MODULES", str(tmp_path))
    finished, _ = await validate(Validator(), "module.exports = {};\n", tools=("eslint",), language=JS)
    assert finished.verdict is ERROR
    assert "npm ci --ignore-scripts" in finished.detail


@pytest.mark.parametrize(
    ("code", "language", "tools", "verdict"),
    [
        ("x = 1\n", PY, ALL_PYTHON_TOOLS, PASSED),
        ("print(y)\n", PY, ("ruff",), FAILED),
        ("def f(:\n", PY, ("compile",), FAILED),
        ("module.exports = {};\n", JS, ("eslint",), PASSED),
        ("const x = ;\n", JS, ("eslint",), FAILED),
    ],
)
async def test_without_bubblewrap_tools_run_on_their_own_and_say_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    language: Language,
    tools: tuple[str, ...],
    verdict: ValidationVerdict,
) -> None:
    """They only read the code; the recording says that nothing was around them."""
    node = shutil.which("node")
    assert node is not None
    (tmp_path / "node").symlink_to(node)
    monkeypatch.setenv("PATH", str(tmp_path))
    finished, raw = await validate(Validator(), code, tools=tools, language=language)
    assert finished.verdict is verdict, (finished.detail, finished.findings)
    assert not any(tool.confined for tool in raw.tools)
