"""How a fork begins: the state that its parent's records fold to, made the state of a run of its own.

What the parent had asked for and not heard is asked again, by the fork. Wishes take the place of what the parent was
told. A step is begun anew when its words change, when it reads a file that such a step makes, and when it failed and
anything at all is different now; an accepted step that nothing touches stays accepted.
"""

from typing import assert_never

from msgspec.structs import replace

from lumina.agents import planning
from lumina.agents.closing import root_of
from lumina.agents.orchestrator_state import (
    Asking,
    Coded,
    Done,
    Executing,
    PlanAsked,
    PlanOpen,
    Proven,
    Resting,
    RunState,
    Stage,
    Started,
    StepState,
    Validated,
    Validating,
    Waiting,
)
from lumina.agents.step_inputs import feeds
from lumina.agents.step_models import models_for
from lumina.events.base import Event
from lumina.events.record import Head, Recorded
from lumina.events.run import ModelChoice, PlannedStep, RunForked, RunPlanned, RunSubmitted


def forked(state: RunState, recorded: Recorded[Event], *, event: RunForked) -> RunState:
    """Return the state of a fork after its first record; `state` is the fold of what it shares with its parents.

    Tokens go on counting. The chains, the end, a cancellation and the time that has passed are the parent's alone.
    """
    state = replace(
        state,
        heads={recorded.agent: Head(position=recorded.position, digest=recorded.digest)},
        submitted_ms=recorded.time_ms,
        cancelled=None,
        timed_out=False,
        closed=False,
        unfounded=_fault(state, event),
    )
    before = state.submitted
    if before is None or state.unfounded is not None:
        return state
    submitted = _overridden(before, event)
    different = submitted != before
    state = replace(state, submitted=submitted)
    if state.planned is None:
        again = different or isinstance(state.planning, PlanAsked)
        return replace(state, planning=PlanOpen() if again else state.planning)
    return _planned_anew(state, state.planned, submitted=submitted, event=event, different=different)


def _fault(state: RunState, event: RunForked) -> str | None:
    """Return why nothing can go on from here, None when it can."""
    if (root := root_of(event.chains)) != event.root:
        return f"the root of the chains that it names is {root}, not {event.root}"
    submitted = state.submitted
    if submitted is None:
        return (
            f"{event.parent} has no record {event.at} before this one that a run could go on from, or there its chains "
            "are others than those named"
        )
    if state.planned is None:
        return "there is no plan yet whose steps could be replaced" if event.steps else None
    if event.request is not None:
        return "the request is planned already; replace a step of the plan instead"
    numbers = {step.number for step in state.planned.steps}
    names = {specialist.name for specialist in submitted.specialists}
    for step in event.steps:
        if step.number not in numbers:
            return f"the plan has no step {step.number}; it has {len(numbers)}"
        if step.specialist not in names:
            return f"no specialist of the run is called {step.specialist!r}, whom step {step.number} names"
    return _excess(state, submitted, event=event)


def _excess(state: RunState, submitted: RunSubmitted, *, event: RunForked) -> str | None:
    """Return what is too large to be asked in a run that is planned already; for any other, the planner looks.

    A step that is the parent's, by a specialist that is, too, has been asked for there: it is not measured.
    """
    wanted = _overridden(submitted, event)
    if (why := planning.excess(wanted)) is not None:
        return why
    named = {specialist.name: specialist for specialist in wanted.specialists}
    replaced = {step.number: step for step in event.steps}
    for step in state.steps:
        words = replaced.get(step.planned.number, step.planned)
        specialist = named[words.specialist]
        if words == step.planned and specialist == step.specialist:
            continue
        if (why := planning.step_excess(words, specialist=specialist)) is not None:
            return why
    return None


def _overridden(submitted: RunSubmitted, event: RunForked) -> RunSubmitted:
    """Return what is asked from here on."""
    named = {specialist.name: specialist for specialist in event.specialists}
    return replace(
        submitted,
        request=submitted.request if event.request is None else event.request,
        options=submitted.options if event.options is None else event.options,
        models=event.models or submitted.models,
        specialists=tuple(named.get(specialist.name, specialist) for specialist in submitted.specialists),
    )


def _planned_anew(
    state: RunState, planned: RunPlanned, *, submitted: RunSubmitted, event: RunForked, different: bool
) -> RunState:
    """Return the state with every step as the fork takes it over."""
    named = {specialist.name: specialist for specialist in submitted.specialists}
    replaced = {step.number: step for step in event.steps}
    begun_anew: list[PlannedStep] = []
    steps: list[StepState] = []
    for step in state.steps:
        words = replaced.get(step.planned.number, step.planned)
        fresh = StepState(
            planned=words,
            specialist=named[words.specialist],
            models=models_for(named[words.specialist], submitted=submitted),
        )
        failed = isinstance(step.stage, Done) and not step.stage.result.accepted
        if words != step.planned or (failed and different) or any(feeds(each, words) for each in begun_anew):
            begun_anew += [step.planned, words]
            steps.append(fresh)
        else:
            steps.append(_taken_over(step, fresh=fresh))
    return replace(state, planned=replace(planned, steps=tuple(step.planned for step in steps)), steps=tuple(steps))


def _taken_over(step: StepState, *, fresh: StepState) -> StepState:
    """Return a step that goes on where it stood, with the specialist and the models of `fresh`."""
    rungs = step.model + 1
    same_ladder = _names(fresh.models[:rungs]) == _names(step.models[:rungs])
    after = replace(step, specialist=fresh.specialist, models=fresh.models, stage=_asked_again(step.stage))
    if same_ladder or step.rung is None:
        return after
    after = replace(after, model=0, repairs=0, samples=0, outages=0)  # up a new ladder, from its first rung
    match step.stage:
        case Started() | Asking():
            return replace(after, attempts=step.attempts - 1, stage=Resting())
        case Resting() | Waiting():
            return replace(after, stage=Resting())
        case _:
            return after  # there is code already; it is judged, whoever wrote it


def _names(models: tuple[ModelChoice, ...]) -> list[str]:
    return [choice.model for choice in models]


def _asked_again(stage: Stage) -> Stage:
    """Return the stage before the question that nobody will answer to the fork."""
    match stage:
        case Asking(mend=mend):
            return Started(mend=mend)
        case Validating(code=code, tries=tries):
            return Coded(code=code, tries=tries)
        case Executing(code=code, validation=validation, tries=tries):
            return Validated(code=code, validation=validation, tries=tries)
        case Waiting(after=after):
            return Resting(after=after)
        case Resting() | Started() | Coded() | Validated() | Proven() | Done():
            return stage
        case _:
            assert_never(stage)
