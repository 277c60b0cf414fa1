"""Category `validation`: code is read by tools that do not run it."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from lumina.events.base import Event
from lumina.events.contract import OutputContract
from lumina.events.ids import AnyEventId
from lumina.events.values import (
    AttemptNumber,
    BlobRef,
    Count,
    Digest,
    DurationMs,
    Name,
    Sentence,
    StepNumber,
    Value,
)


class Severity(Enum):
    """How bad a finding is. Only an error fails validation."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(Value, frozen=True, kw_only=True):
    """One remark about one place. Line and column count from 1; 0 means the whole file."""

    tool: Name
    rule: Sentence
    severity: Severity
    line: Count
    column: Count
    message: Sentence


class ValidationRequested(Event, frozen=True, kw_only=True, tag="validation.requested.v1"):
    """The orchestrator wants code to be read. `tools` come from the specialist's definition."""

    step: StepNumber
    attempt: AttemptNumber
    code: BlobRef
    contract: OutputContract
    tools: Annotated[tuple[Name, ...], Meta(max_length=16)]
    timeout_ms: DurationMs = 30_000


class ValidationVerdict(Enum):
    """PASSED and FAILED speak of the code; ERROR says that a tool itself did not work, which is never a pass."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"


class ValidationFinished(Event, frozen=True, kw_only=True, tag="validation.finished.v1"):
    """The tools have spoken about one code digest."""

    request: AnyEventId
    step: StepNumber
    attempt: AttemptNumber
    code: Digest
    verdict: ValidationVerdict
    findings: Annotated[tuple[Finding, ...], Meta(max_length=200)]
    effect: Digest
    raw: BlobRef
    detail: Sentence = ""


ValidationEvent = ValidationRequested | ValidationFinished
