"""The files that a sandbox had, or would have, at a moment of a timeline, rebuilt from the blobs of the log."""

import msgspec

from lumina.agents.executing import ExecutionEffect
from lumina.replay.stepping.moments import Walk
from lumina.replay.stepping.timeline import Told, told
from lumina.sandbox.port import File
from lumina.sandbox.programs import run_job

SANDBOX = "sandbox"


class SandboxFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in the program's working folder before it starts.

    Attributes:
        request: The `execution.requested` whose files they are.
        ahead: It comes later than the moment that was asked for.
        command: What the sandbox starts there.
        files: By name and content.
        urls: Pages that are fetched and served to it; they are no files, and are not rebuilt.
    """

    request: Told
    ahead: bool
    command: tuple[str, ...]
    files: tuple[File, ...]
    urls: tuple[str, ...]


async def files_at(walk: Walk, moment: int) -> SandboxFiles | None:
    """Return the files of the newest execution at a moment; before the first one, of that; None when there is none.

    Raises:
        BlobLost: The program or a file beside it is not there.
    """
    request = walk.bench.request_at(SANDBOX, moment)
    if request is None:
        return None
    effect = await walk.bench.effect(SANDBOX, request)
    assert isinstance(effect, ExecutionEffect), "that is what a sandbox prepares"
    job = run_job(effect.program)
    recorded = walk.timeline.stops[request].recorded
    return SandboxFiles(
        request=told(recorded), ahead=request > moment, command=job.command, files=job.files, urls=effect.urls
    )
