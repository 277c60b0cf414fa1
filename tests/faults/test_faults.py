"""Faults in real JetStream files: some of each sort, every time. `make faults` injects all of them."""

from pathlib import Path

import pytest
from tests.faults.injecting import every_fault, inject, inject_all, snapshot_in, stores
from tests.faults.judge import Verdict
from tests.faults.kinds import Fault
from tests.faults.store import Store
from tests.faults.table import FAILURES, line_of

pytestmark = pytest.mark.anyio

SEED = 20261121
CHOSEN = (
    ("flip: body: middle record", Verdict.EXACT),
    ("flip: index of the log", Verdict.HARMLESS),
    ("truncate: whole records: the last 5", Verdict.EXACT),
    ("truncate: half a block: block 5", Verdict.EXACT),
    ("lost block: block 5", Verdict.EXACT),
    ("lost block of blobs: block 0", Verdict.EXACT),
    ("lost index: after kill -9", Verdict.HARMLESS),
    ("lost store", Verdict.REFUSED),
    ("old copy: all files", Verdict.EXACT),
    ("swapped blocks", Verdict.EXACT),
    ("forged record at the end: names another predecessor", Verdict.EXACT),
    ("forged envelope: another correlation", Verdict.EXACT),
    ("forged envelope: the fields of another body", Verdict.EXACT),
    ("loosened settings: age limit of the log", Verdict.REFUSED),
)
"""Beginnings of faults, of which the first is taken, and what must become of it."""


@pytest.fixture(scope="module")
async def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Store]]:
    """Return a folder, and the stores that were written there."""
    folder = tmp_path_factory.mktemp("faults")
    return folder, await stores(folder)


async def test_what_is_whole_is_called_whole(prepared: tuple[Path, dict[str, Store]]) -> None:
    """Without any fault every store is read as it was written, and nobody complains."""
    folder, whole = prepared
    for name, store in whole.items():
        nothing = Fault(kind="none", name="nothing", store=name, inject=lambda store: None)
        finding = await inject(nothing, store, copy=folder / f"untouched-{name}")
        assert finding.verdict is Verdict.HARMLESS, finding


async def test_a_fault_is_reported_where_it_is(prepared: tuple[Path, dict[str, Store]]) -> None:
    """Each chosen fault is reported at its first record, or refused at the start, or nothing is lost by it."""
    folder, whole = prepared
    known = every_fault(folder, seed=SEED, count=4)
    faults = [next(each for each in known if f"{each.kind}: {each.name}".startswith(name)) for name, _ in CHOSEN]
    rows = await inject_all(faults, whole, folder=folder)
    wrong = [line_of(row) for row, (_, wanted) in zip(rows, CHOSEN, strict=True) if row[1].verdict is not wanted]
    assert not wrong, "\n".join(wrong)


async def test_flips_at_random_places(prepared: tuple[Path, dict[str, Store]]) -> None:
    """Flips anywhere in the blocks are never missed, and never cry wolf."""
    folder, whole = prepared
    faults = [each for each in every_fault(folder, seed=SEED, count=4) if each.kind.startswith("flip: a block")]
    assert len(faults) == 4
    rows = await inject_all(faults, whole, folder=folder)
    assert not [line_of(row) for row in rows if row[1].verdict in FAILURES]


async def test_the_gate_is_needed(prepared: tuple[Path, dict[str, Store]]) -> None:
    """An old copy is a sound log in itself: without the checkpoints nobody could tell."""
    folder, whole = prepared
    assert snapshot_in(folder).is_dir()
    fault = next(each for each in every_fault(folder, seed=SEED, count=0) if each.name == "all files")

    def forget(store: Store) -> None:
        fault.inject(store)
        for checkpoint in store.checkpoints.glob("*.json"):
            checkpoint.unlink()

    blind = Fault(kind="old copy", name="and no checkpoints", store="small", inject=forget)
    finding = await inject(blind, whole["small"], copy=folder / "blind")
    assert finding.verdict is Verdict.MISSED, finding
