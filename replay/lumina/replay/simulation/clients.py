"""Those who ask: they submit runs, fork them and cancel them, and say it again until it stands."""

from hashlib import sha256
from typing import Final

import anyio
from msgspec.structs import replace

from lumina.agents.specialist_files import MEDIA_TYPE, to_ref
from lumina.agents.specialist_folders import load_folders
from lumina.bus.errors import BusError, PayloadTooLarge
from lumina.events.contract import Case
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft
from lumina.events.run import (
    ModelChoice,
    PlannedStep,
    RunCancelRequested,
    RunForked,
    RunOptions,
    RunPlanned,
    RunSubmitted,
    SpecialistRef,
)
from lumina.events.values import BlobRef
from lumina.replay.errors import ForkProblem
from lumina.replay.forking.forking import FORK_SLOT, Wishes, compose, compose_without
from lumina.replay.forking.places import Place, find_place, place_without
from lumina.replay.simulation.models import CONTEXT
from lumina.replay.simulation.script import Job
from lumina.replay.simulation.view import View
from lumina.replay.simulation.world import World

SPECIALISTS: Final = ("function", "general")
RESUBMIT_S: Final = 1.0
TEXT_BYTES: Final = 3_600
TEXTS_PER_CASE: Final = 12
_SUBMITTED: Final = "run.submitted"
_CANCELLED: Final = "run.cancel_requested"


async def be_client(world: World, job: Job) -> None:
    """Submit a run or fork one, and perhaps cancel it."""
    view = View(world, process=f"client-{job.run}", first_op=0)
    await anyio.sleep(job.at_ms / 1000)
    event: RunSubmitted | RunForked | None = submission(job)
    if job.fork_of:
        event = await _fork(world, job)
    if event is None or not await _insist(world, view, job=job, event=event):
        world.given_up.add(job.run)  # as the command does, with a sentence
        return
    if job.cancel_ms is not None:
        await anyio.sleep(max(0.0, (job.cancel_ms - world.at_ms) / 1000))
        await _insist(world, view, job=job, event=RunCancelRequested(reason="enough"))


async def _insist(world: World, view: View, *, job: Job, event: RunSubmitted | RunForked | RunCancelRequested) -> bool:
    """Append until it stands; return whether it does."""
    run = StreamId(job.run)
    name = {RunSubmitted: _SUBMITTED, RunForked: FORK_SLOT, RunCancelRequested: _CANCELLED}[type(event)]
    slot, time_ms = root_event_id(run, name=name), world.now_ms()
    while True:
        try:
            await view.append(Draft(event=event, id=slot, stream=run, agent="client", time_ms=time_ms, causation=None))
        except PayloadTooLarge:
            return False
        except BusError:
            if world.damaged:
                return False
            await anyio.sleep(RESUBMIT_S)
        else:
            return True


async def _fork(world: World, job: Job) -> RunForked | None:
    """Return the first word of a fork, None when the parent has no such place. It is made from the log as it is."""
    own = [each for each in world.records if each.stream == job.fork_of]
    if not own or world.damaged:
        return None
    at = own[job.fork_place % len(own)]
    parent = StreamId(job.fork_of)
    try:
        if job.without:
            return compose_without(await place_without(at, run=parent, events=world.log), at)
        place = await find_place(parent, seq=at.seq, events=world.log)
        event = compose(place, Wishes(options={"timeout_ms": job.timeout_ms, "seed": job.seed}))
    except ForkProblem:
        return None
    return replace(event, steps=_padded(place, size=job.padding)) if job.padding else event


def _padded(place: Place, *, size: int) -> tuple[PlannedStep, ...]:
    """Return the first step with cases of about so many bytes, which no command would write; nothing without a plan."""
    plans = (recorded.event for recorded in place.history if isinstance(recorded.event, RunPlanned))
    first = next((plan.steps[:1] for plan in plans), ())
    return tuple(replace(step, contract=replace(step.contract, cases=_padding(size))) for step in first)


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
        specialists=tuple(ref for _, ref in specialists())[: 1 if job.padding else None],
        models=tuple(ModelChoice(model=model, context=CONTEXT, plans=job.plan) for model in job.models),
        cases=_padding(job.padding),
    )


def _padding(size: int) -> tuple[Case, ...]:
    """Return cases that make a submission about so many bytes longer; those that a model is shown are short."""
    texts = ['"' + "x" * (TEXT_BYTES - 5) + '"' for _ in range(size // TEXT_BYTES)]
    if not texts:
        return ()
    texts.append('"' + "x" * (size % TEXT_BYTES) + '"')
    shown = tuple(Case(arguments=f"[{number}]", one_of=(f"{2 * number}",)) for number in range(3))
    return shown + tuple(
        Case(arguments="[2]", one_of=("4", *texts[first : first + TEXTS_PER_CASE]))
        for first in range(0, len(texts), TEXTS_PER_CASE)
    )


_refs: list[tuple[bytes, SpecialistRef]] = []


def specialists() -> list[tuple[bytes, SpecialistRef]]:
    """Return the definitions that runs carry, read once."""
    if not _refs:
        for file in load_folders():
            if file.name in SPECIALISTS and file.definition is not None:
                digest = sha256(file.content).hexdigest()
                blob = BlobRef(digest=digest, size=len(file.content), media_type=MEDIA_TYPE)
                _refs.append((file.content, to_ref(file.definition, blob=blob)))
    return _refs
