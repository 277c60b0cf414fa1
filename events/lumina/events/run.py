"""Category `run`: somebody asks for work, it is planned, and it ends."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from lumina.events.base import Event
from lumina.events.contract import Case, Form, Language, Limits, OutputContract
from lumina.events.ids import AnyEventId, AnyStreamId
from lumina.events.values import (
    AttemptNumber,
    BlobRef,
    Count,
    Digest,
    DurationMs,
    FileRef,
    Name,
    Request,
    Sentence,
    StepNumber,
    TokenCount,
    Value,
)


class RunStatus(Enum):
    """How a run ended."""

    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class SpecialistRef(Value, frozen=True, kw_only=True):
    """A specialist as it was when the run was submitted, so that the run can be re-decided without its data file.

    Attributes:
        name: Unique among the specialists, for instance `scraper`.
        kind: The kind of step that it answers.
        definition: Its data file: role line, prompt template, examples.
        keywords: Words of a request that speak for it.
        language: Of the code that it writes.
        form: How that code is run.
        tools: The validators that read it.
        tier: The sandbox that its risk class requires.
        models: Preferred models, best first; preferences, not requirements.
    """

    name: Name
    kind: Name
    definition: BlobRef
    language: Language
    form: Form
    tier: Name
    keywords: Annotated[tuple[Sentence, ...], Meta(max_length=100)] = ()
    tools: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()
    models: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    limits: Limits = Limits()


class ModelChoice(Value, frozen=True, kw_only=True):
    """A model that the run may use, best first; the repair ladder climbs this list from its start.

    Attributes:
        model: Its id, as the governor knows it.
        context: Tokens that it serves.
        plans: Whether it is good enough to be asked for a plan.
        bare: It takes the plain request without role line and instructions, as the demo model does.
        cloud: It runs on machines of others; it is asked only if the run's options permit that.
    """

    model: Name
    context: TokenCount
    plans: bool = False
    bare: bool = False
    cloud: bool = False


class RunOptions(Value, frozen=True, kw_only=True):
    """The limits and permissions of a run.

    Attributes:
        attempts_max: Per step, all rungs of the repair ladder together.
        tokens_max: Generated tokens for the whole run.
        timeout_ms: From submission to the end.
        hosts: `host` or `host:port` that may be fetched for scraping steps.
        kind: The specialist kind that the user insists on; None to let the planner choose.
        seed: From which all sampling seeds are derived.
        plan: Whether a model may be asked for a plan.
        cloud: Whether models that run on machines of others may be asked.
    """

    attempts_max: AttemptNumber = 8
    tokens_max: TokenCount = 100_000
    timeout_ms: DurationMs = 300_000
    hosts: Annotated[tuple[Sentence, ...], Meta(max_length=32)] = ()
    kind: Name | None = None
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    plan: bool = True
    cloud: bool = False


class RunSubmitted(Event, frozen=True, kw_only=True, tag="run.submitted.v1"):
    """Somebody asked for work. Carries all that the orchestrator may know, so that a run can be re-decided alone.

    Attributes:
        request: What to do, in their words (1 to 20,000 characters).
        options: Limits and permissions.
        specialists: Who could do it.
        models: Which models may be used, in order of preference.
        files: Put into the sandbox beside the program.
        cases: Calls that the result must satisfy, given by the user.
    """

    request: Request
    options: RunOptions
    specialists: Annotated[tuple[SpecialistRef, ...], Meta(max_length=200)]
    models: Annotated[tuple[ModelChoice, ...], Meta(max_length=50)]
    files: Annotated[tuple[FileRef, ...], Meta(max_length=64)] = ()
    cases: Annotated[tuple[Case, ...], Meta(max_length=64)] = ()


class PlannedStep(Value, frozen=True, kw_only=True):
    """One piece of work for one specialist.

    Attributes:
        number: From 1, in order.
        kind: Of the step; a specialist answers it.
        specialist: Its name.
        brief: What to do, in words of the request.
        contract: What the answer must be.
        rule: Which rule or model chose the kind, for people.
    """

    number: StepNumber
    kind: Name
    specialist: Name
    brief: Request
    contract: OutputContract
    rule: Sentence


class Planner(Enum):
    """Who made the plan."""

    RULES = "rules"
    MODEL = "model"
    USER = "user"


class RunPlanned(Event, frozen=True, kw_only=True, tag="run.planned.v1"):
    """The orchestrator split the request into steps, done one after the other."""

    steps: Annotated[tuple[PlannedStep, ...], Meta(min_length=1, max_length=32)]
    planner: Planner
    reason: Sentence


class ChainHead(Value, frozen=True, kw_only=True):
    """Where one writer's chain in this run stood: its length and the digest of its last record."""

    agent: Name
    count: Count
    digest: Digest


class RunForked(Event, frozen=True, kw_only=True, tag="run.forked.v1"):
    """Somebody wants a run to go on in another way. This is the first word of the new run, in its own stream.

    What stood in the parent up to `at` belongs to the new run by reference: its state is the fold of those records.
    What was asked there and not answered is asked again here, and time and cancellation begin anew.

    Attributes:
        parent: The run that is forked; it may be a fork itself.
        at: The last record of the parent, in the order of the log, that belongs to the new run.
        chains: The heads of the parent's chains there, by agent name.
        root: SHA-256 over `chains`, as in `run.closed`.
        without: A record of the parent that does not belong to the new run, nor what descends from it; None for all.
        supersedes: The parent's result is void; this run takes its place.
        options: The limits and permissions from here on; None for those of the parent.
        models: The models from here on; empty for those of the parent.
        specialists: Those that take the place of the parent's of the same name.
        request: The request from here on, when there is no plan yet; None for that of the parent.
        steps: Those that take the place of the parent's steps of the same number.
        reason: What is different, for people.
    """

    parent: AnyStreamId
    at: AnyEventId
    chains: tuple[ChainHead, ...]
    root: Digest
    without: AnyEventId | None = None
    supersedes: bool = False
    options: RunOptions | None = None
    models: Annotated[tuple[ModelChoice, ...], Meta(max_length=50)] = ()
    specialists: Annotated[tuple[SpecialistRef, ...], Meta(max_length=200)] = ()
    request: Request | None = None
    steps: Annotated[tuple[PlannedStep, ...], Meta(max_length=32)] = ()
    reason: Sentence = ""


class RunCancelRequested(Event, frozen=True, kw_only=True, tag="run.cancel_requested.v1"):
    """Somebody wants the run to stop."""

    reason: Sentence


class StepResult(Value, frozen=True, kw_only=True):
    """What became of one step."""

    number: StepNumber
    accepted: bool
    attempts: Count
    evidence: AnyEventId | None = None
    code: BlobRef | None = None
    artifacts: tuple[FileRef, ...] = ()
    reason: Sentence = ""


class RunClosed(Event, frozen=True, kw_only=True, tag="run.closed.v1"):
    """The run ended. Only late outcomes follow.

    Attributes:
        status: How.
        reason: Why, in one sentence.
        results: One per planned step.
        tokens: Generated in all.
        records: How many records of this run the orchestrator has seen and written before this one.
        chains: The head of each writer's chain, by agent name.
        root: SHA-256 over `chains` (agent, count, digest, one line each).
    """

    status: RunStatus
    reason: Sentence
    results: tuple[StepResult, ...]
    tokens: TokenCount
    records: Count
    chains: tuple[ChainHead, ...]
    root: Digest


RunEvent = RunSubmitted | RunForked | RunPlanned | RunCancelRequested | RunClosed
