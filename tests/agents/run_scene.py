"""A stage for the orchestrator: facts in, facts out. Every record passes the codec, every law is checked as it lands.

`given` and `when` are the workers' words, `then` is what the orchestrator must answer, exactly and in order.
"""

from hashlib import sha256

from lumina.agents.closing import root_of
from lumina.agents.law import Decider
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.orchestrator_state import RunState
from lumina.agents.specialist_files import to_ref
from lumina.agents.specialist_folders import load_folders
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.contract import Case
from lumina.events.execution import Check, ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import (
    GenerationFinished,
    GenerationOutcome,
    GenerationRequested,
    PlanItem,
    Usage,
)
from lumina.events.ids import EventId, StreamId, event_id, root_event_id
from lumina.events.record import Draft, Head, Recorded, chain, from_headers, to_headers
from lumina.events.run import ModelChoice, RunClosed, RunOptions, RunStatus, RunSubmitted, SpecialistRef
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import Finding, Severity, ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef, FileRef

RUN = StreamId("r-scene")
START_MS = 1_700_000_000_000
RAW = BlobRef(digest="d" * 64, size=80, media_type="application/json")

WINK = (
    "Generate a GSAP timeline configuration object for a 2D character. The animation should first make the "
    "'left_eye_lid' and 'right_eye_lid' elements close (scaleY: 0) over 0.2 seconds, then open back (scaleY: 1) over "
    "0.2 seconds. After a 0.1 second pause, the 'mouth' element should change its 'src' attribute to 'smile.png' over "
    "0.3 seconds."
)
NEWS = "Scrape the titles and URLs of the first 5 articles from http://127.0.0.1:8000/news."
NEWS_SECTION = "Scrape the titles and URLs of the first 5 articles from the 'Technology' section of news.example.com."
ROCK = (
    "Generate JavaScript code for a simple rock-paper-scissors game function that takes playerChoice and returns "
    "'win', 'lose', or 'tie'"
)
NPC = (
    "Generate Python code for an NPC dialogue tree where if player says 'hello', NPC responds 'Greetings, traveler!', "
    "and if player says 'quest', NPC responds 'I have no quests for you today.'"
)
LAYERS = (
    "Generate a Python script using Pillow to layer 'base_character.png', 'green_tunic.png' (at coordinates 4,5), "
    "'leather_boots.png' (at 6,7), and 'surprised_face.png' (at 8,9). Ensure all layers are transparent PNGs and "
    "composite them correctly. Save the output as 'generated_character.png'."
)

DEMO = ModelChoice(model="demo", context=1024, plans=True, bare=True)
SMALL = ModelChoice(model="small", context=4096, plans=True)
LARGE = ModelChoice(model="large", context=8192, plans=True)


def specialists() -> tuple[SpecialistRef, ...]:
    """Return the built-in specialists as a run remembers them."""
    found = []
    for file in load_folders():
        assert file.definition is not None, file.problems
        found.append(to_ref(file.definition, blob=blob(file.content.decode())))
    return tuple(found)


def blob(text: str) -> BlobRef:
    """Return the reference of a text."""
    content = text.encode()
    return BlobRef(digest=sha256(content).hexdigest(), size=len(content), media_type="text/plain")


def submitted(
    request: str,
    *,
    models: tuple[ModelChoice, ...] = (DEMO,),
    options: RunOptions | None = None,
    cases: tuple[Case, ...] = (),
    files: tuple[FileRef, ...] = (),
) -> RunSubmitted:
    """Return a submission with the built-in specialists."""
    return RunSubmitted(
        request=request,
        options=options or RunOptions(),
        specialists=specialists(),
        models=models,
        cases=cases,
        files=files,
    )


class Scene:
    """One run: what landed in it, in order, and the orchestrator that answered."""

    def __init__(self, run: StreamId = RUN, *, log: list[Recorded[Event]] | None = None) -> None:
        """Begin with an empty log, or in one where other runs stand, of which this one may be a fork."""
        self.run = run
        self.log: list[Recorded[Event]] = [] if log is None else log
        self.records: list[Recorded[Event]] = []
        self.shared: tuple[Recorded[Event], ...] = ()
        self.now_ms = max((recorded.time_ms for recorded in self.log), default=START_MS)
        self.last: tuple[Recorded[Event], ...] = ()
        self._decider = Decider(Orchestrator())
        self._heads: dict[str, Head] = {}

    def hear(self, event: Event, *, agent: str, to: Recorded[Event] | None = None) -> tuple[Recorded[Event], ...]:
        """Let `agent` say `event` and return the orchestrator's answers; both stand in the log then."""
        self.now_ms += 10
        slot = root_event_id(self.run, name=f"{agent}/{len(self.records)}")
        if to is not None:
            slot = event_id(to.id, agent=agent, ordinal=sum(record.causation == to.id for record in self.records))
        draft = Draft(
            event=event,
            id=slot,
            stream=self.run,
            agent=agent,
            time_ms=self.now_ms,
            causation=None if to is None else to.id,
        )
        said, _ = chain(draft, after=self._heads.get(agent, Head()))
        answers = self._decider.take(self._land(said), history=self.shared)
        self.last = tuple(self._land(answer) for answer in answers)
        return self.last

    def _land(self, said: Recorded[Event]) -> Recorded[Event]:
        """Return the record as it is read back, and check what must hold of it."""
        body = encode(said.event)
        landed = from_headers(to_headers(said), body=body, seq=len(self.log) + 1)
        assert encode(landed.event) == body
        assert landed.event == said.event
        assert self._heads.get(said.agent, Head()).position + 1 == landed.position
        assert self._heads.get(said.agent, Head()).digest == landed.previous
        if landed.agent == "orchestrator":
            assert not self.closed, "nothing follows run.closed"
            if isinstance(landed.event, StepAccepted):
                self._check_evidence(landed.event)
            if isinstance(landed.event, RunClosed):
                self._check_root(landed.event)
        self._heads[said.agent] = Head(position=landed.position, digest=landed.digest)
        self.records.append(landed)
        self.log.append(landed)
        return landed

    def _check_evidence(self, accepted: StepAccepted) -> None:
        """Law: no acceptance without a passed validation and execution of the same code."""
        by_id = {record.id: record.event for record in (*self.shared, *self.records)}
        validation, execution = by_id[accepted.validation], by_id[accepted.execution]
        assert isinstance(validation, ValidationFinished)
        assert isinstance(execution, ExecutionFinished)
        assert validation.verdict is ValidationVerdict.PASSED
        assert execution.verdict is ExecutionVerdict.PASSED
        assert validation.code == execution.code == accepted.code.digest
        assert validation.step == execution.step == accepted.step

    def _check_root(self, closed: RunClosed) -> None:
        heads = {head.agent: (head.count, head.digest) for head in closed.chains}
        assert heads == {agent: (head.position, head.digest) for agent, head in self._heads.items()}
        assert [head.agent for head in closed.chains] == sorted(heads)
        assert closed.root == root_of(closed.chains)
        assert closed.records == len(self.records)

    @property
    def closed(self) -> RunClosed | None:
        """How the run ended, None while it goes on."""
        return next((record.event for record in self.records if isinstance(record.event, RunClosed)), None)

    @property
    def state(self) -> RunState:
        """What the orchestrator knows; only while the run goes on."""
        state = self._decider.state(self.run)
        assert state is not None
        return state

    def timers(self) -> dict[str, int]:
        """Return what the orchestrator waits for: names and moments."""
        return {deadline.timer: deadline.due_ms for deadline in self._decider.deadlines()}

    def submit(self, event: RunSubmitted) -> tuple[Recorded[Event], ...]:
        """Begin."""
        return self.hear(event, agent="client")

    def asked(self) -> Recorded[Event]:
        """Return the newest request of the orchestrator to a worker."""
        kinds = (GenerationRequested, ValidationRequested, ExecutionRequested)
        return next(record for record in reversed(self.records) if isinstance(record.event, kinds))

    def answer(
        self,
        code: str | None = "code",
        *,
        outcome: GenerationOutcome = GenerationOutcome.ANSWERED,
        tokens: int = 50,
        plan: tuple[PlanItem, ...] = (),
        detail: str = "",
        to: Recorded[Event] | None = None,
    ) -> tuple[Recorded[Event], ...]:
        """Let the specialist answer the newest question, or `to`."""
        request = to or self.asked()
        assert isinstance(request.event, GenerationRequested)
        ask = request.event.ask
        finished = GenerationFinished(
            request=request.id,
            lease=EventId("1" * 32),
            step=ask.step,
            attempt=ask.attempt,
            model=ask.model,
            outcome=outcome,
            effect="e" * 64,
            raw=RAW,
            usage=Usage(prompt_tokens=10, generated_tokens=tokens, context=1024),
            code=None if code is None or outcome is not GenerationOutcome.ANSWERED or plan else blob(code),
            plan=plan,
            detail=detail,
        )
        return self.hear(finished, agent="specialist", to=request)

    def validate(
        self,
        verdict: ValidationVerdict = ValidationVerdict.PASSED,
        *,
        findings: tuple[Finding, ...] = (),
        detail: str = "",
        code: str | None = None,
        to: Recorded[Event] | None = None,
    ) -> tuple[Recorded[Event], ...]:
        """Let the validator answer; `code` is another digest than it was asked about."""
        request = to or self.asked()
        assert isinstance(request.event, ValidationRequested)
        finished = ValidationFinished(
            request=request.id,
            step=request.event.step,
            attempt=request.event.attempt,
            code=code or request.event.code.digest,
            verdict=verdict,
            findings=findings,
            effect="e" * 64,
            raw=RAW,
            detail=detail,
        )
        return self.hear(finished, agent="validator", to=request)

    def execute(
        self,
        verdict: ExecutionVerdict = ExecutionVerdict.PASSED,
        *,
        stderr: str = "",
        checks: tuple[Check, ...] = (),
        detail: str = "",
        artifacts: tuple[FileRef, ...] = (),
        code: str | None = None,
        to: Recorded[Event] | None = None,
    ) -> tuple[Recorded[Event], ...]:
        """Let the sandbox answer."""
        request = to or self.asked()
        assert isinstance(request.event, ExecutionRequested)
        finished = ExecutionFinished(
            request=request.id,
            step=request.event.step,
            attempt=request.event.attempt,
            code=code or request.event.code.digest,
            verdict=verdict,
            tier=request.event.tier,
            exit_code=0 if verdict is ExecutionVerdict.PASSED else 1,
            stdout="",
            stderr=stderr,
            checks=checks,
            artifacts=artifacts,
            wall_ms=5,
            effect="e" * 64,
            raw=RAW,
            detail=detail,
        )
        return self.hear(finished, agent="sandbox", to=request)

    def elapse(self, timer: str) -> tuple[Recorded[Event], ...]:
        """Let the moment come that the orchestrator waits for under the name `timer`."""
        due = self.timers()[timer]
        self.now_ms = max(self.now_ms, due)
        return self.hear(TimerElapsed(timer=timer, due=due), agent="clock")


def said(records: tuple[Recorded[Event], ...]) -> list[str]:
    """Return the types of records, without category and version."""
    return [record.type.split(".")[1] for record in records]


def rungs(scene: Scene) -> list[tuple[str, str]]:
    """Return rung and model of every attempt so far."""
    events = (record.event for record in scene.records)
    return [(event.rung.value, event.model) for event in events if isinstance(event, AttemptStarted)]


def ended(scene: Scene) -> tuple[RunStatus, str]:
    """Return status and reason of a closed run."""
    assert scene.closed is not None, said(scene.last)
    return scene.closed.status, scene.closed.reason


def failure(scene: Scene) -> StepFailed:
    """Return the newest `step.failed`."""
    return next(record.event for record in reversed(scene.records) if isinstance(record.event, StepFailed))


def error(message: str, *, rule: str = "F821", tool: str = "ruff", line: int = 3) -> Finding:
    """Return a finding that fails validation."""
    return Finding(tool=tool, rule=rule, severity=Severity.ERROR, line=line, column=1, message=message)
