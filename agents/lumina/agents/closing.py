"""How a run ends: its status, what became of each step, and the root over everything that was written in it."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from lumina.agents.orchestrator_state import Done, RunState
from lumina.events.record import Head
from lumina.events.run import ChainHead, RunClosed, RunStatus, StepResult
from lumina.events.values import clip

SENTENCE_CHARACTERS_MAX: Final = 500
_TOKENS_MAX: Final = 10_000_000


def sentence(text: str) -> str:
    """Return `text` cut to what a sentence in an event may hold."""
    return clip(text, limit=SENTENCE_CHARACTERS_MAX)


def root_of(chains: tuple[ChainHead, ...]) -> str:
    """Return SHA-256 over the lines `agent count digest`, each ended by a line feed, in the order given."""
    return sha256("".join(f"{head.agent} {head.count} {head.digest}\n" for head in chains).encode()).hexdigest()


def chain_heads(heads: Mapping[str, Head]) -> tuple[ChainHead, ...]:
    """Return the heads sorted by agent."""
    return tuple(
        ChainHead(agent=agent, count=head.position, digest=head.digest) for agent, head in sorted(heads.items())
    )


def close(state: RunState, *, status: RunStatus, reason: str) -> RunClosed:
    """Return the last word about a run."""
    chains = chain_heads(state.heads)
    return RunClosed(
        status=status,
        reason=sentence(reason),
        results=tuple(
            step.stage.result
            if isinstance(step.stage, Done)
            else StepResult(
                number=step.planned.number,
                accepted=False,
                attempts=step.attempts,
                reason="not finished when the run ended",
            )
            for step in state.steps
        ),
        tokens=min(state.tokens, _TOKENS_MAX),
        records=sum(head.count for head in chains),
        chains=chains,
        root=root_of(chains),
    )


def close_cancelled(state: RunState) -> RunClosed:
    """Return the end of a run that somebody stopped."""
    return close(state, status=RunStatus.CANCELLED, reason=state.cancelled or "cancelled")


def close_timed_out(state: RunState) -> RunClosed:
    """Return the end of a run that is out of time."""
    assert state.submitted is not None, "only a run that exists can be late"
    seconds = state.submitted.options.timeout_ms / 1000
    return close(state, status=RunStatus.TIMED_OUT, reason=f"not finished within {seconds:g} s")


def close_refused(state: RunState, *, reason: str) -> RunClosed:
    """Return the end of a run that can't be begun."""
    return close(state, status=RunStatus.REFUSED, reason=reason)


def close_finished(state: RunState) -> RunClosed:
    """Return the end of a run all of whose steps have ended."""
    ends = [step.stage for step in state.steps if isinstance(step.stage, Done)]
    assert len(ends) == len(state.steps) > 0, "a step is still open"
    accepted = sum(end.result.accepted for end in ends)
    failures = [end for end in ends if not end.result.accepted]
    total = f"{accepted} of {len(ends)} steps accepted" if len(ends) > 1 else ""
    if not failures:
        return close(state, status=RunStatus.COMPLETED, reason=total or "accepted")
    first = f"step {failures[0].result.number}: {failures[0].result.reason}" if total else failures[0].result.reason
    reason = "; ".join(part for part in (total, first) if part)
    if accepted:
        return close(state, status=RunStatus.PARTIAL, reason=reason)
    refused = all(end.refused for end in failures)
    return close(state, status=RunStatus.REFUSED if refused else RunStatus.FAILED, reason=reason)
