"""The keeper's runner on a log in memory: stopped at every moment, recovered from every prefix, beside another one."""

from collections.abc import AsyncGenerator, Callable, Sequence

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from tests.agents.run_scene import ROCK, RUN, SMALL, START_MS, Scene, submitted

from lumina.agents import keeping
from lumina.agents.closing import root_of
from lumina.agents.errors import Diverged
from lumina.agents.keeping import KeeperRunner
from lumina.agents.law import Decider
from lumina.agents.orchestrator import NAME, Orchestrator
from lumina.bus.errors import BusError, CheckpointFailed, LogFull, LogUnavailable
from lumina.bus.memory import MemoryLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.execution import ExecutionVerdict
from lumina.events.ids import StreamId, event_id, root_event_id
from lumina.events.record import Draft, Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunOptions, RunStatus
from lumina.events.timer import TimerElapsed
from lumina.events.validation import ValidationVerdict

pytestmark = pytest.mark.anyio

TICKS_MAX = 600


def history() -> list[Recorded[Event]]:
    """Return a run with a repair, a second sample and a late outcome, as one keeper alone would write it."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=(SMALL,), options=RunOptions(plan=False)))
    scene.answer("one")
    scene.validate(ValidationVerdict.FAILED)
    scene.answer("two")
    scene.validate()
    scene.execute(ExecutionVerdict.FAILED, stderr="NameError: name 'x' is not defined")
    scene.answer("three")
    scene.validate()
    executed = scene.asked()
    scene.execute()
    scene.execute(to=executed)  # late
    return scene.records


HISTORY = history()


def draft(record: Recorded[Event]) -> Draft[Event]:
    """Return a record as its writer hands it in."""
    return Draft(
        event=record.event,
        id=record.id,
        stream=record.stream,
        agent=record.agent,
        time_ms=record.time_ms,
        causation=record.causation,
    )


def runner(log: MemoryLog, *, now_ms: Callable[[], int] = lambda: START_MS) -> KeeperRunner:
    """Return an orchestrator at work."""
    return KeeperRunner(Orchestrator(), events=log, now_ms=now_ms)


def decisions(records: Sequence[Recorded[Event]]) -> list[str]:
    """Return the digests of what the orchestrator said, in its order."""
    return [record.digest for record in records if record.agent == NAME]


async def world(log: MemoryLog) -> None:
    """Say what all others say in `HISTORY`, each when everything before it stands in the log."""
    for number, record in enumerate(HISTORY):
        if record.agent == NAME:
            continue
        while not {each.id for each in HISTORY[:number]} <= {each.id for each in log.records}:
            await anyio.lowlevel.checkpoint()
        await log.append(draft(record))


async def keep_until_the_end(log: MemoryLog, *keepers: KeeperRunner) -> None:
    """Let keepers work beside the world until the whole history stands."""
    async with anyio.create_task_group() as tasks:
        for keeper in keepers:
            tasks.start_soon(keeper.run)
        with anyio.fail_after(10):
            await world(log)
            while len(log.records) < len(HISTORY):
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_a_keeper_answers_as_it_decided() -> None:
    """What stands in the log is what the law says, record by record."""
    log = MemoryLog()
    await keep_until_the_end(log, runner(log))
    assert [each.digest for each in log.records] == [each.digest for each in HISTORY]


async def test_a_keeper_may_be_stopped_at_any_moment() -> None:
    """Cancelled in every turn of the event loop, and started again: no answer is lost, none is said twice."""
    for ticks in range(TICKS_MAX):
        log = MemoryLog()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner(log).run)
                tasks.start_soon(world, log)
                for _ in range(ticks):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
        done = len(log.records) == len(HISTORY)
        await keep_until_the_end(log, runner(log))
        assert [each.digest for each in log.records] == [each.digest for each in HISTORY]
        if done:
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("length", range(len(HISTORY) + 1))
async def test_recovery_from_every_prefix(length: int) -> None:
    """What is missing is appended, in order; recovering again appends nothing; then the run goes on to its end."""
    log = MemoryLog(HISTORY[:length])
    inputs = {record.id for record in HISTORY[:length] if record.agent != NAME}
    await runner(log).recover()
    expected = [each.digest for each in HISTORY if each.agent == NAME and each.causation in inputs]
    assert decisions(log.records) == expected
    size = len(log.records)
    await runner(log).recover()
    assert len(log.records) == size
    await keep_until_the_end(log, runner(log))
    assert decisions(log.records) == decisions(HISTORY)


async def test_recovery_when_inputs_landed_before_the_answers() -> None:
    """All that others said stands first, the keeper was down all the time: it decides in the order of the log."""
    inputs = [record for record in HISTORY if record.agent != NAME]
    log = MemoryLog()
    for record in inputs:
        await log.append(draft(record))
    await runner(log).recover()
    answered = decisions(log.records)
    assert log.records[len(inputs)].causation == inputs[0].id
    await runner(log).recover()
    assert decisions(log.records) == answered


async def test_two_keepers_of_one_name_do_no_harm() -> None:
    """Both decide the same, and each slot is filled once."""
    log = MemoryLog()
    await keep_until_the_end(log, runner(log), runner(log))
    assert [each.digest for each in log.records] == [each.digest for each in HISTORY]


@pytest.mark.parametrize("place", [0, 3])
async def test_another_decision_in_the_log_stops_the_keeper(place: int) -> None:
    """A slot that holds something else: the keeper says where, and writes nothing more."""
    decided = [record for record in HISTORY if record.agent == NAME][place]
    log = MemoryLog(HISTORY[: HISTORY.index(decided)])
    closed = RunClosed(status=RunStatus.FAILED, reason="", results=(), tokens=0, records=0, chains=(), root=root_of(()))
    await log.append(replace(draft(decided), event=closed))
    size = len(log.records)
    with pytest.raises(Diverged, match=r"type: recorded 'run\.closed\.v1', decided"):
        await runner(log).run()
    assert len(log.records) == size


async def test_a_decision_that_nobody_decides_stops_the_keeper() -> None:
    """A record under the keeper's name whose slot is no answer to anything, while the keeper is at work."""
    log = MemoryLog()
    started = anyio.Event()

    async def intrude() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: runner(log).run(started=started))
            await started.wait()
            await log.append(draft(next(record for record in HISTORY if record.agent == NAME)))

    with pytest.raises(ExceptionGroup) as raised:
        await intrude()
    assert raised.group_contains(Diverged, match="stands in the log, but is not decided now")


async def test_a_timer_elapses_once() -> None:
    """Two keepers wait for the run's deadline, and are started again after it: one record, one end of the run."""
    log = MemoryLog()
    now = [START_MS]
    await log.append(draft(HISTORY[0]))
    due = START_MS + 10 + RunOptions().timeout_ms
    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(runner(log, now_ms=lambda: now[0]).run)
            await anyio.wait_all_tasks_blocked()
            now[0] = due  # the first pair is asleep until then by its own clock, the second finds the moment gone
            tasks.cancel_scope.cancel()
    elapsed = [record for record in log.records if isinstance(record.event, TimerElapsed)]
    assert [(each.event.due, each.agent, each.time_ms) for each in elapsed] == [(due, "clock", due)]  # type: ignore[attr-defined] # filtered above
    (closed,) = [record.event for record in log.records if isinstance(record.event, RunClosed)]
    assert closed.status is RunStatus.TIMED_OUT


async def test_a_timer_wakes_a_sleeping_keeper() -> None:
    """Nothing else happens: when the moment comes, the keeper says so, decides, and is not kept awake by it."""
    log = MemoryLog()
    calls = [0]

    def now_ms() -> int:
        calls[0] += 1
        return START_MS + RunOptions().timeout_ms - 20 + int(1000 * (anyio.current_time() - begun))

    await log.append(draft(HISTORY[0]))
    begun = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner(log, now_ms=now_ms).run)
        with anyio.fail_after(5):
            async for recorded in log.follow():
                if isinstance(recorded.event, RunClosed):
                    break
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert calls[0] < 20


async def test_a_timer_between_inputs_and_answers_is_decided_in_its_place() -> None:
    """Deadlines land behind the answer of a model that came while the keeper was down: the log's order counts."""
    asked = next(number for number, record in enumerate(HISTORY) if record.type.startswith("generation.finished"))
    log = MemoryLog(HISTORY[: asked + 1])
    now_ms = START_MS + 2 * RunOptions().timeout_ms
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner(log, now_ms=lambda: now_ms).run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    types = [record.type.split(".")[1] for record in log.records[asked:]]
    # What follows from the answer, then the deadlines of that and of the run, then what follows from them.
    assert types == ["finished", "requested", "elapsed", "elapsed", "requested", "closed"]
    size = len(log.records)
    await runner(log).recover()
    assert len(log.records) == size


class FaultyLog(MemoryLog):
    """A log whose next appends fail: before the record lands, or after it."""

    failures: list[tuple[BusError, bool]]

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """Fail as planned."""
        error, lands = self.failures.pop(0) if draft.agent == NAME and self.failures else (None, True)
        recorded = await super().append(draft) if lands else None
        if error is not None:
            raise error
        assert recorded is not None
        return recorded


@pytest.mark.parametrize("error", [LogUnavailable("gone"), LogFull("full"), CheckpointFailed("full")])
@pytest.mark.parametrize("lands", [False, True])
async def test_an_outage_loses_no_answer(monkeypatch: pytest.MonkeyPatch, error: BusError, lands: bool) -> None:
    """An append is done again until it stands, whether the failed one landed or not."""
    monkeypatch.setattr(keeping, "RETRY_S", 0.01)
    log = FaultyLog()
    log.failures = [(error, lands)] * 5
    await keep_until_the_end(log, runner(log))
    assert [each.digest for each in log.records] == [each.digest for each in HISTORY]


async def test_more_records_than_the_buffer_holds() -> None:
    """A keeper that is far behind reads all, in order."""
    log = MemoryLog()
    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runner(log).run(started=started))
        await started.wait()
        for number in range(3 * keeping.INPUTS_BUFFERED_MAX):
            stream = StreamId(f"r-{number}")
            event = submitted(ROCK, models=(), options=RunOptions(plan=False))
            slot = root_event_id(stream, name="run.submitted")
            await log.append(Draft(event=event, id=slot, stream=stream, agent="client", time_ms=1, causation=None))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    closed = [record for record in log.records if isinstance(record.event, RunClosed)]
    assert [each.stream for each in closed] == [f"r-{number}" for number in range(3 * keeping.INPUTS_BUFFERED_MAX)]


async def test_a_log_that_ends_closes_its_reader() -> None:
    """When the keeper is stopped, what it follows is closed at once and not left to the garbage collector."""
    log = ClosedLog()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner(log).run)
        await log.append(draft(HISTORY[0]))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert log.closed == 1


class ClosedLog(MemoryLog):
    """A log that counts how many of its followers were closed."""

    closed = 0

    async def follow(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0
    ) -> AsyncGenerator[Recorded[Event], None]:
        """Count its end."""
        try:
            async for recorded in super().follow(filters, after=after):
                yield recorded
        finally:
            self.closed += 1


@pytest.mark.parametrize("length", [1, 6, len(HISTORY)])
async def test_a_run_is_submitted_once(length: int) -> None:
    """Another submission in a run, under way or ended, is answered by silence, and the next start finds nothing odd."""
    log = MemoryLog(HISTORY[:length])
    await runner(log).recover()
    before = decisions(log.records)
    again = submitted(ROCK, models=(), options=RunOptions(plan=False))
    slot = root_event_id(RUN, name="again")
    await log.append(Draft(event=again, id=slot, stream=RUN, agent="client", time_ms=1, causation=None))
    for _ in range(2):
        await runner(log).recover()
        assert decisions(log.records) == before


def test_late_words_change_nothing() -> None:
    """After `run.closed` outcomes, timers and cancellations are answered by silence, and nothing is remembered."""
    decider = Decider(Orchestrator())
    answers = [decider.take(record) for record in HISTORY if record.agent != NAME]
    assert answers[-1] == ()
    for event in (RunCancelRequested(reason="too late"), TimerElapsed(timer="run", due=START_MS)):
        late = Recorded(
            event=event,
            id=event_id(HISTORY[-1].id, agent="client", ordinal=0),
            stream=RUN,
            agent="client",
            time_ms=START_MS,
            causation=None,
            position=1,
            previous=HISTORY[-1].digest,
            digest=HISTORY[-1].digest,
        )
        assert decider.take(late) == ()
    assert (decider.state(RUN), decider.deadlines()) == (None, ())
