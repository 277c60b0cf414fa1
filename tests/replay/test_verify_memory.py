"""A proof remembers what is open, not what is over; what it has forgotten it reads again, and no check is weaker."""

import tracemalloc
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agents.governor_scene import GB, Scene, local, node
from tests.bench import streaming
from tests.bench.history import History as Long
from tests.bench.streaming import Streamed
from tests.replay.test_verify import rewritten

from lumina.agents.closing import root_of
from lumina.agents.governor import Governor
from lumina.agents.law import Decider
from lumina.agents.orchestrator import Orchestrator
from lumina.bus import checks
from lumina.bus.errors import LogDamaged
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.replay.cast import Inputs, whole_cast
from lumina.replay.invariants import governor
from lumina.replay.report import Difference, Status
from lumina.replay.verifying import integrity, testimony, workers
from lumina.replay.verifying.integrity import Chains
from lumina.replay.verifying.verify import verify_all
from lumina.replay.verifying.workers import Shelf, WorkerProof

History = tuple[MemoryLog, MemoryBlobs]
FOR_EVER = 10**9
EVERYTHING = (Filter(),)


def decided(records: list[Recorded[Event]], *, quiet_max: int) -> list[str]:
    """Return the digests of all that a governor says, when it keeps so many chains beyond need."""
    decider = Decider(Governor(), quiet_max=quiet_max)
    return [answer.digest for each in records if each.agent != "governor" for answer in decider.take(each)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_forgetting_changes_no_answer(draw: st.DataObject) -> None:
    """Whatever runs ask, end with leases held or requests waiting, and hear too late: the same bytes are decided."""
    scene = Scene()
    scene.announce(node(local("small", GB, slots=2), local("large", 2 * GB), bytes_max=2 * GB, idle_ms=60_000))
    open_runs = [f"r-{number}" for number in range(6)]
    for _ in range(draw.draw(st.integers(5, 40))):
        action = draw.draw(st.sampled_from(["ask", "ask", "finish", "close", "wait", "elapse", "unload"]))
        if action == "ask" and open_runs:
            scene.ask(
                draw.draw(st.sampled_from(["small", "large", "unheard-of"])), run=draw.draw(st.sampled_from(open_runs))
            )
        elif action == "finish" and scene.ledger.out:
            lease = draw.draw(st.sampled_from([one.id for one in scene.leases()]))
            scene.finish(scene.granted(lease), load_ms=5)  # perhaps after its run has ended
        elif action == "close" and open_runs:
            scene.close(open_runs.pop(draw.draw(st.integers(0, len(open_runs) - 1))))
        elif action == "wait":
            scene.now_ms += draw.draw(st.sampled_from([10, 25_000]))
        elif action == "elapse" and scene.governor.deadlines(scene.state):
            scene.elapse()
        elif action == "unload" and scene.ledger.unloading:
            scene.unloaded(min(scene.ledger.unloading))
    assert decided(scene.records, quiet_max=0) == decided(scene.records, quiet_max=FOR_EVER)
    assert decided(scene.records, quiet_max=0) == [one.digest for one in scene.records if one.agent == "governor"]


def test_a_keeper_remembers_what_is_open() -> None:
    """After ten times as many runs a keeper that has nothing to do remembers as much as before."""
    history = Long()
    remembered: dict[str, list[int]] = {}
    keepers = [(Decider(keeper, quiet_max=0), Inputs(keeper.inputs)) for keeper in (Orchestrator(), Governor())]
    for events in (100, 1_000):
        history.extend(events)
        for recorded in history.drain().records:
            for decider, inputs in keepers:
                if recorded.agent != decider.keeper.name and inputs.hold(recorded):
                    decider.take(recorded)
        for decider, _ in keepers:
            remembered.setdefault(decider.keeper.name, []).append(decider.remembered)
    assert remembered == {"orchestrator": [0, 0], "governor": [1, 1]}  # the governor's one shard is its node


class Searched(MemoryLog):
    """A log that counts how often a part of it is read again."""

    reads = 0

    def read(self, filters: Any = EVERYTHING, *, after: int = 0, until: int | None = None) -> Any:
        """See `EventLog`."""
        self.reads += 1
        return super().read(filters, after=after, until=until)


def searched(log: MemoryLog) -> Searched:
    """Return the same records in a log that counts."""
    return Searched(log.records)


async def outcomes(log: Searched, blobs: MemoryBlobs, *, requests_max: int) -> tuple[list[Difference | None], int]:
    """Return what the workers' part of a history comes to when so many requests are kept."""
    proof = WorkerProof(whole_cast().workers, shelf=Shelf(blobs), events=log, requests_max=requests_max)
    found = []
    for recorded in log.records:
        proof.notice(recorded)
        found.append(await proof.take(recorded))
    return found, sum(proof.equal.values())


@pytest.mark.anyio
async def test_a_request_that_was_forgotten_is_looked_up(history: History) -> None:
    """With room for one request all outcomes are still derived again and equal, at the price of searches."""
    log, blobs = history
    kept, forgetful = searched(log), searched(log)
    whole = await outcomes(kept, blobs, requests_max=1_000)
    assert await outcomes(forgetful, blobs, requests_max=1) == whole
    assert set(whole[0]) == {None}
    assert (kept.reads, forgetful.reads > 0) == (0, True)


@pytest.mark.anyio
@pytest.mark.parametrize("requests_max", [1, 1_000])
async def test_a_second_outcome_is_found(history: History, requests_max: int) -> None:
    """An outcome that stands twice is no outcome of a request that is open, whether that was forgotten or not."""
    log, blobs = history
    target = next(each for each in log.records if each.type == "validation.finished.v1")
    again = msgspec.structs.replace(target, seq=len(log.records) + 1)
    twice = Searched(rewritten((*log.records, again), lambda _: {}).records)
    found, _ = await outcomes(twice, blobs, requests_max=requests_max)
    assert found[-1] is not None
    assert found[-1].decided == "nothing"
    assert set(found[:-1]) == {None}


@pytest.mark.anyio
async def test_a_blob_that_was_forgotten_is_read_again(history: History) -> None:
    """A shelf with room for one size gives the right sizes, and reads more often."""
    log, blobs = history
    small, large = Shelf(blobs, sizes_max=1), Shelf(blobs)
    for shelf in (small, large):
        for _ in range(2):
            for digest, content in blobs.contents.items():
                assert await shelf.size(digest, named_by=log.records[0]) == len(content)
    assert large.found == len(blobs.contents) <= small.found


@pytest.mark.anyio
async def test_a_long_chain_is_read_again_at_its_end(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more records are late than digests are kept, those that `run.closed` names are read again, and compared."""
    monkeypatch.setattr(integrity, "RECENT_MAX", 1)
    log, _ = history
    # The end of a run is moved behind everything, so that what others wrote since then is late.
    closed = next(each for each in log.records if each.type == "run.closed.v1")
    others = [each for each in log.records if each.id != closed.id]
    late = next(each for each in others if each.stream == closed.stream and each.agent == "governor")
    more = [msgspec.structs.replace(late, id=f"{number:032x}") for number in range(3)]
    moved = rewritten((*others, *more, closed), lambda _: {})
    for records, fault in ((moved, None), (_other_head(moved), "has digest")):
        searched_log = Searched(records.records)
        chains = Chains(searched_log)
        found = [await chains.take(each) for each in searched_log.records]
        assert searched_log.reads > 0
        if fault is None:
            assert set(found) == {None}
        else:
            assert fault in str(found[-1])


def _other_head(log: MemoryLog) -> MemoryLog:
    """Return the log with a last record that names another digest in the governor's chain."""
    closed: Any = log.records[-1]
    chains = tuple(
        msgspec.structs.replace(head, digest="1" * 64) if head.agent == "governor" else head
        for head in closed.event.chains
    )
    event = msgspec.structs.replace(closed.event, chains=chains, root=root_of(chains))
    return rewritten(log.records, lambda each: {"event": event} if each.id == closed.id else {})


@pytest.mark.anyio
async def test_chains_forget_runs_that_are_over(history: History) -> None:
    """After its end, and after what comes late, nothing of a run is kept."""
    log, _ = history
    chains = Chains(log)
    for recorded in log.records:
        assert await chains.take(recorded) is None
    assert chains.open == 0


def test_the_memory_of_a_proof_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little room for what is kept beyond need, the proof of five times as many runs needs hardly more memory."""
    monkeypatch.setattr(workers, "KEPT_BYTES_MAX", 2**16)
    monkeypatch.setattr(workers, "SIZES_MAX", 64)
    monkeypatch.setattr(testimony, "RECENT_SLOTS_MAX", 64)
    monkeypatch.setattr(governor, "GOVERNOR_INPUTS_MAX", 64)
    monkeypatch.setattr(checks, "CHAINS_MAX", 64)

    async def most(events: int) -> int:
        log = Streamed(events)
        tracemalloc.start()
        try:
            report = await verify_all(log, log, invariants=True)
            assert (report.status, report.broken) == (Status.OK, ()), report.lines()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(streaming, "CHUNK_EVENTS", 100)
    anyio.run(most, 5_000)  # fills caches of the code itself, which have their limits
    small, large = anyio.run(most, 1_000), anyio.run(most, 5_000)
    assert large < small + 3 * 2**18, (small, large)


@pytest.mark.anyio
async def test_a_chain_that_was_forgotten_is_read_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader with room for one chain still finds the record that does not continue its chain."""
    monkeypatch.setattr(checks, "CHAINS_MAX", 1)
    log, _ = history
    whole = Searched(log.records)
    assert [each async for each in whole.read()] == list(log.records)
    assert whole.reads > 1
    target = next(each for each in log.records if each.position == 3)
    cut = [each for each in log.records if each.id != target.id]
    closed_up = MemoryLog([msgspec.structs.replace(each, seq=seq) for seq, each in enumerate(cut, 1)])
    with pytest.raises(LogDamaged, match="position 4 follows 2"):
        _ = [each async for each in closed_up.read()]
