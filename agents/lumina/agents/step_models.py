"""Which models a run and its steps may use, in which order, and why one that runs elsewhere may be asked."""

from lumina.events.contract import Form
from lumina.events.run import ModelChoice, RunSubmitted, SpecialistRef


def permitted(submitted: RunSubmitted) -> tuple[ModelChoice, ...]:
    """Return the models that the run may ask, best first: those of others only if it permits the cloud."""
    return tuple(choice for choice in submitted.models if not choice.cloud or submitted.options.cloud)


def not_permitted(submitted: RunSubmitted) -> str | None:
    """Return why no model may be asked at all, None when one may."""
    if not submitted.models or permitted(submitted):
        return None
    names = ", ".join(choice.model for choice in submitted.models)
    return f"all models of this run are on machines of others ({names}); permit that with --allow-cloud"


def cloud_reason(model: ModelChoice, *, submitted: RunSubmitted, after: str = "") -> str:
    """Return why a model that runs on machines of others is asked; empty for one that does not.

    `after` says why the models before it did not do.
    """
    if not model.cloud:
        return ""
    if after:
        return f"permitted by --allow-cloud; fallback: {after}"
    others = [choice for choice in permitted(submitted) if choice.model != model.model]
    return f"permitted by --allow-cloud; {'the first choice' if others else 'the only model'}"


def models_for(specialist: SpecialistRef, *, submitted: RunSubmitted) -> tuple[ModelChoice, ...]:
    """Return the run's models for a specialist: those that its file prefers first, then the rest in the run's order.

    Free scripts lie outside the range of bare models, so those are left out there.
    """
    allowed = {
        choice.model: choice for choice in permitted(submitted) if not (choice.bare and specialist.form is Form.SCRIPT)
    }
    preferred = [allowed[model] for model in specialist.models if model in allowed]
    return tuple(dict.fromkeys((*preferred, *allowed.values())))
