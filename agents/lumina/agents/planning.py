"""How a request becomes a plan: who does which part of it, and what each answer has to be.

Rules decide what they are sure of. A model that plans is asked for the rest; its plan counts only if it holds parts
of the request word for word, leaves nothing out, and does not contradict what the rules are sure of.
"""

from typing import Final

import msgspec

from lumina.agents.closing import sentence
from lumina.agents.contracts import contract_for
from lumina.agents.routing import Route, route
from lumina.agents.splitting import TASKS_MAX, may_be_several, split_tasks
from lumina.agents.step_models import not_permitted, permitted
from lumina.events.codec import encode
from lumina.events.contract import Form, OutputContract
from lumina.events.generation import PlanItem
from lumina.events.run import PlannedStep, Planner, RunPlanned, RunSubmitted, SpecialistRef

COVERAGE_MIN: Final = 0.85
"""Least share of the request's letters and digits that a model's plan must keep."""

SUBMISSION_BYTES_MAX: Final = 512 * 1024
"""What follows from a submission repeats most of it and adds to it. A fact that the log can't take would stop the
keeper that decided it, for all runs and at every start; this leaves half of a record for what is added."""

DEMO_ONLY: Final = (
    "The embedded demo model can only do requests of the shapes that `lumina examples` lists; point Lumina at a real "
    "model with --model or --model-url for anything else."
)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a request and whom the rules would give it to."""

    brief: str
    route: Route


def refusal(submitted: RunSubmitted) -> str | None:
    """Return why a request can't be begun at all, None when it can."""
    if (why := excess(submitted)) is not None:
        return why
    kinds = known_kinds(submitted)
    if not kinds:
        return "no specialist is known; `lumina specialists list` shows those of this machine"
    if not submitted.models:
        return "no model is available; name one with --model or --model-url"
    if (why := not_permitted(submitted)) is not None:
        return why
    wanted = submitted.options.kind
    if wanted is not None and wanted not in kinds:
        return f"no specialist for the kind {wanted!r}; known kinds: {', '.join(kinds)}"
    return None


def excess(submitted: RunSubmitted) -> str | None:
    """Return why what follows from a request could be too large for the log, None when it can't."""
    size = len(encode(submitted))
    if size <= SUBMISSION_BYTES_MAX:
        return None
    return f"the request with its cases has {size:,} bytes, and at most {SUBMISSION_BYTES_MAX:,} can be worked on"


def step_excess(step: PlannedStep, *, specialist: SpecialistRef) -> str | None:
    """Return why what is asked for a step that no planner made could be too large for the log, None when it can't.

    An ask holds one step and one specialist, and a lease repeats it. Both are counted, so neither has to be small.
    """
    size = len(encode(step)) + len(encode(specialist))
    if size <= SUBMISSION_BYTES_MAX:
        return None
    return (
        f"step {step.number} and its specialist have {size:,} bytes, and at most {SUBMISSION_BYTES_MAX:,} can be "
        "worked on"
    )


def known_kinds(submitted: RunSubmitted) -> tuple[str, ...]:
    """Return the kinds that the run's specialists answer, sorted."""
    return tuple(sorted({specialist.kind for specialist in submitted.specialists}))


def parts_by_rules(submitted: RunSubmitted) -> tuple[Part, ...]:
    """Return the tasks that the rules see in the request."""

    def routed(text: str) -> Route:
        return route(text, specialists=submitted.specialists)

    def kind_of(text: str) -> tuple[str | None, bool]:
        found = routed(text)
        return None if found.specialist is None else found.specialist.kind, found.confident

    tasks = split_tasks(submitted.request, kind_of=kind_of)
    return tuple(Part(brief=task, route=routed(task)) for task in tasks if task) or (
        Part(brief=submitted.request, route=routed(submitted.request)),
    )


def wants_model(submitted: RunSubmitted) -> bool:
    """Return whether a model is to be asked for a plan: it can plan, may, and the rules leave room for doubt.

    A demo model is not asked about a request that fits no kind at all.
    """
    first = next(iter(permitted(submitted)), None)
    if first is None or not first.plans or not submitted.options.plan or submitted.options.kind is not None:
        return False
    parts = parts_by_rules(submitted)
    if first.bare and all(part.route.specialist is None for part in parts):
        return False  # it would call anything one of its kinds
    sure = all(part.route.confident for part in parts)
    return len(parts) > 1 or not sure or may_be_several(submitted.request)


def plan(
    submitted: RunSubmitted, *, items: tuple[PlanItem, ...] = (), model: str = "", missed: str | None = None
) -> RunPlanned | str:
    """Return the plan of a run, or the sentence that refuses it.

    Args:
        submitted: The request; `refusal` has let it pass.
        items: The plan of `model`, if one was made.
        model: Who made `items`.
        missed: Why a model that was asked made none.
    """
    if submitted.options.kind is not None:
        return _plan_by_user(submitted, kind=submitted.options.kind)
    parts = parts_by_rules(submitted)
    if items:
        why_not = model_plan_problem(items, submitted=submitted, parts=parts)
        if why_not is None:
            named = {specialist.kind: specialist for specialist in reversed(submitted.specialists)}
            chosen = [(named[item.kind], item.brief, f"planned by {model}") for item in items]
            return _planned(submitted, chosen, planner=Planner.MODEL, reason=f"planned by {model}")
        missed = f"the plan of {model} was not used, since {why_not}"
    return _plan_by_rules(submitted, parts=parts, note=missed)


def model_plan_problem(items: tuple[PlanItem, ...], *, submitted: RunSubmitted, parts: tuple[Part, ...]) -> str | None:
    """Return what is wrong with a model's plan, None when it may be used."""
    kinds = known_kinds(submitted)
    if len(items) > TASKS_MAX:
        return f"it has {len(items)} steps and at most {TASKS_MAX} are allowed"
    place = 0
    for number, item in enumerate(items, 1):
        if item.kind not in kinds:
            return f"step {number} has the unknown kind {item.kind!r}"
        if not item.brief.strip():
            return f"step {number} is empty"
        found = submitted.request.find(item.brief, place)
        if found < 0:
            return f"step {number} is no verbatim part of the request"
        place = found + len(item.brief)
    kept, all_of_it = (
        sum(map(str.isalnum, text)) for text in ("".join(item.brief for item in items), submitted.request)
    )
    if kept < COVERAGE_MIN * all_of_it:
        return "it leaves out too much of the request"
    for number, item in enumerate(items, 1):
        sure = route(item.brief, specialists=submitted.specialists)
        if permitted(submitted)[:1] and permitted(submitted)[0].bare and sure.specialist is None:
            return f"step {number} lies outside the range of a demo model"
        if sure.confident and sure.specialist is not None and sure.specialist.kind != item.kind:
            return f"step {number} is called {item.kind!r}, but the rules are sure of {sure.specialist.kind!r}"
    if len(items) < len(parts) and all(part.route.confident for part in parts):
        return f"it has {len(items)} steps, but the rules are sure of {len(parts)}"
    return None


def _plan_by_user(submitted: RunSubmitted, *, kind: str) -> RunPlanned | str:
    specialist = next(specialist for specialist in submitted.specialists if specialist.kind == kind)
    chosen = [(specialist, submitted.request, f"the user asked for the kind {kind}")]
    return _planned(submitted, chosen, planner=Planner.USER, reason=f"the user asked for the kind {kind}")


def _plan_by_rules(submitted: RunSubmitted, *, parts: tuple[Part, ...], note: str | None) -> RunPlanned | str:
    general = next((specialist for specialist in submitted.specialists if specialist.form is Form.SCRIPT), None)
    real_model = any(not choice.bare for choice in permitted(submitted))
    chosen: list[tuple[SpecialistRef, str, str]] = []
    for part in parts:
        if part.route.specialist is not None:
            chosen.append((part.route.specialist, part.brief, part.route.rule))
        elif general is not None and real_model:
            chosen.append((general, part.brief, "no other kind fits"))
        else:
            return _nobody(submitted, part=part, several=len(parts) > 1, real_model=real_model)
    reason = f"{len(chosen)} steps by rules" if len(chosen) > 1 else f"one step by rules: {chosen[0][2]}"
    return _planned(submitted, chosen, planner=Planner.RULES, reason=f"{reason} ({note})" if note else reason)


def _nobody(submitted: RunSubmitted, *, part: Part, several: bool, real_model: bool) -> str:
    """Return the refusal of a request with a part that nobody here can do."""
    which = f" No kind fits this part: {part.brief[:120]!r}." if several else ""
    if not real_model:
        return DEMO_ONLY + which
    return f"No specialist fits the request; name one with --kind: {', '.join(known_kinds(submitted))}.{which}"


def _planned(
    submitted: RunSubmitted, chosen: list[tuple[SpecialistRef, str, str]], *, planner: Planner, reason: str
) -> RunPlanned | str:
    functions = sum(specialist.form is Form.FUNCTION for specialist, _, _ in chosen)
    if submitted.cases and functions != 1:
        return f"cases were given, but the plan has {functions} steps that write a function; submit them one by one"
    steps: list[PlannedStep] = []
    for number, (specialist, brief, rule) in enumerate(chosen, 1):
        cases = submitted.cases if specialist.form is Form.FUNCTION else ()
        try:
            contract: OutputContract = contract_for(brief, specialist=specialist, cases=cases)
        except msgspec.ValidationError:  # one request must not stop the keeper of all runs
            return f"what the request demands of step {number} can't be written as a contract: a value is out of range"
        steps.append(
            PlannedStep(
                number=number,
                kind=specialist.kind,
                specialist=specialist.name,
                brief=brief,
                contract=contract,
                rule=sentence(rule),
            )
        )
    return RunPlanned(steps=tuple(steps), planner=planner, reason=sentence(reason))
