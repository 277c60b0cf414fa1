"""What a frozen run's test calls: decide a file's run again with the code that is installed."""

from functools import partial
from pathlib import Path

import anyio

from lumina.agents.version import code_version
from lumina.bus.archive import open_archive
from lumina.bus.errors import LogDamaged
from lumina.events.ids import StreamId
from lumina.replay.report import Damage, Report, Status
from lumina.replay.verifying.verify import verify_run


def replay_file(path: Path) -> Report:
    """Return the proof of the run in an exported file; `lines()` of it say where it fails.

    The test compares its counts, too: a history that was cut at its end, or after which the code that is installed has
    more to say, is equal as far as it goes.

    Raises:
        ArchiveTooNew: A later version wrote it.
        UnknownEvent: The same.
        OSError: It can't be read.
    """
    return anyio.run(partial(_replayed, path))


async def _replayed(path: Path) -> Report:
    try:
        async with open_archive(path) as archive:
            run = archive.manifest.run
            assert run is not None, "a run is frozen, not a log"
            return await verify_run(archive, archive, StreamId(run), code=code_version())
    except LogDamaged as error:
        return Report(run=None, status=Status.DAMAGED, damage=Damage(seq=error.seq, reason=str(error)))
