"""The repair ladder: which attempt a step gets next, and when it gets no more (requirements H11, H12, K1).

Greedy first; one repair for faults that small models can mend when told (syntax, names, imports, missing literals);
then samples; then the next model. Outages are tried again after a growing pause. Everything is bounded.
"""

from hashlib import sha256
from typing import Final

import msgspec

from lumina.agents.orchestrator_state import StepState, Trouble, TroubleKind
from lumina.agents.step_models import not_permitted
from lumina.events.generation import Sampling
from lumina.events.run import ModelChoice, RunSubmitted
from lumina.events.step import Rung

SAMPLES_PER_MODEL_MAX: Final = 5
REPAIRS_PER_MODEL_MAX: Final = 1
OUTAGE_RETRIES_MAX: Final = 3
OUTAGE_PAUSE_MS: Final = 1_000
"""Doubled with each outage in a row."""
SAMPLE_TEMPERATURE: Final = 0.7
ANSWER_TOKENS_MAX: Final = 2_048
ANSWER_TOKENS_MIN: Final = 16
"""With a smaller rest of the run's budget no model is asked any more."""


class Climb(msgspec.Struct, frozen=True, kw_only=True):
    """Try `rung` with the step's model number `model`. `mend` is what a repair is about."""

    rung: Rung
    model: int
    reason: str
    mend: Trouble | None = None


class GiveUp(msgspec.Struct, frozen=True, kw_only=True):
    """The step gets no more attempts."""

    reason: str
    refused: bool


def next_rung(step: StepState, after: Trouble | None, *, submitted: RunSubmitted, tokens: int) -> Climb | GiveUp:
    """Return what follows `after`, the end of the step's last attempt (None: there was none yet).

    `tokens` is what the run has generated so far.
    """
    if not step.models:
        reason = not_permitted(submitted) or "none of the run's models can do a step of this kind"
        return GiveUp(reason=reason, refused=True)
    if after is not None and after.kind is TroubleKind.BLOCKED:
        return GiveUp(reason=after.reason, refused=True)
    if step.attempts >= submitted.options.attempts_max:
        limit = f"{step.attempts} of {submitted.options.attempts_max} attempts made"
        return GiveUp(reason=_ending(limit, after), refused=not step.answered and after is not None and _unfit(after))
    if submitted.options.tokens_max - tokens < ANSWER_TOKENS_MIN:
        limit = f"{tokens:,} of {submitted.options.tokens_max:,} tokens generated"
        return GiveUp(reason=_ending(limit, after), refused=False)
    if after is None:
        return Climb(rung=Rung.GREEDY, model=0, reason="first attempt, greedy")
    return _same_model(step, after, submitted=submitted) or _next_model(step, after)


def sampling(rung: Rung, *, submitted: RunSubmitted, step: int, attempt: int, tokens_max: int) -> Sampling:
    """Return how the tokens of an attempt are drawn. Its seed is a hash of the run's seed, step and attempt."""
    return Sampling(
        temperature=SAMPLE_TEMPERATURE if rung is Rung.SAMPLE else 0.0,
        seed=derived_seed(submitted.options.seed, step=step, attempt=attempt),
        tokens_max=tokens_max,
    )


def answer_tokens(model: ModelChoice, *, left: int) -> int:
    """Return how long an answer may be: half of the context at most, and what the run's budget has `left`."""
    return max(1, min(ANSWER_TOKENS_MAX, model.context // 2, left))


def derived_seed(seed: int, *, step: int, attempt: int) -> int:
    """Return 31 bits that depend on nothing but the three numbers."""
    return int.from_bytes(sha256(f"{seed}\n{step}\n{attempt}".encode()).digest()[:4], "big") & 0x7FFF_FFFF


def pause_ms(outages: int) -> int:
    """Return how long to wait after that many outages in a row."""
    return OUTAGE_PAUSE_MS << (outages - 1)


def _same_model(step: StepState, after: Trouble, *, submitted: RunSubmitted) -> Climb | None:
    """Return the next rung with the model in use, None when it has had its share."""
    left = submitted.options.attempts_max - step.attempts
    if step.model + 1 < len(step.models) and left <= 1:
        return None  # the last attempt belongs to the next model
    match after.kind:
        case TroubleKind.OUTAGE:
            assert step.rung is not None, "an outage ends an attempt"
            if step.outages > OUTAGE_RETRIES_MAX:
                return None
            return Climb(rung=step.rung, model=step.model, reason=f"again, since {after.reason}", mend=after.mended)
        case TroubleKind.UNFIT:
            return None
        case TroubleKind.FAULT if after.repairable and step.repairs < REPAIRS_PER_MODEL_MAX:
            return Climb(rung=Rung.REPAIR, model=step.model, reason=after.reason, mend=after)
        case _:
            return _sample(step, after.reason)


def _sample(step: StepState, reason: str) -> Climb | None:
    if step.samples >= SAMPLES_PER_MODEL_MAX:
        return None
    return Climb(rung=Rung.SAMPLE, model=step.model, reason=reason)


def _next_model(step: StepState, after: Trouble) -> Climb | GiveUp:
    if step.model + 1 < len(step.models):
        return Climb(rung=Rung.LARGER_MODEL, model=step.model + 1, reason=after.reason)
    return GiveUp(reason=_ending("every rung is tried", after), refused=not step.answered and _unfit(after))


def _unfit(after: Trouble) -> bool:
    return after.kind is TroubleKind.UNFIT


def _ending(limit: str, after: Trouble | None) -> str:
    return limit if after is None else f"{limit}; last: {after.reason}"
