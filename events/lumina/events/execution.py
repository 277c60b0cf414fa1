"""Category `execution`: code is run where it can do no harm."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from lumina.events.base import Event
from lumina.events.contract import Limits, OutputContract
from lumina.events.ids import AnyEventId
from lumina.events.values import (
    AttemptNumber,
    BlobRef,
    Digest,
    DurationMs,
    FileRef,
    Name,
    Sentence,
    StepNumber,
    Text,
    Value,
)


class ExecutionRequested(Event, frozen=True, kw_only=True, tag="execution.requested.v1"):
    """The orchestrator wants validated code to be run.

    Attributes:
        contract: What the run must show.
        files: Put beside the program.
        urls: Pages that are fetched before the sandbox starts and served to the program inside it; the sandbox
            itself has no network.
        tier: The sandbox that the specialist's risk class requires; a missing one is a refusal.
    """

    step: StepNumber
    attempt: AttemptNumber
    code: BlobRef
    contract: OutputContract
    tier: Name
    files: Annotated[tuple[FileRef, ...], Meta(max_length=64)] = ()
    urls: Annotated[tuple[Sentence, ...], Meta(max_length=16)] = ()
    limits: Limits = Limits()


class ExecutionVerdict(Enum):
    """What the run came to. REFUSED: nothing was run. UNAVAILABLE: the sandbox broke, not the program."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class Check(Value, frozen=True, kw_only=True):
    """One demand of the contract and whether the run met it."""

    name: Sentence
    passed: bool
    detail: Sentence = ""


class ExecutionFinished(Event, frozen=True, kw_only=True, tag="execution.finished.v1"):
    """A program ran, or was refused.

    Attributes:
        code: Digest of the program that ran.
        tier: The sandbox that was used.
        exit_code: None when it did not end by itself.
        stdout: Head and tail, control characters escaped.
        stderr: Likewise.
        checks: The contract's demands, judged outside the sandbox.
        artifacts: Files that it wrote.
    """

    request: AnyEventId
    step: StepNumber
    attempt: AttemptNumber
    code: Digest
    verdict: ExecutionVerdict
    tier: Name
    exit_code: Annotated[int, Meta(ge=-255, le=255)] | None
    stdout: Text
    stderr: Text
    checks: Annotated[tuple[Check, ...], Meta(max_length=128)]
    artifacts: Annotated[tuple[FileRef, ...], Meta(max_length=256)]
    wall_ms: DurationMs
    effect: Digest
    raw: BlobRef
    detail: Sentence = ""


ExecutionEvent = ExecutionRequested | ExecutionFinished
