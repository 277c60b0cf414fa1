"""Each record as one plain sentence: who said it, what they knew, and what they decided. Pure.

`words.say` says the same in fewer words, for lines of a log; here the reasons are told with it.
"""

from typing import assert_never, cast

from lumina.events.base import Event
from lumina.events.catalogue import AnyEvent
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, GenerationRequested, Purpose
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.node import ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.replay.explaining.evidence import first_error
from lumina.replay.words import finding_line, shorten, size, speed

REQUEST_CHARACTERS_MAX = 200
FAULT_CHARACTERS_MAX = 240


def tell(recorded: Recorded[Event]) -> str:
    """Return what a record says, with what its writer knew."""
    event = cast("AnyEvent", recorded.event)
    match event:
        case RunSubmitted() | RunForked() | RunPlanned() | RunCancelRequested() | RunClosed():
            return _run(event)
        case AttemptStarted() | StepAccepted() | StepFailed():
            return _step(event)
        case GenerationRequested() | GenerationFinished():
            return _generation(event)
        case LeaseGranted() | LeaseRefused() | LeaseReleased() | LeaseExpired():
            return _lease(event)
        case ValidationRequested() | ValidationFinished():
            return _validation(event)
        case ExecutionRequested() | ExecutionFinished():
            return _execution(event)
        case NodeAnnounced() | UnloadRequested() | ModelUnloaded():
            return _node(event)
        case TimerElapsed(timer=timer):
            return f"the deadline {timer!r} came, and nothing had made it void"
        case _:
            assert_never(event)


def _run(event: RunSubmitted | RunForked | RunPlanned | RunCancelRequested | RunClosed) -> str:
    match event:
        case RunSubmitted():
            models = ", ".join(choice.model for choice in event.models) or "no model"
            limits = f"{event.options.attempts_max} attempts per step, {event.options.timeout_ms / 1000:g} s"
            return f"somebody asked: {shorten(event.request, limit=REQUEST_CHARACTERS_MAX)} (with {models}; {limits})"
        case RunForked():
            what = "in place of it" if event.supersedes else "beside it"
            return f"somebody wanted {event.parent} to go on in another way, {what}: {event.reason or 'as it was'}"
        case RunPlanned():
            steps = ", ".join(f"{step.number} {step.kind} by {step.specialist}" for step in event.steps)
            return f"the orchestrator planned by {event.planner.value}: {steps}, since {event.reason}"
        case RunCancelRequested():
            return f"somebody asked the run to stop: {event.reason}"
        case RunClosed():
            return f"the orchestrator closed the run as {event.status.value.replace('_', ' ')}: {event.reason}"
        case _:
            assert_never(event)


def _step(event: AttemptStarted | StepAccepted | StepFailed) -> str:
    match event:
        case AttemptStarted():
            rung = event.rung.value.replace("_", " ")
            which = f"attempt {event.attempt} of {event.attempts_max} at step {event.step}"
            return f"the orchestrator began {which}, {rung} with {event.model}, since: {event.reason}"
        case StepAccepted():
            code = event.code.digest[:12]
            return f"the orchestrator accepted step {event.step}: code {code} passed validation and ran with success"
        case StepFailed():
            return f"the orchestrator {'refused' if event.refused else 'gave up'} step {event.step}: {event.reason}"
        case _:
            assert_never(event)


def _generation(event: GenerationRequested | GenerationFinished) -> str:
    if isinstance(event, GenerationRequested):
        ask = event.ask
        if ask.purpose is Purpose.PLAN:
            return f"the orchestrator asked {ask.model} for a plan"
        told = f"at temperature {ask.sampling.temperature:g}"
        if ask.previous is not None:
            told = f"to mend code {ask.previous.digest[:12]}, telling it: {'; '.join(ask.feedback) or 'nothing'}"
        where = f"step {ask.step} attempt {ask.attempt}"
        return f"the orchestrator asked {ask.model} for code for {where}, {shorten(told, limit=FAULT_CHARACTERS_MAX)}"
    if event.outcome is GenerationOutcome.ANSWERED:
        code = f"code {event.code.digest[:12]}" if event.code is not None else f"a plan of {len(event.plan)} step(s)"
        trimmed = f", after {', '.join(event.usage.trimmed)} was left out to fit" if event.usage.trimmed else ""
        return f"{event.model} answered with {code} ({speed(event.usage)}){trimmed}"
    outcome = event.outcome.value.replace("_", " ")
    return f"{event.model} gave no usable answer ({outcome}): {event.detail or 'no details'}"


def _lease(event: LeaseGranted | LeaseRefused | LeaseReleased | LeaseExpired) -> str:
    match event:
        case LeaseGranted():
            return f"the governor lent {event.instance} on {event.node}: {event.reason or 'it is free'}"
        case LeaseRefused():
            needs = ""
            if event.bytes_needed or event.bytes_max:
                needs = f" (it needs {size(event.bytes_needed)}, there are {size(event.bytes_max)})"
            return f"the governor refused ({event.refusal.value.replace('_', ' ')}): {event.detail}{needs}"
        case LeaseReleased():
            return f"the governor took the lease back: {event.reason or 'it was used'}"
        case LeaseExpired():
            return f"the governor ended a lease that ran out: {event.reason or 'no outcome came'}"
        case _:
            assert_never(event)


def _validation(event: ValidationRequested | ValidationFinished) -> str:
    if isinstance(event, ValidationRequested):
        return f"the orchestrator handed code {event.code.digest[:12]} to {', '.join(event.tools) or 'no tool'}"
    match event.verdict:
        case ValidationVerdict.PASSED:
            return f"the validator passed code {event.code[:12]} with {len(event.findings)} remark(s)"
        case ValidationVerdict.FAILED:
            error = first_error(event)
            fault = event.detail if error is None else finding_line(error)
            return f"the validator rejected code {event.code[:12]}: {shorten(fault, limit=FAULT_CHARACTERS_MAX)}"
        case ValidationVerdict.ERROR:
            return f"the validator itself did not work: {event.detail}"
        case _:
            assert_never(event.verdict)


def _execution(event: ExecutionRequested | ExecutionFinished) -> str:
    if isinstance(event, ExecutionRequested):
        return f"the orchestrator had code {event.code.digest[:12]} run in the {event.tier} sandbox"
    match event.verdict:
        case ExecutionVerdict.PASSED:
            return f"code {event.code[:12]} ran in {event.tier} and met {len(event.checks)} check(s) of its contract"
        case ExecutionVerdict.REFUSED:
            return f"the sandbox refused to run code {event.code[:12]}: {event.detail}"
        case ExecutionVerdict.UNAVAILABLE:
            return f"the sandbox itself did not work: {event.detail}"
        case _:
            failed = next((check for check in event.checks if not check.passed), None)
            last = event.stderr.strip().splitlines()[-1:] or [event.detail]
            fault = last[0] if failed is None else f"{failed.name}: {failed.detail}"
            verdict = event.verdict.value.replace("_", " ")
            told = shorten(fault, limit=FAULT_CHARACTERS_MAX)
            return f"code {event.code[:12]} ran in {event.tier} and {verdict}: {told}"


def _node(event: NodeAnnounced | UnloadRequested | ModelUnloaded) -> str:
    match event:
        case NodeAnnounced():
            models = ", ".join(offer.model for offer in event.models) or "no model"
            return f"node {event.node} announced itself with {models}, within {size(event.bytes_max)}"
        case UnloadRequested():
            return f"the governor wanted {event.instance} to be unloaded ({event.reason.value}): {event.detail}"
        case ModelUnloaded():
            return f"{event.instance} {'was unloaded' if event.was_loaded else 'had not been loaded'}"
        case _:
            assert_never(event)
