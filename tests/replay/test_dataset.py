"""Rows of a dataset from runs in memory: what they are made of, and code that behaves otherwise than it did."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from tests.replay.conftest import ANSWERS, History, ScriptedSandbox
from tests.replay.test_verify import rewritten
from tests.system.command import Lumina

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.cli.dataset_check import Checker
from lumina.cli.exporting import Wishes, export_run
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionVerdict
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.events.step import StepAccepted
from lumina.events.validation import ValidationFinished, ValidationVerdict
from lumina.replay.datasets.reading import RunReading, place_of, whole_log_holds
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
        with pytest.raises(RowLost, match=f"no row is made of it.*{rows[0].answer.digests['code']}"):
            await RunReading.of(RUN, events=log, blobs=lost)
        other = await RunReading.of(RUN, events=log, blobs=lost, proved=True)
        with pytest.raises(RowLost, match=rows[0].answer.digests["code"]):
            await other.row(other.candidates()[0], log=rows[0].log)
        assert run.candidates()

    anyio.run(look)


INVENTED = EventId("ab" * 16)
OTHER_CODE = "cd" * 32


def forgery(event: Event, *, how: str) -> Event:
    """Return what a forger makes of an event of the run; most stay as they are."""
    match event, how:
        case StepAccepted(), "no validation":
            return msgspec.structs.replace(event, validation=INVENTED)
        case StepAccepted(), "no execution":
            return msgspec.structs.replace(event, execution=INVENTED)
        case StepAccepted(), "evidence swapped":
            return msgspec.structs.replace(event, validation=event.execution, execution=event.validation)
        case ValidationFinished(attempt=2), "failed validation":
            return msgspec.structs.replace(event, verdict=ValidationVerdict.FAILED)
        case ExecutionFinished(attempt=2), "failed execution":
            return msgspec.structs.replace(event, verdict=ExecutionVerdict.FAILED)
        case ValidationFinished(attempt=2), "other code validated":
            return msgspec.structs.replace(event, code=OTHER_CODE)
        case ExecutionFinished(attempt=2), "other code executed":
            return msgspec.structs.replace(event, code=OTHER_CODE)
        case ExecutionFinished(attempt=2), "another step executed":
            return msgspec.structs.replace(event, step=2)
        case _:
            return event


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no validation", f"its validation {INVENTED} does not stand in the log"),
        ("no execution", f"its execution {INVENTED} does not stand in the log"),
        ("evidence swapped", "its validation .* does not stand in the log"),
        ("failed validation", "validation.finished.v1.* is no pass"),
        ("failed execution", "execution.finished.v1.* is no pass"),
        ("other code validated", f"about the code {OTHER_CODE}"),
        ("other code executed", f"about the code {OTHER_CODE}"),
        ("another step executed", "is about step 2"),
    ],
)
def test_no_row_without_evidence(history: History, how: str, words: str) -> None:
    """An acceptance whose evidence is invented, failed or about other code makes no row, and its run is not proved."""

    def change(each: Recorded[Event]) -> dict[str, Any]:
        return {"event": forgery(each.event, how=how)} if each.stream == RUN else {}

    async def look() -> None:
        log, blobs = rewritten(history[0].records, change), history[1]
        believed = await RunReading.of(RUN, events=log, blobs=blobs, proved=True)
        with pytest.raises(RowLost, match=words):
            believed.candidates()
        with pytest.raises(RowLost, match=f"{RUN} can't be proved, so no row is made of it"):
            await RunReading.of(RUN, events=log, blobs=blobs)
        assert not await whole_log_holds(log, blobs=blobs)
        assert await whole_log_holds(history[0], blobs=blobs)

    anyio.run(look)


def test_an_execution_that_nobody_asked_for_is_no_evidence(history: History) -> None:
    """Code can't be run again without the request that says how: the row does not hold."""

    def change(each: Recorded[Event]) -> dict[str, Any]:
        mine = each.stream == RUN and isinstance(each.event, ExecutionFinished)
        return {"event": msgspec.structs.replace(each.event, request=INVENTED)} if mine else {}

    async def look() -> None:
        log = rewritten(history[0].records, change)
        run = await RunReading.of(RUN, events=log, blobs=history[1], proved=True)
        row = await run.row(run.candidates()[0], log=await place_of(log))
        checker = Checker(execute=True, sandbox=OtherSandbox(GOOD))
        fault = await checker.fault(row, run=run, events=log, live=True)
        assert fault is not None
        assert f"answers {INVENTED}, which does not stand in the log" in fault

    anyio.run(look)


@pytest.fixture
def lumina(tmp_path: Path) -> Iterator[Lumina]:
    """Return the command with an empty data folder; what it reads here are files."""
    command = Lumina(home=tmp_path / "home")
    yield command
    command.end()


def test_a_forged_file_makes_no_rows_and_proves_none(history: History, lumina: Lumina) -> None:
    """The command names the forged run and ends with 1; a row that was made of it before does not hold either."""
    folder = lumina.home.parent
    good, forged, rows = folder / "good.lumina", folder / "forged.lumina", folder / "rows.jsonl"

    def change(each: Recorded[Event]) -> dict[str, Any]:
        return {"event": forgery(each.event, how="no execution")} if each.stream == RUN else {}

    async def export() -> None:
        for log, path in ((history[0], good), (rewritten(history[0].records, change), forged)):
            await export_run(log, history[1], RUN, wishes=Wishes(path=path))

    anyio.run(export)
    written = lumina("dataset", str(forged), str(good), "-o", str(rows))
    assert written.code == 1, written
    assert "2 row(s)" in written.err
    assert f"{RUN} can't be proved, so no row is made of it: record " in written.err
    assert [json.loads(line)["kind"] for line in rows.read_text().splitlines()] == ["accepted", "repair"]
    held = lumina("dataset", "verify", str(rows), "--from", str(good), "--no-execute")
    assert held.code == 0, held
    refused = lumina("dataset", "verify", str(rows), "--from", str(forged), "--no-execute", "--json")
    assert refused.code == 1, refused
    assert ["can't be proved" in str(fault["reason"]) for fault in refused.events] == [True, True]
