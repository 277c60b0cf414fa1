"""How each record moves the orchestrator's picture of a run. Nothing here refuses, nothing here decides.

An outcome counts only for the request that is outstanding; a late one leaves its mark on the chain heads and on the
token count, and nowhere else.
"""

from typing import Final, assert_never, cast

from msgspec.structs import replace

from lumina.agents import ladder
from lumina.agents.feedback import execution_trouble, validation_trouble
from lumina.agents.orchestrator_forks import forked
from lumina.agents.orchestrator_state import (
    PLAN_TIMER,
    RUN_TIMER,
    Asking,
    Coded,
    Done,
    Executing,
    PlanAnswered,
    PlanAsked,
    PlanMissed,
    Proven,
    Resting,
    RunState,
    Stage,
    Started,
    StepState,
    Trouble,
    TroubleKind,
    Validated,
    Validating,
    Waiting,
    run_due,
    step_numbered,
    with_step,
)
from lumina.agents.step_models import models_for
from lumina.events.base import Event
from lumina.events.catalogue import AnyEvent
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, GenerationRequested, Purpose
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased, Refusal
from lumina.events.node import ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import Head, Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunPlanned, RunSubmitted, StepResult
from lumina.events.step import AttemptStarted, Rung, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef

LEASE_SLACK_MS: Final = 30_000
"""How long after a lease's end its outcome may still come; the governor has spoken long before."""
WORKER_SLACK_MS: Final = 120_000
"""What a validator or sandbox may take beyond its own limits: pages, its queue, and the start of another instance."""
CHECK_TRIES_MAX: Final = 2
"""How often one code is handed to a validator or a sandbox that breaks."""

_ANSWERS: Final = (GenerationOutcome.ANSWERED, GenerationOutcome.UNUSABLE, GenerationOutcome.LENGTH)


def evolve(state: RunState, recorded: Recorded[Event]) -> RunState:
    """Return `state` after `recorded`."""
    head = Head(position=recorded.position, digest=recorded.digest)
    state = replace(state, heads={**state.heads, recorded.agent: head})
    event = cast("AnyEvent", recorded.event)
    match event:
        case RunSubmitted() | RunForked():
            return _begun(state, recorded, event=event)
        case RunPlanned():
            return _planned(state, event)
        case RunCancelRequested():
            return replace(state, cancelled=event.reason)
        case RunClosed():
            return replace(state, closed=True)
        case AttemptStarted() | StepAccepted() | StepFailed():
            step = step_numbered(state, event.step)
            return state if step is None else with_step(state, _moved(step, event))
        case GenerationRequested() | ValidationRequested() | ExecutionRequested():
            return _requested(state, recorded)
        case GenerationFinished():
            state = replace(state, tokens=state.tokens + event.usage.generated_tokens)
            return _plan_made(state, event) if event.step == 0 else _generated(state, recorded, event)
        case ValidationFinished() | ExecutionFinished():
            return _checked(state, recorded, event)
        case LeaseGranted() | LeaseRefused() | LeaseExpired():
            return _leased(state, recorded, event)
        case TimerElapsed():
            return _elapsed(state, recorded, event)
        case LeaseReleased() | NodeAnnounced() | UnloadRequested() | ModelUnloaded():
            return state
        case _:
            assert_never(event)


def _begun(state: RunState, recorded: Recorded[Event], *, event: RunSubmitted | RunForked) -> RunState:
    if recorded.position > 1:
        return state  # a run begins once, with its client's first word; after its end it does not begin again
    if isinstance(event, RunForked):
        return forked(state, recorded, event=event)
    return replace(state, submitted=event, submitted_ms=recorded.time_ms)


def _planned(state: RunState, event: RunPlanned) -> RunState:
    submitted = state.submitted
    if submitted is None:
        return state
    named = {specialist.name: specialist for specialist in submitted.specialists}
    steps = tuple(
        StepState(
            planned=step,
            specialist=named[step.specialist],
            models=models_for(named[step.specialist], submitted=submitted),
        )
        for step in event.steps
    )
    return replace(state, planned=event, steps=steps)


def _moved(step: StepState, event: AttemptStarted | StepAccepted | StepFailed) -> StepState:
    """Return the step after one of the orchestrator's own words about it."""
    match event:
        case AttemptStarted():
            return _started(step, event)
        case StepAccepted():
            result = StepResult(
                number=event.step,
                accepted=True,
                attempts=event.attempt,
                evidence=event.execution,
                code=event.code,
                artifacts=event.artifacts,
            )
            return replace(step, stage=Done(result=result))
        case StepFailed():
            result = StepResult(number=event.step, accepted=False, attempts=event.attempts or 0, reason=event.reason)
            return replace(step, stage=Done(result=result, refused=event.refused))
        case _:
            assert_never(event)


def _started(step: StepState, event: AttemptStarted) -> StepState:
    model = next((index for index, choice in enumerate(step.models) if choice.model == event.model), step.model)
    after = step.stage.after if isinstance(step.stage, Resting) else None
    again = after is not None and after.kind is TroubleKind.OUTAGE and model == step.model
    mend = after.mended if after is not None and again else after
    if model != step.model:
        step = replace(step, repairs=0, samples=0, outages=0)
    return replace(
        step,
        model=model,
        rung=event.rung,
        attempts=event.attempt,
        repairs=step.repairs + (event.rung is Rung.REPAIR and not again),
        samples=step.samples + (event.rung is Rung.SAMPLE and not again),
        stage=Started(mend=mend if event.rung is Rung.REPAIR else None),
    )


def _requested(state: RunState, recorded: Recorded[Event]) -> RunState:
    """Note which request is outstanding from now on."""
    event = recorded.event
    if isinstance(event, GenerationRequested) and event.ask.purpose is Purpose.PLAN:
        return replace(state, planning=PlanAsked(request=recorded.id, timeout_ms=event.ask.timeout_ms))
    assert isinstance(event, GenerationRequested | ValidationRequested | ExecutionRequested)
    step = step_numbered(state, event.ask.step if isinstance(event, GenerationRequested) else event.step)
    if step is None:
        return state
    stage: Stage = step.stage
    match event, stage:
        case GenerationRequested(), Started(mend=mend):
            stage = Asking(request=recorded.id, timeout_ms=event.ask.timeout_ms, mend=mend)
        case ValidationRequested(), Coded(code=code, tries=tries):
            due = recorded.time_ms + event.timeout_ms * max(1, len(event.tools)) + WORKER_SLACK_MS
            stage = Validating(request=recorded.id, code=code, tries=tries, due=due)
        case ExecutionRequested(), Validated(code=code, validation=validation, tries=tries):
            due = recorded.time_ms + 2 * event.limits.wall_ms + WORKER_SLACK_MS  # a timeline is run, then played
            stage = Executing(request=recorded.id, code=code, validation=validation, tries=tries, due=due)
        case _:
            pass  # its step has moved on, which only happens when a record is folded out of its place
    return with_step(state, replace(step, stage=stage))


def _plan_made(state: RunState, event: GenerationFinished) -> RunState:
    if not isinstance(state.planning, PlanAsked) or state.planning.request != event.request:
        return state
    if event.outcome is GenerationOutcome.ANSWERED and event.plan:
        return replace(state, planning=PlanAnswered(items=event.plan, model=event.model))
    reason = event.detail or f"its answer was {event.outcome.value.replace('_', ' ')}"
    return replace(state, planning=PlanMissed(reason=reason))


def _generated(state: RunState, recorded: Recorded[Event], event: GenerationFinished) -> RunState:
    step = step_numbered(state, event.step)
    if step is None or not isinstance(step.stage, Asking) or step.stage.request != event.request:
        return state
    mend = step.stage.mend
    step = replace(step, answered=step.answered or event.outcome in _ANSWERS)
    detail = event.detail or f"the model's answer was {event.outcome.value.replace('_', ' ')}"
    match event.outcome:
        case GenerationOutcome.ANSWERED if event.code is not None:
            step = _coded(replace(step, outages=0), event.code)
        case GenerationOutcome.ANSWERED | GenerationOutcome.UNUSABLE | GenerationOutcome.LENGTH:
            step = _rest(replace(step, outages=0), TroubleKind.NO_CODE, reason=detail)
        case GenerationOutcome.DOES_NOT_FIT:
            # With the faulty code in it a prompt is longer: then only the repair is out of reach, not the model.
            kind = TroubleKind.UNFIT if mend is None else TroubleKind.NO_CODE
            step = _rest(step, kind, reason=detail)
        case GenerationOutcome.TIMED_OUT | GenerationOutcome.UNAVAILABLE | GenerationOutcome.GARBAGE:
            step = _outage(step, reason=detail, now_ms=recorded.time_ms, mend=mend)
        case _:
            assert_never(event.outcome)
    return with_step(state, step)


def _coded(step: StepState, code: BlobRef) -> StepState:
    if code.digest in step.seen:
        return _rest(step, TroubleKind.REPEATED, reason="the model gave the same code as in an earlier attempt")
    return replace(step, stage=Coded(code=code), seen=(*step.seen, code.digest))


def _checked(state: RunState, recorded: Recorded[Event], event: ValidationFinished | ExecutionFinished) -> RunState:
    """Fold the outcome of the validator or of the sandbox."""
    step = step_numbered(state, event.step)
    if step is None:
        return state
    match event, step.stage:
        case ValidationFinished(), Validating() as asked if asked.request == event.request:
            step = _validation_finished(step, asked, recorded=recorded, event=event)
        case ExecutionFinished(), Executing() as asked if asked.request == event.request:
            step = _execution_finished(step, asked, recorded=recorded, event=event)
        case _:
            return state
    return with_step(state, step)


def _validation_finished(
    step: StepState, asked: Validating, *, recorded: Recorded[Event], event: ValidationFinished
) -> StepState:
    if event.code != asked.code.digest:
        return _broken(step, reason="the validator spoke about another code than it was asked about")
    match event.verdict:
        case ValidationVerdict.PASSED:
            return replace(step, stage=Validated(code=asked.code, validation=recorded.id))
        case ValidationVerdict.FAILED:
            return replace(step, stage=Resting(after=validation_trouble(event, code=asked.code)))
        case ValidationVerdict.ERROR:
            return _broken(step, reason=f"the validator does not work: {event.detail or 'no details'}")
        case _:
            assert_never(event.verdict)


def _execution_finished(
    step: StepState, asked: Executing, *, recorded: Recorded[Event], event: ExecutionFinished
) -> StepState:
    if event.code != asked.code.digest:
        return _broken(step, reason="the sandbox ran another code than it was asked to run")
    match event.verdict:
        case ExecutionVerdict.PASSED:
            proven = Proven(
                code=asked.code, validation=asked.validation, execution=recorded.id, artifacts=event.artifacts
            )
            return replace(step, stage=proven)
        case (
            ExecutionVerdict.FAILED
            | ExecutionVerdict.TIMED_OUT
            | ExecutionVerdict.OUT_OF_MEMORY
            | ExecutionVerdict.OUTPUT_LIMIT
        ):
            return replace(step, stage=Resting(after=execution_trouble(event, code=asked.code)))
        case ExecutionVerdict.REFUSED:
            return _rest(step, TroubleKind.BLOCKED, reason=event.detail or "the sandbox refused to run it")
        case ExecutionVerdict.UNAVAILABLE:
            return _broken(step, reason=f"the program could not be run: {event.detail or 'the sandbox does not work'}")
        case _:
            assert_never(event.verdict)


def _leased(state: RunState, recorded: Recorded[Event], event: LeaseGranted | LeaseRefused | LeaseExpired) -> RunState:
    """Fold what the governor says about an outstanding question to a model."""
    due = None
    if isinstance(event, LeaseGranted):
        due = max(event.expires_at, recorded.time_ms + event.ask.timeout_ms) + LEASE_SLACK_MS
    planning = state.planning
    if isinstance(planning, PlanAsked) and planning.request == event.request:
        if isinstance(event, LeaseRefused):
            return replace(state, planning=PlanMissed(reason=event.detail or event.refusal.value))
        if isinstance(event, LeaseExpired):
            return replace(state, planning=PlanMissed(reason="the model did not answer in time"))
        return replace(state, planning=replace(planning, due=due))
    for step in state.steps:
        if isinstance(step.stage, Asking) and step.stage.request == event.request:
            if isinstance(event, LeaseGranted):
                return with_step(state, replace(step, stage=replace(step.stage, due=due)))
            if isinstance(event, LeaseExpired):  # nobody answers this request any more
                reason = event.reason or "the model did not answer in time"
                return with_step(state, _outage(step, reason=reason, now_ms=recorded.time_ms, mend=step.stage.mend))
            reason = event.detail or f"the model was not admitted: {event.refusal.value.replace('_', ' ')}"
            if event.refusal is Refusal.QUEUE_FULL:
                return with_step(state, _outage(step, reason=reason, now_ms=recorded.time_ms, mend=step.stage.mend))
            return with_step(state, _rest(step, TroubleKind.UNFIT, reason=reason))
    return state


def _elapsed(state: RunState, recorded: Recorded[Event], event: TimerElapsed) -> RunState:
    """Fold that a moment has come; one that nobody waits for any more changes nothing."""
    if event.timer == RUN_TIMER:
        return replace(state, timed_out=state.timed_out or event.due == run_due(state))
    if event.timer == PLAN_TIMER and isinstance(state.planning, PlanAsked) and state.planning.due == event.due:
        return replace(state, planning=PlanMissed(reason="the model did not answer in time"))
    for step in state.steps:
        if step.timer != event.timer:
            continue
        match step.stage:
            case Waiting(after=after, due=due) if due == event.due:
                return with_step(state, replace(step, stage=Resting(after=after)))
            case Asking(due=due, mend=mend) if due == event.due:
                reason = "the model's worker did not answer in time"
                return with_step(state, _outage(step, reason=reason, now_ms=recorded.time_ms, mend=mend))
            case Validating(due=due) if due == event.due:
                return with_step(state, _broken(step, reason="the validator did not answer in time"))
            case Executing(due=due) if due == event.due:
                return with_step(state, _broken(step, reason="the sandbox did not answer in time"))
            case _:
                return state
    return state


def _rest(step: StepState, kind: TroubleKind, *, reason: str) -> StepState:
    return replace(step, stage=Resting(after=Trouble(kind=kind, reason=reason)))


def _outage(step: StepState, *, reason: str, now_ms: int, mend: Trouble | None) -> StepState:
    """Wait before the same is tried again, or rest when this model had its tries."""
    outages = step.outages + 1
    after = Trouble(kind=TroubleKind.OUTAGE, reason=reason, mended=mend)
    step = replace(step, outages=outages)
    if outages > ladder.OUTAGE_RETRIES_MAX:
        return replace(step, stage=Resting(after=after))
    return replace(step, stage=Waiting(after=after, due=now_ms + ladder.pause_ms(outages)))


def _broken(step: StepState, *, reason: str) -> StepState:
    """Hand the same code over once more, then block: a validator or sandbox broke, not the code. Never a pass."""
    match step.stage:
        case Validating(code=code, tries=tries) if tries < CHECK_TRIES_MAX:
            return replace(step, stage=Coded(code=code, tries=tries + 1))
        case Executing(code=code, validation=validation, tries=tries) if tries < CHECK_TRIES_MAX:
            return replace(step, stage=Validated(code=code, validation=validation, tries=tries + 1))
        case _:
            return _rest(step, TroubleKind.BLOCKED, reason=reason)
