"""Category `step`: one step climbs the repair ladder until it is accepted or fails."""

from enum import Enum

from lumina.events.base import Event
from lumina.events.ids import AnyEventId
from lumina.events.values import AttemptNumber, BlobRef, FileRef, Name, Sentence, StepNumber


class Rung(Enum):
    """What is tried next for a step (design.md section 4, the repair ladder).

    GREEDY: one answer at temperature 0. SAMPLE: a fresh answer at a higher temperature. REPAIR: the faulty code and
    its error go back to the model. LARGER_MODEL: the next model of the run's list.
    """

    GREEDY = "greedy"
    SAMPLE = "sample"
    REPAIR = "repair"
    LARGER_MODEL = "larger_model"


class AttemptStarted(Event, frozen=True, kw_only=True, tag="step.attempt_started.v1"):
    """The orchestrator chose a rung for a step."""

    step: StepNumber
    attempt: AttemptNumber
    attempts_max: AttemptNumber
    rung: Rung
    model: Name
    reason: Sentence


class StepAccepted(Event, frozen=True, kw_only=True, tag="step.accepted.v1"):
    """The code of a step passed validation and ran with success; both events are named.

    Attributes:
        code: The accepted program.
        validation: The `validation.finished` of the same code digest.
        execution: The `execution.finished` of the same code digest.
        artifacts: Files that it wrote.
    """

    step: StepNumber
    attempt: AttemptNumber
    code: BlobRef
    validation: AnyEventId
    execution: AnyEventId
    artifacts: tuple[FileRef, ...] = ()


class StepFailed(Event, frozen=True, kw_only=True, tag="step.failed.v1"):
    """No attempt was accepted, or none could be made.

    Attributes:
        refused: True when a required part said no (no sandbox, no model that fits), so that trying again is useless.
    """

    step: StepNumber
    attempts: AttemptNumber | None
    refused: bool
    reason: Sentence


StepEvent = AttemptStarted | StepAccepted | StepFailed
