"""What to tell a model about its faulty code: short, located, stable, and only what it can mend.

The same fault gives the same words on every machine: no paths, no timings, no addresses of objects.
"""

import re
from typing import Final

from lumina.agents.orchestrator_state import Trouble, TroubleKind
from lumina.events.execution import Check, ExecutionFinished, ExecutionVerdict
from lumina.events.validation import Finding, Severity, ValidationFinished
from lumina.events.values import BlobRef

ITEMS_MAX: Final = 3
ITEM_CHARACTERS_MAX: Final = 200

_SYNTAX: Final = re.compile(
    r"^(?:E0001|E9\d\d|syntax-error|invalid-syntax|syntax|parse|parse-error|fatal)$|^(?:Syntax|Indentation|Tab)Error|"
    r"Parsing error|SyntaxError"
)
_NAME: Final = re.compile(
    r"^(?:F821|F822|F823|E0602|E0601|E0606|E1101|undefined-variable|used-before-assignment|no-member|no-undef|"
    r"possibly-used-before-assignment|undefined-name)$|"
    r"\b(?:NameError|UnboundLocalError|ReferenceError|AttributeError)\b"
)
_IMPORT: Final = re.compile(
    r"^(?:E0401|E0611|import-error|no-name-in-module)$|\b(?:ImportError|ModuleNotFoundError)\b|Cannot find module"
)
_MISSING: Final = re.compile(r"^missing[ _-]|^Missing from the code\b|must[ _-]contain|^literal", re.IGNORECASE)
_REPAIRABLE: Final = (_SYNTAX, _NAME, _IMPORT, _MISSING)

_LAST_WORDS: Final = re.compile(r"^(?:Uncaught )?(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Warning|Exit|Interrupt)\b.*)")
_PATH: Final = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?(?:/[\w.@+-]+){2,}/?(?::\d+)*")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{6,}")
_SPACES: Final = re.compile(r"\s+")


def validation_trouble(finished: ValidationFinished, *, code: BlobRef) -> Trouble:
    """Return what failed validation says about `code`."""
    errors = [finding for finding in finished.findings if finding.severity is Severity.ERROR]
    errors.sort(key=lambda finding: _SYNTAX.search(finding.rule) is None)  # what can't be parsed comes first
    items = tuple(_finding_text(finding) for finding in _one_per_line(errors)) or (
        finished.detail or "the code was not accepted",
    )
    repairable = any(_is_repairable(finding.rule) or _is_repairable(finding.message) for finding in errors)
    return _fault(items, code=code, repairable=repairable)


def execution_trouble(finished: ExecutionFinished, *, code: BlobRef) -> Trouble:
    """Return what a failed execution says about `code`."""
    limits = {
        ExecutionVerdict.TIMED_OUT: "Timeout: the program did not end in time",
        ExecutionVerdict.OUT_OF_MEMORY: "MemoryError: the program used too much memory",
        ExecutionVerdict.OUTPUT_LIMIT: "the program printed too much",
    }
    items = [limits[finished.verdict]] if finished.verdict in limits else []
    last = last_words(finished.stderr) if finished.verdict not in limits else None
    if last is not None:
        items.append(last)
    failed = [check for check in finished.checks if not check.passed]
    items += [_check_text(check) for check in failed if last is None or last not in check.detail]
    if not items:
        items = [finished.detail or f"the program ended with exit code {finished.exit_code}"]
    hints = [*items, *(check.name for check in failed)]
    return _fault(tuple(items), code=code, repairable=any(_is_repairable(hint) for hint in hints))


def last_words(stderr: str) -> str | None:
    """Return the last line of a traceback that names the error, None when there is none."""
    for line in reversed(stderr.splitlines()):
        if (found := _LAST_WORDS.match(line.strip())) is not None:
            return found.group(1)
    return None


def _one_per_line(errors: list[Finding]) -> list[Finding]:
    """Return the first finding of each line: two tools say the same about one line."""
    told: dict[int, Finding] = {}
    for index, finding in enumerate(errors):
        told.setdefault(finding.line or -index - 1, finding)
    return list(told.values())


def _finding_text(finding: Finding) -> str:
    """Return one finding in the words of the tools, for instance ``line 3: F821 Undefined name `rows` ``."""
    if _MISSING.search(finding.message):
        return finding.message
    if finding.tool == "compile":
        kind, _, rest = finding.message.partition(": ")
        message = rest if kind.endswith("Error") else finding.message
        name = kind if kind.endswith("Error") else "SyntaxError"
        return f"{name}: {message} (line {finding.line})" if finding.line else f"{name}: {message}"
    rule = "" if "Parsing error" in finding.message or not finding.rule else f"{finding.rule} "
    place = f"line {finding.line}: " if finding.line else ""
    return f"{place}{rule}{finding.message}"


def _check_text(check: Check) -> str:
    """Return a failed demand, for instance `Wrong result: add(1, 2) returned 4, expected 3`."""
    if check.detail.startswith("returned ") and ", wanted " in check.detail:
        return f"Wrong result: {check.name} {check.detail.replace(', wanted ', ', expected ', 1)}"
    if _LAST_WORDS.match(check.detail) or _MISSING.search(check.detail):
        return check.detail
    return f"{check.name}: {check.detail}" if check.detail else check.name


def _is_repairable(text: str) -> bool:
    return any(pattern.search(text) is not None for pattern in _REPAIRABLE)


def _fault(items: tuple[str, ...], *, code: BlobRef, repairable: bool) -> Trouble:
    feedback = tuple(dict.fromkeys(_stable(item) for item in items))[:ITEMS_MAX]
    return Trouble(kind=TroubleKind.FAULT, reason=feedback[0], code=code, feedback=feedback, repairable=repairable)


def _stable(text: str) -> str:
    """Return `text` on one line, without paths and object addresses, cut to the limit."""
    text = _ADDRESS.sub("0x…", _PATH.sub("…", text))
    text = _SPACES.sub(" ", text).strip()
    return text if len(text) <= ITEM_CHARACTERS_MAX else text[: ITEM_CHARACTERS_MAX - 1] + "…"
