"""Which models a step may use, in which order."""

from lumina.events.contract import Form
from lumina.events.run import ModelChoice, RunSubmitted, SpecialistRef


def models_for(specialist: SpecialistRef, *, submitted: RunSubmitted) -> tuple[ModelChoice, ...]:
    """Return the run's models for a specialist: those that its file prefers first, then the rest in the run's order.

    Free scripts lie outside the range of bare models, so those are left out there.
    """
    allowed = {
        choice.model: choice for choice in submitted.models if not (choice.bare and specialist.form is Form.SCRIPT)
    }
    preferred = [allowed[model] for model in specialist.models if model in allowed]
    return tuple(dict.fromkeys((*preferred, *allowed.values())))
