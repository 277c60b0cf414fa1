"""A stage for forks: runs beside each other in one log, and a world that answers the same question in the same way."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeVar, cast

import anyio
from msgspec.structs import replace
from tests.agents.run_scene import DEMO, ROCK, Scene, blob, error, submitted

from lumina.agents.ancestry import history_of
from lumina.agents.closing import chain_heads, root_of
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Origin
from lumina.bus.memory import MemoryLog
from lumina.events.base import Event
from lumina.events.execution import ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationOutcome, GenerationRequested, PlanItem
from lumina.events.ids import EventId, StreamId
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, Refusal
from lumina.events.record import Head, Recorded
from lumina.events.run import ModelChoice, PlannedStep, RunForked, RunOptions, RunPlanned
from lumina.events.validation import ValidationRequested, ValidationVerdict
from lumina.events.values import FileRef

T = TypeVar("T")
E = TypeVar("E", bound=Event)
ANSWERS_MAX = 500


def forked_from(parent: Scene, *, at: Recorded[Event], without: EventId | None = None, **fields: Any) -> RunForked:
    """Return the first word of a fork of `parent` at one of its records."""
    heads = {
        each.agent: Head(position=each.position, digest=each.digest) for each in parent.records if each.seq <= at.seq
    }
    chains = chain_heads(heads)
    return RunForked(parent=parent.run, at=at.id, chains=chains, root=root_of(chains), without=without, **fields)


def begin(log: list[Recorded[Event]], event: RunForked, *, run: str) -> Scene:
    """Let a fork begin in the log where its parent stands, as the runner does it."""
    scene = Scene(StreamId(run), log=log)
    origin = Origin(parent=event.parent, at=event.at, chains=event.chains, without=event.without)

    async def read() -> tuple[Recorded[Event], ...]:
        return await history_of(origin, events=MemoryLog(log), before=len(log) + 1)

    scene.shared = anyio.run(read)
    scene.hear(event, agent="client")
    return scene


def fork(parent: Scene, *, at: Recorded[Event], run: str, **fields: Any) -> Scene:
    """Fork `parent` at one of its records."""
    return begin(parent.log, forked_from(parent, at=at, **fields), run=run)


def folded(records: Sequence[Recorded[Event]], *, run: StreamId) -> Any:
    """Return the state after records that are folded one by one."""
    orchestrator = Orchestrator()
    state = orchestrator.initial(run)
    for recorded in records:
        state = orchestrator.evolve(state, recorded)
    return state


class World:
    """Answers any question by what it asks and how often that was asked, and by nothing else.

    `luck` says how many of 16 outcomes are good ones.
    """

    def __init__(self, *, seed: int, luck: int, plan: tuple[PlanItem, ...] = ()) -> None:
        self._seed = seed
        self._luck = luck
        self._plan = plan

    def _draw(self, key: str, bad: Sequence[T], *, good: T) -> T:
        number = int.from_bytes(sha256(f"{self._seed} {key}".encode()).digest()[:4], "big")
        return good if number % 16 < self._luck else bad[number // 16 % len(bad)]

    def answer(self, scene: Scene) -> None:
        """Let whoever is asked answer."""
        waited = [timer for timer in sorted(scene.timers()) if timer != "run"]
        request = next((each for each in reversed(scene.records) if _is_open(scene, each)), None)
        if request is None:
            scene.elapse(waited[0])  # a pause is over
            return
        story = (*scene.shared, *scene.records)
        match request.event:
            case GenerationRequested(ask=ask):
                key = f"generation {ask.step} {ask.attempt}"
                self._generate(scene, request, key=key, step=ask.step)
            case ValidationRequested(step=step, attempt=attempt):
                tries = _asked(story, request.event, agent="validator")
                bad = (ValidationVerdict.FAILED, ValidationVerdict.FAILED, ValidationVerdict.ERROR)
                verdict = self._draw(f"validation {step} {attempt} {tries}", bad, good=ValidationVerdict.PASSED)
                rule = self._draw(f"rule {step} {attempt}", ("style", "syntax"), good="F821")
                findings = (error("wrong", rule=rule),) if verdict is ValidationVerdict.FAILED else ()
                scene.validate(verdict, findings=findings, to=request)
            case ExecutionRequested(step=step, attempt=attempt):
                tries = _asked(story, request.event, agent="sandbox")
                bad_runs = tuple(verdict for verdict in ExecutionVerdict if verdict is not ExecutionVerdict.PASSED)
                run = self._draw(f"execution {step} {attempt} {tries}", bad_runs, good=ExecutionVerdict.PASSED)
                made = (FileRef(name="generated_character.png", blob=blob(f"picture {step} {attempt}")),)
                scene.execute(run, artifacts=made, to=request)
            case other:
                raise AssertionError(other)

    def _generate(self, scene: Scene, request: Recorded[Event], *, key: str, step: int) -> None:
        bad: tuple[GenerationOutcome | Refusal | None, ...] = (*GenerationOutcome, *Refusal, None)
        outcome = self._draw(key, bad, good=GenerationOutcome.ANSWERED)
        if isinstance(outcome, Refusal):
            refused = LeaseRefused(request=request.id, refusal=outcome, detail="no room")
            scene.hear(refused, agent="governor", to=request)
        elif outcome is None:
            _lose(scene, request)
        else:
            code = self._draw(f"code {key}", ("one", "two", "three"), good=key)
            plan = self._plan if step == 0 and outcome is GenerationOutcome.ANSWERED else ()
            scene.answer(code, outcome=outcome, plan=plan, tokens=7, to=request)

    def finish(self, scene: Scene) -> None:
        """Answer until the run ends."""
        for _ in range(ANSWERS_MAX):
            if scene.closed is not None:
                return
            self.answer(scene)
        raise AssertionError("the run did not end")


def _lose(scene: Scene, request: Recorded[Event]) -> None:
    """Let the lease for a question run out. What made the governor say so stands in another stream, as often."""
    assert isinstance(request.event, GenerationRequested)
    granted = LeaseGranted(
        request=request.id,
        ask=request.event.ask,
        node="local",
        instance=f"{request.event.ask.model}#1",
        load=False,
        bytes_reserved=0,
        context=1024,
        expires_at=scene.now_ms + 1000,
    )
    scene.hear(granted, agent="governor")
    scene.hear(LeaseExpired(lease=scene.records[-1].id, request=request.id), agent="governor")


def _is_open(scene: Scene, record: Recorded[Event]) -> bool:
    """Return whether a record is a question that nobody has answered."""
    if not isinstance(record.event, GenerationRequested | ValidationRequested | ExecutionRequested):
        return False
    return all(getattr(each.event, "request", None) != record.id for each in scene.records)


def _asked(story: Sequence[Recorded[Event]], request: ValidationRequested | ExecutionRequested, *, agent: str) -> int:
    """Return how many answers about this attempt there were."""
    place = (request.step, request.attempt)
    return sum(each.agent == agent and (each.event.step, each.event.attempt) == place for each in story)  # type: ignore[attr-defined]  # both have them


def lived(request: str, *, models: tuple[ModelChoice, ...], world: World, attempts_max: int = 4) -> Scene:
    """Return a run that ended."""
    scene = Scene()
    scene.submit(submitted(request, models=models, options=RunOptions(attempts_max=attempts_max)))
    world.finish(scene)
    return scene


def accepted(request: str = ROCK, *, models: tuple[ModelChoice, ...] = (DEMO,)) -> Scene:
    """Return a run in which all went well at once."""
    return lived(request, models=models, world=World(seed=1, luck=16))


def of_type(scene: Scene, kind: type[E]) -> list[Recorded[E]]:
    """Return the records of one type."""
    return [cast("Recorded[E]", record) for record in scene.records if isinstance(record.event, kind)]


def planned(scene: Scene) -> Recorded[RunPlanned]:
    """Return the plan."""
    return of_type(scene, RunPlanned)[0]


def step_of(scene: Scene, number: int = 1) -> PlannedStep:
    """Return a planned step."""
    return planned(scene).event.steps[number - 1]


def outcome(scene: Scene) -> tuple[object, ...]:
    """Return how a run ended, without the names of its own records."""
    assert scene.closed is not None
    results = tuple(replace(result, evidence=None) for result in scene.closed.results)
    return scene.closed.status, scene.closed.reason, results, scene.closed.tokens
