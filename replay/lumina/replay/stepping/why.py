"""Why a record was written: the rule that it follows from, and the reason that it gives in its own words. Pure."""

from typing import assert_never, cast

import msgspec

from lumina.events.base import Event
from lumina.events.catalogue import AnyEvent
from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.generation import GenerationFinished, GenerationRequested, Purpose
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.node import ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The rule is always there; the reason is empty where the event has none."""

    rule: str
    reason: str = ""


def why(event: Event) -> Why:
    """Return the rule and the reason of an event."""
    return Why(rule=_rule(cast("AnyEvent", event)), reason=_reason(cast("AnyEvent", event)))


def _rule(event: AnyEvent) -> str:  # noqa: C901, PLR0912 - one branch per event type
    match event:
        case RunSubmitted() | RunForked() | RunCancelRequested():
            return "from outside: somebody asked for it"
        case NodeAnnounced():
            return "from outside: what a machine offers"
        case TimerElapsed():
            return "from outside: a deadline that a keeper waited for has come"
        case RunPlanned(planner=planner):
            return f"a request without a plan is planned ({planner.value})"
        case RunClosed(status=status):
            return f"when no step is left, or nothing more may be done, the run is closed ({status.value})"
        case AttemptStarted(rung=rung):
            return f"a step that rests climbs the ladder ({rung.value})"
        case StepAccepted():
            return "one code digest that passed validation and execution is accepted"
        case StepFailed(refused=refused):
            return "a step that no part can serve is refused" if refused else "a step without a rung left fails"
        case GenerationRequested(ask=ask):
            return (
                "a plan is asked for"
                if ask.purpose is Purpose.PLAN
                else f"an attempt asks its model ({ask.purpose.value})"
            )
        case ValidationRequested():
            return "code that a model wrote is validated"
        case ExecutionRequested():
            return "code that passed validation is executed"
        case LeaseGranted(load=load):
            return f"a request that fits is granted an instance ({'load it' if load else 'it is resident'})"
        case LeaseRefused(refusal=refusal):
            return f"what can't be served is refused ({refusal.value})"
        case LeaseReleased():
            return "a lease whose outcome is there, or whose run has ended, is given back"
        case LeaseExpired():
            return "a lease that ran out is void"
        case UnloadRequested(reason=reason):
            return f"an instance has to go ({reason.value})"
        case GenerationFinished(outcome=outcome):
            return f"concluded from what the model returned ({outcome.value})"
        case ValidationFinished(verdict=verdict):
            return f"concluded from what the tools returned ({verdict.value})"
        case ExecutionFinished(verdict=result):
            return f"concluded from what the run returned ({result.value})"
        case ModelUnloaded(was_loaded=was_loaded):
            return f"concluded from the end of a model process ({'it was loaded' if was_loaded else 'there was none'})"
        case _:
            assert_never(event)


def _reason(event: AnyEvent) -> str:
    match event:
        case RunPlanned(reason=reason, steps=steps):
            return "; ".join([reason, *(f"step {step.number} {step.kind}: {step.rule}" for step in steps)])
        case StepAccepted(validation=validation, execution=execution):
            return f"validation {validation} and execution {execution} speak for it"
        case (
            RunForked(reason=reason)
            | RunCancelRequested(reason=reason)
            | RunClosed(reason=reason)
            | AttemptStarted(reason=reason)
            | StepFailed(reason=reason)
            | LeaseGranted(reason=reason)
            | LeaseReleased(reason=reason)
            | LeaseExpired(reason=reason)
        ):
            return reason
        case (
            LeaseRefused(detail=detail)
            | UnloadRequested(detail=detail)
            | GenerationFinished(detail=detail)
            | ValidationFinished(detail=detail)
            | ExecutionFinished(detail=detail)
        ):
            return detail
        case (
            RunSubmitted()
            | NodeAnnounced()
            | TimerElapsed()
            | GenerationRequested()
            | ValidationRequested()
            | ExecutionRequested()
            | ModelUnloaded()
        ):
            return ""
        case _:
            assert_never(event)
