"""`lumina repair` on really damaged stores, as a user has it: what it restores, from where, and what it can't."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.blocks import places
from tests.faults.judge import Finding, Verdict, judge
from tests.faults.kinds import drop_index, flip
from tests.faults.store import Store, blocks, make
from tests.system.command import Ended, Lumina, finished

from lumina.bus.credentials import nats_folder
from lumina.bus.errors import RepairFailed
from lumina.bus.server import embedded_server
from lumina.bus.swapping import finish_swap, swap

pytestmark = pytest.mark.anyio

Damage = Callable[[Store], None]


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a whole log with a mirror; tests damage copies."""
    return await make(tmp_path_factory.mktemp("repair") / "home", name="small", small=True, mirror=True)


@pytest.fixture(scope="module")
def exported(whole: Store) -> Path:
    """Return the whole log as one file."""
    file = whole.root.parent / "log.lumina"
    ended = Lumina(home=whole.root)("export", "--all", "-o", str(file))
    assert ended.code == 0, ended
    return file


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    """Return a copy to damage."""
    return whole.copy(tmp_path / "home")


def lose_mirror(store: Store) -> None:
    """Remove the mirror, as if there had never been an external consumer."""
    shutil.rmtree(nats_folder(store.root) / "js" / "jetstream" / "LUMINA_CONSUMERS")
    for key in (nats_folder(store.root) / "keys").glob("consumer_*.nk"):
        key.unlink()


def lose_blocks(store: Store) -> None:
    """Lose a block of the log in the middle, and the first one of the blobs."""
    blocks(store.log)[4].unlink()
    blocks(store.blobs)[0].unlink()


def spoil_middle(store: Store) -> None:
    """Flip a bit in a compressed block, and have the index rebuilt: the server gives up the whole log."""
    flip(blocks(store.log)[4], at=2_000, bit=1)
    drop_index(store)


def lose_end(store: Store) -> None:
    """Lose the newest block, so that the log is a shorter one without any fault in it."""
    blocks(store.log)[-1].unlink()
    drop_index(store)


def repaired(store: Store, *arguments: str) -> Ended:
    """Run `lumina repair` on a store."""
    return Lumina(home=store.root)("repair", "--json", *arguments)


async def assert_restored(store: Store) -> None:
    """Check that the log is bit for bit what it was, by Lumina and by the truth, and that the old one is kept."""
    assert await judge(store) == Finding(verdict=Verdict.HARMLESS)
    assert (nats_folder(store.root) / "js.damaged-1").is_dir()
    assert not (nats_folder(store.root) / "repairing").exists()


@pytest.mark.parametrize("damage", [lose_blocks, spoil_middle, lose_end])
async def test_the_mirror_has_it(store: Store, damage: Damage) -> None:
    """What the log has lost is taken from the mirror; afterwards everything is what it was, to the byte."""
    damage(store)
    ended = repaired(store)
    assert (ended.code, ended.events[0]["state"]) == (0, "restored"), ended
    await assert_restored(store)


async def test_an_exported_file_has_it(store: Store, exported: Path) -> None:
    """Without a mirror nothing is restored, and nothing changed; with an exported file everything is."""
    lose_mirror(store)
    lose_blocks(store)
    before = sorted(path.name for path in nats_folder(store.root).iterdir())
    lost = repaired(store)
    assert (lost.code, lost.events[0]["state"]) == (5, "lost"), lost
    assert any("nobody has it any more" in gap for gap in lost.events[0]["gaps"]), lost
    assert lost.events[0]["blobs_missing"]
    assert sorted(path.name for path in nats_folder(store.root).iterdir()) == before
    dry = repaired(store, "--dry-run", "--from", str(exported))
    assert (dry.code, dry.events[0]["state"]) == (0, "restorable"), dry
    assert sorted(path.name for path in nats_folder(store.root).iterdir()) == before
    ended = repaired(store, "--from", str(exported))
    assert (ended.code, ended.events[0]["state"]) == (0, "restored"), ended
    assert ended.events[0]["by_source"]["the exported file"] > 0
    await assert_restored(store)


async def test_nothing_is_added_to_a_log(store: Store, exported: Path) -> None:
    """What only the file knows of is left out, since it could be forged and would be executed; --beyond takes it."""
    lose_mirror(store)
    lose_blocks(store)
    lose_end(store)
    shutil.rmtree(store.checkpoints)
    everything = len(store.truth.records)
    dry = repaired(store, "--dry-run", "--from", str(exported)).events[0]
    assert dry["state"] == "restorable"
    assert dry["left_out"] > 0
    assert dry["records"] + dry["left_out"] == everything
    said = Lumina(home=store.root)("repair", "--dry-run", "--from", str(exported))
    assert f"{dry['left_out']} records of FILE" in said.out, said
    assert "--beyond" in said.out
    ended = repaired(store, "--from", str(exported), "--beyond")
    assert (ended.code, ended.events[0]["records"], ended.events[0].get("left_out")) == (0, everything, 0), ended
    await assert_restored(store)


async def test_a_log_of_which_nothing_is_known_is_not_replaced_by_an_empty_one(store: Store, exported: Path) -> None:
    """Without store, mirror and checkpoints everything in the file lies beyond: it is lost until --beyond is said."""
    shutil.rmtree(nats_folder(store.root) / "js")
    shutil.rmtree(store.checkpoints)
    ended = repaired(store, "--from", str(exported))
    everything = len(store.truth.records)
    assert (ended.code, ended.events[0]["state"], ended.events[0]["left_out"]) == (5, "lost", everything), ended
    assert repaired(store, "--beyond").code == 2
    ended = repaired(store, "--from", str(exported), "--beyond")
    assert (ended.code, ended.events[0]["state"]) == (0, "restored"), ended


async def test_a_wrong_bit_beside_the_records_costs_nothing(store: Store) -> None:
    """Length, sequence, time, subject and checksum of a message are the server's: the log's own files are enough."""
    lose_mirror(store)
    newest = blocks(store.log)[-1]
    standing = list(places(newest.read_bytes()))
    for number, part in enumerate(("length", "sequence", "time", "subject", "checksum")):
        flip(newest, at=standing[3 * number + 1].span(part)[0], bit=2)
    ended = repaired(store)
    assert (ended.code, ended.events[0]["by_source"]) == (0, {"its own files": len(store.truth.records)}), ended
    await assert_restored(store)


async def test_what_only_checkpoints_know_is_named(store: Store) -> None:
    """A log that lost its end, with nobody who has it: the records that were seen are named, and nothing is changed."""
    lose_mirror(store)
    lose_end(store)
    ended = repaired(store)
    assert ended.code == 5
    assert "to 300: a process has seen it" in str(ended.events[0]["gaps"]), ended


@pytest.mark.parametrize("damage", [lose_end, lose_blocks])
async def test_damage_names_the_way_out(store: Store, damage: Damage) -> None:
    """Who verifies a damaged log is told of `lumina repair`, whether the gate or the proof has found it."""
    lose_mirror(store)
    damage(store)
    ended = Lumina(home=store.root)("verify", "--all")
    assert ended.code == 5, ended
    assert "lumina repair" in f"{ended.out}{ended.err}", ended


async def test_a_whole_log_is_left_alone(store: Store) -> None:
    """Nothing to do, nothing done."""
    ended = repaired(store)
    assert (ended.code, ended.events[0]["state"]) == (0, "whole"), ended


async def test_a_file_of_another_log_is_refused(store: Store, exported: Path) -> None:
    """An exported file restores the log that it comes from, and no other; and a folder without a log has nothing."""
    flip_id = nats_folder(store.root) / "log.json"
    flip_id.write_text(flip_id.read_text().translate(str.maketrans("0123456789", "1234567890")))
    ended = repaired(store, "--from", str(exported))
    assert ended.code == 1
    assert "comes from the log" in ended.err
    empty = Lumina(home=store.root.parent / "empty")("repair")
    assert empty.code == 1
    assert "has never held a log" in empty.err


async def test_a_running_system_is_left_alone(store: Store) -> None:
    """While a server runs on the folder nothing is repaired."""
    async with embedded_server(store.root, die_with_parent=True):
        ended = repaired(store)
    assert ended.code == 1
    assert "lumina down" in ended.err


@contextmanager
def interrupted(store: Store, *, how: signal.Signals, at: str) -> Iterator[Ended]:
    """Begin a repair, end it when it says `at`, and yield what it left, once none of its processes is left."""
    lumina = Lumina(home=store.root)
    process = lumina.start("repair")
    assert process.stderr is not None
    while at not in (line := process.stderr.readline()):
        assert line, "the repair ended by itself"
    process.send_signal(how)
    ended = finished(process, timeout_s=60)
    assert lumina.gone(within_s=30), "the servers of the repair end with it"
    yield ended


@pytest.mark.parametrize("at", ["looking at", "verifying"])
async def test_a_repair_that_is_killed_changes_nothing(store: Store, at: str) -> None:
    """Killed at any moment, the store is the old one, untouched, and the next repair does the work."""
    lose_blocks(store)
    before = files_of(store)
    with interrupted(store, how=signal.SIGKILL, at=at) as ended:
        assert ended.code == -signal.SIGKILL
        assert files_of(store) == before
    assert repaired(store).events[0]["state"] == "restored"
    await assert_restored(store)


async def test_ctrl_c_leaves_nothing_behind(store: Store) -> None:
    """Interrupted, it says so with its exit code, and nothing of what it began is left."""
    lose_blocks(store)
    before = files_of(store)
    with interrupted(store, how=signal.SIGINT, at="writing record") as ended:
        assert ended.code == 130, ended
        assert files_of(store) == before
        assert not (nats_folder(store.root) / "repairing").exists()


def files_of(store: Store) -> dict[str, bytes]:
    """Return the files of the log's own store."""
    return files_in(nats_folder(store.root) / "js")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_what_is_left_of_a_kill_in_the_last_step(tmp_path: Path) -> None:
    """After the folders changed places, and before the old one has its name: the next repair gives it."""
    scratch = tmp_path / "repairing"
    for name, content in (("js", "damaged"), ("repairing/new/js", "restored")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.blk").write_text(content)
    inode = (tmp_path / "js").stat().st_ino
    swap(tmp_path, fresh=scratch / "new" / "js", scratch=scratch)
    assert (tmp_path / "js.damaged-1").stat().st_ino == inode
    (scratch / "new").mkdir(exist_ok=True)
    (tmp_path / "js.damaged-1").rename(scratch / "new" / "js")  # as if it had been killed just before
    finish_swap(tmp_path, scratch=scratch)
    assert (tmp_path / "js" / "1.blk").read_text() == "restored"
    assert (tmp_path / "js.damaged-1" / "1.blk").read_text() == "damaged"
    assert not scratch.exists()


async def test_an_error_in_the_last_step_costs_nothing(store: Store) -> None:
    """When the old store can't be given its name, it stays where it is, and the next repair gives it."""
    lose_blocks(store)
    before = files_of(store)
    in_the_way = nats_folder(store.root) / "js.damaged-1"
    in_the_way.symlink_to("nowhere")  # renaming a folder to it fails
    ended = repaired(store)
    assert (ended.code, "can't be put aside" in ended.err) == (1, True), ended
    assert files_in(nats_folder(store.root) / "repairing" / "new" / "nats" / "js") == before
    again = repaired(store)
    assert (again.code, files_in(nats_folder(store.root) / "repairing" / "new" / "nats" / "js")) == (1, before), again
    in_the_way.unlink()
    ended = repaired(store)
    assert (ended.code, ended.events[0]["state"]) == (0, "whole"), ended
    assert files_in(in_the_way) == before
    await assert_restored(store)


async def test_what_is_left_and_can_t_be_read_is_not_removed(tmp_path: Path) -> None:
    """Without its mark nobody knows whether the folder of a repair holds the damaged store: a user decides."""
    (tmp_path / "repairing" / "new").mkdir(parents=True)
    (tmp_path / "repairing" / "swap.json").write_text("{")
    with pytest.raises(RepairFailed, match="move it away"):
        finish_swap(tmp_path, scratch=tmp_path / "repairing")
    assert (tmp_path / "repairing" / "new").is_dir()


async def test_a_kill_before_the_last_step(tmp_path: Path) -> None:
    """Before the exchange nothing has happened: the damaged store stays, and what was built goes."""
    scratch = tmp_path / "repairing"
    for name in ("js", "repairing/new/js"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.blk").write_text(name)
    finish_swap(tmp_path, scratch=scratch)
    assert (tmp_path / "js" / "1.blk").read_text() == "js"
    assert not scratch.exists()
