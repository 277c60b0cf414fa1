"""The orchestrator's laws, whatever the workers do: answers, garbage, duplicates, lost leases, cancels, timers.

Every run ends, attempts and tokens are bounded, nothing is accepted without evidence, nothing follows the end, deciding
twice adds nothing, and deciding any prefix of the history again gives the same bytes. `Scene` checks codec, chains,
evidence and root on every record as it lands.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.agents.run_scene import DEMO, LARGE, LAYERS, NEWS, NPC, ROCK, SMALL, WINK, Scene, blob, error, submitted

from lumina.agents.law import Decider
from lumina.agents.orchestrator import Orchestrator
from lumina.events.base import Event
from lumina.events.execution import ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationOutcome, GenerationRequested, PlanItem
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased, Refusal
from lumina.events.record import Recorded
from lumina.events.run import ModelChoice, RunCancelRequested, RunOptions, RunStatus
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.validation import ValidationRequested, ValidationVerdict
from lumina.events.values import FileRef

CODES = ("a", "b", "c", "d")
RULES = ("syntax", "F821", "missing-literal", "style")
REQUESTS = (
    ROCK,
    NPC,
    NEWS,
    f"1. {ROCK}\n2. {NPC}\n3. {WINK}",
    f"1. {LAYERS}\n2. Using Pillow, layer 'generated_character.png' and 'hat.png', save the result as 'end.png'.",
    "Print the first twenty lucky numbers.",
)
PLANS = (
    (PlanItem(kind="game", brief=ROCK),),
    (PlanItem(kind="nonsense", brief="x"),),
    (PlanItem(kind="game", brief=ROCK), PlanItem(kind="dialogue", brief=NPC), PlanItem(kind="animation", brief=WINK)),
)
STEPS_TO_THE_END_MAX = 400
NEWEST = st.sampled_from([True, True, True, True, False])


class Workers(RuleBasedStateMachine):
    """Arbitrary workers around one run."""

    scene: Scene

    @initialize(
        request=st.sampled_from(REQUESTS),
        models=st.sampled_from([(DEMO,), (SMALL,), (SMALL, LARGE), (DEMO, SMALL, LARGE)]),
        attempts_max=st.integers(1, 6),
        tokens_max=st.sampled_from([20, 300, 100_000]),
        allowed=st.booleans(),
        plan=st.booleans(),
    )
    def submit(
        self,
        request: str,
        models: tuple[ModelChoice, ...],
        attempts_max: int,
        tokens_max: int,
        allowed: bool,
        plan: bool,
    ) -> None:
        """Begin the run."""
        hosts = ("127.0.0.1:8000",) if allowed else ()
        options = RunOptions(attempts_max=attempts_max, tokens_max=tokens_max, hosts=hosts, plan=plan)
        self.attempts_max = attempts_max
        scene = Scene()
        scene.submit(submitted(request, models=models, options=options))
        self.scene = scene

    def open(self, kind: type[Event]) -> bool:
        """Return whether the newest request is of that kind; `Scene` keeps answered ones, so these come late."""
        return any(isinstance(record.event, kind) for record in self.scene.records)

    def pick(self, kind: type[Event], newest: bool, index: int) -> Recorded[Event]:
        """Return the newest request of a kind, or an old one whose answer is late."""
        found = [record for record in self.scene.records if isinstance(record.event, kind)]
        return found[-1] if newest else found[index % len(found)]

    @precondition(lambda self: self.open(GenerationRequested))
    @rule(
        code=st.sampled_from(CODES),
        outcome=st.sampled_from(list(GenerationOutcome)),
        answered=st.booleans(),
        tokens=st.integers(0, 60),
        newest=NEWEST,
        index=st.integers(0, 50),
        plan=st.sampled_from(PLANS),
    )
    def generate(
        self,
        code: str,
        outcome: GenerationOutcome,
        answered: bool,
        tokens: int,
        newest: bool,
        index: int,
        plan: tuple[PlanItem, ...],
    ) -> None:
        """Let a model answer, now or late, well or not."""
        request = self.pick(GenerationRequested, newest, index)
        assert isinstance(request.event, GenerationRequested)
        outcome = GenerationOutcome.ANSWERED if answered else outcome
        items = plan if request.event.ask.step == 0 and outcome is GenerationOutcome.ANSWERED else ()
        self.scene.answer(code, outcome=outcome, tokens=tokens, to=request, plan=items)

    @precondition(lambda self: self.open(ValidationRequested))
    @rule(
        verdict=st.sampled_from(list(ValidationVerdict)),
        passed=st.booleans(),
        rule_=st.sampled_from(RULES),
        newest=NEWEST,
        index=st.integers(0, 50),
        other_code=st.integers(0, 3),
    )
    def validate(
        self, verdict: ValidationVerdict, passed: bool, rule_: str, newest: bool, index: int, other_code: int
    ) -> None:
        """Let the validator speak, sometimes about another code."""
        request = self.pick(ValidationRequested, newest, index)
        verdict = ValidationVerdict.PASSED if passed else verdict
        findings = (error("wrong", rule=rule_),) if verdict is ValidationVerdict.FAILED else ()
        code = "f" * 64 if other_code == 0 else None
        self.scene.validate(verdict, findings=findings, code=code, to=request)

    @precondition(lambda self: self.open(ExecutionRequested))
    @rule(
        verdict=st.sampled_from(list(ExecutionVerdict)),
        passed=st.booleans(),
        newest=NEWEST,
        index=st.integers(0, 50),
        other_code=st.integers(0, 3),
    )
    def execute(self, verdict: ExecutionVerdict, passed: bool, newest: bool, index: int, other_code: int) -> None:
        """Let the sandbox speak, sometimes about another code."""
        request = self.pick(ExecutionRequested, newest, index)
        verdict = ExecutionVerdict.PASSED if passed else verdict
        made = (FileRef(name="generated_character.png", blob=blob("picture")),)
        self.scene.execute(verdict, artifacts=made, code="f" * 64 if other_code == 0 else None, to=request)

    @precondition(lambda self: self.open(GenerationRequested))
    @rule(refusal=st.sampled_from(list(Refusal)), newest=NEWEST, index=st.integers(0, 50))
    def refuse(self, refusal: Refusal, newest: bool, index: int) -> None:
        """Let the governor not admit a question."""
        request = self.pick(GenerationRequested, newest, index)
        refused = LeaseRefused(request=request.id, refusal=refusal, detail="no room")
        self.scene.hear(refused, agent="governor", to=request)

    @precondition(lambda self: self.open(GenerationRequested))
    @rule(newest=NEWEST, index=st.integers(0, 50), expires=st.booleans())
    def lease(self, newest: bool, index: int, expires: bool) -> None:
        """Let the governor grant a lease, and perhaps take it back."""
        request = self.pick(GenerationRequested, newest, index)
        assert isinstance(request.event, GenerationRequested)
        granted = LeaseGranted(
            request=request.id,
            ask=request.event.ask,
            node="local",
            instance=f"{request.event.ask.model}#1",
            load=False,
            bytes_reserved=0,
            context=1024,
            expires_at=self.scene.now_ms + 1000,
        )
        self.scene.hear(granted, agent="governor", to=request)
        said = next(record for record in reversed(self.scene.records) if isinstance(record.event, LeaseGranted))
        gone = LeaseExpired(lease=said.id, request=request.id) if expires else LeaseReleased(lease=said.id)
        self.scene.hear(gone, agent="governor", to=said)

    @precondition(lambda self: self.scene.timers())
    @rule(index=st.integers(0, 3))
    def elapse(self, index: int) -> None:
        """Let a moment come that the orchestrator waits for; the run's own only at the end."""
        waited = [timer for timer in sorted(self.scene.timers()) if timer != "run"]
        if waited:
            self.scene.elapse(waited[index % len(waited)])

    @rule(chance=st.integers(0, 19))
    def cancel(self, chance: int) -> None:
        """Somebody stops the run, now and then."""
        if chance == 0:
            self.scene.hear(RunCancelRequested(reason="enough"), agent="client")

    @invariant()
    def attempts_are_bounded(self) -> None:
        """No step has more attempts than the run allows, numbered without a gap."""
        attempts = Counter(r.event.step for r in self.scene.records if isinstance(r.event, AttemptStarted))
        assert all(count <= self.attempts_max for count in attempts.values())
        for step, count in attempts.items():
            events = (r.event for r in self.scene.records)
            numbers = [e.attempt for e in events if isinstance(e, AttemptStarted) and e.step == step]
            assert numbers == list(range(1, count + 1))

    @invariant()
    def each_step_ends_once(self) -> None:
        """Check that a step is accepted or fails, once."""
        ends = Counter(r.event.step for r in self.scene.records if isinstance(r.event, StepAccepted | StepFailed))
        assert all(count == 1 for count in ends.values())

    @invariant()
    def an_open_run_waits_for_something(self) -> None:
        """While a run is open its deadline stands, and deciding the newest record again adds nothing."""
        if self.scene.closed is None:
            assert "run" in self.scene.timers()
            assert Orchestrator().decide(self.scene.state, self.scene.records[-1]) == ()

    def teardown(self) -> None:
        """Every run ends, and deciding the history again, whole or in part, gives the same bytes."""
        if not hasattr(self, "scene"):
            return
        if self.scene.closed is None and len(self.scene.records) % 2:
            self._finish_well()
        elif self.scene.closed is None:
            self.scene.elapse("run")
            assert self.scene.closed is not None
            assert self.scene.closed.status is RunStatus.TIMED_OUT
        for cut in {len(self.scene.records) // 3, len(self.scene.records) // 2, len(self.scene.records)}:
            self._decide_again(cut)

    def _finish_well(self) -> None:
        """Let everybody work from now on: the run ends without the help of its deadline."""
        for number in range(STEPS_TO_THE_END_MAX):
            if self.scene.closed is not None:
                return
            waited = [timer for timer in sorted(self.scene.timers()) if timer.startswith("step") or timer == "plan"]
            match self.scene.asked().event:
                case _ if waited and number % 2:
                    self.scene.elapse(waited[0])
                case GenerationRequested(ask=ask) if ask.step == 0:
                    self.scene.answer(outcome=GenerationOutcome.UNUSABLE)
                case GenerationRequested():
                    self.scene.answer(f"fresh {number}", tokens=1)
                case ValidationRequested():
                    self.scene.validate()
                case ExecutionRequested():
                    self.scene.execute()
                case other:
                    raise AssertionError(other)
        raise AssertionError("the run did not end")

    def _decide_again(self, cut: int) -> None:
        decider = Decider(Orchestrator())
        decided = [
            answer.digest
            for record in self.scene.records[:cut]
            if record.agent != "orchestrator"
            for answer in decider.take(record)
        ]
        recorded = [record.digest for record in self.scene.records if record.agent == "orchestrator"]
        assert decided == recorded[: len(decided)]
        standing = sum(record.agent == "orchestrator" for record in self.scene.records[:cut])
        assert len(decided) >= standing


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
