"""What a model is told about its faulty code: short, located, stable."""

import pytest
from tests.agents.run_scene import RAW, blob, error

from lumina.agents.feedback import ITEM_CHARACTERS_MAX, ITEMS_MAX, execution_trouble, last_words, validation_trouble
from lumina.events.execution import Check, ExecutionFinished, ExecutionVerdict
from lumina.events.ids import EventId
from lumina.events.validation import Finding, Severity, ValidationFinished, ValidationVerdict

CODE = blob("code")


def validated(*findings: Finding, detail: str = "") -> ValidationFinished:
    """Return a failed validation."""
    return ValidationFinished(
        request=EventId("1" * 32),
        step=1,
        attempt=1,
        code=CODE.digest,
        verdict=ValidationVerdict.FAILED,
        findings=findings,
        effect="e" * 64,
        raw=RAW,
        detail=detail,
    )


def executed(
    verdict: ExecutionVerdict = ExecutionVerdict.FAILED, *, stderr: str = "", checks: tuple[Check, ...] = ()
) -> ExecutionFinished:
    """Return a failed execution."""
    return ExecutionFinished(
        request=EventId("1" * 32),
        step=1,
        attempt=1,
        code=CODE.digest,
        verdict=verdict,
        tier="bubblewrap",
        exit_code=1,
        stdout="",
        stderr=stderr,
        checks=checks,
        artifacts=(),
        wall_ms=77,
        effect="e" * 64,
        raw=RAW,
    )


def failed(name: str, detail: str) -> Check:
    """Return a demand that was not met."""
    return Check(name=name, passed=False, detail=detail)


def test_findings_are_told_in_the_words_of_their_tools() -> None:
    """Syntax errors as Python says them, others with line and rule, missing texts as they are."""
    assert validation_trouble(
        validated(error("'(' was never closed", rule="syntax", tool="compile")), code=CODE
    ).feedback == ("SyntaxError: '(' was never closed (line 3)",)
    assert validation_trouble(validated(error("Undefined name `x`")), code=CODE).feedback == (
        "line 3: F821 Undefined name `x`",
    )
    missing = error("Missing from the code: a, b", rule="missing-literal", tool="contract", line=0)
    assert validation_trouble(validated(missing), code=CODE).feedback == ("Missing from the code: a, b",)
    parsing = error("Parsing error: Unexpected token }", rule="", tool="eslint", line=7)
    assert validation_trouble(validated(parsing), code=CODE).feedback == ("line 7: Parsing error: Unexpected token }",)


def test_only_errors_count_once_per_line_and_three_at_most() -> None:
    """Two tools say the same about one line; warnings failed nothing."""
    twice = (error("Undefined name `x`"), error("Undefined variable 'x'", rule="undefined-variable", tool="pylint"))
    note = Finding(tool="ruff", rule="F401", severity=Severity.WARNING, line=1, column=1, message="unused")
    assert len(validation_trouble(validated(note, *twice), code=CODE).feedback) == 1
    many = tuple(error(f"wrong {line}", line=line) for line in range(1, 9))
    assert len(validation_trouble(validated(*many), code=CODE).feedback) == ITEMS_MAX


def test_what_cannot_be_parsed_is_told_first() -> None:
    """Texts that are missing from code that ends in the middle come with its end."""
    missing = error("Missing from the code: a", rule="missing-literal", tool="contract", line=0)
    broken = error("Unexpected token }", rule="syntax", tool="eslint", line=2)
    told = validation_trouble(validated(missing, broken), code=CODE).feedback
    assert told == ("line 2: syntax Unexpected token }", "Missing from the code: a")


def test_items_are_short_and_on_one_line() -> None:
    """Whatever a tool prints."""
    item = validation_trouble(validated(error("a\nb" * 150)), code=CODE).feedback[0]
    assert len(item) == ITEM_CHARACTERS_MAX
    assert "\n" not in item


def test_wrong_results_are_told_with_what_was_expected() -> None:
    """In the form on which the demo model was trained."""
    trouble = execution_trouble(executed(checks=(failed("add(1, 2)", "returned 4, wanted 3"),)), code=CODE)
    assert trouble.feedback == ("Wrong result: add(1, 2) returned 4, expected 3",)
    assert not trouble.repairable


@pytest.mark.parametrize(
    ("stderr", "last", "repairable"),
    [
        ("Traceback\n  File \"x\"\nNameError: name 'a' is not defined\n", "NameError: name 'a' is not defined", True),
        ("ModuleNotFoundError: No module named 'x'", "ModuleNotFoundError: No module named 'x'", True),
        ("ReferenceError: a is not defined\n    at f (/code/main.js:3:1)", "ReferenceError: a is not defined", True),
        ("requests.exceptions.ConnectionError: refused", "ConnectionError: refused", False),
        ("ValueError: 3", "ValueError: 3", False),
    ],
)
def test_the_last_words_of_a_program_are_told(stderr: str, last: str, repairable: bool) -> None:
    """Once, although the exit code's check repeats them; the class decides whether a repair is worth it."""
    assert last_words(stderr) == last
    trouble = execution_trouble(executed(stderr=stderr, checks=(failed("exit code", f"1: {last}"),)), code=CODE)
    assert trouble.feedback == (last,)
    assert trouble.repairable is repairable


def test_limits_are_told_without_timings() -> None:
    """The same on every machine."""
    assert execution_trouble(executed(ExecutionVerdict.TIMED_OUT), code=CODE).feedback == (
        "Timeout: the program did not end in time",
    )


def test_paths_and_object_addresses_go() -> None:
    """They differ from machine to machine; web addresses stay."""
    stderr = "ValueError: <f at 0x7f12aabbccdd> in /tmp/box/main.py:3 from http://a.example.com/b/c"
    assert execution_trouble(executed(stderr=stderr), code=CODE).feedback == (
        "ValueError: <f at 0x…> in … from http://a.example.com/b/c",
    )


def test_there_is_always_something_to_say() -> None:
    """Even when neither the program nor the sandbox said anything."""
    assert execution_trouble(executed(), code=CODE).feedback == ("the program ended with exit code 1",)
    assert validation_trouble(validated(), code=CODE).feedback == ("the code was not accepted",)
