"""A run written down by hand, word by word, so that each invariant can be broken in one place."""

from typing import Any

from lumina.events.base import Event
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import (
    Ask,
    GenerationFinished,
    GenerationOutcome,
    GenerationRequested,
    Purpose,
    Sampling,
    Usage,
)
from lumina.events.ids import EventId, root_event_id
from lumina.events.lease import LeaseGranted, LeaseReleased
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.record import NO_DIGEST, Recorded
from lumina.events.run import (
    ChainHead,
    ModelChoice,
    PlannedStep,
    Planner,
    RunClosed,
    RunOptions,
    RunPlanned,
    RunStatus,
    RunSubmitted,
    StepResult,
)
from lumina.events.step import AttemptStarted, Rung, StepAccepted
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef
from lumina.replay.invariants.invariants import Invariants
from lumina.replay.scribe import Scribe

RUN = "r-a"
CODE = BlobRef(digest="c" * 64, size=10, media_type="text/x-python")
RAW = BlobRef(digest="d" * 64, size=10, media_type="application/json")
CONTRACT = OutputContract(language=Language.PYTHON, form=Form.SCRIPT)
LEASE_MS = 1_000_000


def ask(attempt: int = 1, *, cloud: str = "", model: str = "demo") -> Ask:
    """Return a question."""
    return Ask(
        purpose=Purpose.CODE,
        step=1,
        attempt=attempt,
        model=model,
        brief="print 1",
        sampling=Sampling(temperature=0.0, seed=1, tokens_max=10),
        cloud=cloud,
    )


def announced(*, bytes_max: int = 10_000, slots: int = 1) -> NodeAnnounced:
    """Return a node that offers the model `demo`, and `away`, which runs on machines of others."""
    demo = ModelOffer(model="demo", backend=Backend.LLAMA_CPP, bytes_estimated=4000, context=2048, slots=slots)
    away = ModelOffer(model="away", backend=Backend.OPENAI, bytes_estimated=0, context=2048, slots=9, cloud=True)
    models = (demo, away)
    return NodeAnnounced(node="local", bytes_max=bytes_max, models=models, idle_ms=1000, configuration=NO_DIGEST)


def submission(*, attempts_max: int = 3, cloud: bool = False) -> RunSubmitted:
    """Return what the client asks for."""
    options = RunOptions(attempts_max=attempts_max, cloud=cloud)
    models = (ModelChoice(model="demo", context=2048), ModelChoice(model="away", context=2048, cloud=True))
    return RunSubmitted(request="print 1", options=options, specialists=(), models=models)


class Story:
    """One history. `cause` is what the orchestrator answers next: the newest input of the run."""

    def __init__(
        self, *, attempts_max: int = 3, slots: int = 1, bytes_max: int = 10_000, run: str = RUN, cloud: bool = False
    ) -> None:
        """Write a node, a run, and its plan of one step."""
        self.scribe = Scribe()
        self.run = run
        self.scribe.root(announced(bytes_max=bytes_max, slots=slots), stream="local", agent="node")
        self.cause = self.begin(submission(attempts_max=attempts_max, cloud=cloud))
        self.plan()

    @property
    def records(self) -> list[Recorded[Event]]:
        """All of it."""
        return self.scribe.records

    def begin(self, event: Event) -> Recorded[Event]:
        """Let the client begin a run."""
        self.cause = self.scribe.root(event, stream=self.run, agent="client")
        return self.cause

    def say(self, event: Event, **how: Any) -> Recorded[Event]:
        """Let the orchestrator answer the newest input."""
        return self.scribe.answer(event, to=self.cause, agent="orchestrator", stream=self.run, **how)

    def hear(self, event: Event, *, to: Recorded[Event], agent: str, **how: Any) -> Recorded[Event]:
        """Let somebody else answer a record; the orchestrator goes on from there."""
        self.cause = self.scribe.answer(event, to=to, agent=agent, **how)
        return self.cause

    def elapse(self, due: int, *, timer: str = "run", stream: str = "") -> Recorded[Event]:
        """Let a moment come."""
        where = stream or self.run
        slot = f"timer/{timer}/{due}"
        elapsed = self.scribe.root(TimerElapsed(timer=timer, due=due), stream=where, agent="clock", name=slot)
        assert elapsed.id == root_event_id(elapsed.stream, name=slot)
        if not stream:
            self.cause = elapsed
        return elapsed

    def plan(self) -> Recorded[Event]:
        """Plan one step."""
        step = PlannedStep(number=1, kind="k", specialist="s", brief="print 1", contract=CONTRACT, rule="")
        return self.say(RunPlanned(steps=(step,), planner=Planner.RULES, reason=""))

    def started(self, attempt: int = 1) -> Recorded[Event]:
        """Start an attempt."""
        return self.say(
            AttemptStarted(step=1, attempt=attempt, attempts_max=3, rung=Rung.SAMPLE, model="demo", reason="")
        )

    def requested(self, attempt: int = 1, *, cloud: str = "", model: str = "demo") -> Recorded[Event]:
        """Ask for code."""
        return self.say(GenerationRequested(ask=ask(attempt, cloud=cloud, model=model)))

    def granted(
        self, request: Recorded[Event], *, instance: str = "demo#1", size: int = 4000, **how: Any
    ) -> Recorded[Event]:
        """Grant a lease."""
        assert isinstance(request.event, GenerationRequested)
        event = LeaseGranted(
            request=request.id,
            ask=request.event.ask,
            node="local",
            instance=instance,
            load=True,
            bytes_reserved=size,
            context=2048,
            expires_at=request.time_ms + LEASE_MS,
        )
        return self.scribe.answer(event, to=request, agent="governor", **how)

    def generated(self, lease: Recorded[Event], **how: Any) -> Recorded[Event]:
        """Let the specialist answer."""
        event = lease.event
        assert isinstance(event, LeaseGranted)
        finished = GenerationFinished(
            request=event.request,
            lease=lease.id,
            step=1,
            attempt=event.ask.attempt,
            model=event.ask.model,
            outcome=GenerationOutcome.ANSWERED,
            effect=NO_DIGEST,
            raw=RAW,
            usage=Usage(prompt_tokens=1, generated_tokens=1, context=2048),
            code=CODE,
        )
        return self.hear(finished, to=lease, agent="specialist", **how)

    def released(self, lease: Recorded[Event], *, to: Recorded[Event] | None = None) -> Recorded[Event]:
        """Give a lease back, since its outcome is there."""
        cause = to or next(one for one in reversed(self.records) if isinstance(one.event, GenerationFinished))
        return self.scribe.answer(LeaseReleased(lease=lease.id), to=cause, agent="governor")

    def coded(self, attempt: int = 1) -> Recorded[Event]:
        """Go as far as code in an attempt."""
        self.started(attempt)
        lease = self.granted(self.requested(attempt))
        self.generated(lease)
        self.released(lease)
        return lease

    def validated(self, *, code: str = CODE.digest, passed: bool = True, attempt: int = 1) -> Recorded[Event]:
        """Have code read."""
        asked = self.say(ValidationRequested(step=1, attempt=attempt, code=CODE, contract=CONTRACT, tools=()))
        verdict = ValidationVerdict.PASSED if passed else ValidationVerdict.FAILED
        finished = ValidationFinished(
            request=asked.id,
            step=1,
            attempt=attempt,
            code=code,
            verdict=verdict,
            findings=(),
            effect=NO_DIGEST,
            raw=RAW,
        )
        return self.hear(finished, to=asked, agent="validator")

    def executed(self, *, code: str = CODE.digest, passed: bool = True, attempt: int = 1) -> Recorded[Event]:
        """Have code run."""
        asked = self.say(ExecutionRequested(step=1, attempt=attempt, code=CODE, contract=CONTRACT, tier="bubblewrap"))
        finished = ExecutionFinished(
            request=asked.id,
            step=1,
            attempt=attempt,
            code=code,
            verdict=ExecutionVerdict.PASSED if passed else ExecutionVerdict.FAILED,
            tier="bubblewrap",
            exit_code=0,
            stdout="",
            stderr="",
            checks=(),
            artifacts=(),
            wall_ms=1,
            effect=NO_DIGEST,
            raw=RAW,
        )
        return self.hear(finished, to=asked, agent="sandbox")

    def accepted(self, validation: EventId, execution: EventId, *, attempt: int = 1) -> Recorded[Event]:
        """Accept the code on this evidence."""
        return self.say(StepAccepted(step=1, attempt=attempt, code=CODE, validation=validation, execution=execution))

    def closed(self, *, status: RunStatus = RunStatus.FAILED, evidence: EventId | None = None) -> Recorded[Event]:
        """End the run."""
        result = StepResult(number=1, accepted=evidence is not None, attempts=1, evidence=evidence)
        heads = self.scribe.heads(self.run)
        chains = tuple(ChainHead(agent=agent, count=head.position, digest=head.digest) for agent, head in heads.items())
        event = RunClosed(
            status=status, reason="", results=(result,), tokens=0, records=1, chains=chains, root=NO_DIGEST
        )
        return self.say(event)

    def completed(self) -> Recorded[Event]:
        """Go from the plan to the end."""
        self.coded()
        evidence = self.validated().id, self.executed().id
        self.accepted(*evidence)
        return self.closed(status=RunStatus.COMPLETED, evidence=evidence[1])

    def broken(self) -> list[tuple[str, int]]:
        """Return the invariants that the history breaks, and where."""
        fold = Invariants()
        return [(one.invariant, one.at.seq) for recorded in self.records for one in fold.take(recorded)]


def another_asks(story: Story, run: str) -> Recorded[Event]:
    """Let another run come as far as its first question."""
    story.run = run
    story.begin(submission())
    story.plan()
    story.started()
    return story.requested()
