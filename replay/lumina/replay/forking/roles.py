"""Which models do what in a fork: a list for the run, and wishes for single roles."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from lumina.agents.step_models import models_for
from lumina.events.contract import Form
from lumina.events.run import ModelChoice, RunSubmitted, SpecialistRef
from lumina.replay.errors import ForkProblem

PLANNER: Final = "planner"
SPECIALIST: Final = "specialist"


def with_roles(
    submitted: RunSubmitted,
    *,
    models: tuple[ModelChoice, ...],
    roles: Sequence[tuple[str, str]],
    offered: Mapping[str, ModelChoice],
    planned: bool,
) -> tuple[tuple[ModelChoice, ...], tuple[SpecialistRef, ...]]:
    """Return the models and the specialists that change, both empty when nothing does.

    Args:
        submitted: What holds so far.
        models: The models from here on; empty to leave them.
        roles: Pairs of a role and a model: `planner`, `specialist` for all, or a specialist by name or kind.
        offered: Models that the node has, by name.
        planned: Whether there is a plan already, so that nobody will be asked for one.

    Raises:
        ForkProblem: A role or a model is not known, or can't be what it should be.
    """
    chosen = list(models or submitted.models)
    specialists = {specialist.name: specialist for specialist in submitted.specialists}
    for role, model in roles:
        choice = next((each for each in chosen if each.model == model), offered.get(model))
        if choice is None:
            raise ForkProblem(f"model {model!r} is not offered here; these are: {', '.join(offered) or 'none'}")
        if choice not in chosen:
            chosen.append(choice)
        if role == PLANNER:
            _check_planner(choice, planned=planned)
            # Who plans comes first in the run's list, so the order that holds for everybody else is written down.
            now = replace(submitted, models=tuple(chosen))
            specialists = {
                name: replace(each, models=tuple(one.model for one in models_for(each, submitted=now))[:32])
                for name, each in specialists.items()
            }
            chosen = [choice, *(each for each in chosen if each != choice)]
            continue
        for specialist in _played_by(role, specialists=tuple(specialists.values())):
            _check_writer(choice, specialist=specialist, alone=role != SPECIALIST)
            preferred = (model, *(name for name in specialist.models if name != model))
            specialists[specialist.name] = replace(specialist, models=preferred[:32])
    different = tuple(each for each in specialists.values() if each not in submitted.specialists)
    return (tuple(chosen) if tuple(chosen) != submitted.models else ()), different


def _played_by(role: str, *, specialists: tuple[SpecialistRef, ...]) -> tuple[SpecialistRef, ...]:
    if role == SPECIALIST:
        return specialists
    found = [each for each in specialists if role == each.name] or [each for each in specialists if role == each.kind]
    if not found:
        names = ", ".join(each.name for each in specialists)
        raise ForkProblem(f"no role is called {role!r}; these are: {PLANNER}, {SPECIALIST}, {names}")
    return tuple(found)


def _check_planner(choice: ModelChoice, *, planned: bool) -> None:
    if planned:
        raise ForkProblem("the plan is made already; to have another model plan, fork at a record before run.planned")
    if not choice.plans:
        raise ForkProblem(f"model {choice.model!r} is not one that plans; `plans = true` in node.toml makes it one")


def _check_writer(choice: ModelChoice, *, specialist: SpecialistRef, alone: bool) -> None:
    if alone and choice.bare and specialist.form is Form.SCRIPT:
        raise ForkProblem(f"model {choice.model!r} can't do what {specialist.name!r} does: free scripts lie outside it")
