"""Passes over histories of any length without a server: made, read with all checks, and forgotten.

`python -m tests.bench.streaming WHAT EVENTS`. What a pass costs is measured without the making; its memory includes it.
"""

import argparse
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any

import anyio
import msgspec
from tests.bench.history import History
from tests.bench.reading import Pass, folded_states, memory_bytes

from lumina.agents.governor import Governor
from lumina.agents.law import Decider
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Keeper
from lumina.bus.checks import Continuity, Scope
from lumina.bus.errors import BlobMissing
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.ids import EventId, StreamId
from lumina.events.node import NodeAnnounced
from lumina.events.record import Head, Recorded, from_headers, to_headers
from lumina.replay.cast import Inputs
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all

CHUNK_EVENTS = 2_000


class Streamed:
    """See `Records` and `Blobs`: one reading of everything, from the start; nothing is there twice."""

    def __init__(self, events: int) -> None:
        self.making_s = 0.0
        self._events = events
        self._blobs: dict[str, bytes] = {}

    async def read(
        self, filters: Sequence[Filter] = (Filter(),), *, after: int = 0, until: int | None = None
    ) -> AsyncGenerator[Recorded[Event], None]:
        """See `Records`. Whose log it is, it does not say, as a log that has only begun."""
        if tuple(filters) == (Filter(event=NodeAnnounced),):
            return
        assert tuple(filters) == (Filter(),), "this is read as a whole"
        assert (after, until) == (0, None), "this is read as a whole"
        history, continuity = History(), Continuity(Scope(filters), after=0)
        while history.events < self._events:
            started = time.process_time()
            history.extend(min(self._events, history.events + CHUNK_EVENTS))
            fresh = history.drain()
            self._blobs = fresh.blobs
            wire = [(to_headers(each), encode(each.event), each.seq) for each in fresh.records]
            self.making_s += time.process_time() - started
            for headers, body, seq in wire:
                continuity.expect(seq)
                recorded = from_headers(headers, body=body, seq=seq)
                continuity.check(recorded)
                yield recorded
        continuity.end(history.events)

    async def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        content = self._blobs.get(digest)
        if content is None or sha256(content).hexdigest() != digest:
            raise BlobMissing(f"no blob {digest}")
        return content

    async def put(self, content: bytes) -> str:
        """Refuse: nothing can be stored here."""
        raise AssertionError(f"{len(content)} bytes have no place here")

    async def head(self, stream: StreamId, *, agent: str) -> Head:
        """Refuse: nobody writes here."""
        raise AssertionError(f"nobody asks for the end of {agent} in {stream}")

    async def find(self, event: EventId, *, stream: StreamId, agent: str) -> Recorded[Event] | None:
        """Refuse: whatever is needed again must have been kept, in a history without faults."""
        raise AssertionError(f"{event} by {agent} in {stream} was needed again")

    async def last(self, which: Filter) -> Recorded[Event] | None:
        """Return nothing, as a log that has only begun."""
        del which
        return None

    async def last_seq(self) -> int:
        """Return how many there will be, about."""
        return self._events


async def _read(log: Streamed) -> int:
    count = 0
    async for _ in log.read():
        count += 1
    return count


async def _state(log: Streamed) -> int:
    return await folded_states(log)


async def _verify(log: Streamed) -> int:
    return await _verified(log, invariants=False)


async def _invariants(log: Streamed) -> int:
    return await _verified(log, invariants=True)


async def _verified(log: Streamed, *, invariants: bool) -> int:
    report = await verify_all(log, log, invariants=invariants)
    assert report.status is Status.OK, report.lines()
    assert not report.broken, report.lines()
    return report.records


async def _orchestrator(log: Streamed) -> int:
    return await _recovered(log, keeper=Orchestrator())


async def _governor(log: Streamed) -> int:
    return await _recovered(log, keeper=Governor(node=StreamId("local")))


async def _recovered(log: Streamed, *, keeper: Keeper[Any]) -> int:
    """Do what `KeeperRunner.recover` does."""
    decider, inputs, count = Decider(keeper), Inputs(keeper.inputs), 0
    awaited: dict[EventId, Recorded[Event]] = {}
    async for recorded in log.read():
        count += 1
        if recorded.agent == keeper.name:
            assert awaited.pop(recorded.id).digest == recorded.digest, recorded.seq
        elif inputs.hold(recorded):
            awaited.update({answer.id: answer for answer in decider.take(recorded)})
    assert not awaited, "all was written"
    return count


PASSES: dict[str, Callable[[Streamed], Awaitable[int]]] = {
    "read": _read,
    "verify": _verify,
    "invariants": _invariants,
    "state": _state,
    "orchestrator": _orchestrator,
    "governor": _governor,
}


async def measure(what: str, *, events: int, repeat: int) -> list[Pass]:
    """Do so many passes, after a short one that does not count: imports, caches, templates."""
    await PASSES[what](Streamed(200))
    passes: list[Pass] = []
    for _ in range(repeat):
        log, before, started = Streamed(events), memory_bytes(), time.process_time()
        count = await PASSES[what](log)
        spent_s = time.process_time() - started - log.making_s
        passes.append(Pass(events=count, seconds=spent_s, cpu_s=spent_s, memory_bytes=memory_bytes() - before))
    return passes


def main() -> None:
    """Do the passes and print what each cost as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(PASSES))
    parser.add_argument("events", type=int)
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    done = anyio.run(lambda: measure(options.what, events=options.events, repeat=options.repeat))
    sys.stdout.buffer.write(msgspec.json.encode(done))


if __name__ == "__main__":
    main()
