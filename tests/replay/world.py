"""A world in which chance decides everything but what the keepers say: histories for the invariants.

Orchestrator and governor are the real ones, each reading at its own pace. Workers answer what they like, late or
never, nodes announce themselves again, clients cancel, time passes. Ids, chains and sequence are as in a log.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final, assert_never

import msgspec
from tests.agents.run_scene import submitted

from lumina.agents.governor import Governor
from lumina.agents.law import Decider
from lumina.agents.orchestrator import Orchestrator
from lumina.bus.subjects import Filter, subject_matches, subject_of
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, Load, PlanItem, Usage
from lumina.events.ids import StreamId, root_event_id
from lumina.events.lease import LeaseGranted
from lumina.events.node import Backend, ModelOffer, ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import NO_DIGEST, Draft, Recorded, draft_answer
from lumina.events.run import ModelChoice, RunCancelRequested, RunOptions
from lumina.events.timer import TimerElapsed
from lumina.events.validation import Finding, Severity, ValidationFinished, ValidationRequested, ValidationVerdict
from lumina.events.values import BlobRef
from lumina.replay.scribe import Scribe

NODE: Final = StreamId("local")
RAW: Final = BlobRef(digest="d" * 64, size=80, media_type="application/json")
ROCK: Final = "Generate JavaScript code for a rock-paper-scissors function that takes playerChoice and returns 'win'"
REQUESTS: Final = (f"1. {ROCK}\n2. Print the first twenty lucky numbers.", ROCK, "Print the first lucky numbers.")
SMALL: Final = ModelOffer(
    model="small", backend=Backend.LLAMA_CPP, bytes_estimated=3_000, context=4096, instances_max=2
)
LARGE: Final = ModelOffer(model="large", backend=Backend.LLAMA_CPP, bytes_estimated=6_000, context=8192, slots=2)
AWAY: Final = ModelOffer(model="away", backend=Backend.OPENAI, bytes_estimated=0, context=8192, slots=4, cloud=True)
STEPS_MAX: Final = 4_000
Request = LeaseGranted | UnloadRequested | ValidationRequested | ExecutionRequested


class Reader:
    """A keeper and how far it has read."""

    def __init__(self, decider: Decider[Any]) -> None:
        self.decider = decider
        self.next = 0
        self._patterns = [each.subject() for each in (*decider.keeper.inputs, Filter(agent=decider.keeper.name))]

    def reads(self, recorded: Recorded[Event]) -> bool:
        """Whether a record is an input."""
        if recorded.agent == self.decider.keeper.name:
            return False
        subject = subject_of(recorded.event, stream=recorded.stream, agent=recorded.agent)
        return any(subject_matches(subject, pattern=pattern) for pattern in self._patterns)


class World:
    """Everything around the keepers. `live` plays a history to its end; `records` is all of it."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.scribe = Scribe()
        self.now_ms = 1_700_000_000_000
        self.pending: list[Recorded[Event]] = []
        self.lost = 0
        self._keepers = (Reader(Decider(Orchestrator())), Reader(Decider(Governor(node=NODE))))
        self._runs: list[str] = []
        self._cancelled: set[str] = set()
        self._said: set[str] = set()
        self._named = 0

    @property
    def records(self) -> list[Recorded[Event]]:
        """The history."""
        return self.scribe.records

    def live(self, *, runs: int, patient: bool = False) -> None:
        """Play until all runs have ended and nothing is under way. A `patient` world loses and cancels nothing."""
        self._announce()
        for _ in range(STEPS_MAX):
            moves: list[Callable[[], object]] = [self._read, self._read, self._read, self._read]
            moves += [self._answer] * 3 if self.pending else []
            if len(self._runs) < runs:
                moves.append(self._submit)
            if not patient:
                moves += [self._cancel, self._announce, self._lose] if self.chance.random() < 0.06 else []
                moves += [self._elapse] if self.chance.random() < 0.3 else []
            self.chance.choice(moves)()
            if len(self._runs) == runs and not self.pending and not self._unread() and not self._elapse():
                return
        raise AssertionError("this history has no end")

    def _unread(self) -> bool:
        return any(keeper.next < len(self.records) for keeper in self._keepers)

    def _say(self, event: Event, *, stream: str, agent: str, name: str | None = None) -> None:
        self._named += 1
        named = StreamId(stream)
        slot = root_event_id(named, name=name or f"{type(event).__name__}/{self._named}")
        self._land(Draft(event=event, id=slot, stream=named, agent=agent, time_ms=self._tick(), causation=None))

    def _tick(self) -> int:
        self.now_ms += self.chance.randrange(1, 50)
        return self.now_ms

    def _land(self, draft: Draft[Event]) -> Recorded[Event]:
        recorded = self.scribe.write(draft)
        if isinstance(recorded.event, Request):
            self.pending.append(recorded)
        return recorded

    def _submit(self) -> None:
        run = f"r-{len(self._runs)}"
        self._runs.append(run)
        permitted = self.chance.random() < 0.5
        names = self.chance.sample(["small", "large", "away"], k=self.chance.randrange(1, 4))
        models = tuple(ModelChoice(model=name, context=4096, plans=True, cloud=name == "away") for name in names)
        options = RunOptions(attempts_max=self.chance.randrange(1, 6), cloud=permitted, seed=len(self._runs))
        request = self.chance.choice(REQUESTS)
        self._say(submitted(request, models=models, options=options), stream=run, agent="client", name="run.submitted")

    def _announce(self) -> None:
        offers = self.chance.choice([(SMALL, LARGE, AWAY), (SMALL, AWAY)])
        configuration = self.chance.choice("ab") * 64
        announced = NodeAnnounced(
            node=NODE, bytes_max=7_000, models=offers, idle_ms=60_000, configuration=configuration
        )
        self._say(announced, stream=NODE, agent="node")

    def _cancel(self) -> None:
        run = self.chance.choice(self._runs) if self._runs else None
        if run is not None and run not in self._cancelled:
            self._cancelled.add(run)
            self._say(RunCancelRequested(reason="enough"), stream=run, agent="client", name="run.cancel_requested")

    def _lose(self) -> None:
        """Let a request be lost with its worker: nobody ever answers it."""
        lost = [request for request in self.pending if not isinstance(request.event, UnloadRequested)]
        if lost:
            self.pending.remove(self.chance.choice(lost))
            self.lost += 1

    def _elapse(self) -> bool:
        """Let the next moment come that a keeper waits for; return whether there is one."""
        deadlines = [deadline for keeper in self._keepers for deadline in keeper.decider.deadlines()]
        for deadline in sorted(deadlines, key=lambda one: (one.due_ms, one.stream, one.timer)):
            name = f"timer/{deadline.timer}/{deadline.due_ms}"
            if f"{deadline.stream}/{name}" not in self._said:
                self._said.add(f"{deadline.stream}/{name}")
                self.now_ms = max(self.now_ms, deadline.due_ms)
                elapsed = TimerElapsed(timer=deadline.timer, due=deadline.due_ms)
                self._say(elapsed, stream=deadline.stream, agent="clock", name=name)
                return True
        return False

    def _read(self) -> None:
        """Let a keeper read some records and answer them."""
        keeper = self.chance.choice(self._keepers)
        for _ in range(self.chance.randrange(1, 4)):
            if keeper.next == len(self.records):
                return
            recorded = self.records[keeper.next]
            keeper.next += 1
            if not keeper.reads(recorded):
                continue
            for answer in keeper.decider.take(recorded):
                draft = Draft(
                    event=answer.event,
                    id=answer.id,
                    stream=answer.stream,
                    agent=answer.agent,
                    time_ms=answer.time_ms,
                    causation=answer.causation,
                )
                assert self._land(draft).digest == answer.digest, "the chain is the keeper's own"

    def _answer(self) -> None:
        """Let a worker answer one request."""
        request = self.pending.pop(self.chance.randrange(len(self.pending)))
        event = request.event
        assert isinstance(event, Request)
        match event:
            case LeaseGranted():
                outcome: Event = self._generated(request, event)
            case ValidationRequested():
                outcome = self._validated(request, event)
            case ExecutionRequested():
                outcome = self._executed(request, event)
            case UnloadRequested():
                outcome = ModelUnloaded(node=NODE, instance=event.instance, was_loaded=True, effect=NO_DIGEST, raw=RAW)
            case _:
                assert_never(event)
        agent = {GenerationFinished: "specialist", ValidationFinished: "validator", ExecutionFinished: "sandbox"}.get(
            type(outcome), "specialist"
        )
        self._land_outcome(request, outcome, agent=agent)

    def _land_outcome(self, request: Recorded[Event], outcome: Event, *, agent: str) -> None:
        self._land(draft_answer(outcome, to=request, agent=agent, ordinal=0, time_ms=self._tick()))

    def _generated(self, request: Recorded[Event], lease: LeaseGranted) -> GenerationFinished:
        good = self.chance.random() < 0.7
        outcome = GenerationOutcome.ANSWERED if good else self.chance.choice(list(GenerationOutcome))
        plan = lease.ask.step == 0 and outcome is GenerationOutcome.ANSWERED
        code = BlobRef(digest=self.chance.choice("0123456789abcdef") * 64, size=9, media_type="text/x-python")
        return GenerationFinished(
            request=lease.request,
            lease=request.id,
            step=lease.ask.step,
            attempt=lease.ask.attempt,
            model=lease.ask.model,
            outcome=outcome,
            effect=NO_DIGEST,
            raw=RAW,
            usage=Usage(prompt_tokens=10, generated_tokens=5, context=1024),
            code=None if plan or outcome is not GenerationOutcome.ANSWERED else code,
            plan=(PlanItem(kind="game", brief=ROCK),) if plan else (),
            load=Load(load_ms=20, bytes_measured=100) if lease.load else None,
        )

    def _validated(self, request: Recorded[Event], asked: ValidationRequested) -> ValidationFinished:
        good = self.chance.random() < 0.7
        verdict = ValidationVerdict.PASSED if good else self.chance.choice(list(ValidationVerdict))
        wrong = Finding(tool="ruff", rule="F821", severity=Severity.ERROR, line=1, column=1, message="undefined")
        return ValidationFinished(
            request=request.id,
            step=asked.step,
            attempt=asked.attempt,
            code=asked.code.digest,
            verdict=verdict,
            findings=(wrong,) if verdict is ValidationVerdict.FAILED else (),
            effect=NO_DIGEST,
            raw=RAW,
        )

    def _executed(self, request: Recorded[Event], asked: ExecutionRequested) -> ExecutionFinished:
        good = self.chance.random() < 0.6
        verdict = ExecutionVerdict.PASSED if good else self.chance.choice(list(ExecutionVerdict))
        return ExecutionFinished(
            request=request.id,
            step=asked.step,
            attempt=asked.attempt,
            code=asked.code.digest,
            verdict=verdict,
            tier=asked.tier,
            exit_code=0,
            stdout="",
            stderr="",
            checks=(),
            artifacts=(),
            wall_ms=1,
            effect=NO_DIGEST,
            raw=RAW,
        )


def renumbered(records: list[Recorded[Event]]) -> list[Recorded[Event]]:
    """Return the records with the sequence of their places."""
    return [msgspec.structs.replace(recorded, seq=number) for number, recorded in enumerate(records, start=1)]
