"""What tools print, read into findings; and everything that looks like a pass but is none."""

import json
from collections.abc import Mapping

import pytest

from lumina.agents.errors import ToolBroken
from lumina.agents.linting import findings
from lumina.events.validation import Severity
from lumina.sandbox.port import Ended, RunResult


def said(stdout: object, *, code: int, stderr: str = "") -> RunResult:
    """Return what a tool did that ended by itself; anything but text is printed as JSON."""
    text = stdout if isinstance(stdout, str) else json.dumps(stdout)
    return RunResult(ended=Ended.EXITED, exit_code=code, stdout=text.encode(), stderr=stderr.encode())


def eslint(*messages: Mapping[str, object]) -> list[object]:
    """Return ESLint's JSON about one file."""
    return [{"filePath": "main.js", "messages": list(messages), "errorCount": 0}]


IGNORED = {"fatal": False, "severity": 1, "message": "File ignored because outside of base path.", "nodeType": None}
PARSE = {
    "ruleId": None,
    "fatal": True,
    "severity": 2,
    "message": "Parsing error: Unexpected token ;",
    "line": 1,
    "column": 11,
}
UNUSED = {"ruleId": "no-unused-vars", "severity": 1, "message": "'a' is never used.", "line": 2, "column": 5}


def test_nothing_found_is_a_pass() -> None:
    """Each tool has its own way to say that all is well."""
    assert findings("compile", said("", code=0)) == ()
    assert findings("ruff", said([], code=0)) == ()
    assert findings("pylint", said({"messages": [], "statistics": {}}, code=0)) == ()
    assert findings("eslint", said(eslint(), code=0)) == ()


def test_a_syntax_error_has_line_column_and_text() -> None:
    """Of the compiler, of Ruff, of ESLint."""
    compiled = {"line": 3, "column": 7, "message": "SyntaxError: invalid syntax", "text": "def f(:"}
    (found,) = findings("compile", said(compiled, code=1))
    assert (found.severity, found.line, found.column) == (Severity.ERROR, 3, 7)
    assert found.message == "SyntaxError: invalid syntax: def f(:"
    ruff = [{"code": "invalid-syntax", "message": "Expected a name", "location": {"row": 3, "column": 7}, "fix": None}]
    (found,) = findings("ruff", said(ruff, code=1))
    assert (found.rule, found.severity, found.line) == ("invalid-syntax", Severity.ERROR, 3)
    (found,) = findings("eslint", said(eslint(PARSE), code=1))
    assert (found.rule, found.severity, found.line, found.column) == ("syntax", Severity.ERROR, 1, 11)


def test_only_what_is_wrong_is_an_error() -> None:
    """Unused imports and variables are warnings; undefined names and missing members are errors."""
    place = {"location": {"row": 1, "column": 8}}
    ruff = [{"code": "F401", "message": "unused", **place}, {"code": "F821", "message": "undefined", **place}]
    assert [found.severity for found in findings("ruff", said(ruff, code=1))] == [Severity.WARNING, Severity.ERROR]
    message = {"message": "x", "line": 2, "column": 0, "messageId": "E1101"}
    pylint = {
        "messages": [
            {"type": "error", "symbol": "no-member", **message},
            {"type": "warning", "symbol": "unreachable", **message},
        ]
    }
    (first, second) = findings("pylint", said(pylint, code=6))
    assert (first.severity, first.line, first.column) == (Severity.ERROR, 2, 1)
    assert second.severity is Severity.WARNING
    (unused,) = findings("eslint", said(eslint(UNUSED), code=0))
    assert unused.severity is Severity.WARNING


def test_code_that_tells_pylint_to_look_away_is_wrong() -> None:
    """Suppressed messages and skipped files are errors."""
    message = {"message": "x", "line": 1, "column": 0, "messageId": "I0013"}
    for symbol in ("suppressed-message", "file-ignored"):
        report = {"messages": [{"type": "info", "symbol": symbol, **message}]}
        (found,) = findings("pylint", said(report, code=0))
        assert found.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("tool", "result"),
    [
        ("eslint", said(eslint(IGNORED), code=0)),
        ("eslint", said("", code=2, stderr="Error: Could not find config file.")),
        ("eslint", said([], code=0)),
        ("eslint", said("Oops", code=0)),
        ("eslint", said(eslint(PARSE), code=0)),
        ("eslint", said(eslint(), code=1)),
        ("ruff", said([], code=2, stderr="error: unexpected argument")),
        ("ruff", said("", code=0)),
        ("ruff", said([], code=1)),
        ("pylint", said({"messages": []}, code=32)),
        ("pylint", said("Usage: pylint", code=0)),
        ("compile", said("", code=1)),
        ("compile", said("", code=2)),
        ("tslint", said([], code=0)),
        ("ruff", RunResult(ended=Ended.WALL, exit_code=None, wall_ms=30_000)),
        ("ruff", RunResult(ended=Ended.BROKEN, exit_code=None, detail="no walls")),
        ("ruff", RunResult(ended=Ended.OUTPUT, exit_code=None)),
    ],
)
def test_a_tool_that_did_not_work_is_no_pass(tool: str, result: RunResult) -> None:
    """Ignored files, usage errors, crashes, garbage, contradictions, time: nothing is known about the code."""
    with pytest.raises(ToolBroken, match=tool):
        findings(tool, result)


@pytest.mark.parametrize(
    "result",
    [said("", code=134), said("", code=139), RunResult(ended=Ended.MEMORY, exit_code=None)],
)
def test_a_tool_that_dies_of_the_code_rejects_it(result: RunResult) -> None:
    """Death by a signal or by lack of memory while reading is a finding, not a defect of the tool."""
    for tool in ("compile", "ruff", "pylint", "eslint"):
        (found,) = findings(tool, result)
        assert (found.rule, found.severity) == ("unreadable", Severity.ERROR)


def test_what_tools_quote_is_escaped() -> None:
    """A finding quotes hostile text; it stands in the log as plain text."""
    ruff = [{"code": "F821", "message": "Undefined name `\x1b[31m`\n" + "x" * 900, "location": {"row": 1, "column": 1}}]
    (found,) = findings("ruff", said(ruff, code=1))
    assert found.message.isprintable()
    assert len(found.message) <= 500
