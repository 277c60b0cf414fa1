"""Checks one row of a dataset: made again from the log, and its code run again in the sandbox."""

import msgspec

from lumina.agents import executing
from lumina.agents.executing import ExecutionRaw
from lumina.agents.ports import Recording
from lumina.agents.sandbox import Sandbox
from lumina.bus.log import Originals
from lumina.events.execution import Check, ExecutionFinished
from lumina.events.record import NO_DIGEST
from lumina.events.values import BlobRef
from lumina.replay.datasets.reading import RunReading, place_problem
from lumina.replay.datasets.rows import Row, RowKind, Trail, decoded_raw, execution_request, first_difference
from lumina.replay.errors import RowLost


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A row that does not hold, and why; `line` counts from 1."""

    line: int
    reason: str


class Checker:
    """Checks rows. `executed` counts the programs that were run again."""

    def __init__(self, *, execute: bool, sandbox: Sandbox | None = None) -> None:
        self.executed = 0
        self._execute = execute
        self._sandbox = sandbox or Sandbox()

    async def fault(self, row: Row, *, run: RunReading, events: Originals, live: bool) -> str | None:
        """Return why a row does not hold, None when it does."""
        try:
            problem = await place_problem(row.log, events=events, live=live)
            if problem is not None:
                return problem
            return await self._row_fault(row, run=run)
        except RowLost as error:
            return str(error)

    async def _row_fault(self, row: Row, *, run: RunReading) -> str | None:
        for candidate in run.candidates():
            kind = RowKind.ACCEPTED if candidate.faulty is None else RowKind.REPAIR
            if (candidate.accepted.id, kind) != (row.accepted, row.kind):
                continue
            difference = first_difference(row, await run.row(candidate, log=row.log))
            if difference is not None or not self._execute:
                return difference
            trails = [candidate.answer] if candidate.faulty is None else [candidate.answer, candidate.faulty]
            for trail in trails:
                fault = await self._executes_as_recorded(trail, run=run)
                if fault is not None:
                    return fault
            return None
        return f"accepted: no step is accepted by {row.accepted} in {row.run}, or not with such a row"

    async def _executes_as_recorded(self, trail: Trail, *, run: RunReading) -> str | None:
        """Run the code of an attempt again, with the files and pages that it had; return how it went otherwise."""
        request = execution_request(trail, index=run.index)
        if request is None or trail.execution is None:
            return None  # a faulty attempt that was never run: an accepted one always was, or it makes no row
        recorded = trail.execution.event
        assert isinstance(recorded, ExecutionFinished)
        asked = executing.request_of(request)
        blobs = {digest: await run.blob(digest) for digest in executing.needs(asked)}
        raw = decoded_raw(await run.blob(recorded.raw.digest), kind=ExecutionRaw, of=trail.execution)
        effect = executing.prepare(asked, blobs=blobs)
        again = await self._sandbox.again(effect, pages=raw.pages)
        self.executed += 1
        nowhere = BlobRef(digest=NO_DIGEST, size=0, media_type="application/json")
        concluded = executing.conclude(request, Recording(effect=NO_DIGEST, raw=again, ref=nowhere)).event
        assert isinstance(concluded, ExecutionFinished)
        if concluded.verdict is not recorded.verdict:
            was, now = recorded.verdict.value, concluded.verdict.value
            return f"attempt {recorded.attempt}: its code was {was}, and is {now} now: {concluded.detail}"
        for before, after in zip(recorded.checks, concluded.checks, strict=False):
            if _judgement(before) != _judgement(after):
                return f"attempt {recorded.attempt}: the check {before.name!r} came out otherwise: {after.detail}"
        if len(recorded.checks) != len(concluded.checks):
            return f"attempt {recorded.attempt}: {len(recorded.checks)} checks were made, {len(concluded.checks)} now"
        return None


def _judgement(check: Check) -> tuple[str, bool]:
    """Return what must be the same each time; a detail may tell what lots were drawn."""
    return check.name, check.passed
