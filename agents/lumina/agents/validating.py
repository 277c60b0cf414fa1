"""The validator's pure core: which tools read what, and what they came to. `validator.py` runs them."""

from collections.abc import Mapping

import msgspec

from lumina.agents.errors import ToolBroken
from lumina.agents.linting import findings
from lumina.agents.ports import Conclusion, Raw, Recording
from lumina.events.base import Event
from lumina.events.contract import Language
from lumina.events.record import Recorded
from lumina.events.validation import Finding, Severity, ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import Canonical
from lumina.sandbox.judge import missing_literals
from lumina.sandbox.linters import TOOLS
from lumina.sandbox.port import RunResult
from lumina.sandbox.rendering import sentence

MISSING_LITERAL = "missing-literal"
_FINDINGS_MAX = 200
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


class ValidationEffect(Canonical, frozen=True, kw_only=True):
    """What is to be read by what. `timeout_ms` is for each tool."""

    code: str
    language: Language
    tools: tuple[str, ...]
    timeout_ms: int


class ToolRun(msgspec.Struct, frozen=True, kw_only=True):
    """What one tool did.

    Attributes:
        result: None when it could not be started; `problem` says why.
        confined: Whether it ran in a sandbox.
    """

    tool: str
    confined: bool
    result: RunResult | None = None
    problem: str = ""


class ValidationRaw(Raw, frozen=True, kw_only=True):
    """What the tools did, in the order in which they were asked for. After a syntax error there are no more."""

    tools: tuple[ToolRun, ...]


def request_of(recorded: Recorded[Event]) -> ValidationRequested:
    """Return the request in a record."""
    assert isinstance(recorded.event, ValidationRequested), recorded.type
    return recorded.event


def prepare(request: ValidationRequested, *, blobs: Mapping[str, bytes]) -> ValidationEffect:
    """Return what is to be read. Tools for the other language are asked for all the same: they will say so."""
    return ValidationEffect(
        code=blobs[request.code.digest].decode("utf-8", "replace"),
        language=request.contract.language,
        tools=request.tools,
        timeout_ms=request.timeout_ms,
    )


def objection(tool: str, *, language: Language) -> str:
    """Return why a tool can't be used on a language, empty when it can."""
    if tool not in TOOLS:
        return f"there is no validation tool {tool!r}; there are {', '.join(TOOLS)}"
    if TOOLS[tool] is not language:
        return f"{tool} does not read {language.value}"
    return ""


def conclude(
    request: Recorded[Event], recording: Recording[ValidationRaw], *, blobs: Mapping[str, bytes]
) -> Conclusion:
    """Return the verdict: errors fail, broken tools are an ERROR, and without one of these it passes."""
    asked = request_of(request)
    found: list[Finding] = list(literal_findings(asked, blobs[asked.code.digest].decode("utf-8", "replace")))
    problems: list[str] = []
    for run in recording.raw.tools:
        if run.result is None:
            problems.append(run.problem)
            continue
        try:
            found += findings(run.tool, run.result)
        except ToolBroken as error:
            problems.append(str(error))
    found.sort(key=lambda finding: (_ORDER[finding.severity], finding.line, finding.column))
    failed = any(finding.severity is Severity.ERROR for finding in found)
    left_out = set(asked.tools) - {run.tool for run in recording.raw.tools}
    if left_out and not failed:
        problems.append(f"{', '.join(sorted(left_out))} did not run")
    if not asked.tools:
        problems.append("no validation tool was asked for")
    verdict = ValidationVerdict.FAILED if failed else ValidationVerdict.PASSED
    if problems and not failed:
        verdict = ValidationVerdict.ERROR
    return Conclusion(
        event=ValidationFinished(
            request=request.id,
            step=asked.step,
            attempt=asked.attempt,
            code=asked.code.digest,
            verdict=verdict,
            findings=tuple(found[:_FINDINGS_MAX]),
            effect=recording.effect,
            raw=recording.ref,
            detail=sentence("; ".join(problems)),
        )
    )


def literal_findings(request: ValidationRequested, code: str) -> tuple[Finding, ...]:
    """Return one finding when the code lacks texts that the request named."""
    missing = missing_literals(code, wanted=request.contract.must_contain)
    if not missing:
        return ()
    message = sentence(f"Missing from the code: {', '.join(missing)}")
    return (Finding(tool="contract", rule=MISSING_LITERAL, severity=Severity.ERROR, line=0, column=0, message=message),)
