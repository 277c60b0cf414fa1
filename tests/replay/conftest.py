"""A run that really took place: all five agents with their runners on the log in memory; only the effects are scripted.

Two attempts: the first program fails when it is run, the second one passes.
"""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from itertools import count

import anyio
import pytest

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Progress
from lumina.agents.sandbox import Sandbox
from lumina.agents.specialist import Call, Effect, Specialist, SpecialistRaw
from lumina.agents.specialist_files import parse_definition, to_ref
from lumina.agents.specialist_folders import built_in_folder
from lumina.agents.validating import ToolRun, ValidationEffect, ValidationRaw
from lumina.agents.validator import Validator
from lumina.agents.working import WorkerRunner
from lumina.bus.memory import MemoryBlobs, MemoryLive, MemoryLog
from lumina.bus.subjects import Filter
from lumina.events.ids import StreamId, root_event_id
from lumina.events.lease import LeaseReleased
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.record import Draft
from lumina.events.run import ModelChoice, RunClosed, RunOptions, RunSubmitted
from lumina.events.values import BlobRef
from lumina.models.backend import Finish, Loaded, Reply
from lumina.sandbox.port import Ended, File, RunResult

NODE = StreamId("local")
DEFINITION = built_in_folder().joinpath("general.toml").read_bytes()
ANSWERS = ("print(one)\n", "print(1)\n")
CLEAN = {"compile": b"", "ruff": b"[]", "pylint": b'{"messages":[]}'}
_clock = count(1_763_700_000_000, 7)


def now_ms() -> int:
    """Return a time that goes on with every look."""
    return next(_clock)


async def scripted_call(effect: Effect, *, progress: Progress) -> SpecialistRaw:
    """Answer with a faulty program, and with a good one when asked for a repair."""
    await progress("generating", tokens=1)
    if not isinstance(effect, Call):
        return SpecialistRaw(ended_at_ms=now_ms(), was_loaded=True)
    repair = any("print(one)" in message.text for message in effect.prompts[0].messages)
    code = ANSWERS[repair]
    reply = Reply(
        text=f"```python\n{code}```",
        finish=Finish.STOP,
        prompt_tokens=12,
        generated_tokens=5,
        prompt_ms=3,
        generate_ms=9,
    )
    loaded = Loaded(load_ms=20, bytes_measured=1000) if effect.load else None
    return SpecialistRaw(ended_at_ms=now_ms(), counts=(12,), context=2048, reply=reply, loaded=loaded)


class ScriptedValidator(Validator):
    """Finds nothing."""

    async def perform(self, effect: ValidationEffect, *, progress: Progress) -> ValidationRaw:
        """Say that each tool ran and printed nothing."""
        await progress("validating")

        tools = tuple(ToolRun(tool=tool, confined=True, result=_clean(tool)) for tool in effect.tools)
        return ValidationRaw(ended_at_ms=now_ms(), tools=tools)


def _clean(tool: str) -> RunResult:
    return RunResult(ended=Ended.EXITED, exit_code=0, stdout=CLEAN[tool])


class ScriptedSandbox(Sandbox):
    """Runs the two programs that the model writes."""

    async def perform(self, effect: ExecutionEffect, *, progress: Progress) -> ExecutionRaw:
        """Return a traceback or an output, with a file."""
        await progress("executing")
        if effect.program.code == ANSWERS[0]:
            stderr = b"Traceback (most recent call last):\nNameError: name 'one' is not defined\n"
            failed = RunResult(ended=Ended.EXITED, exit_code=1, stderr=stderr, wall_ms=30)
            return ExecutionRaw(ended_at_ms=now_ms(), runs=(failed,))
        passed = RunResult(
            ended=Ended.EXITED,
            exit_code=0,
            stdout=b"1\n",
            wall_ms=30,
            artifacts=(File(name="one.txt", content=b"1"),),
        )
        return ExecutionRaw(ended_at_ms=now_ms(), runs=(passed,))


def submission(definition: str) -> RunSubmitted:
    """Return what the client asks for."""
    blob = BlobRef(digest=definition, size=len(DEFINITION), media_type="application/toml")
    return RunSubmitted(
        request="Write a Python script that prints 1",
        options=RunOptions(kind="general", plan=False),
        specialists=(to_ref(parse_definition(DEFINITION, name="general"), blob=blob),),
        models=(ModelChoice(model="demo", context=8192),),
    )


async def live_through(runs: Sequence[str], *, log: MemoryLog, blobs: MemoryBlobs) -> None:
    """Start all agents, submit the runs, and stop when each is closed and its leases are given back."""
    live = MemoryLive()
    workers = (Specialist(perform=scripted_call), ScriptedValidator(), ScriptedSandbox(tiers={}))
    announced = NodeAnnounced(
        node=NODE,
        bytes_max=10_000,
        models=(ModelOffer(model="demo", backend=Backend.LLAMA_CPP, bytes_estimated=4000, context=8192),),
        idle_ms=600_000,
        configuration="0" * 64,
    )
    definition = await blobs.put(DEFINITION)
    await _say(log, announced, stream=NODE, agent="node")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(KeeperRunner(Orchestrator(), events=log, now_ms=now_ms).run)
        tasks.start_soon(KeeperRunner(Governor(node=NODE), events=log, now_ms=now_ms).run)
        for worker in workers:
            tasks.start_soon(WorkerRunner(worker, events=log, blobs=blobs, live=live).run)
        for run in runs:
            await _say(log, submission(definition), stream=StreamId(run), agent="client")
        with anyio.fail_after(10):
            awaited = 3 * len(runs)  # two leases come back, and one run ends
            async for _ in log.follow((Filter(event=LeaseReleased), Filter(event=RunClosed))):
                awaited -= 1
                if awaited == 0:
                    break
        tasks.cancel_scope.cancel()


async def _say(log: MemoryLog, event: NodeAnnounced | RunSubmitted, *, stream: StreamId, agent: str) -> None:
    slot = root_event_id(stream, name=f"{type(event).__name__}")
    await log.append(Draft(event=event, id=slot, stream=stream, agent=agent, time_ms=now_ms(), causation=None))


History = tuple[MemoryLog, MemoryBlobs]


@pytest.fixture(scope="session")
def history() -> History:
    """Return a log of three finished runs and its blobs. Copy them before damaging anything."""
    log, blobs = MemoryLog(), MemoryBlobs()
    anyio.run(lambda: live_through(("r-aaa", "r-bbb", "r-ccc"), log=log, blobs=blobs))
    assert sha256(DEFINITION).hexdigest() in blobs.contents
    return log, blobs


LiveThrough = Callable[[Sequence[str]], Awaitable[History]]
