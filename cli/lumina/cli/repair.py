"""`lumina repair`: says what is damaged in the log, and restores it from wherever it is left."""

import shlex
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lumina.bus.address import Running
from lumina.bus.archive import open_archive
from lumina.bus.blobs import JetStreamBlobs
from lumina.bus.errors import LogDamaged
from lumina.bus.gate import CheckpointFile, pass_gate
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.nats_transport import connect
from lumina.bus.repair import Repair, Repairing
from lumina.cli.app import HomeOption, JsonOption, app, err, out, print_json, work
from lumina.cli.errors import UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.events.base import Event
from lumina.replay.report import Status
from lumina.replay.verifying.integrity import blob_refs
from lumina.replay.verifying.verify import verify_all

BLOBS_SHOWN = 10


@app.command()
def repair(
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="An exported file of this log, or of one of its runs.")
    ] = None,
    beyond: Annotated[
        bool, typer.Option("--beyond", help="Take records of FILE behind the end known here: only from your own file.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is damaged and what can be restored.")
    ] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Say what is damaged in the log, and restore it: from its own files, the mirror of external consumers, and FILE.

    Nothing is ever deleted or changed in place: a whole log is built beside the damaged one and takes its place in one
    step; the damaged one is kept. If anything is lost for good, nothing is changed, and it is named. Records of FILE
    behind the end that the log, the mirror and the checkpoints know of are left out: what is added there is executed.

    Exit codes: 0 whole, restored, or restorable (--dry-run); 5 something is lost.
    """

    async def job(found: Home) -> Exit:
        if beyond and file is None:
            raise UsageProblem("--beyond goes with a file: lumina repair --from FILE --beyond")
        async with AsyncExitStack() as stack:
            archive = None if file is None else await stack.enter_async_context(open_archive(file))
            repairing = Repairing(
                found.root,
                checkpoints=found.checkpoints,
                archive=archive,
                beyond=beyond,
                named=_named,
                check=lambda server: _check(server, home=found),
                say=lambda what: err().print(f"repair: {what}", style="dim", markup=False),
            )
            result = await repairing.run(dry_run=dry_run)
        if json_lines:
            print_json(msgspec.json.encode(result))
        else:
            again = "lumina repair" if file is None else f"lumina repair --from {shlex.quote(str(file))}"
            again += " --beyond" if beyond else ""
            for line in lines_of(result, given=file is not None, again=again):
                out().print(Text(line, style="red" if result.state == "lost" else "green"), soft_wrap=True)
        return Exit.DAMAGED if result.state == "lost" else Exit.OK

    raise typer.Exit(work(job, home=home))


def _named(event: Event) -> Iterator[str]:
    return (ref.digest for ref in blob_refs(event))


async def _check(server: Running, *, home: Home) -> str | None:
    """Return what the start-up gate and `lumina verify --all` say is damaged, None when nothing is."""
    async with connect(server.endpoint("client")) as transport:
        log = JetStreamLog(transport)
        report = await verify_all(log, JetStreamBlobs(transport))
        if report.damage is not None:
            return report.damage.reason
        if report.status is not Status.OK:
            # What was written is there, and only decided otherwise now: see that the rest can be read.
            try:
                _ = [recorded.seq async for recorded in log.read()]
            except LogDamaged as error:
                return str(error)
        try:
            await pass_gate(log, *map(CheckpointFile, sorted(home.checkpoints.glob("*.json"))))
        except LogDamaged as error:
            return str(error).partition("; `lumina repair`")[0]
    return None


def lines_of(result: Repair, *, given: bool, again: str = "lumina repair") -> Iterator[str]:
    """Yield what a repair found and did, for people; `again` is the command that restores what a dry run found."""
    if result.state == "whole":
        yield "repair: the log is whole; nothing was changed"
        return
    was = "was damaged" if result.state == "restored" else "is damaged"
    yield f"repair: the log {was}: {result.damage}"
    sources = ", ".join(f"{count:,} from {name}" for name, count in result.by_source.items() if count)
    yield f"  {result.records:,} records are sound: {sources or 'none'}; {result.blobs:,} blobs"
    for gap in result.gaps:
        yield f"  lost: {gap}"
    if result.gaps and result.runs:
        yield f"  concerned, as far as is known: {', '.join(result.runs)}"
    for digest in result.blobs_missing[:BLOBS_SHOWN]:
        yield f"  lost: blob {digest}"
    if len(result.blobs_missing) > BLOBS_SHOWN:
        yield f"  lost: {len(result.blobs_missing) - BLOBS_SHOWN} more blobs"
    if result.left_out:
        known = "of FILE lie behind the end that anything here knows of and were left out"
        yield f"  {result.left_out:,} records {known}; if it is your own export: --beyond"
    match result.state:
        case "restorable":
            yield f"  everything can be restored: {again}"
        case "restored":
            yield f"  restored and verified; the damaged store is kept in {result.kept}"
        case _:
            other = "another file" if given else "an exported file"
            yield f"  nothing was changed. Give {other} that has what is lost: lumina repair --from FILE"
