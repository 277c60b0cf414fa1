"""Recorded histories that must verify for ever: exported files, one or more per release.

Add one of a release: `lumina export RUN -o tests/replay/corpus/VERSION-WHAT.lumina`, and run
`python -m tests.replay.corpus_files`, which writes those whose effects are scripted, for the version that is installed,
and the bad one. What stands there already is left as it is: a history that does not verify any more is a change of
meaning, and needs a new version of an event or a decision that is not changed for old runs.
"""

from importlib.metadata import version
from pathlib import Path

import anyio
from tests.replay.conftest import live_through
from tests.replay.forked_runs import GRANDCHILD, family
from tests.replay.test_verify import but, rewritten

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.cli.exporting import Wishes, export_run
from lumina.events.ids import StreamId

CORPUS = Path(__file__).parent / "corpus"
BAD = CORPUS / "_bad.lumina"
"""Its plan has another reason than the one that was decided; every digest was made good again."""


async def forged() -> tuple[MemoryLog, MemoryBlobs]:
    """Return a history in which one word of a decision was exchanged."""
    log, blobs = MemoryLog(), MemoryBlobs()
    await live_through(("r-forged",), log=log, blobs=blobs)
    target = next(each for each in log.records if each.type == "run.planned.v1")
    event = but(target.event, reason="another")
    return rewritten(log.records, lambda each: {"event": event} if each.id == target.id else {}), blobs


async def three_runs() -> tuple[MemoryLog, MemoryBlobs]:
    """Return three runs that share a governor, each with a failed attempt and a repair."""
    log, blobs = MemoryLog(), MemoryBlobs()
    await live_through(("r-aaa", "r-bbb", "r-ccc"), log=log, blobs=blobs)
    return log, blobs


async def write(folder: Path) -> None:
    """Write what is not there yet."""
    folder.mkdir(exist_ok=True)
    now = version("lumina-agents")
    histories = (
        (f"{now}-three-runs.lumina", three_runs, StreamId("r-ccc")),
        (f"{now}-forks.lumina", family, GRANDCHILD),
        (BAD.name, forged, StreamId("r-forged")),
    )
    for name, take_place, run in histories:
        if not (folder / name).exists():
            log, blobs = await take_place()
            await export_run(log, blobs, run, wishes=Wishes(path=folder / name))


if __name__ == "__main__":
    anyio.run(write, CORPUS)
