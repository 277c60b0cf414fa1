"""Plays a script to its end and says what came of it."""

from hashlib import sha256
from typing import Final

import anyio
import msgspec

from lumina.agents.specialist_files import MEDIA_TYPE, to_ref
from lumina.agents.specialist_folders import load_folders
from lumina.bus.errors import BusError, PayloadTooLarge
from lumina.events.contract import Case
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft
from lumina.events.run import ModelChoice, RunCancelRequested, RunClosed, RunOptions, RunSubmitted, SpecialistRef
from lumina.events.values import BlobRef
from lumina.replay.simulation.casting import PRODUCTION, Casting
from lumina.replay.simulation.checks import check
from lumina.replay.simulation.loop import Stuck, play
from lumina.replay.simulation.models import CONTEXT
from lumina.replay.simulation.scenarios import processes
from lumina.replay.simulation.script import Damage, Job, Kill, Reconfigured, Script, Twin
from lumina.replay.simulation.view import View
from lumina.replay.simulation.world import Failure, World

SPECIALISTS: Final = ("function", "general")
SETTLED_S: Final = 12.0
"""After so long without a record nothing is under way any more."""
GLANCE_S: Final = 2.0
HORIZON_S: Final = 2 * 3600.0
FAILED_S: Final = 30.0
"""What goes on when something has failed already is of less interest."""
RESUBMIT_S: Final = 1.0
TEXT_BYTES: Final = 3_600
TEXTS_PER_CASE: Final = 12


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a simulation.

    Attributes:
        failures: What must not happen, and did.
        digest: SHA-256 over all records in order: equal histories have equal digests.
        records: How many.
        virtual_ms: How long it took on its own clock.
        restarts: Of processes.
        statuses: How runs ended: status by run.
    """

    failures: tuple[Failure, ...]
    digest: str
    records: int
    virtual_ms: int
    restarts: int
    statuses: dict[str, str]


def simulate(script: Script, *, casting: Casting = PRODUCTION) -> Outcome:
    """Play a script. Neither the clock of this machine nor chance has a part in it."""
    worlds: list[World] = []
    try:
        return play(_simulate(script, casting=casting, worlds=worlds))
    except Stuck as error:
        world = worlds[0]
        failure = Failure(kind="stuck", reason=str(error), at_ms=0, seq=len(world.records))
        return _outcome(world, failures=(*world.failures, failure), virtual_ms=0)


async def _simulate(script: Script, *, casting: Casting, worlds: list[World]) -> Outcome:
    virtual_ms = 0
    async with anyio.create_task_group() as tasks:
        world = World(script, casting=casting, tasks=tasks)
        worlds.append(world)
        for content in (each for each, _ in _specialists()):
            await world.blobs.put(content)
        for process in processes(script.machine):
            tasks.start_soon(world.keep, process)
        for job in script.jobs:
            tasks.start_soon(_client, world, job)
        for number, fault in enumerate(script.faults):
            if isinstance(fault, Kill | Twin | Reconfigured | Damage):
                tasks.start_soon(_strike, world, fault, number)
        try:
            await _until_settled(world)
        finally:
            virtual_ms = world.at_ms
            world.over = True
        tasks.cancel_scope.cancel()
    await check(world)
    return _outcome(world, failures=tuple(world.failures), virtual_ms=virtual_ms)


def _outcome(world: World, *, failures: tuple[Failure, ...], virtual_ms: int) -> Outcome:
    digest = sha256()
    for recorded in world.records:
        digest.update(f"{recorded.seq} {recorded.digest}\n".encode())
    return Outcome(
        failures=failures,
        digest=digest.hexdigest(),
        records=len(world.records),
        virtual_ms=virtual_ms,
        restarts=sum(world.restarts.values()),
        statuses={run: _status(world, run) for run in sorted(world.ledger.closed)},
    )


def _status(world: World, run: str) -> str:
    closed = world.ledger.closed[run].event
    assert isinstance(closed, RunClosed), run
    return closed.status.value


async def _strike(world: World, fault: Kill | Twin | Reconfigured | Damage, number: int) -> None:
    """Let a fault with a moment happen."""
    await anyio.sleep(fault.at_ms / 1000)
    match fault:
        case Kill(process=process, down_ms=down_ms):
            world.kill_for(process, down_ms=down_ms)
        case Twin(keeper=keeper, for_ms=for_ms):
            twin = f"{keeper}-twin-{number}"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: world.keep(twin, times=1))
                await anyio.sleep(for_ms / 1000)
                world.kill(twin)
        case Reconfigured(bytes_max=bytes_max):
            world.kill_for("governor", down_ms=200)
            world.bytes_max = bytes_max
        case Damage():
            world.damage(fault)


async def _until_settled(world: World) -> None:
    """Wait until nothing happens any more, or until it is clear that something never ends."""
    faults_end_s = _faults_end_ms(world.script) / 1000
    while True:
        wanted = {job.run for job in world.script.jobs} - world.given_up
        await anyio.sleep(GLANCE_S)
        now_s = anyio.current_time()
        if now_s > faults_end_s + (FAILED_S if world.failures else HORIZON_S):
            return
        quiet = not world.landed_at_s or now_s - world.landed_at_s[-1] > SETTLED_S
        if now_s < max(faults_end_s, world.held_up_until_s + SETTLED_S) or not quiet:
            continue
        if world.damaged or (wanted <= set(world.ledger.closed) and not world.invariants.unsettled()):
            return


def _faults_end_ms(script: Script) -> int:
    """Return when the last fault with a known end is over."""
    ends = [0]
    for fault in script.faults:
        at_ms = getattr(fault, "at_ms", 0)
        ends.append(at_ms + getattr(fault, "for_ms", 0) + getattr(fault, "down_ms", 0))
    return max(ends)


async def _client(world: World, job: Job) -> None:
    """Submit a run, and perhaps cancel it."""
    view = View(world, process=f"client-{job.run}", first_op=0)
    await anyio.sleep(job.at_ms / 1000)
    run = StreamId(job.run)
    submitted = await _insist(world, view, run=run, name="run.submitted", event=submission(job))
    if job.cancel_ms is not None and submitted:
        await anyio.sleep(max(0.0, (job.cancel_ms - world.at_ms) / 1000))
        await _insist(world, view, run=run, name="run.cancel_requested", event=RunCancelRequested(reason="enough"))


async def _insist(
    world: World, view: View, *, run: StreamId, name: str, event: RunSubmitted | RunCancelRequested
) -> bool:
    """Append until it stands."""
    time_ms = world.now_ms()
    while True:
        draft = Draft(
            event=event, id=root_event_id(run, name=name), stream=run, agent="client", time_ms=time_ms, causation=None
        )
        try:
            await view.append(draft)
        except PayloadTooLarge:
            world.given_up.add(run)  # as the command does, with a sentence
            return False
        except BusError:
            if world.damaged:
                return False
            await anyio.sleep(RESUBMIT_S)
        else:
            return True


def submission(job: Job) -> RunSubmitted:
    """Return the first word of a run."""
    return RunSubmitted(
        request=job.request,
        options=RunOptions(
            attempts_max=job.attempts_max,
            timeout_ms=job.timeout_ms,
            seed=job.seed,
            plan=job.plan,
            tokens_max=job.tokens_max,
        ),
        specialists=tuple(ref for _, ref in _specialists())[: 1 if job.padding else None],
        models=tuple(ModelChoice(model=model, context=CONTEXT, plans=job.plan) for model in job.models),
        cases=_padding(job.padding),
    )


def _padding(size: int) -> tuple[Case, ...]:
    """Return cases that make a submission about so many bytes longer."""
    texts = ['"' + "x" * (TEXT_BYTES - 5) + '"' for _ in range(size // TEXT_BYTES)]
    if texts:
        texts.append('"' + "x" * (size % TEXT_BYTES) + '"')
    shown = tuple(Case(arguments=f"[{number}]", one_of=(f"{2 * number}",)) for number in range(3 if texts else 0))
    return shown + tuple(
        Case(arguments="[2]", one_of=("4", *texts[first : first + TEXTS_PER_CASE]))
        for first in range(0, len(texts), TEXTS_PER_CASE)
    )


_refs: list[tuple[bytes, SpecialistRef]] = []


def _specialists() -> list[tuple[bytes, SpecialistRef]]:
    """Return the definitions that runs carry, read once."""
    if not _refs:
        for file in load_folders():
            if file.name in SPECIALISTS and file.definition is not None:
                digest = sha256(file.content).hexdigest()
                blob = BlobRef(digest=digest, size=len(file.content), media_type=MEDIA_TYPE)
                _refs.append((file.content, to_ref(file.definition, blob=blob)))
    return _refs
