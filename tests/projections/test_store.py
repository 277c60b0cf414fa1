"""The SQLite store: every record counts once, whatever is repeated, interrupted, damaged or changed."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.projections.catalogue import PROJECTIONS
from lumina.projections.catch_up import BATCH_RECORDS_MAX, catch_up
from lumina.projections.errors import RecordSkipped, StoreUnavailable
from lumina.projections.fold import Row, fold
from lumina.projections.runs import RunRow, Runs
from lumina.projections.store import FILE_NAME, Store

History = Sequence[Recorded[Event]]
Histories = SearchStrategy[list[Recorded[Event]]]
OneRun = Callable[[str], History]
WHOLE = "run.closed.v1"

pytestmark = pytest.mark.anyio


class Kept:
    """A log that is a list."""

    def __init__(self, records: History) -> None:
        self.records = records
        self.reads: list[int] = []

    async def last_seq(self) -> int:
        """Return how many there are."""
        return len(self.records)

    async def read(self, *, after: int = 0, until: int | None = None) -> AsyncIterator[Recorded[Event]]:
        """Yield those in between."""
        self.reads.append(after)
        for recorded in self.records[after:until]:
            yield recorded


def opened(folder: Path, notices: list[str] | None = None) -> Store:
    """Open the store in `folder`; what it notices goes to `notices`."""
    heard = [] if notices is None else notices
    return Store(folder / FILE_NAME, projections=PROJECTIONS, notice=heard.append)


def rows_of(store: Store) -> dict[type[Row], tuple[Row, ...]]:
    """Return all that the store holds."""
    return {kind: store.where(kind) for projection in PROJECTIONS for kind in projection.kinds}


def rows_from(history: History) -> dict[type[Row], tuple[Row, ...]]:
    """Return what the folds make of a history, without a store."""
    return {kind: fold(projection, history).where(kind) for projection in PROJECTIONS for kind in projection.kinds}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data())
def test_rebuilt_and_incremental_are_equal(wild_histories: Histories, draw: st.DataObject) -> None:
    """Cut into any batches, delivered again in part, with the store closed between: the rows are those of one fold."""
    history = draw.draw(wild_histories)
    with TemporaryDirectory() as name:
        store, done = opened(Path(name)), 0
        while done < len(history):
            start = draw.draw(st.integers(0, done))
            stop = draw.draw(st.integers(done + 1, len(history)))
            store.take(history[start:stop])
            done = stop
            if draw.draw(st.booleans()):
                store.close()
                store = opened(Path(name))
        with store:
            assert rows_of(store) == rows_from(history)
            assert store.position().seq == len(history)


def test_nothing_counts_when_a_batch_breaks(tmp_path: Path, one_run: OneRun) -> None:
    """A batch that fails half way leaves rows and position as they were."""
    history = one_run(WHOLE)

    class Breaking(Runs):
        """Breaks at the third record."""

        def apply(self, rows: Any, recorded: Recorded[Event]) -> Any:
            """Return what `Runs` does, twice."""
            if recorded.seq == 3:
                raise ZeroDivisionError
            return super().apply(rows, recorded)

    with Store(tmp_path / FILE_NAME, projections=(Breaking(),)) as store:
        store.take(history[:1])
        with pytest.raises(ZeroDivisionError):
            store.take(history[1:5])
        assert store.where(RunRow) == ()
        assert store.position().seq == 1


def test_a_gap_is_refused(tmp_path: Path, one_run: OneRun) -> None:
    """Records that don't join on to the position are not applied."""
    history = one_run(WHOLE)
    with opened(tmp_path) as store:
        store.take(history[:2])
        with pytest.raises(RecordSkipped, match="stands at 2 and was given record 4"):
            store.take(history[3:])
        assert store.position().seq == 2


def test_a_new_version_is_built_again_alone(tmp_path: Path, one_run: OneRun) -> None:
    """Only the projection whose version changed starts from nothing, and the notice names it."""
    history, notices = one_run(WHOLE), list[str]()

    class Newer(Runs):
        """The same, newer."""

        version = Runs.version + 1

    with opened(tmp_path) as store:
        store.take(history)
    projections = (Newer(), *(each for each in PROJECTIONS if each.name != Runs.name))
    with Store(tmp_path / FILE_NAME, projections=projections, notice=notices.append) as store:
        assert f"projection runs is now version {Newer.version} (was {Runs.version})" in notices[0]
        assert store.where(RunRow) == ()
        assert store.position().seq == 0
        store.take(history)
        assert rows_of(store) == rows_from(history)


async def test_catching_up_reads_what_is_new(tmp_path: Path, one_run: OneRun) -> None:
    """The second time, only new records are applied."""
    history, notices = one_run(WHOLE), list[str]()
    with opened(tmp_path, notices) as store:
        assert await catch_up(Kept(history[:4]), store) == 4
        log = Kept(history)
        assert await catch_up(log, store) == len(history)
        assert log.reads == [0, 3, 4]  # the first and the last that it knows, then what is new
        assert rows_of(store) == rows_from(history)
        assert notices == []


async def test_catching_up_takes_more_than_a_batch(tmp_path: Path, one_run: OneRun) -> None:
    """A log longer than one transaction is taken whole."""
    scribe_records = list(one_run("run.submitted.v1"))
    long = [
        Recorded(
            event=scribe_records[0].event,
            id=scribe_records[0].id,
            stream=scribe_records[0].stream,
            agent="node",
            time_ms=number,
            causation=None,
            position=number,
            previous="0" * 64,
            digest=f"{number:064x}",
            seq=number,
        )
        for number in range(1, 2 * BATCH_RECORDS_MAX + 2)
    ]
    with opened(tmp_path) as store:
        assert await catch_up(Kept(long), store) == len(long)
        assert store.position().seq == len(long)


async def test_another_log_starts_again(tmp_path: Path, one_run: OneRun) -> None:
    """A store that was filled from another log is built again, and says so."""
    history, notices = one_run(WHOLE), list[str]()
    other = [*history[1:], history[0]]
    moved = [_at(recorded, seq=number) for number, recorded in enumerate(other, start=1)]
    with opened(tmp_path, notices) as store:
        await catch_up(Kept(moved), store)
        await catch_up(Kept(history), store)
        assert rows_of(store) == rows_from(history)
        assert "another log" in notices[0]


async def test_a_log_that_lost_its_tail_starts_again(tmp_path: Path, one_run: OneRun) -> None:
    """Rows made from records that the log no longer holds are thrown away."""
    history, notices = one_run(WHOLE), list[str]()
    with opened(tmp_path, notices) as store:
        await catch_up(Kept(history), store)
        await catch_up(Kept(history[:5]), store)
        assert rows_of(store) == rows_from(history[:5])
        assert f"before record {len(history)}" in notices[0]


async def test_what_stands_before_damage_is_applied(tmp_path: Path, one_run: OneRun) -> None:
    """A log that is damaged in the middle is shown up to there, and the error is not hidden."""

    class Damage(Exception):
        """What the log raises."""

    class Damaged(Kept):
        """Raises after the fifth record."""

        async def read(self, *, after: int = 0, until: int | None = None) -> AsyncIterator[Recorded[Event]]:
            """Yield five, then raise."""
            async for recorded in super().read(after=after, until=until):
                if recorded.seq == 6:
                    raise Damage
                yield recorded

    with opened(tmp_path) as store:
        with pytest.raises(Damage):
            await catch_up(Damaged(one_run(WHOLE)), store)
        assert store.position().seq == 5


@pytest.mark.parametrize(
    "damage",
    [b"this is not a database, it is a sentence" * 200, b"", b"SQLite format 3\x00" + b"\xff" * 5000],
    ids=["text", "empty", "torn"],
)
async def test_a_damaged_file_is_built_again(tmp_path: Path, one_run: OneRun, damage: bytes) -> None:
    """Whatever stands in the file, the projections come back from the log."""
    history, notices = one_run(WHOLE), list[str]()
    with opened(tmp_path) as store:
        await catch_up(Kept(history), store)
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / FILE_NAME).write_bytes(damage)
    with opened(tmp_path, notices) as store:
        await catch_up(Kept(history), store)
        assert rows_of(store) == rows_from(history)
    assert [notice for notice in notices if "damaged" in notice] or damage == b""


async def test_a_page_that_rots_in_the_middle_is_noticed(tmp_path: Path, one_run: OneRun) -> None:
    """Zeros over the pages behind the first are found when the file is opened."""
    history, notices = one_run(WHOLE), list[str]()
    with opened(tmp_path) as store:
        await catch_up(Kept(history), store)
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    with opened(tmp_path, notices) as store:
        await catch_up(Kept(history), store)
        assert rows_of(store) == rows_from(history)
    assert any("damaged" in notice for notice in notices)


async def test_a_table_that_is_gone_is_built_again(tmp_path: Path, one_run: OneRun) -> None:
    """A file in which somebody dropped a table heals while catching up."""
    history, notices = one_run(WHOLE), list[str]()
    with opened(tmp_path) as store:
        await catch_up(Kept(history[:3]), store)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("DROP TABLE run")
    connection.close()
    with opened(tmp_path, notices) as store:
        await catch_up(Kept(history), store)
        assert rows_of(store) == rows_from(history)
    assert any("damaged" in notice for notice in notices)


def test_a_file_that_can_not_be_opened_is_an_outage(tmp_path: Path) -> None:
    """A folder that is not there is nothing that a rebuild mends; the message names the file."""
    with pytest.raises(StoreUnavailable, match=FILE_NAME):
        opened(tmp_path / "missing")


def test_two_processes_share_the_file(tmp_path: Path, one_run: OneRun) -> None:
    """Two stores on one file that are given the same records count them once."""
    history = one_run(WHOLE)
    with opened(tmp_path) as one, opened(tmp_path) as two:
        one.take(history[:6])
        two.take(history)
        one.take(history[3:])
        assert rows_of(one) == rows_of(two) == rows_from(history)


def _at(recorded: Recorded[Event], *, seq: int) -> Recorded[Event]:
    return Recorded(
        event=recorded.event,
        id=recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        time_ms=recorded.time_ms,
        causation=recorded.causation,
        position=recorded.position,
        previous=recorded.previous,
        digest=recorded.digest,
        seq=seq,
    )
