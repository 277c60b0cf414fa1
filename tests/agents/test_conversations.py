"""Conversations through the production specialist: the prompt grows, the log does not, and all is derived again."""

from itertools import pairwise

import anyio
import pytest
from tests.bench.growth import RUN, converse

from lumina.agents.specialist import Specialist
from lumina.bus.memory import MemoryBlobs, MemoryLive, MemoryLog
from lumina.events.generation import GenerationFinished
from lumina.replay.errors import BlobLost
from lumina.replay.verifying.workers import Shelf, WorkerProof

CALLS = 20
Held = tuple[MemoryLog, MemoryBlobs, list[list[tuple[str, str]]], list[int]]


@pytest.fixture(scope="module")
def held() -> Held:
    """Return log, blobs, the prompts that were sent, and the bytes of all blobs after each call."""
    log, blobs, sizes = MemoryLog(), MemoryBlobs(), [0]

    async def note() -> None:
        sizes.append(sum(map(len, blobs.contents.values())))

    async def hold() -> list[list[tuple[str, str]]]:
        roles = dict.fromkeys(("client", "orchestrator", "governor", "specialist"), log)
        _, backend = await converse(roles, blobs=blobs, live=MemoryLive(), calls=CALLS, after_call=note)
        return [[(message.role, message.text) for message in prompt] for prompt in backend.prompts]

    return log, blobs, anyio.run(hold), sizes


def outcomes(log: MemoryLog) -> list[GenerationFinished]:
    """Return what the specialist said."""
    return [recorded.event for recorded in log.records if isinstance(recorded.event, GenerationFinished)]


def test_each_prompt_begins_with_the_one_before_it(held: Held) -> None:
    """A call is sent the whole conversation, and its beginning is byte for byte what the call before was sent."""
    prompts = held[2]
    assert len(prompts) == CALLS
    for before, after in pairwise(prompts):
        assert after[: len(before)] == before
        assert [role for role, _ in after[len(before) :]] == ["assistant", "user"]


def test_a_call_adds_what_is_new(held: Held) -> None:
    """The last call stores as much as the second one, within the list of names, though its prompt is much longer."""
    grown = [after - before for before, after in pairwise(held[3])]
    assert max(grown[1:]) - min(grown[1:]) < 5_000
    assert max(grown) < 25_000


def test_conversations_are_derived_again(held: Held) -> None:
    """Verify derives every prompt from the chain of turns, and every turn from the answer: all are equal."""
    log, blobs, _, _ = held

    async def prove(given: MemoryBlobs) -> int:
        proof = WorkerProof({"specialist": Specialist()}, shelf=Shelf(given), events=log)
        for recorded in log.records:
            proof.notice(recorded)
            assert await proof.take(recorded) is None
        return proof.equal["specialist"]

    assert anyio.run(prove, blobs) == CALLS
    first = outcomes(log)[0].turn
    assert first is not None
    lost = MemoryBlobs()
    lost.contents = {digest: content for digest, content in blobs.contents.items() if digest != first.digest}
    with pytest.raises(BlobLost, match=first.digest):
        anyio.run(prove, lost)


def test_a_turn_that_was_exchanged_is_found(held: Held) -> None:
    """A question that continues another conversation than was sent has another effect, which verify reports."""
    log, blobs, _, _ = held
    third, fourth = (outcome.turn for outcome in outcomes(log)[2:4])
    assert third is not None
    assert fourth is not None
    forged = MemoryBlobs()
    forged.contents = {**blobs.contents, fourth.digest: blobs.contents[third.digest]}

    async def prove() -> None:
        proof = WorkerProof({"specialist": Specialist()}, shelf=Trusting(forged), events=log)
        for recorded in log.records:
            proof.notice(recorded)
            difference = await proof.take(recorded)
            if difference is not None:
                assert recorded.stream == RUN
                assert difference.field == "event.effect"
                return
        raise AssertionError("nobody noticed")

    anyio.run(prove)


class Trusting(Shelf):
    """A shelf that believes its store, so that the proof alone has to see what is wrong."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        super().__init__(blobs)
        self._contents = blobs.contents

    async def __call__(self, digest: str, *, named_by: object) -> bytes:
        """Return what stands there."""
        del named_by
        return self._contents[digest]
