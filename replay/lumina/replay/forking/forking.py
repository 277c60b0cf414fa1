"""Makes the first record of a fork from what somebody wishes, and says what would follow from it. Nothing is written.

A wish that can't be fulfilled, or would change nothing, is a `ForkProblem` in one sentence.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from lumina.agents.closing import root_of, sentence
from lumina.agents.contracts import contract_for
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.orchestrator_state import (
    Asking,
    Done,
    Executing,
    RunState,
    StepState,
    Validating,
    step_numbered,
)
from lumina.agents.ports import Answer
from lumina.agents.step_inputs import inputs_for
from lumina.events.base import Event
from lumina.events.contract import Form
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Head, Recorded, chain
from lumina.events.run import ModelChoice, PlannedStep, RunForked, RunOptions, RunSubmitted
from lumina.events.values import REQUEST_CHARACTERS_MAX, BlobRef, FileRef
from lumina.replay.errors import ForkProblem
from lumina.replay.forking.places import Place
from lumina.replay.forking.roles import with_roles
from lumina.replay.verifying.integrity import blob_refs

FORK_SLOT: Final = "run.forked"
"""Names the slot of a fork's first record in its stream."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different from the place on.

    Attributes:
        models: The models, best first; empty to leave them.
        roles: A model for `planner`, for `specialist` (all of them), or for a specialist by name or kind.
        offered: What the node offers, by name, for the models that `roles` names.
        options: Fields of `RunOptions` with their new values, not yet checked.
        hosts: Those of the pages that the new brief names; naming a page is the permission to fetch it.
        brief: The words of a step, or of the request when there is no plan.
        step: Whose words; None for the step that is under way.
    """

    models: tuple[ModelChoice, ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    offered: Mapping[str, ModelChoice] = {}
    options: Mapping[str, Any] = {}
    hosts: tuple[str, ...] = ()
    brief: str | None = None
    step: int | None = None


class StepFate(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a step in a fork, in words."""

    number: int
    kind: str
    fate: str


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What a fork does first.

    Attributes:
        request: What the run is about.
        steps: What becomes of each step; empty when there is no plan yet.
        decisions: What the orchestrator says right after the fork's first record.
        step: Number of the step that is under way then; None when none is.
        files: What lies beside that step's program, as the sandbox gets it.
        blobs: All that the shared records and those files name, once each.
    """

    request: str
    steps: tuple[StepFate, ...]
    decisions: tuple[Recorded[Event], ...]
    step: int | None
    files: tuple[FileRef, ...]
    blobs: tuple[BlobRef, ...]


def state_at(place: Place, *, stream: StreamId) -> RunState:
    """Return the run as it stood at a place, as the state of the run `stream`."""
    orchestrator = Orchestrator()
    state = orchestrator.initial(stream)
    for recorded in place.history:
        state = orchestrator.evolve(state, recorded)
    return state


def compose(place: Place, wishes: Wishes) -> RunForked:
    """Return the first word of a fork. Raises ForkProblem for a wish that can't be fulfilled."""
    state = state_at(place, stream=place.parent)
    submitted = state.submitted
    assert submitted is not None, "a place has a submission in its history"
    said: list[str] = []
    options = _options(submitted, wishes, state=state, said=said)
    models, specialists = with_roles(
        submitted, models=wishes.models, roles=wishes.roles, offered=wishes.offered, planned=state.planned is not None
    )
    away = [choice.model for choice in models if choice.cloud and choice not in submitted.models]
    if away and not (options or submitted.options).cloud:
        names = ", ".join(away)
        raise ForkProblem(
            f"{names}: on machines of others, where your request would go; permit that with --set cloud=yes"
        )
    if models:
        said.append(f"models {', '.join(choice.model for choice in models)}")
    said += [f"{role} by {model}" for role, model in wishes.roles]
    request, steps = _words(state, submitted, wishes, said=said)
    return RunForked(
        parent=place.parent,
        at=place.at.id,
        chains=place.chains,
        root=root_of(place.chains),
        without=place.without,
        options=options,
        models=models,
        specialists=specialists,
        request=request,
        steps=steps,
        reason=sentence("; ".join((f"from record {place.at.seq}", *said))),
    )


def compose_without(place: Place, gone: Recorded[Event]) -> RunForked:
    """Return the first word of the run that takes the place of another one, without one record and what follows it."""
    return RunForked(
        parent=place.parent,
        at=place.at.id,
        chains=place.chains,
        root=root_of(place.chains),
        without=gone.id,
        supersedes=True,
        reason=sentence(f"without record {gone.seq} ({gone.type} by {gone.agent}) and all that descends from it"),
    )


def draft_fork(event: RunForked, *, stream: StreamId, time_ms: int) -> Draft[RunForked]:
    """Return the record of a fork as its client writes it."""
    slot = root_event_id(stream, name=FORK_SLOT)
    return Draft(event=event, id=slot, stream=stream, agent="client", time_ms=time_ms, causation=None)


def rehearse(place: Place, event: RunForked, *, stream: StreamId, time_ms: int) -> Rehearsal:
    """Return what the orchestrator makes of a fork: the real one decides."""
    orchestrator = Orchestrator()
    before = state_at(place, stream=stream)
    recorded, _ = chain(draft_fork(event, stream=stream, time_ms=time_ms), after=Head())
    after = orchestrator.evolve(before, recorded)
    files = sandbox_files(after)
    step = under_way(after)
    named = [ref for each in place.history for ref in blob_refs(each.event)] + [file.blob for file in files]
    return Rehearsal(
        request="" if after.submitted is None else after.submitted.request,
        steps=tuple(fate_of(step, was=step_numbered(before, step.planned.number)) for step in after.steps),
        decisions=tuple(_written(answer) for answer in orchestrator.decide(after, recorded)),
        step=None if step is None else step.planned.number,
        files=files,
        blobs=tuple({ref.digest: ref for ref in named}.values()),
    )


def fate_of(step: StepState, *, was: StepState | None) -> StepFate:
    """Return what a fork makes of a step that stood as `was`."""
    return StepFate(number=step.planned.number, kind=step.planned.kind, fate=_fate(step, was=was))


def _fate(step: StepState, *, was: StepState | None) -> str:
    if isinstance(step.stage, Done):
        return "accepted, kept" if step.stage.result.accepted else "failed, kept"
    if was is None or was.rung is None:
        return "not begun"
    if step.rung is None or step.attempts < was.attempts:
        return "begun anew"
    match was.stage:
        case Asking():
            return "goes on: the model is asked again"
        case Validating():
            return "goes on: the validator is asked again"
        case Executing():
            return "goes on: the sandbox is asked again"
        case _:
            return "goes on"


def _written(answer: Answer) -> Recorded[Event]:
    assert answer.written is not None, "the orchestrator chains what it says itself"
    return answer.written


def sandbox_files(state: RunState) -> tuple[FileRef, ...]:
    """Return the files that lie beside the program of the step under way; empty when none is."""
    step = under_way(state)
    if step is None or state.submitted is None:
        return ()
    return inputs_for(step.planned, submitted=state.submitted, steps=state.steps).files


def under_way(state: RunState) -> StepState | None:
    """Return the first step that has not ended, None when there is no plan or all have."""
    return next((step for step in state.steps if not isinstance(step.stage, Done)), None)


def _options(submitted: RunSubmitted, wishes: Wishes, *, state: RunState, said: list[str]) -> RunOptions | None:
    """Return the options from here on, None for those of the parent."""
    fields = {**msgspec.to_builtins(submitted.options), **wishes.options}
    fields["hosts"] = list(dict.fromkeys((*fields.get("hosts", ()), *wishes.hosts)))
    try:
        options = msgspec.convert(fields, RunOptions)
    except msgspec.ValidationError as error:
        words, _, path = str(error).rpartition(" - at `$.")
        said_wrong = f"{path.rstrip('`')}: {words[:1].lower()}{words[1:]}" if words else str(error)
        raise ForkProblem(said_wrong) from error
    if state.planned is not None and (options.kind, options.plan) != (submitted.options.kind, submitted.options.plan):
        raise ForkProblem("the plan is made already, so its kinds are settled; fork at a record before run.planned")
    kinds = sorted({specialist.kind for specialist in submitted.specialists})
    if options.kind is not None and options.kind not in kinds:
        raise ForkProblem(f"no specialist of the run answers the kind {options.kind!r}; these do: {', '.join(kinds)}")
    for name in dict.fromkeys((*wishes.options, "hosts")):
        old, new = getattr(submitted.options, name), getattr(options, name)
        if old != new:
            said.append(f"{name} {_plain(old)} → {_plain(new)}")
    return None if options == submitted.options else options


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value).lower()


def _words(
    state: RunState, submitted: RunSubmitted, wishes: Wishes, *, said: list[str]
) -> tuple[str | None, tuple[PlannedStep, ...]]:
    """Return the new request or the new step, of which there is one at most."""
    if wishes.brief is None:
        if wishes.step is not None:
            raise ForkProblem("--step says which brief is edited; say how with --edit-brief")
        return None, ()
    brief = wishes.brief.strip()
    if not brief:
        raise ForkProblem("the new brief is empty; say what to do")
    if state.planned is None:
        if wishes.step is not None:
            raise ForkProblem("there is no plan yet; leave --step out to edit the request")
        said.append("another request")
        return _checked_request(brief), ()
    step = _step_to_edit(state, wishes.step)
    planned = step.planned
    cases = submitted.cases if step.specialist.form is Form.FUNCTION else ()
    try:
        contract = contract_for(brief, specialist=step.specialist, cases=cases)
        said.append(f"another brief for step {planned.number}")
        return None, (replace(planned, brief=brief, contract=contract),)
    except msgspec.ValidationError as error:
        raise ForkProblem(f"the new brief can't be a step's: {error}") from error


def _checked_request(brief: str) -> str:
    if len(brief) > REQUEST_CHARACTERS_MAX:
        raise ForkProblem(f"the new request has {len(brief):,} characters, {REQUEST_CHARACTERS_MAX:,} are allowed")
    return brief


def _step_to_edit(state: RunState, number: int | None) -> StepState:
    numbers = ", ".join(str(step.planned.number) for step in state.steps)
    if number is None:
        step = under_way(state)
        if step is None:
            raise ForkProblem(f"every step had ended there; say which one to edit with --step: {numbers}")
        return step
    for step in state.steps:
        if step.planned.number == number:
            return step
    raise ForkProblem(f"the plan has no step {number}; its steps are {numbers}")
