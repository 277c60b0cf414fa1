"""What the projections show of runs that the real agents went through, read from a real event log."""

from pathlib import Path

import pytest
from tests.replay.conftest import live_through

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.projections.catch_up import catch_up
from lumina.projections.reading import Reader, open_store
from lumina.projections.residency import Residence
from lumina.projections.runs import RunPhase, StepPhase

pytestmark = pytest.mark.anyio


async def test_two_runs_that_took_place(tmp_path: Path) -> None:
    """Each was repaired once and completed; nothing waits, no lease is out, and the model is still there."""
    log = MemoryLog()
    await live_through(("r-aaa", "r-bbb"), log=log, blobs=MemoryBlobs())
    with open_store(tmp_path) as store:
        assert await catch_up(log, store) == len(log.records)
        reader = Reader(store)
        for row in reader.runs():
            assert (row.phase, row.accepted, row.attempts, row.models) == (RunPhase.COMPLETED, 1, 2, ("demo",))
            first, second = reader.attempts(row.run)
            assert (first.verdict, second.verdict) == ("execution failed", "accepted")
            assert any("NameError" in told for told in second.feedback)
            assert second.stdout == "1\n"
            (step,) = reader.run(row.run).steps
            assert step.phase is StepPhase.ACCEPTED
            assert step.code == second.code
            assert [file.name for file in step.artifacts] == ["one.txt"]
        (node,) = reader.residency()
        (view,) = node.instances
        assert (view.instance.instance, view.instance.residence, view.leases) == ("demo#1", Residence.RESIDENT, ())
        assert reader.queue() == ()
        (model,) = reader.throughput()
        assert (model.calls, model.answered, model.loads) == (4, 4, 1)
    with open_store(tmp_path) as store:
        assert await catch_up(log, store) == len(log.records)


async def test_every_moment_can_be_shown(tmp_path: Path) -> None:
    """However far the log has come, memory adds up, and whoever waits is waited for with a reason."""
    log = MemoryLog()
    await live_through(("r-aaa", "r-bbb"), log=log, blobs=MemoryBlobs())
    reasons = set()
    for end in range(1, len(log.records) + 1):
        with open_store(tmp_path) as store:
            await catch_up(MemoryLog(log.records[:end]), store)
            reader = Reader(store)
            for node in reader.residency():
                assert 0 <= node.bytes_free == node.node.bytes_max - node.bytes_reserved
            reasons |= {view.why for view in reader.queue()}
    assert {"the validator has it", "the sandbox has it", "demo#1 is being loaded and asked"} <= reasons
    assert any(reason.startswith("demo is in use: demo#1 by r-") for reason in reasons)
