"""Injects faults into copies of prepared stores, two at a time."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from random import Random

import anyio
from tests.faults import forged, kinds
from tests.faults.judge import Finding, judge
from tests.faults.kinds import Fault, apply
from tests.faults.store import Store, make, make_killed
from tests.faults.table import Row, line_of, tell

AT_ONCE = 2
KILLED_AFTER = 203


async def stores(folder: Path) -> dict[str, Store]:
    """Write the stores that faults are injected into."""
    return {
        "whole": await make(folder / "whole", name="whole"),
        "small": await make(folder / "small", name="small", small=True, snapshot=snapshot_in(folder)),
        "killed": await make_killed(folder / "killed", name="killed", after=KILLED_AFTER),
    }


def snapshot_in(folder: Path) -> Path:
    """Return where the older copy of the store `small` is."""
    return folder / "snapshot"


def every_fault(folder: Path, *, seed: int, count: int) -> list[Fault]:
    """Return all faults; `seed` draws the random places, and `count` of them are flips anywhere in the blocks."""
    rng = Random(seed)
    return list(
        chain(
            kinds.flips_in_records(rng),
            kinds.flips_in_compressed_heads(),
            kinds.flips_in_blocks(rng, count=count),
            kinds.flips_in_files(rng, each=4),
            kinds.truncations(rng),
            kinds.whole_blocks(),
            kinds.lost_files(snapshot_in(folder)),
            kinds.lost_words(),
            forged.appended(),
            forged.misdescribed(),
            forged.rewritten(),
            forged.administered(),
            [forged.written_on(kinds.old_copy(snapshot_in(folder)))],
        )
    )


async def inject_all(
    faults: Sequence[Fault], prepared: Mapping[str, Store], *, folder: Path, verbose: bool = False
) -> list[Row]:
    """Return what became of each fault, in their order."""
    found: dict[int, Finding] = {}
    waiting = list(enumerate(faults))[::-1]

    async def take() -> None:
        while waiting:
            number, fault = waiting.pop()
            found[number] = await inject(fault, prepared[fault.store], copy=folder / f"copy-{number}")
            if verbose:
                tell(line_of((fault, found[number])), to=sys.stderr)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(take)
    return [(fault, found[number]) for number, fault in enumerate(faults)]


async def inject(fault: Fault, store: Store, *, copy: Path) -> Finding:
    """Return what becomes of one fault in a copy of the store."""
    damaged = store.copy(copy)
    try:
        await apply(fault, damaged)
        return await judge(damaged, open_end=fault.store == "killed")
    finally:
        shutil.rmtree(copy)
