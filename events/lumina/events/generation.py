"""Category `generation`: a model is asked, and answers."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from lumina.events.base import Event
from lumina.events.contract import OutputContract
from lumina.events.ids import AnyEventId
from lumina.events.run import SpecialistRef
from lumina.events.values import (
    AttemptNumber,
    BlobRef,
    Bytes,
    Digest,
    DurationMs,
    Name,
    Request,
    Sentence,
    Temperature,
    Text,
    TokenCount,
    Value,
)


class Purpose(Enum):
    """What the answer is for."""

    PLAN = "plan"
    CODE = "code"
    REPAIR = "repair"


class Sampling(Value, frozen=True, kw_only=True):
    """How tokens are drawn. Temperature 0 is greedy."""

    temperature: Temperature
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    tokens_max: TokenCount
    top_k: Annotated[int, Meta(ge=0, le=1000)] = 40
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0


class Ask(Value, frozen=True, kw_only=True):
    """One question to one model, complete but for the blobs that it names.

    Attributes:
        step: 0 for the plan of a run.
        specialist: Whose prompt template is used; None for a plan.
        kinds: For a plan, the kinds that its steps may have.
        brief: The request for this step.
        contract: What the answer must be; None for a plan.
        previous: For a repair, the faulty code.
        feedback: For a repair, what is wrong with it: short, located, stable.
        model: Which model.
        bare: The model takes the plain request without role line and instructions.
        timeout_ms: For the model call alone.
        turn: The last turn of the conversation that this ask continues; None to begin one. See `lumina.models.turns`.
        words: The new words of a conversation, where they are long: the text of the message that is sent. None: the
            brief, feedback and contract make it.
        keep: The conversation is to be continued, so its new turn is stored. One that is continued is always kept.
        cloud: Why a model on machines of others may be asked; empty when it may not.
    """

    purpose: Purpose
    step: Annotated[int, Meta(ge=0, le=32)]
    attempt: AttemptNumber
    model: Name
    brief: Request
    sampling: Sampling
    specialist: SpecialistRef | None = None
    contract: OutputContract | None = None
    kinds: Annotated[tuple[Name, ...], Meta(max_length=200)] = ()
    previous: BlobRef | None = None
    feedback: Annotated[tuple[Text, ...], Meta(max_length=20)] = ()
    bare: bool = False
    timeout_ms: DurationMs = 120_000
    turn: BlobRef | None = None
    words: BlobRef | None = None
    keep: bool = False
    cloud: Sentence = ""


class GenerationRequested(Event, frozen=True, kw_only=True, tag="generation.requested.v1"):
    """The orchestrator wants an answer; the governor decides when."""

    ask: Ask


class GenerationOutcome(Enum):
    """What the model call came to.

    ANSWERED: an answer of the right form. UNUSABLE: text, but no code or no valid plan in it. LENGTH: cut off by
    the token limit. DOES_NOT_FIT: the prompt is longer than the served context even when trimmed; nothing was sent.
    TIMED_OUT, UNAVAILABLE, GARBAGE: the server was too slow, not there, or did not speak its protocol.
    """

    ANSWERED = "answered"
    UNUSABLE = "unusable"
    LENGTH = "length"
    DOES_NOT_FIT = "does_not_fit"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    GARBAGE = "garbage"


class PlanItem(Value, frozen=True, kw_only=True):
    """One entry of a plan that a model made, not yet checked against the specialists."""

    kind: Name
    brief: Request


class Usage(Value, frozen=True, kw_only=True):
    """What a model call cost.

    Attributes:
        prompt_tokens: Sent.
        generated_tokens: Received.
        context: Tokens that the model serves.
        trimmed: Names of the prompt parts that were left out to fit, in the order in which they went.
        prompt_ms: Until the first token.
        generate_ms: From the first token to the last.
    """

    prompt_tokens: TokenCount
    generated_tokens: TokenCount
    context: TokenCount
    trimmed: tuple[Name, ...] = ()
    prompt_ms: DurationMs = 0
    generate_ms: DurationMs = 0


class Load(Value, frozen=True, kw_only=True):
    """A model was loaded for this call: how long it took and what memory it was seen to take."""

    load_ms: DurationMs
    bytes_measured: Bytes


class GenerationFinished(Event, frozen=True, kw_only=True, tag="generation.finished.v1"):
    """A specialist used its lease.

    Attributes:
        request: The `generation.requested` that is answered.
        lease: The `lease.granted` that was used.
        step: Of the ask; 0 for a plan.
        code: The program, fences stripped.
        plan: For the purpose PLAN.
        detail: On failure, what happened and what to do.
        turn: The conversation up to and with this answer, to be continued; None when there is no answer.
        effect: Digest of the effect that `prepare` derived.
        raw: What the model call returned, as the runner recorded it.
    """

    request: AnyEventId
    lease: AnyEventId
    step: Annotated[int, Meta(ge=0, le=32)]
    attempt: AttemptNumber
    model: Name
    outcome: GenerationOutcome
    effect: Digest
    raw: BlobRef
    usage: Usage
    code: BlobRef | None = None
    plan: tuple[PlanItem, ...] = ()
    load: Load | None = None
    turn: BlobRef | None = None
    detail: Sentence = ""


GenerationEvent = GenerationRequested | GenerationFinished
