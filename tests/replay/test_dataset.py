"""Rows of a dataset from runs in memory: what they are made of, and code that behaves otherwise than it did."""

import anyio
import msgspec
import pytest
from tests.replay.conftest import ANSWERS, History, ScriptedSandbox

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.cli.dataset_check import Checker
from lumina.events.execution import ExecutionVerdict
from lumina.events.ids import StreamId
from lumina.replay.datasets.reading import RunReading, place_of
from lumina.replay.datasets.rows import Row, RowKind, first_difference
from lumina.replay.errors import RowLost
from lumina.sandbox.port import Ended, RunResult
from lumina.sandbox.programs import Page

RUN = StreamId("r-bbb")


class OtherSandbox(ScriptedSandbox):
    """Runs a program with the result that it is given."""

    def __init__(self, *results: RunResult) -> None:
        super().__init__(tiers={})
        self.results = list(results)
        self.programs: list[str] = []

    async def again(self, effect: ExecutionEffect, *, pages: tuple[Page, ...]) -> ExecutionRaw:
        """Return the next result."""
        assert pages == ()
        self.programs.append(effect.program.code)
        return ExecutionRaw(ended_at_ms=1, runs=(self.results.pop(0),))


GOOD = RunResult(ended=Ended.EXITED, exit_code=0, stdout=b"1\n")
BAD = RunResult(ended=Ended.EXITED, exit_code=1, stderr=b"NameError: name 'one' is not defined\n")


async def opened(history: History) -> tuple[RunReading, tuple[Row, ...], MemoryLog]:
    """Return one run, its rows, and the log."""
    log, blobs = MemoryLog(history[0].records), history[1]
    run = await RunReading.of(RUN, events=log, blobs=blobs)
    place = await place_of(log)
    return run, tuple([await run.row(candidate, log=place) for candidate in run.candidates()]), log


def test_a_repair_makes_two_rows(history: History) -> None:
    """The accepted program with its prompt and verdict, and the faulty one with what was wrong."""

    async def look() -> None:
        _, rows, log = await opened(history)
        assert [row.kind for row in rows] == [RowKind.ACCEPTED, RowKind.REPAIR]
        accepted, repair = rows
        assert accepted.answer == repair.answer
        assert accepted.answer.code == ANSWERS[1]
        assert accepted.answer.execution is ExecutionVerdict.PASSED
        assert repair.faulty is not None
        assert (repair.faulty.code, repair.faulty.execution) == (ANSWERS[0], ExecutionVerdict.FAILED)
        assert "NameError" in repair.faulty.stderr
        assert any("NameError" in line for line in repair.feedback)
        assert accepted.answer.prompt[-2].text.count(ANSWERS[0].strip()) == 1
        assert accepted.log.digest == log.records[-1].digest

    anyio.run(look)


def test_a_row_survives_its_file(history: History) -> None:
    """What is written can be read, and equals what is derived again."""

    async def look() -> None:
        _, rows, _ = await opened(history)
        for row in rows:
            read = msgspec.json.decode(msgspec.json.encode(row), type=Row)
            assert read == row
            assert first_difference(read, row) is None

    anyio.run(look)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ((GOOD, BAD), None),
        ((BAD,), "attempt 2: its code was passed, and is failed now"),
        ((GOOD, GOOD), "attempt 1: its code was failed, and is passed now"),
    ],
)
def test_code_that_behaves_otherwise_is_found(
    history: History, results: tuple[RunResult, ...], words: str | None
) -> None:
    """Both programs of a repair are run again; a verdict that differs from the recorded one is reported."""

    async def look() -> None:
        run, (_, repair), log = await opened(history)
        sandbox = OtherSandbox(*results)
        checker = Checker(execute=True, sandbox=sandbox)
        fault = await checker.fault(repair, run=run, events=log, live=True)
        assert (fault is None) if words is None else (fault is not None and words in fault)
        assert checker.executed == len(results)
        assert sandbox.programs == [ANSWERS[1], ANSWERS[0]][: len(results)]

    anyio.run(look)


def test_a_lost_blob_is_named(history: History) -> None:
    """A row whose code is not stored any more can't be made, and the blob is named."""

    async def look() -> None:
        run, rows, log = await opened(history)
        lost = MemoryBlobs()
        lost.contents = {
            digest: content for digest, content in history[1].contents.items() if content != ANSWERS[1].encode()
        }
        other = await RunReading.of(RUN, events=log, blobs=lost)
        with pytest.raises(RowLost, match=rows[0].answer.digests["code"]):
            await other.row(other.candidates()[0], log=rows[0].log)
        assert run.candidates()

    anyio.run(look)
