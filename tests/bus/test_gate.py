"""Checkpoints and the gate, on the log in memory; the damage itself is in `test_damage.py`."""

import errno
import fcntl
import os
from pathlib import Path

import anyio
import pytest

from lumina.bus import gate
from lumina.bus.errors import CheckpointFailed, LogDamaged
from lumina.bus.gate import Checkpoint, CheckpointFile, guarded, pass_gate
from lumina.bus.memory import MemoryLog
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId, root_event_id
from lumina.events.record import Draft
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

RUN = StreamId("r-1")


def draft(number: int) -> Draft[Event]:
    """Return a draft whose slot is named by `number`."""
    return Draft(
        event=TimerElapsed(timer="t", due=number),
        id=root_event_id(RUN, name=str(number)),
        stream=RUN,
        agent="clock",
        time_ms=number,
        causation=None,
    )


def checkpoint(seq: int, *, log_id: str = "memory") -> Checkpoint:
    """Return a checkpoint at `seq` that no record has."""
    return Checkpoint(log_id=log_id, seq=seq, event=EventId("a" * 32), digest="b" * 64)


async def test_the_gate_is_open_without_a_checkpoint(tmp_path: Path) -> None:
    """The first start has nothing to compare with."""
    await pass_gate(MemoryLog(), CheckpointFile(tmp_path / "none.json"))


async def test_a_guarded_log_keeps_its_checkpoint(tmp_path: Path) -> None:
    """At the end of the block the checkpoint names the last append, and the next start passes the gate."""
    path = tmp_path / "deep" / "checkpoint.json"
    log = MemoryLog()
    async with guarded(log, path, save_every_s=1_000) as guard:
        first = await guard.append(draft(1))
        saved = CheckpointFile(path).load()
        assert saved is not None
        assert saved.seq == 1
        last = await guard.append(draft(2))
        assert [each async for each in guard.read()] == [first, last]
        assert await guard.find(last.id, stream=RUN, agent="clock") == last
    assert CheckpointFile(path).load() == Checkpoint(log_id="memory", seq=2, event=last.id, digest=last.digest)
    async with guarded(log, path) as guard:
        assert await guard.last_seq() == 2


async def test_a_checkpoint_does_not_go_back(tmp_path: Path) -> None:
    """Appending to a slot that was filled long ago leaves the checkpoint where it is."""
    path = tmp_path / "checkpoint.json"
    async with guarded(MemoryLog(), path, save_every_s=0) as guard:
        await guard.append(draft(1))
        await guard.append(draft(2))
        await guard.append(draft(1))
    saved = CheckpointFile(path).load()
    assert saved is not None
    assert saved.seq == 2


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (checkpoint(1), "stands there"),
        (checkpoint(9), "lost its tail"),
        (checkpoint(1, log_id="another"), "this is the log"),
    ],
)
async def test_the_gate_is_closed(tmp_path: Path, standing: Checkpoint, reason: str) -> None:
    """Another record, a shorter log and another log are refused, with the way to repair them."""
    log = MemoryLog()
    await log.append(draft(1))
    file = CheckpointFile(tmp_path / "checkpoint.json")
    file.save(standing)
    with pytest.raises(LogDamaged, match=reason) as caught:
        await pass_gate(log, file)
    assert "`lumina repair` says what can be restored" in str(caught.value)
    assert str(file.path) in str(caught.value)


async def test_one_process_knows_what_another_one_wrote(tmp_path: Path) -> None:
    """Who has no checkpoint, or an old one, is stopped by that of another process, and the message names it."""
    log = MemoryLog()
    async with guarded(log, tmp_path / "client.json") as guard:
        await guard.append(draft(1))
    CheckpointFile(tmp_path / "orchestrator.json").save(checkpoint(9))
    for name in ("client", "reader"):
        with pytest.raises(LogDamaged, match="'orchestrator' has seen 9: it lost its tail") as caught:
            async with guarded(log, tmp_path / f"{name}.json"):
                pass
        assert caught.value.seq == 2


async def test_where_another_log_begins_is_bounded(tmp_path: Path) -> None:
    """Of a log that was replaced behind some record, only the checkpoints on both sides are known."""
    log = MemoryLog()
    for number in range(1, 5):
        async with guarded(log, tmp_path / f"writer-{number}.json") as guard:
            await guard.append(draft(number))
    CheckpointFile(tmp_path / "writer-4.json").save(checkpoint(4))
    with pytest.raises(LogDamaged, match="between 4 and 4"):
        async with guarded(log, tmp_path / "reader.json"):
            pass


async def test_the_last_of_a_burst_is_noted(tmp_path: Path) -> None:
    """What was appended last is in the checkpoint a moment later, though nothing more is appended."""
    file = CheckpointFile(tmp_path / "checkpoint.json")
    async with guarded(MemoryLog(), file.path, save_every_s=0.1) as guard:
        for number in range(1, 4):
            await guard.append(draft(number))
        for _ in range(1000):
            if (saved := file.load()) is not None and saved.seq == 3:
                return
            await anyio.sleep(0.02)
    raise AssertionError("the checkpoint was written at the end only")


async def test_what_comes_while_the_checkpoint_is_written_is_noted(tmp_path: Path) -> None:
    """A record that is appended while the file is being replaced gets its checkpoint, though nothing follows it."""
    file = CheckpointFile(tmp_path / "checkpoint.json")
    async with guarded(MemoryLog(), file.path, save_every_s=0.05) as guard:
        await guard.append(draft(1))
        with (tmp_path / "checkpoint.json.lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # what writes now waits here
            await guard.append(draft(2))
            await anyio.sleep(0.5)
            await guard.append(draft(3))
        for _ in range(1000):
            if (saved := file.load()) is not None and saved.seq == 3:
                return
            await anyio.sleep(0.02)
    raise AssertionError("the checkpoint was written at the end only")


async def test_who_ends_last_does_not_lower_the_checkpoint_of_another(tmp_path: Path) -> None:
    """Two commands share a checkpoint: the one that was further on in the log stands, and another log replaces it."""
    log, file = MemoryLog(), CheckpointFile(tmp_path / "client.json")
    async with guarded(log, file.path, save_every_s=1_000) as early:
        await early.append(draft(1))
        await early.append(draft(2))
        async with guarded(log, file.path) as late:
            last = await late.append(draft(3))
    assert file.load() == Checkpoint(log_id="memory", seq=3, event=last.id, digest=last.digest)
    file.save(checkpoint(1, log_id="another"))
    assert file.load() == checkpoint(1, log_id="another")


async def test_a_process_that_stands_still_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped while it wrote the checkpoint is waited for, and not for ever."""
    monkeypatch.setattr(gate, "LOCK_S_MAX", 0.2)
    file = CheckpointFile(tmp_path / "checkpoint.json")
    with (tmp_path / "checkpoint.json.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CheckpointFailed, match="another process"):
            file.save(checkpoint(1))
    file.save(checkpoint(1))
    assert file.load() == checkpoint(1)


async def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A checkpoint that can't be written is an error with the reason, and the old checkpoint stands."""
    full = Path("/dev/full")
    file = CheckpointFile(tmp_path / "checkpoint.json")
    file.save(checkpoint(1))
    (tmp_path / f"checkpoint.json.{os.getpid()}.new").symlink_to(full)
    with pytest.raises(CheckpointFailed, match=os.strerror(errno.ENOSPC)):
        file.save(checkpoint(2))
    assert file.load() == checkpoint(1)

    log, other = MemoryLog(), tmp_path / "other"
    other.mkdir()
    (other / f"checkpoint.json.{os.getpid()}.new").symlink_to(full)
    with pytest.raises(CheckpointFailed, match="free disk space"):
        async with guarded(log, other / "checkpoint.json") as guard:
            await guard.append(draft(1))
    assert await log.last_seq() == 1
