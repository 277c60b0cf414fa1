"""Invariants on histories that chance made: real keepers break none, and each kind of tampering is seen."""

from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.agents import fork_scene
from tests.agents.run_scene import LARGE, ROCK, SMALL
from tests.bench.history import History
from tests.replay.world import World, renumbered

from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.ids import EventId
from lumina.events.lease import LeaseGranted, LeaseReleased
from lumina.events.record import Head, Recorded, chain, draft_answer
from lumina.events.run import RunClosed, RunForked, RunOptions, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted
from lumina.events.validation import ValidationFinished, ValidationVerdict
from lumina.replay.invariants import invariants as law
from lumina.replay.invariants.invariants import Invariants

Records = list[Recorded[Event]]
SEEDS = st.integers(0, 2**32 - 1)
QUIETLY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def lived(seed: int, *, patient: bool = False, runs: int = 2) -> World:
    """Return a world whose history is over."""
    world = World(Random(seed))
    world.live(runs=runs, patient=patient)
    return world


def broken(records: Records) -> set[str]:
    """Return the invariants that a history breaks."""
    fold = Invariants()
    return {one.invariant for recorded in renumbered(records) for one in fold.take(recorded)}


@QUIETLY
@given(seed=SEEDS)
def test_what_real_keepers_say_breaks_nothing(seed: int) -> None:
    """Whatever workers, clients, nodes and time do, no record breaks an invariant, and in the end all is settled."""
    world = lived(seed, runs=3)
    fold = Invariants()
    for recorded in world.records:
        assert fold.take(recorded) == ()
    assert fold.unsettled() == ()
    assert fold.remembered.leases == 0


@QUIETLY
@given(seed=SEEDS)
def test_every_prefix_is_remembered_by_what_is_open(seed: int) -> None:
    """At no time more runs are remembered than are open or wait for something that was asked in them."""
    world = lived(seed, runs=6)
    fold, opened, asked = Invariants(), set[str](), 0
    for recorded in world.records:
        fold.take(recorded)
        match recorded.event:
            case RunSubmitted():
                opened.add(recorded.stream)
            case RunClosed():
                opened.discard(recorded.stream)
            case _:
                pass  # nothing else opens or closes a run
        asked = fold.remembered.requests + fold.remembered.leases
        assert fold.remembered.runs <= len(opened) + asked
    assert fold.remembered.runs <= asked


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), luck=st.integers(6, 16), place=st.integers(0, 10_000), more=st.booleans())
def test_what_forks_say_breaks_nothing(seed: int, luck: int, place: int, more: bool) -> None:
    """A fork anywhere in a run, with what it takes over or without knowing that, keeps every law of runs."""
    world = fork_scene.World(seed=seed, luck=luck)
    models = (SMALL, LARGE)
    parent = fork_scene.lived(ROCK, models=models, world=world)
    changed = {"options": RunOptions(attempts_max=6), "models": (LARGE,)} if more else {}
    fork = fork_scene.fork(parent, at=parent.records[place % len(parent.records)], run="r-fork", **changed)
    if fork.closed is None:
        fork_scene.World(seed=seed + 1, luck=luck).finish(fork)
    for history in (tuple(fork.shared), None):
        fold = Invariants()
        for recorded in parent.log:
            known = history if isinstance(recorded.event, RunForked) else None
            # The stage's workers answer without leases; what they say is judged elsewhere.
            assert [
                one for one in fold.take(recorded, history=known) if one.at.agent in {"client", "orchestrator"}
            ] == []


def test_a_fork_of_nothing_is_broken() -> None:
    """A fork whose parent does not stand before it, or which is not the first word of its run, is reported."""
    parent = fork_scene.accepted()
    fork = fork_scene.fork(parent, at=parent.records[3], run="r-fork")
    first = fork.records[0]
    assert [one.invariant for one in Invariants().take(first, history=())] == [law.FORK]
    assert Invariants().take(first, history=tuple(fork.shared)) == ()
    second = msgspec.structs.replace(first, position=2)
    assert [one.invariant for one in Invariants().take(second, history=tuple(fork.shared))] == [law.FORK]


def test_a_fork_goes_on_counting_attempts() -> None:
    """Attempts go on from what is taken over; a number beyond that is reported."""
    parent = fork_scene.accepted()
    started = next(one for one in parent.records if isinstance(one.event, AttemptStarted))
    fork = fork_scene.fork(parent, at=started, run="r-fork")
    assert isinstance(started.event, AttemptStarted)
    for attempt, faults in ((2, []), (3, [law.ATTEMPTS])):
        fold = Invariants()
        assert fold.take(fork.records[0], history=tuple(fork.shared)) == ()
        event = msgspec.structs.replace(started.event, attempt=attempt)
        draft = draft_answer(event, to=fork.records[0], agent="orchestrator", ordinal=0)
        said, _ = chain(draft, after=Head())
        assert [one.invariant for one in fold.take(said)] == faults


def test_memory_does_not_grow_with_the_log() -> None:
    """After 200 runs and after 2,000 the same is remembered: the one instance that the node holds, and no run."""
    history = History()
    fold, seen = Invariants(), 0
    for size in (2_000, 20_000):
        history.extend(size)
        for recorded in history.records[seen:]:
            assert fold.take(recorded) == ()
        seen = len(history.records)
        assert fold.remembered == law.Open(runs=0, requests=0, leases=0, instances=0)
        assert sum(len(part) for part in _containers(fold)) < 20


def _containers(fold: Invariants) -> list[dict[object, object]]:
    parts = (fold._runs, fold._governor, fold._outcomes)
    return [value for part in parts for value in vars(part).values() if hasattr(value, "__len__")]


Tamper = Callable[[Records, Random], "tuple[Records, str] | None"]


def _place(records: Records, chance: Random, *kinds: type[Event]) -> int | None:
    places = [number for number, recorded in enumerate(records) if isinstance(recorded.event, kinds)]
    return chance.choice(places) if places else None


def _with_event(records: Records, number: int, **fields: object) -> Records:
    event = msgspec.structs.replace(records[number].event, **fields)
    return [*records[:number], msgspec.structs.replace(records[number], event=event), *records[number + 1 :]]


def verdict_reversed(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Say of the evidence of an accepted step that it failed."""
    at = _place(records, chance, StepAccepted)
    if at is None:
        return None
    accepted = records[at].event
    assert isinstance(accepted, StepAccepted)
    validation = chance.random() < 0.5
    evidence = accepted.validation if validation else accepted.execution
    number = next(number for number, recorded in enumerate(records) if recorded.id == evidence)
    failed = ValidationVerdict.FAILED if validation else ExecutionVerdict.FAILED
    return _with_event(records, number, verdict=failed), law.EVIDENCE


def code_exchanged(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Let an accepted step name other code than was checked."""
    at = _place(records, chance, StepAccepted)
    if at is None:
        return None
    accepted = records[at].event
    assert isinstance(accepted, StepAccepted)
    return _with_event(records, at, code=msgspec.structs.replace(accepted.code, digest="e" * 63 + "0")), law.EVIDENCE


def outcome_doubled(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Let an outcome land a second time, right behind the first or at the end."""
    at = _place(records, chance, GenerationFinished, ValidationFinished, ExecutionFinished)
    if at is None:
        return None
    where = chance.choice([at + 1, len(records)])
    return [*records[:where], records[at], *records[where:]], law.SLOT


def decision_doubled(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Let the orchestrator start one attempt twice."""
    at = _place(records, chance, AttemptStarted)
    return None if at is None else ([*records[: at + 1], records[at], *records[at + 1 :]], law.SLOT)


def cause_removed(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Take out a worker's outcome that the orchestrator answered."""
    causes = {recorded.causation for recorded in records if recorded.agent == "orchestrator"}
    places = [
        number
        for number, recorded in enumerate(records)
        if isinstance(recorded.event, ValidationFinished | ExecutionFinished) and recorded.id in causes
    ]
    if not places:
        return None
    at = chance.choice(places)
    return [*records[:at], *records[at + 1 :]], law.CAUSE


def release_removed(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Never give one lease back, while the governor goes on to later inputs."""
    places = [
        number
        for number, recorded in enumerate(records)
        if isinstance(recorded.event, LeaseReleased)
        and any(later.agent == "governor" and later.causation != recorded.causation for later in records[number + 1 :])
    ]
    if not places:
        return None
    at = chance.choice(places)
    return [*records[:at], *records[at + 1 :]], law.LEASE


def release_doubled(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Give one lease back twice."""
    at = _place(records, chance, LeaseReleased)
    return None if at is None else ([*records[: at + 1], records[at], *records[at + 1 :]], law.LEASE)


def memory_overdrawn(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Let the first grant on a local model reserve more than the node has."""
    for number, recorded in enumerate(records):
        event = recorded.event
        if isinstance(event, LeaseGranted) and event.bytes_reserved and event.load:
            return _with_event(records, number, bytes_reserved=7_001 + chance.randrange(100)), law.BUDGET
    return None


def decision_after_the_end(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Move the end of a run before the last word of its orchestrator."""
    at = _place(records, chance, RunClosed)
    if at is None:
        return None
    stream = records[at].stream
    before = [n for n in range(at) if records[n].stream == stream and records[n].agent == "orchestrator"]
    if not before:
        return None
    moved = [*records[: before[-1]], records[at], *records[before[-1] : at], *records[at + 1 :]]
    return moved, law.END


def attempt_skipped(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Give an attempt a number that is one too high."""
    at = _place(records, chance, AttemptStarted)
    if at is None:
        return None
    event = records[at].event
    assert isinstance(event, AttemptStarted)
    return _with_event(records, at, attempt=event.attempt + 1), law.ATTEMPTS


def permission_revoked(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Ask the model on machines of others without saying why."""
    places = [
        number
        for number, recorded in enumerate(records)
        if isinstance(recorded.event, GenerationRequested) and recorded.event.ask.cloud
    ]
    if not places:
        return None
    at = chance.choice(places)
    event = records[at].event
    assert isinstance(event, GenerationRequested)
    return _with_event(records, at, ask=msgspec.structs.replace(event.ask, cloud="")), law.CLOUD


def result_embellished(records: Records, chance: Random) -> tuple[Records, str] | None:
    """Let the end of a run call a step accepted that was not."""
    at = _place(records, chance, RunClosed)
    if at is None:
        return None
    event = records[at].event
    assert isinstance(event, RunClosed)
    if not event.results or event.results[0].accepted:
        return None
    forged = msgspec.structs.replace(event.results[0], accepted=True, evidence=EventId("a" * 32))
    return _with_event(records, at, results=(forged, *event.results[1:])), law.RESULT


TAMPERED: tuple[Tamper, ...] = (
    verdict_reversed,
    code_exchanged,
    outcome_doubled,
    decision_doubled,
    cause_removed,
    release_removed,
    release_doubled,
    memory_overdrawn,
    decision_after_the_end,
    attempt_skipped,
    permission_revoked,
    result_embellished,
)


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(seed=SEEDS)
def test_a_history_that_was_tampered_with_is_caught(tamper: Tamper, seed: int) -> None:
    """Each kind of tampering breaks the invariant that is about it, wherever it is done."""
    world = lived(seed, patient=True)
    tampered = tamper(world.records, Random(seed))
    assume(tampered is not None)
    assert tampered is not None
    records, invariant = tampered
    assert invariant in broken(records)
