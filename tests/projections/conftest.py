"""Histories that look like runs, and wild ones, for the folds."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from lumina.agents.closing import chain_heads
from lumina.events.base import Event
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import (
    Ask,
    GenerationFinished,
    GenerationOutcome,
    GenerationRequested,
    Load,
    Purpose,
    Sampling,
    Usage,
)
from lumina.events.ids import EventId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased, Refusal
from lumina.events.node import Backend, ModelOffer, ModelUnloaded, NodeAnnounced, UnloadReason, UnloadRequested
from lumina.events.record import NO_DIGEST, Head, Recorded
from lumina.events.run import (
    PlannedStep,
    Planner,
    RunCancelRequested,
    RunClosed,
    RunOptions,
    RunPlanned,
    RunStatus,
    RunSubmitted,
)
from lumina.events.step import AttemptStarted, Rung, StepAccepted, StepFailed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef
from lumina.replay.scribe import Scribe

CODE = BlobRef(digest="c" * 64, size=120, media_type="text/x-python")
RAW = BlobRef(digest="d" * 64, size=80, media_type="application/json")
CONTRACT = OutputContract(language=Language.PYTHON, form=Form.SCRIPT)
SMALL = st.integers(1, 2)
INSTANCES = st.sampled_from(["demo#0", "demo#1", "large#0"])


def _ask(step: int, attempt: int, model: str) -> Ask:
    return Ask(
        purpose=Purpose.CODE,
        step=step,
        attempt=attempt,
        model=model,
        brief="print the primes",
        sampling=Sampling(temperature=0.0, seed=1, tokens_max=100),
    )


def _finished(request: EventId, lease: EventId, *, step: int, attempt: int, load: bool) -> GenerationFinished:
    return GenerationFinished(
        request=request,
        lease=lease,
        step=step,
        attempt=attempt,
        model="demo",
        outcome=GenerationOutcome.ANSWERED,
        effect=NO_DIGEST,
        raw=RAW,
        usage=Usage(prompt_tokens=50, generated_tokens=20, context=2048, prompt_ms=10, generate_ms=200),
        code=CODE,
        load=Load(load_ms=90, bytes_measured=5000) if load else None,
    )


def _planned(count: int) -> RunPlanned:
    steps = tuple(
        PlannedStep(
            number=number + 1,
            kind="function",
            specialist="function",
            brief="print the primes",
            contract=CONTRACT,
            rule="keyword",
        )
        for number in range(count)
    )
    return RunPlanned(steps=steps, planner=Planner.RULES, reason="")


def _closed(status: RunStatus, *, heads: Mapping[str, Head] | None = None) -> RunClosed:
    chains = chain_heads(heads or {})
    return RunClosed(status=status, reason="done", results=(), tokens=0, records=1, chains=chains, root=NO_DIGEST)


def _granted(request: EventId, *, ask: Ask, instance: str, load: bool) -> LeaseGranted:
    return LeaseGranted(
        request=request,
        ask=ask,
        node="local",
        instance=instance,
        load=load,
        bytes_reserved=4000,
        context=2048,
        expires_at=2_000_000_000_000,
    )


def _announced(bytes_max: int = 10_000) -> NodeAnnounced:
    offer = ModelOffer(model="demo", backend=Backend.SCRIPTED, bytes_estimated=4000, context=2048)
    return NodeAnnounced(node="local", bytes_max=bytes_max, models=(offer,), idle_ms=1000, configuration=NO_DIGEST)


@st.composite
def _wild(draw: DrawFn) -> list[Recorded[Event]]:
    """Draw records in any order and combination: a fold must take whatever stands in the log."""
    scribe = Scribe()
    scribe.root(_announced(), stream="local", agent="node")
    for _ in range(draw(st.integers(0, 25))):
        earlier = draw(st.sampled_from(scribe.records)).id
        step, attempt = draw(SMALL), draw(SMALL)
        ask = _ask(step, attempt, draw(st.sampled_from(["demo", "large"])))
        load = draw(st.booleans())
        agent, event = draw(
            st.sampled_from(
                [
                    (
                        "client",
                        RunSubmitted(request="print the primes", options=RunOptions(), specialists=(), models=()),
                    ),
                    ("client", RunCancelRequested(reason="enough")),
                    ("orchestrator", _planned(step)),
                    ("orchestrator", _closed(draw(st.sampled_from(RunStatus)))),
                    (
                        "orchestrator",
                        AttemptStarted(
                            step=step, attempt=attempt, attempts_max=8, rung=Rung.GREEDY, model="demo", reason=""
                        ),
                    ),
                    ("orchestrator", GenerationRequested(ask=ask)),
                    ("governor", _granted(earlier, ask=ask, instance=draw(INSTANCES), load=load)),
                    ("governor", LeaseRefused(request=earlier, refusal=Refusal.NEVER_FITS, detail="too large")),
                    ("governor", LeaseReleased(lease=earlier)),
                    ("governor", LeaseExpired(lease=earlier, request=earlier)),
                    ("specialist", _finished(earlier, earlier, step=step, attempt=attempt, load=load)),
                    *_checks(earlier, step=step, attempt=attempt),
                    ("orchestrator", StepFailed(step=step, attempts=attempt, refused=False, reason="")),
                    ("node", _announced(draw(st.integers(0, 20_000)))),
                    (
                        "governor",
                        UnloadRequested(node="local", instance=draw(INSTANCES), reason=UnloadReason.IDLE),
                    ),
                    (
                        "specialist",
                        ModelUnloaded(
                            node="local", instance=draw(INSTANCES), was_loaded=True, effect=NO_DIGEST, raw=RAW
                        ),
                    ),
                ]
            )
        )
        scribe.root(event, stream=draw(st.sampled_from(["r-a", "r-b"])), agent=agent)
    return scribe.records


def _checks(earlier: EventId, *, step: int, attempt: int) -> list[tuple[str, Event]]:
    return [
        ("orchestrator", ValidationRequested(step=step, attempt=attempt, code=CODE, contract=CONTRACT, tools=())),
        (
            "validator",
            ValidationFinished(
                request=earlier,
                step=step,
                attempt=attempt,
                code=CODE.digest,
                verdict=ValidationVerdict.PASSED,
                findings=(),
                effect=NO_DIGEST,
                raw=RAW,
            ),
        ),
        (
            "orchestrator",
            ExecutionRequested(step=step, attempt=attempt, code=CODE, contract=CONTRACT, tier="bubblewrap"),
        ),
        (
            "sandbox",
            ExecutionFinished(
                request=earlier,
                step=step,
                attempt=attempt,
                code=CODE.digest,
                verdict=ExecutionVerdict.PASSED,
                tier="bubblewrap",
                exit_code=0,
                stdout="2 3 5\n",
                stderr="",
                checks=(),
                artifacts=(),
                wall_ms=12,
                effect=NO_DIGEST,
                raw=RAW,
            ),
        ),
        (
            "orchestrator",
            StepAccepted(step=step, attempt=attempt, code=CODE, validation=earlier, execution=earlier),
        ),
    ]


@pytest.fixture(scope="session")
def wild_histories() -> SearchStrategy[list[Recorded[Event]]]:
    """Return the strategy for arbitrary histories of two runs and one node."""
    return _wild()


def _one_run(stop: str) -> Scribe:
    """Write one run that goes well, up to and including the first record of the type `stop`."""
    scribe = Scribe()
    said: dict[str, Recorded[Event]] = {}

    def say(event: Event, *, agent: str) -> None:
        if stop not in said:
            said[event.__struct_config__.tag] = scribe.root(event, stream="r-abc", agent=agent)  # type: ignore[index]  # a tag is a text here

    def of(kind: str) -> EventId:
        return said[kind].id if kind in said else EventId("0" * 32)

    scribe.root(_announced(), stream="local", agent="node")
    say(RunSubmitted(request="print the primes", options=RunOptions(), specialists=(), models=()), agent="client")
    say(_planned(1), agent="orchestrator")
    started = AttemptStarted(step=1, attempt=1, attempts_max=8, rung=Rung.GREEDY, model="demo", reason="first try")
    say(started, agent="orchestrator")
    say(GenerationRequested(ask=_ask(1, 1, "demo")), agent="orchestrator")
    granted = _granted(of("generation.requested.v1"), ask=_ask(1, 1, "demo"), instance="demo#0", load=True)
    say(granted, agent="governor")
    finished = _finished(of("generation.requested.v1"), of("lease.granted.v1"), step=1, attempt=1, load=True)
    say(finished, agent="specialist")
    say(LeaseReleased(lease=of("lease.granted.v1")), agent="governor")
    for number in range(4):
        request = of("execution.requested.v1") if number > 1 else of("validation.requested.v1")
        agent, event = _checks(request, step=1, attempt=1)[number]
        say(event, agent=agent)
    evidence = StepAccepted(
        step=1,
        attempt=1,
        code=CODE,
        validation=of("validation.finished.v1"),
        execution=of("execution.finished.v1"),
    )
    say(evidence, agent="orchestrator")
    say(_closed(RunStatus.COMPLETED, heads=scribe.heads("r-abc")), agent="orchestrator")
    return scribe


@pytest.fixture(scope="session")
def one_run() -> Callable[[str], Sequence[Recorded[Event]]]:
    """Return the function that gives one good run up to the first record of a type."""
    return lambda stop: _one_run(stop).records
