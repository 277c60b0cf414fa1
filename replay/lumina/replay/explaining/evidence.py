"""The evidence for a fault: which lines of which record, and which line of the code, show what went wrong. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

from lumina.agents.feedback import last_words
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished
from lumina.events.generation import GenerationFinished
from lumina.events.lease import LeaseExpired, LeaseRefused
from lumina.events.timer import TimerElapsed
from lumina.events.validation import Finding, Severity, ValidationFinished
from lumina.replay.diffing.attempts import Fault, FaultKind
from lumina.replay.words import finding_line, size

FINDINGS_MAX: Final = 3
TAIL_LINES_MAX: Final = 6
LINE_CHARACTERS_MAX: Final = 300
_SYNTAX_RULES: Final = ("invalid-syntax", "syntax-error", "syntax", "E0001", "SyntaxError")


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one record, or the code that it speaks about, shows.

    Attributes:
        record: The id of the record that holds it.
        seq: Its place in the log.
        what: What it is: `finding`, `check`, `stderr`, `detail`, `memory`, `timer`, `source`.
        text: One line of it, or for stderr the last few; as the tool, program or model said it, to be escaped.
    """

    record: str
    seq: int
    what: str
    text: str


def evidence_of(fault: Fault, *, blobs: Mapping[str, bytes]) -> tuple[Evidence, ...]:
    """Return what shows a fault, the strongest first; never nothing. `blobs` may lack the code: then no source line."""
    match fault.record.event:
        case ValidationFinished() as event if fault.kind is FaultKind.LINT:
            found = _lint(fault, event, blobs=blobs)
        case ExecutionFinished() as event if fault.kind is FaultKind.RUN:
            found = _run(fault, event)
        case GenerationFinished() if fault.kind is FaultKind.REPEATED and fault.code is not None:
            found = [_piece(fault, "detail", f"code {fault.code.digest[:12]} again")]
        case LeaseRefused() as event:
            found = _refused(fault, event)
        case TimerElapsed(timer=timer):
            found = [_piece(fault, "timer", f"the timer {timer} elapsed: nobody had answered")]
        case LeaseExpired(reason=reason):
            found = [_piece(fault, "detail", reason or "the lease ran out without an outcome")]
        case event:
            found = [_piece(fault, "detail", _detail(event))]
    return tuple(found)


def first_error(event: ValidationFinished) -> Finding | None:
    """Return the finding that failed validation: what can't be parsed comes first, as in the model's feedback."""
    errors = [finding for finding in event.findings if finding.severity is Severity.ERROR]
    errors.sort(key=lambda finding: not _is_syntax(finding))
    return errors[0] if errors else None


def _is_syntax(finding: Finding) -> bool:
    return finding.rule in _SYNTAX_RULES or "SyntaxError" in finding.message or "Parsing error" in finding.message


def _piece(fault: Fault, what: str, text: str) -> Evidence:
    cut = text if len(text) <= LINE_CHARACTERS_MAX or what == "stderr" else f"{text[: LINE_CHARACTERS_MAX - 1]}…"
    return Evidence(record=fault.record.id, seq=fault.record.seq, what=what, text=cut)


def _lint(fault: Fault, event: ValidationFinished, *, blobs: Mapping[str, bytes]) -> list[Evidence]:
    """Return the errors, one for each line of the code, each followed by that line."""
    first = first_error(event)
    if first is None:
        return [_piece(fault, "detail", event.detail or "validation failed")]
    lines = blobs.get(event.code, b"").decode("utf-8", "replace").splitlines()
    errors = [first, *(one for one in event.findings if one.severity is Severity.ERROR and one is not first)]
    by_line = {finding.line: finding for finding in reversed(errors)}
    found: list[Evidence] = []
    for finding in [each for each in errors if by_line[each.line] is each][:FINDINGS_MAX]:
        found.append(_piece(fault, "finding", finding_line(finding)))
        if 0 < finding.line <= len(lines):
            found.append(_piece(fault, "source", f"{finding.line:>4} | {lines[finding.line - 1]}"))
    return found


def _run(fault: Fault, event: ExecutionFinished) -> list[Evidence]:
    """Return the verdict, the failed checks of the contract, and the end of what it printed about its error."""
    failed = [check for check in event.checks if not check.passed]
    found = [
        _piece(fault, "check", f"{check.name}: {check.detail}" if check.detail else check.name)
        for check in failed[:FINDINGS_MAX]
    ]
    tail = event.stderr.strip("\n").splitlines()[-TAIL_LINES_MAX:]
    if tail:
        found.append(_piece(fault, "stderr", "\n".join(tail)))
    if event.detail or not found:
        code = "" if event.exit_code is None else f", exit code {event.exit_code}"
        told = any(event.detail in piece.text for piece in found)  # a judge's detail often is that of its first check
        detail = "" if told or not event.detail else f": {event.detail}"
        found.insert(0, _piece(fault, "detail", f"{event.verdict.value.replace('_', ' ')}{code}{detail}"))
    return found


def _refused(fault: Fault, event: LeaseRefused) -> list[Evidence]:
    found = [_piece(fault, "detail", event.detail or event.refusal.value.replace("_", " "))]
    if event.bytes_needed or event.bytes_max:
        found.append(_piece(fault, "memory", f"needs {size(event.bytes_needed)}, there are {size(event.bytes_max)}"))
    return found


def _detail(event: Event) -> str:
    match event:
        case GenerationFinished(outcome=outcome, detail=detail):
            return detail or f"the answer was {outcome.value.replace('_', ' ')}"
        case ValidationFinished(detail=detail):
            return detail or "it spoke about another code than it was asked about"
        case ExecutionFinished(verdict=verdict, detail=detail):
            return detail or f"the sandbox said {verdict.value.replace('_', ' ')}"
        case _:
            return type(event).__name__


def headline(fault: Fault) -> str:
    """Return what went wrong in one line: kind, and the strongest piece of evidence."""
    pieces = evidence_of(fault, blobs={})
    text = pieces[0].text
    if isinstance(fault.record.event, ExecutionFinished) and fault.kind is FaultKind.RUN:
        words = last_words(fault.record.event.stderr)
        failed = next((piece.text for piece in pieces if piece.what == "check"), None)
        text = words if words is not None and failed is None else failed or text
    return f"{fault.kind.words}: {' '.join(text.split())}"
