"""The orchestrator: plans a request, drives each step up the repair ladder, and closes the run.

`next_fact` looks at the folded state and says the one fact that is missing from the log, or None. `decide` asks it
again and again, each time on the state that holds the answer before. So deciding a record twice adds nothing, and a
late outcome, which changes no stage, is answered by silence.

Steps are done one after the other. A step's outcomes are matched by their request, so several could run at once.
"""

from typing import Final, assert_never

from lumina.agents import closing, ladder, planning
from lumina.agents.orchestrator_fold import evolve
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
    PlanOpen,
    Proven,
    Resting,
    RunState,
    Started,
    StepState,
    Trouble,
    Validated,
    Validating,
    Waiting,
    run_due,
)
from lumina.agents.ports import Answer, Deadline, Origin
from lumina.agents.step_inputs import inputs_for, obstacle
from lumina.agents.step_models import cloud_reason, permitted
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.execution import ExecutionRequested
from lumina.events.generation import Ask, GenerationRequested, Purpose
from lumina.events.ids import StreamId, event_id
from lumina.events.record import Draft, Head, Recorded, chain
from lumina.events.run import RunClosed, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, Rung, StepAccepted, StepFailed
from lumina.events.validation import ValidationRequested

NAME: Final = "orchestrator"
RUN_PREFIX: Final = "r-"
ANSWERS_MAX: Final = 160
"""To one record: each of 32 steps may be tried and given up at once, and then the run is closed."""
MODEL_TIMEOUT_MS: Final = 120_000

OrchestratorEvent = (
    RunPlanned
    | RunClosed
    | AttemptStarted
    | StepAccepted
    | StepFailed
    | GenerationRequested
    | ValidationRequested
    | ExecutionRequested
)


class Orchestrator:
    """The keeper of runs; one shard per run."""

    name = NAME
    inputs: tuple[Filter, ...] = (Filter(),)

    def shard(self, recorded: Recorded[Event]) -> StreamId | None:
        """Return the run that a record belongs to, None for records of nodes."""
        return recorded.stream if recorded.stream.startswith(RUN_PREFIX) else None

    def origin(self, recorded: Recorded[Event]) -> Origin | None:
        """Return what a run is a fork of, when this record is the first of a fork."""
        match recorded.event:
            case RunForked(parent=parent, at=at, chains=chains, without=without) if recorded.position == 1:
                return Origin(parent=parent, at=at, chains=chains, without=without)
            case _:
                return None

    def initial(self, shard: StreamId) -> RunState:
        """Return a run of which nothing is known."""
        return RunState(stream=shard)

    def evolve(self, state: RunState, recorded: Recorded[Event]) -> RunState:
        """Return the run after a record of anybody in it."""
        return evolve(state, recorded)

    def decide(self, state: RunState, recorded: Recorded[Event]) -> tuple[Answer, ...]:
        """Return all that follows from `recorded`, up to where the run waits for somebody else."""
        answers: list[Answer] = []
        while (event := next_fact(state)) is not None:
            assert len(answers) < ANSWERS_MAX, f"{state.stream}: no end of decisions"
            draft = Draft(
                event=event,
                id=event_id(recorded.id, agent=NAME, ordinal=len(answers)),
                stream=state.stream,
                agent=NAME,
                time_ms=recorded.time_ms,
                causation=recorded.id,
            )
            written, _ = chain(draft, after=state.heads.get(NAME, Head()))
            state = evolve(state, written)
            answers.append(Answer(event=event, stream=state.stream, written=written, after=state))
        return tuple(answers)

    def deadlines(self, state: RunState) -> tuple[Deadline, ...]:
        """Return the run's own deadline, and those of what it waits for."""
        due = run_due(state)
        if due is None or state.closed:
            return ()
        awaited = [(RUN_TIMER, due)]
        if isinstance(state.planning, PlanAsked) and state.planning.due is not None:
            awaited.append((PLAN_TIMER, state.planning.due))
        for step in state.steps:
            match step.stage:
                case Asking(due=int(when)) | Validating(due=when) | Executing(due=when) | Waiting(due=when):
                    awaited.append((step.timer, when))
                case _:
                    pass  # in every other stage the orchestrator itself has the next word
        return tuple(Deadline(stream=state.stream, timer=timer, due_ms=when) for timer, when in awaited)

    def finished(self, state: RunState) -> bool:
        """Whether the run is closed; a record of a run that is not known changes nothing either."""
        return state.closed or state.submitted is None

    def owes(self, state: RunState, stream: StreamId) -> bool:
        """Return False: `run.closed` is its last word in a run."""
        del state, stream
        return False


def next_fact(state: RunState) -> OrchestratorEvent | None:
    """Return the fact that has to be said now, None while the run waits or has ended."""
    submitted = state.submitted
    if state.closed:
        return None
    if state.unfounded is not None:
        return closing.close_refused(state, reason=state.unfounded)
    if submitted is None:
        return None
    if state.cancelled is not None:
        return closing.close_cancelled(state)
    if state.timed_out:
        return closing.close_timed_out(state)
    if state.planned is None:
        return _planning_fact(state, submitted)
    for step in state.steps:
        if not isinstance(step.stage, Done):
            return _step_fact(state, step, submitted=submitted)
    return closing.close_finished(state)


def _planning_fact(state: RunState, submitted: RunSubmitted) -> OrchestratorEvent | None:
    """Return the plan, the question for one, or the refusal of a request that no plan can be made for."""
    match state.planning:
        case PlanAsked():
            return None
        case PlanOpen():
            if (why := planning.refusal(submitted)) is not None:
                return closing.close_refused(state, reason=why)
            if planning.wants_model(submitted):
                return _plan_request(submitted)
            made = planning.plan(submitted)
        case PlanAnswered(items=items, model=model):
            made = planning.plan(submitted, items=items, model=model)
        case PlanMissed(reason=reason):
            made = planning.plan(submitted, missed=reason)
        case _:
            assert_never(state.planning)
    return made if isinstance(made, RunPlanned) else closing.close_refused(state, reason=made)


def _plan_request(submitted: RunSubmitted) -> GenerationRequested:
    model = permitted(submitted)[0]
    tokens_max = max(1, min(ladder.ANSWER_TOKENS_MAX, model.context * 5 // 8, submitted.options.tokens_max))
    return GenerationRequested(
        ask=Ask(
            purpose=Purpose.PLAN,
            step=0,
            attempt=1,
            model=model.model,
            brief=submitted.request,
            sampling=ladder.sampling(Rung.GREEDY, submitted=submitted, step=0, attempt=1, tokens_max=tokens_max),
            kinds=tuple(dict.fromkeys(specialist.kind for specialist in submitted.specialists)),
            bare=model.bare,
            timeout_ms=min(MODEL_TIMEOUT_MS, submitted.options.timeout_ms),
            cloud=cloud_reason(model, submitted=submitted),
        )
    )


def _step_fact(state: RunState, step: StepState, *, submitted: RunSubmitted) -> OrchestratorEvent | None:
    """Return what has to be said about the step that is under way."""
    match step.stage:
        case Resting(after=after):
            return _attempt(state, step, after=after, submitted=submitted)
        case Started(mend=mend):
            return _generation_request(state, step, mend=mend, submitted=submitted)
        case Coded(code=code):
            return ValidationRequested(
                step=step.planned.number,
                attempt=step.attempts,
                code=code,
                contract=step.planned.contract,
                tools=step.specialist.tools,
            )
        case Validated(code=code):
            inputs = inputs_for(step.planned, submitted=submitted, steps=state.steps)
            return ExecutionRequested(
                step=step.planned.number,
                attempt=step.attempts,
                code=code,
                contract=step.planned.contract,
                tier=step.specialist.tier,
                files=inputs.files,
                urls=inputs.urls,
                limits=step.specialist.limits,
            )
        case Proven(code=code, validation=validation, execution=execution, artifacts=artifacts):
            return StepAccepted(
                step=step.planned.number,
                attempt=step.attempts,
                code=code,
                validation=validation,
                execution=execution,
                artifacts=artifacts,
            )
        case Waiting() | Asking() | Validating() | Executing() | Done():
            return None
        case _:
            assert_never(step.stage)


def _attempt(
    state: RunState, step: StepState, *, after: Trouble | None, submitted: RunSubmitted
) -> AttemptStarted | StepFailed:
    """Return the next rung, or the end of a step that gets none."""
    if after is None and (why := obstacle(step.planned, submitted=submitted, steps=state.steps)) is not None:
        return StepFailed(step=step.planned.number, attempts=None, refused=True, reason=closing.sentence(why))
    choice = ladder.next_rung(step, after, submitted=submitted, tokens=state.tokens)
    match choice:
        case ladder.GiveUp(reason=reason, refused=refused):
            return StepFailed(
                step=step.planned.number,
                attempts=step.attempts or None,
                refused=refused,
                reason=closing.sentence(reason),
            )
        case ladder.Climb(rung=rung, model=model, reason=reason):
            return AttemptStarted(
                step=step.planned.number,
                attempt=step.attempts + 1,
                attempts_max=submitted.options.attempts_max,
                rung=rung,
                model=step.models[model].model,
                reason=closing.sentence(reason),
            )
        case _:
            assert_never(choice)


def _generation_request(
    state: RunState, step: StepState, *, mend: Trouble | None, submitted: RunSubmitted
) -> GenerationRequested:
    """Return the question of the attempt that has just been started."""
    assert step.rung is not None, "an attempt has a rung"
    model = step.models[step.model]
    after = "" if step.model == 0 else f"{step.models[step.model - 1].model} did not do it"
    tokens_max = ladder.answer_tokens(model, left=submitted.options.tokens_max - state.tokens)
    return GenerationRequested(
        ask=Ask(
            purpose=Purpose.CODE if mend is None else Purpose.REPAIR,
            step=step.planned.number,
            attempt=step.attempts,
            model=model.model,
            brief=step.planned.brief,
            sampling=ladder.sampling(
                step.rung,
                submitted=submitted,
                step=step.planned.number,
                attempt=step.attempts,
                tokens_max=tokens_max,
            ),
            specialist=step.specialist,
            contract=step.planned.contract,
            previous=None if mend is None else mend.code,
            feedback=() if mend is None else mend.feedback,
            bare=model.bare,
            timeout_ms=min(MODEL_TIMEOUT_MS, submitted.options.timeout_ms),
            cloud=closing.sentence(cloud_reason(model, submitted=submitted, after=after)),
        )
    )
