"""Reads what validation tools print into typed findings. Pure.

A tool that did not work is never a pass: exit codes that it uses for its own trouble, output that is not its format,
and ESLint's `File ignored` all raise `ToolBroken`. A tool that was killed by a signal while it read the code rejected
it: deep nesting brings parsers down.
"""

from typing import Final

import msgspec

from lumina.agents.errors import ToolBroken
from lumina.events.validation import Finding, Severity
from lumina.sandbox.port import Ended, RunResult
from lumina.sandbox.rendering import render, sentence

SIGNAL_EXIT_CODE_MIN: Final = 129
WARNINGS: Final = frozenset(
    # Ruff: unused, redefined, style, security; Pylint and ESLint say themselves how bad a finding is.
    ("F401", "F811", "F841", "B006", "B023", "E711", "E712", "E722", "PLW0127", "S113", "S105", "S307")
)
RUFF_SYNTAX: Final = "invalid-syntax"
_PYLINT_EXIT_CODE_BROKEN: Final = 32
_PYLINT_SEVERITIES: Final = {
    "fatal": Severity.ERROR,
    "error": Severity.ERROR,
    "warning": Severity.WARNING,
}
_PYLINT_OUR_OWN: Final = frozenset({"suppressed-message", "file-ignored"})
"""The code told Pylint to look away: that is itself an error."""


class _Place(msgspec.Struct):
    row: int
    column: int


class _RuffFinding(msgspec.Struct):
    message: str
    code: str | None = None
    location: _Place | None = None


class _PylintMessage(msgspec.Struct):
    type: str
    symbol: str
    message: str
    line: int
    column: int
    message_id: str = msgspec.field(name="messageId")


class _PylintReport(msgspec.Struct):
    messages: list[_PylintMessage]


class _EslintMessage(msgspec.Struct):
    message: str
    severity: int
    rule: str | None = msgspec.field(name="ruleId", default=None)
    line: int = 0
    column: int = 0
    fatal: bool = False


class _EslintFile(msgspec.Struct):
    messages: list[_EslintMessage]


class _CompileError(msgspec.Struct):
    line: int
    column: int
    message: str
    text: str


def findings(tool: str, result: RunResult) -> tuple[Finding, ...]:
    """Return what a tool found.

    Raises:
        ToolBroken: The tool itself did not work; nothing is known about the code.
    """
    match result.ended:
        case Ended.EXITED:
            pass
        case Ended.MEMORY:
            return (_rejected(tool, "it took all memory to read this code"),)
        case Ended.WALL:
            raise ToolBroken(f"{tool} did not end within {result.wall_ms / 1000:.1f} s")
        case _:
            raise ToolBroken(f"{tool} did not work: {result.detail or result.ended.value}")
    assert result.exit_code is not None
    if result.exit_code >= SIGNAL_EXIT_CODE_MIN:
        return (_rejected(tool, f"it died of signal {result.exit_code - 128} reading this code"),)
    match tool:
        case "compile":
            return _compile(result)
        case "ruff":
            return _ruff(result)
        case "pylint":
            return _pylint(result)
        case "eslint":
            return _eslint(result)
        case _:
            raise ToolBroken(f"there is no tool {tool!r}")


def _rejected(tool: str, why: str) -> Finding:
    return Finding(tool=tool, rule="unreadable", severity=Severity.ERROR, line=0, column=0, message=sentence(why))


def _broken(tool: str, result: RunResult, *, why: str = "") -> ToolBroken:
    said = sentence(render(result.stderr or result.stdout), limit=300)
    return ToolBroken(f"{tool} itself failed (exit code {result.exit_code}): {why or said}")


def _compile(result: RunResult) -> tuple[Finding, ...]:
    if result.exit_code == 0:
        return ()
    if result.exit_code != 1:
        raise _broken("compile", result)
    try:
        found = msgspec.json.decode(result.stdout, type=_CompileError)
    except msgspec.DecodeError as error:
        raise _broken("compile", result) from error
    message = f"{found.message}: {found.text}" if found.text else found.message
    return (_finding("compile", "syntax", severity=Severity.ERROR, place=(found.line, found.column), message=message),)


def _ruff(result: RunResult) -> tuple[Finding, ...]:
    if result.exit_code not in {0, 1}:
        raise _broken("ruff", result)
    try:
        found = msgspec.json.decode(result.stdout, type=list[_RuffFinding])
    except msgspec.DecodeError as error:
        raise _broken("ruff", result) from error
    if bool(found) != bool(result.exit_code):
        raise _broken("ruff", result, why="exit code and findings contradict each other")
    return tuple(
        _finding(
            "ruff",
            each.code or RUFF_SYNTAX,
            severity=Severity.WARNING if each.code in WARNINGS else Severity.ERROR,
            place=(each.location.row, each.location.column) if each.location else (0, 0),
            message=each.message,
        )
        for each in found
    )


def _pylint(result: RunResult) -> tuple[Finding, ...]:
    """Read `json2`. The exit code is a bit set: 1, 2, 4, 8, 16 for kinds of messages, 32 for its own trouble."""
    assert result.exit_code is not None
    if result.exit_code >= _PYLINT_EXIT_CODE_BROKEN:
        raise _broken("pylint", result)
    try:
        report = msgspec.json.decode(result.stdout, type=_PylintReport)
    except msgspec.DecodeError as error:
        raise _broken("pylint", result) from error
    return tuple(
        _finding(
            "pylint",
            each.symbol,
            severity=Severity.ERROR
            if each.symbol in _PYLINT_OUR_OWN
            else _PYLINT_SEVERITIES.get(each.type, Severity.NOTE),
            place=(each.line, each.column + 1),
            message=each.message,
        )
        for each in report.messages
    )


def _eslint(result: RunResult) -> tuple[Finding, ...]:
    if result.exit_code not in {0, 1}:
        raise _broken("eslint", result)
    try:
        files = msgspec.json.decode(result.stdout, type=list[_EslintFile])
    except msgspec.DecodeError as error:
        raise _broken("eslint", result) from error
    if len(files) != 1:
        raise _broken("eslint", result, why=f"it read {len(files)} files instead of one")
    found: list[Finding] = []
    for each in files[0].messages:
        if each.message.startswith("File ignored"):
            raise _broken("eslint", result, why=each.message)
        severity = Severity.ERROR if each.fatal or each.severity >= 2 else Severity.WARNING
        rule = each.rule or ("syntax" if each.fatal else "eslint")
        found.append(_finding("eslint", rule, severity=severity, place=(each.line, each.column), message=each.message))
    failed = any(finding.severity is Severity.ERROR for finding in found)
    if failed != bool(result.exit_code):
        raise _broken("eslint", result, why="exit code and findings contradict each other")
    return tuple(found)


def _finding(tool: str, rule: str, *, severity: Severity, place: tuple[int, int], message: str) -> Finding:
    line, column = (max(0, number) for number in place)
    return Finding(
        tool=tool, rule=sentence(rule), severity=severity, line=line, column=column, message=sentence(message)
    )
