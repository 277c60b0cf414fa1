"""The worker's runner on a log in memory: stopped at every moment, without its bus, with defects, after its run."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.agents.governor_scene import GB, granted, local, node
from tests.agents.governor_scene import Scene as GovernorScene
from tests.agents.specialist_scene import lease
from tests.agents.worker_at_work import Blobs

from lumina.agents import working
from lumina.agents.closing import root_of
from lumina.agents.ports import Conclusion, Progress, Recording, Worker
from lumina.agents.specialist import Effect, Specialist, SpecialistRaw
from lumina.agents.validating import ToolRun, ValidationEffect, ValidationRaw
from lumina.agents.validator import Validator
from lumina.agents.working import WorkerRunner
from lumina.bus.errors import BusError, CheckpointFailed, LogFull, LogUnavailable, PayloadTooLarge
from lumina.bus.log import Delivery
from lumina.bus.memory import MemoryBlobs, MemoryLive, MemoryLog
from lumina.events.base import Event
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.generation import GenerationFinished, GenerationOutcome
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Recorded, draft_answer
from lumina.events.run import RunClosed, RunStatus
from lumina.events.validation import ValidationFinished, ValidationRequested
from lumina.events.values import BlobRef
from lumina.sandbox.port import Ended, RunResult

pytestmark = pytest.mark.anyio

RUN = StreamId("r-test")
CODE = b"def f():\n    return 1\n"
TICKS_MAX = 400


class Reader(Validator):
    """A validator whose tools are quick: they find nothing, after `work` is done."""

    def __init__(self, work: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint) -> None:
        """Do `work` as the effect."""
        super().__init__()
        self.work = work
        self.performed: Counter[str] = Counter()

    async def perform(self, effect: ValidationEffect, *, progress: Progress) -> ValidationRaw:
        """Count it, do the work."""
        self.performed[effect.code] += 1
        await progress("validating")
        await self.work()
        result = RunResult(ended=Ended.EXITED, exit_code=0)
        return ValidationRaw(ended_at_ms=5, tools=(ToolRun(tool="compile", confined=True, result=result),))


class Wrong(Reader):
    """A validator with a defect: one code breaks it."""

    def conclude(self, request: Recorded[Event], recording: Recording[ValidationRaw], *, blobs: Any) -> Conclusion:
        """Fail on that code."""
        if b"break it" in b"".join(blobs.values()):
            raise ZeroDivisionError("a defect")
        return super().conclude(request, recording, blobs=blobs)


class FaultyLog(MemoryLog):
    """A log whose next appends fail: before the record lands, or after it."""

    def __init__(self, *, ack_wait_s: float = 60.0) -> None:
        """Begin in good health."""
        super().__init__(ack_wait_s=ack_wait_s)
        self.failures: list[tuple[BusError, bool]] = []

    async def append(self, draft: Draft[Event]) -> Recorded[Event]:
        """Fail as planned."""
        error, lands = self.failures.pop(0) if self.failures else (None, True)
        recorded = await super().append(draft) if lands else None
        if error is not None:
            raise error
        assert recorded is not None
        return recorded


class Stage:
    """A log, blobs, and instances of a worker."""

    def __init__(self, *, ack_wait_s: float = 60.0) -> None:
        """Begin with nothing."""
        self.log = FaultyLog(ack_wait_s=ack_wait_s)
        self.blobs = MemoryBlobs()

    def runner(self, worker: Worker[Any, Any]) -> WorkerRunner:
        """Return an instance."""
        return WorkerRunner(worker, events=self.log, blobs=self.blobs, live=MemoryLive())

    async def say(self, event: Event, *, name: str, agent: str = "orchestrator") -> Recorded[Event]:
        """Append a fact."""
        slot = root_event_id(RUN, name=name)
        return await self.log.append(Draft(event=event, id=slot, stream=RUN, agent=agent, time_ms=1, causation=None))

    async def ask(self, code: bytes = CODE, *, stored: bool = True) -> Recorded[Event]:
        """Ask for a validation."""
        digest = await (self.blobs if stored else MemoryBlobs()).put(code)
        request = ValidationRequested(
            step=1,
            attempt=1,
            code=BlobRef(digest=digest, size=len(code), media_type="text/x-python"),
            contract=OutputContract(language=Language.PYTHON, form=Form.SCRIPT),
            tools=("compile",),
        )
        return await self.say(request, name=f"ask {code!r}")

    async def close(self) -> None:
        """End the run."""
        closed = RunClosed(
            status=RunStatus.CANCELLED, reason="", results=(), tokens=0, records=0, chains=(), root=root_of(())
        )
        await self.say(closed, name="closed")

    def outcomes(self) -> list[Event]:
        """Return the events of workers."""
        kinds = (ValidationFinished, GenerationFinished)
        return [each.event for each in self.log.records if isinstance(each.event, kinds)]

    async def run_until(self, worker: Worker[Any, Any], condition: Callable[[], bool]) -> None:
        """Run an instance until the condition holds."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.runner(worker).run)
            await until(condition)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    async def idle(self, worker: Worker[Any, Any]) -> bool:
        """Whether a new instance is handed nothing within a moment."""
        with anyio.move_on_after(0.1):
            async for _ in self.log.work(worker.name):
                return False
        return True


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the log's records are a plain property
            await anyio.sleep(0.005)


async def cancelled_after(ticks: int, job: Callable[[], Awaitable[None]]) -> bool:
    """Run `job` and cancel it after so many turns of the event loop; return whether it had ended by then."""
    ended = False

    async def stop(scope: anyio.CancelScope) -> None:
        for _ in range(ticks):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop, tasks.cancel_scope)
        await job()
        ended = True
        tasks.cancel_scope.cancel()
    return ended


async def test_a_request_is_answered_once() -> None:
    """The outcome stands in the request's slot, its raw result in a blob, and the request does not come again."""
    stage, worker = Stage(), Reader()
    request = await stage.ask()
    await stage.run_until(worker, lambda: bool(stage.outcomes()))
    (outcome,) = stage.outcomes()
    slot = draft_answer(outcome, to=request, agent="validator", ordinal=0).id
    standing = stage.log.records[-1]
    assert (standing.id, standing.time_ms, standing.causation) == (slot, 5, request.id)
    assert isinstance(outcome, ValidationFinished)
    assert b'"ended_at_ms":5' in stage.blobs.contents[outcome.raw.digest]
    assert await stage.idle(worker)


async def test_an_instance_may_be_stopped_at_any_moment() -> None:
    """Cancelled in every turn of the event loop: the next instance finishes at once, and the slot is filled once."""
    for ticks in range(TICKS_MAX):
        if await _ends_after(ticks):
            return
    pytest.fail("it never ended")


async def _ends_after(ticks: int) -> bool:
    """Stop an instance then, let another one finish, and return whether there was nothing to finish."""
    stage, worker = Stage(), Reader()
    await stage.ask()
    delivery = await anext(stage.log.work("validator"))
    ended = await cancelled_after(ticks, lambda: stage.runner(worker).answer(delivery))
    if not ended:
        await stage.run_until(worker, lambda: bool(stage.outcomes()))
    assert len(stage.outcomes()) == 1
    assert worker.performed[CODE.decode()] <= 2
    assert await stage.idle(worker)
    return ended


async def test_a_request_of_an_instance_that_died_comes_to_another() -> None:
    """After the ack wait."""
    stage, worker = Stage(ack_wait_s=0.05), Reader()
    await stage.ask()
    assert await anext(stage.log.work("validator"))
    await stage.run_until(worker, lambda: bool(stage.outcomes()))
    assert worker.performed.total() == 1


async def test_an_answered_request_is_not_done_again() -> None:
    """When the acknowledgement was lost, the effect is not repeated."""
    stage, worker = Stage(ack_wait_s=0.05), Reader()
    await stage.ask()
    delivery = await anext(stage.log.work("validator"))
    await stage.runner(worker).answer(Unheard(delivery))
    await anyio.sleep(0.06)
    await stage.runner(worker).answer(await anext(stage.log.work("validator")))
    assert worker.performed.total() == len(stage.outcomes()) == 1
    assert await stage.idle(worker)


class Unheard:
    """A delivery whose acknowledgement does not arrive."""

    def __init__(self, delivery: Delivery) -> None:
        """Stand between a worker and the log."""
        self.recorded = delivery.recorded
        self.in_progress = delivery.in_progress
        self.retry = delivery.retry

    async def ack(self) -> None:
        """Fail."""
        raise LogUnavailable("gone")


async def test_a_closed_run_is_skipped() -> None:
    """Nobody waits for a verdict: nothing is done, nothing is said, and the request does not come again."""
    stage, worker = Stage(), Reader()
    await stage.ask()
    await stage.close()
    await stage.runner(worker).answer(await anext(stage.log.work("validator")))
    assert (worker.performed.total(), stage.outcomes()) == (0, [])
    assert await stage.idle(worker)


async def test_a_closed_run_with_a_lost_blob_is_skipped() -> None:
    """What can't be read is not asked for again and again once nobody wants it."""
    stage, worker = Stage(), Reader()
    await stage.ask(stored=False)
    await stage.close()
    await stage.runner(worker).answer(await anext(stage.log.work("validator")))
    assert await stage.idle(worker)


async def test_the_end_of_a_run_stops_the_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way is cancelled, and has ended before the request is put away."""
    monkeypatch.setattr(working, "CLOSED_POLL_S", 0.01)
    stopped: list[str] = []

    async def endless() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append("stopped")

    stage, worker = Stage(), Reader(endless)
    await stage.ask()
    delivery = await anext(stage.log.work("validator"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.runner(worker).answer, delivery)
        await anyio.sleep(0.05)
        assert not stopped
        await stage.close()
    assert (stopped, stage.outcomes()) == (["stopped"], [])
    assert await stage.idle(worker)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stopped_call_frees_its_model(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """A lease whose run ended has an outcome all the same: until then the governor keeps the instance for it."""
    monkeypatch.setattr(working, "CLOSED_POLL_S", 0.01)
    stage, calls = Stage(), []

    async def endless(effect: Effect, *, progress: Progress) -> SpecialistRaw:
        calls.append(effect)
        await progress("generating")
        await anyio.sleep_forever()
        raise AssertionError

    contents = Blobs()
    await stage.say(lease(contents), name="granted", agent="governor")
    stage.blobs.contents.update(contents)
    delivery = await anext(stage.log.work("specialist"))
    async with anyio.create_task_group() as tasks:
        if not begun:
            await stage.close()
        tasks.start_soon(stage.runner(Specialist(perform=endless)).answer, delivery)
        if begun:
            await anyio.sleep(0.05)
            await stage.close()
    (outcome,) = stage.outcomes()
    assert isinstance(outcome, GenerationFinished)
    assert (outcome.outcome, len(calls)) == (GenerationOutcome.TIMED_OUT, int(begun))
    assert outcome.detail == "its run ended before there was an answer, so the call was stopped"


async def test_a_lost_blob_gives_the_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes again after a pause, and is answered when the blob is there."""
    monkeypatch.setattr(working, "RETRY_DELAY_S", 0.02)
    stage, worker = Stage(), Reader()
    await stage.ask(stored=False)
    await stage.runner(worker).answer(await anext(stage.log.work("validator")))
    assert worker.performed.total() == 0
    await stage.blobs.put(CODE)
    await stage.run_until(worker, lambda: bool(stage.outcomes()))


@pytest.mark.parametrize("error", [LogUnavailable("gone"), LogFull("full"), CheckpointFailed("full")])
@pytest.mark.parametrize("lands", [False, True])
async def test_an_outage_throws_no_effect_away(monkeypatch: pytest.MonkeyPatch, error: BusError, lands: bool) -> None:
    """The outcome is appended again until it stands, whether the failed append landed or not; the effect ran once."""
    monkeypatch.setattr(working, "RETRY_DELAY_S", 0.02)
    stage, worker = Stage(), Reader()
    await stage.ask()
    stage.log.failures = [(error, lands)] * 3
    await stage.run_until(worker, lambda: bool(stage.outcomes()) and not stage.log.failures)
    assert worker.performed.total() == len(stage.outcomes()) == 1


async def test_a_long_effect_and_a_long_outage_keep_their_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both last longer than the ack wait: heartbeats keep the request from a second instance."""
    monkeypatch.setattr(working, "RETRY_DELAY_S", 0.1)
    monkeypatch.setattr(working, "HEARTBEAT_S", 0.02)

    async def long() -> None:
        await anyio.sleep(0.4)

    stage, worker, other = Stage(ack_wait_s=0.15), Reader(long), Reader(long)
    await stage.ask()
    stage.log.failures = [(LogFull("full"), False)] * 4
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.runner(worker).run)
        tasks.start_soon(stage.runner(other).run)
        await until(lambda: bool(stage.outcomes()))
        tasks.cancel_scope.cancel()
    assert worker.performed.total() + other.performed.total() == 1


async def test_what_the_machine_lacks_for_now_gives_the_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for a temporary file, no process to be had: the instance lives on, and the request comes again."""
    monkeypatch.setattr(working, "RETRY_DELAY_S", 0.02)
    left = [OSError(28, "No space left on device"), BlockingIOError("no process")]

    async def lacking() -> None:
        if left:
            raise left.pop()

    stage, worker = Stage(), Reader(lacking)
    await stage.ask()
    await stage.run_until(worker, lambda: bool(stage.outcomes()))
    assert (worker.performed.total(), len(stage.outcomes())) == (3, 1)


async def test_a_request_that_shows_a_defect_ends_one_instance_only() -> None:
    """The defect is raised, with the traceback in the instance's log; the request comes to nobody else."""
    stage, worker = Stage(), Wrong()
    await stage.ask(b"break it")
    with pytest.raises(ExceptionGroup) as raised:
        await stage.runner(worker).run()
    assert raised.group_contains(ZeroDivisionError)
    await stage.ask()
    await stage.run_until(worker, lambda: bool(stage.outcomes()))
    assert await stage.idle(worker)
    assert worker.performed == {"break it": 1, CODE.decode(): 1}


async def test_an_outcome_too_large_for_the_log_ends_one_instance_only() -> None:
    """However often it was tried, it would be too large."""
    stage, worker = Stage(), Reader()
    await stage.ask()
    stage.log.failures = [(PayloadTooLarge("too large"), False)]
    with pytest.raises(ExceptionGroup) as raised:
        await stage.runner(worker).run()
    assert raised.group_contains(PayloadTooLarge)
    assert await stage.idle(worker)


def test_a_cancelled_run_leaves_a_model_that_can_be_used() -> None:
    """With the stopped call's outcome the governor grants the next request at once, not when the lease has run out."""
    scene = GovernorScene()
    scene.announce(node(local("small", GB)))
    scene.ask("small", run="r-1")
    (held,) = scene.leases()
    scene.close("r-1")
    assert scene.ask("small", run="r-2") == ()
    assert granted(scene.finish(held, outcome=GenerationOutcome.TIMED_OUT)).instance == "small#1"
