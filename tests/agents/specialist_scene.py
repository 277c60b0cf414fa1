"""Leases and specialists for the specialist's tests."""

from typing import Any

import msgspec
from tests.agents.worker_at_work import Blobs, Outcome, answer

from lumina.agents.specialist import Specialist
from lumina.agents.specialist_calls import ModelCalls, specialist
from lumina.agents.specialist_files import to_ref
from lumina.agents.specialist_folders import load_folders
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.generation import Ask, GenerationFinished, Purpose, Sampling
from lumina.events.ids import StreamId, root_event_id
from lumina.events.lease import LeaseGranted
from lumina.models.backend import Models

FAR = 4_000_000_000_000
"""Milliseconds; leases of the tests run out in the next century."""
BRIEF = "Write a Python function double(x) that doubles x."
CONTRACT = OutputContract(language=Language.PYTHON, form=Form.FUNCTION, entry="double", parameters=("x",))
CODE = "def double(x):\n    return 2 * x\n"


def lease(blobs: Blobs, *, context: int = 4096, expires_at: int = FAR, load: bool = False, **ask: Any) -> LeaseGranted:
    """Return a lease on `coder#0` for a step of the built-in specialist `function`."""
    built_in = next(file for file in load_folders() if file.name == "function")
    assert built_in.definition is not None
    reference = to_ref(built_in.definition, blob=blobs.add(built_in.content, media_type="application/toml"))
    plain = Ask(
        purpose=Purpose.CODE,
        step=1,
        attempt=1,
        model="coder",
        brief=BRIEF,
        sampling=Sampling(temperature=0.0, seed=1, tokens_max=200),
        contract=CONTRACT,
        specialist=reference,
        timeout_ms=60_000,
    )
    return LeaseGranted(
        request=root_event_id(StreamId("r-test"), name="generation.requested"),
        ask=msgspec.structs.replace(plain, **ask),
        node="local",
        instance="coder#0",
        load=load,
        bytes_reserved=1,
        context=context,
        expires_at=expires_at,
    )


async def finished(models: Models, granted: LeaseGranted, *, blobs: Blobs) -> tuple[GenerationFinished, Outcome]:
    """Return what a specialist with these models makes of a lease."""
    outcome = await answer(specialist(models), granted, blobs=blobs)
    event = outcome.conclusion.event
    assert isinstance(event, GenerationFinished)
    return event, outcome


def at(now_ms: int, models: Models) -> Specialist:
    """Return a specialist whose clock stands still."""
    return Specialist(perform=ModelCalls(models, now_ms=lambda: now_ms))
