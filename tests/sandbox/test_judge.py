"""The judge: contract and evidence in, checks and verdict out. The evidence may be forged."""

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumina.events.contract import Case, Form, Language, OutputContract
from lumina.events.execution import Check, ExecutionVerdict
from lumina.sandbox.judge import is_stranger, judge, missing_literals, permitted_values_are_json, png_size, verdict
from lumina.sandbox.port import Ended, File, RunResult
from lumina.sandbox.reports import parsed, same

FUNCTION = OutputContract(
    language=Language.PYTHON,
    form=Form.FUNCTION,
    entry="f",
    cases=(Case(arguments="[1]", one_of=("2",)), Case(arguments="[2]", one_of=('"a"', "[1,2]"), repeat=2)),
)
GOOD = """{"call": 0, "turn": 0, "value": 2}
{"call": 1, "turn": 0, "value": "a"}
{"call": 1, "turn": 1, "value": [1, 2]}
"""


def ran(
    *, results: str = "", stdout: str = "", stderr: str = "", code: int = 0, files: tuple[File, ...] = ()
) -> RunResult:
    """Return a run that ended by itself."""
    return RunResult(
        ended=Ended.EXITED,
        exit_code=code,
        results=results.encode(),
        stdout=stdout.encode(),
        stderr=stderr.encode(),
        artifacts=files,
    )


def passes(contract: OutputContract, *runs: RunResult) -> bool:
    """Whether the runs come to PASSED."""
    return verdict(runs, checks=judge(contract, runs))[0] is ExecutionVerdict.PASSED


def test_right_values_pass() -> None:
    """Every turn of every case returned something permitted."""
    checks = judge(FUNCTION, (ran(results=GOOD),))
    assert [check.name for check in checks] == ["loads", "f(1)", "f(2)"]
    assert passes(FUNCTION, ran(results=GOOD))


@pytest.mark.parametrize(
    "results",
    [
        "",
        GOOD.rsplit("\n", 2)[0] + "\n",
        GOOD + '{"call": 1, "turn": 2, "value": "a"}\n',
        GOOD.replace('"value": 2', '"value": 3'),
        GOOD.replace('"value": 2', '"value": "2"'),
        GOOD.replace('"value": 2', '"value": [2]'),
        GOOD.replace('"value": 2', '"value": NaN'),
        GOOD.replace('"value": 2', '"error": "x"'),
        GOOD.replace('"value": 2', '"value": 2, "passed": true'),
        GOOD.replace('"turn": 1', '"turn": 0'),
        GOOD.replace('"call": 0', '"call": 1'),
        "noise\n" + GOOD,
        GOOD.rstrip("\n"),
        GOOD + GOOD,
        "1 passed\n",
        '{"call": -1, "turn": 0, "error": "SyntaxError"}\n',
        '{"call": 0, "turn": 0, "value": ' + "[" * 5000 + "]" * 5000 + "}\n",
    ],
)
def test_anything_else_fails(results: str) -> None:
    """Missing, additional, doubled, misplaced, malformed and wrong lines are no evidence."""
    assert not passes(FUNCTION, ran(results=results))


def test_lines_on_the_output_are_no_evidence() -> None:
    """What a program prints is not what its driver reports."""
    assert not passes(FUNCTION, ran(stdout=GOOD))


def test_an_exit_code_alone_proves_nothing() -> None:
    """0 without results fails, and results with another exit code do as well."""
    assert not passes(FUNCTION, ran(code=0))
    assert not passes(FUNCTION, ran(results=GOOD, code=3))


def test_a_wrong_value_is_told_with_what_was_wanted() -> None:
    """The model learns the call, its result and what would have been right."""
    (_, check, _) = judge(FUNCTION, (ran(results=GOOD.replace('"value": 2', '"value": 5')),))
    assert (check.name, check.passed, check.detail) == ("f(1)", False, "returned 5, wanted 2")


def test_without_cases_loading_is_what_is_tried() -> None:
    """A contract without cases asks for a program that loads and ends well."""
    contract = OutputContract(language=Language.PYTHON, form=Form.FUNCTION, entry="f")
    assert passes(contract, ran())
    assert not passes(contract, ran(code=1))
    assert not passes(contract, ran(results='{"call": -1, "turn": 0, "error": "NameError"}\n', code=1))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_a_value_is_the_same_as_its_json(value: object) -> None:
    """To JSON and back changes nothing that counts."""
    assert same(parsed(json.dumps(value)), value)


@given(_JSON, _JSON)
def test_sameness_is_symmetric_and_never_looser_than_equality(left: object, right: object) -> None:
    """Two values that are the same are equal in Python too; booleans are never numbers."""
    assert same(left, right) == same(right, left)
    assert not same(left, right) or left == right


def test_booleans_are_no_numbers() -> None:
    """Where Python would call them equal, JSON has two types."""
    assert not same(True, 1)
    assert not same([0], [False])
    assert not same({"a": 1}, {"a": True})
    assert same(1, 1.0)


ROWS = OutputContract(language=Language.PYTHON, form=Form.ROWS, fields=("title", "url"), rows_max=2)


@pytest.mark.parametrize(
    ("stdout", "good"),
    [
        ('[{"title": "a", "url": "b"}]\n', True),
        ('fetching\n[{"title": "a", "url": "b"}, {"title": "c", "url": "d"}]\n\n', True),
        ('[{"title": "a", "url": 0}]', True),
        ("", False),
        ("[]", False),
        ("{}", False),
        ("[1]", False),
        ('[{"title": "a"}]', False),
        ('[{"title": "a", "url": ""}]', False),
        ('[{"title": "a", "url": null}]', False),
        ('[{"title": "a", "url": "b"}, {"title": "a", "url": "b"}, {"title": "a", "url": "b"}]', False),
        ('[{"title": "a", "url": "b"}]\ndone', False),
        ("[{'title': 'a', 'url': 'b'}]", False),
        ('[{"title": [], "url": {}}]', True),
        ('[{"title": ' + "1" * 5_000 + ', "url": 1}]', False),
    ],
)
def test_rows_stand_on_the_last_line(stdout: str, good: bool) -> None:
    """A JSON array of 1 to `rows_max` objects, each with every field."""
    assert passes(ROWS, ran(stdout=stdout)) is good


def test_an_exit_is_explained_by_the_line_that_names_the_error() -> None:
    """Messages of several lines, and what stands below them, do not hide the error."""
    stderr = (
        "Traceback (most recent call last):\n  line\nsoupsieve.util.SelectorSyntaxError: bad position 0\narticle\n^\n"
    )
    check = judge(ROWS, (ran(stderr=stderr, code=1),))[0]
    assert check.detail == "1: soupsieve.util.SelectorSyntaxError: bad position 0"
    assert judge(ROWS, (ran(stderr="a\nno such thing\n", code=2),))[0].detail == "2: no such thing"
    assert judge(ROWS, (ran(code=2),))[0].detail == "2"


def png(width: int = 4, height: int = 3) -> bytes:
    """Return a real PNG of one colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\0\0\xff" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_png_is_one_when_it_is_whole() -> None:
    """Header, size, pixels and end are there."""
    assert png_size(png()) == (4, 3)
    assert png_size(png()[:-6]) is None
    assert png_size(png(0, 3)) is None
    assert png_size(png(30_000, 3)) is None
    assert png_size(b"GIF89a" + png()[6:]) is None
    assert png_size(b"\x89PNG\r\n\x1a\n") is None


FILE = OutputContract(language=Language.PYTHON, form=Form.FILE, artifact="out.png")


@pytest.mark.parametrize(
    ("name", "content", "code", "good"),
    [
        ("out.png", png(), 0, True),
        ("out.png", png(), 1, False),
        ("out.png", b"not a png", 0, False),
        ("out.png", b"", 0, False),
        ("other.png", png(), 0, False),
    ],
)
def test_the_artifact_is_there_and_is_what_its_name_says(name: str, content: bytes, code: int, good: bool) -> None:
    """The file that the contract names, whole, from a run that ended well."""
    assert passes(FILE, ran(files=(File(name=name, content=content),), code=code)) is good


TIMELINE = OutputContract(language=Language.JAVASCRIPT, form=Form.TIMELINE)
EXPORT = '{"timeline": {"steps": []}}\n'


def played(**changes: object) -> RunResult:
    """Return what the player reports about a good timeline, with changes."""
    report: dict[str, object] = {
        "problems": [],
        "warnings": [],
        "steps": 1,
        "tweens": 1,
        "seconds": 0.5,
        "endless": False,
        "gsap": "3.15.0",
        "targets": [{"target": "#eye", "moved": ["scaleY"]}],
    }
    return ran(results=json.dumps(report | changes))


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"problems": ["step 1: unknown ease"]}, False),
        ({"warnings": ["GSAP target not found"]}, False),
        ({"tweens": 0}, False),
        ({"seconds": 0}, False),
        ({"targets": [{"target": "#eye", "moved": []}]}, False),
    ],
)
def test_a_timeline_has_to_move_everything(changes: dict[str, object], good: bool) -> None:
    """No problem, no warning, tweens, a duration, and every target moves."""
    assert passes(TIMELINE, ran(results=EXPORT), played(**changes)) is good


def test_a_timeline_that_was_not_played_fails() -> None:
    """A forged report in the first run is no evidence: only the second one, without the program, counts."""
    assert not passes(TIMELINE, ran(results=EXPORT))
    assert not passes(TIMELINE, played())
    assert not passes(TIMELINE, ran(results='{"error": "x is not defined"}\n', code=1))


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended.WALL, ExecutionVerdict.TIMED_OUT),
        (Ended.MEMORY, ExecutionVerdict.OUT_OF_MEMORY),
        (Ended.OUTPUT, ExecutionVerdict.OUTPUT_LIMIT),
        (Ended.PROCESSES, ExecutionVerdict.FAILED),
        (Ended.FILES, ExecutionVerdict.FAILED),
        (Ended.STOPPED, ExecutionVerdict.UNAVAILABLE),
        (Ended.BROKEN, ExecutionVerdict.UNAVAILABLE),
    ],
)
def test_a_broken_limit_outweighs_everything(ended: Ended, expected: ExecutionVerdict) -> None:
    """Not even passed checks make up for a run that was stopped."""
    run = RunResult(ended=ended, exit_code=None, wall_ms=1_000)
    assert verdict((run,), checks=(Check(name="x", passed=True),))[0] is expected


def test_a_refused_allocation_is_a_lack_of_memory() -> None:
    """MemoryError at the end, or Node's heap message, says so; a program that goes on is judged as usual."""
    failed = (Check(name="x", passed=False),)
    python = ran(stderr="Traceback\nMemoryError\n", code=1)
    node = ran(stderr="FATAL ERROR: Reached heap limit - JavaScript heap out of memory\n", code=134)
    assert verdict((python,), checks=failed)[0] is ExecutionVerdict.OUT_OF_MEMORY
    assert verdict((node,), checks=failed)[0] is ExecutionVerdict.OUT_OF_MEMORY
    assert verdict((ran(stderr="MemoryError: caught\n"),), checks=failed)[0] is ExecutionVerdict.FAILED


def test_missing_texts_are_named_in_order() -> None:
    """Literals of the request are looked for as they stand."""
    assert missing_literals("a.select('h2')", wanted=("h2", "article", ".x")) == ("article", ".x")


def test_cases_that_are_not_json_are_noticed_before_anything_runs() -> None:
    """Arguments have to be an array; permitted results have to be JSON."""
    assert permitted_values_are_json(FUNCTION) is None
    for case in (Case(arguments="1"), Case(arguments="[1"), Case(arguments="[]", one_of=("nope",))):
        contract = OutputContract(language=Language.PYTHON, form=Form.FUNCTION, entry="f", cases=(case,))
        assert permitted_values_are_json(contract)


@pytest.mark.parametrize(
    ("target", "named", "strange"),
    [
        ("#eye", ("#eye", "#mouth"), False),
        ("#eye, #mouth", ("#eye", "#mouth"), False),
        ("#close #eye", ("#eye", "#mouth"), True),
        ("#nose", ("#eye",), True),
        ("#mouth", ("#eye", "mouth"), False),
        ("#anything", ("mouth",), False),
        ("#anything", (), False),
    ],
)
def test_a_timeline_moves_what_the_request_names(target: str, named: tuple[str, ...], strange: bool) -> None:
    """Where the request names its elements as selectors, another selector is a stranger; else nothing is."""
    contract = OutputContract(language=Language.JAVASCRIPT, form=Form.TIMELINE, must_contain=named)
    assert is_stranger(target, contract=contract) is strange
