"""The rows of all projections in one SQLite file, with their positions in the same transaction.

So every record counts exactly once, whatever crashes between. The file is disposable: a projection of another version,
a file that is damaged, or one that belongs to another log is dropped, and `catch_up` builds it again.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog

from lumina.events.base import Event
from lumina.events.record import NO_DIGEST, Recorded
from lumina.projections.errors import RecordSkipped, StoreDamaged, StoreUnavailable
from lumina.projections.fold import Change, Gone, Key, Projection, Row, RowT

FILE_NAME: Final = "projections.sqlite"
BUSY_S_MAX: Final = 30.0
"""How long one process waits for another that is catching up."""

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
"""SQLITE_ERROR is a table or column that is not there: the statements are fixed, so the file was changed."""

_POSITIONS = """
CREATE TABLE IF NOT EXISTS projection (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL, first TEXT NOT NULL
) WITHOUT ROWID
"""

Notice = Callable[[str], None]
"""Is told in one sentence that something was built again, and why."""


def _log_notice(sentence: str) -> None:
    structlog.get_logger().warning("projections.rebuilt", reason=sentence)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far the projections have read: the last record's sequence and digest, and the digest of the log's first."""

    seq: int = 0
    digest: str = NO_DIGEST
    first: str = NO_DIGEST


class Store:
    """An open file. Implements `Rows`; use it from one thread, and close it."""

    def __init__(self, path: Path, *, projections: Sequence[Projection], notice: Notice = _log_notice) -> None:
        """Open or create the file at `path`.

        Raises:
            StoreUnavailable: It can't be opened or written.
        """
        self._path = path
        self._projections = tuple(projections)
        self._notice = notice
        self._connection: sqlite3.Connection | None = None
        try:
            self._open()
        except StoreDamaged as error:
            self.rebuild(f"{path.name} was damaged ({error})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Safe to repeat."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def rebuild(self, reason: str) -> None:
        """Throw everything away and start with empty tables; `catch_up` fills them again.

        Raises:
            StoreUnavailable: The file can't be replaced.
        """
        self.close()
        try:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"{self._path} can't be replaced: {error.strerror}; remove it by hand") from error
        self._open()
        self._notice(f"{reason}; the projections are being built again from the log")

    def position(self) -> Position:
        """Return the position of the projection that is furthest behind."""
        with self._errors():
            rows = self._live.execute("SELECT seq, digest, first FROM projection ORDER BY seq LIMIT 1").fetchall()
        if not rows:
            return Position()
        return Position(seq=rows[0][0], digest=rows[0][1], first=rows[0][2])

    def take(self, records: Sequence[Recorded[Event]]) -> None:
        """Apply records in one transaction. Those that were applied before are passed over.

        Raises:
            RecordSkipped: They don't join on to what was applied.
            StoreDamaged: The file is damaged.
            StoreUnavailable: It is locked for too long, or there is no room.
        """
        with self._errors(), self._transaction():
            for projection in self._projections:
                self._advance(projection, records)

    def get(self, kind: type[RowT], *key: str | int) -> RowT | None:
        """Return the row with this key, None when there is none."""
        found = self.where(kind, **dict(zip(kind.key, key, strict=True)))
        return found[0] if found else None

    def where(self, kind: type[RowT], **equal: str | int) -> tuple[RowT, ...]:
        """Return the rows whose key or indexed fields equal these values, in the order of their keys."""
        conditions = " AND ".join(f"{_column(kind, field)} = ?" for field in equal) or "1"
        statement = f"SELECT body FROM {kind.table} WHERE {conditions} ORDER BY {', '.join(kind.key)}"  # noqa: S608 - names come from the row types, values are bound
        return self._rows(kind, statement, tuple(equal.values()))

    def newest(self, kind: type[RowT], *, by: str, limit: int) -> tuple[RowT, ...]:
        """Return at most `limit` rows, those with the highest `by` first."""
        statement = f"SELECT body FROM {kind.table} ORDER BY {_column(kind, by)} DESC LIMIT ?"  # noqa: S608 - names come from the row types, values are bound
        return self._rows(kind, statement, (limit,))

    def starting(self, kind: type[RowT], *, prefix: str, limit: int) -> tuple[RowT, ...]:
        """Return at most `limit` rows whose first key field starts with `prefix`, which is plain ASCII."""
        field = kind.key[0]
        statement = f"SELECT body FROM {kind.table} WHERE {field} >= ? AND {field} < ? ORDER BY {field} LIMIT ?"  # noqa: S608 - names come from the row types, values are bound
        return self._rows(kind, statement, (prefix, prefix + "\x7f", limit))

    @property
    def _live(self) -> sqlite3.Connection:
        assert self._connection is not None, "the store is closed"
        return self._connection

    def _rows(self, kind: type[RowT], statement: str, values: Key) -> tuple[RowT, ...]:
        with self._errors():
            bodies = self._live.execute(statement, values).fetchall()
        try:
            return tuple(msgspec.json.decode(body, type=kind) for (body,) in bodies)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise StoreDamaged(f"a row of {kind.table} can't be read: {error}") from error

    def _open(self) -> None:
        with self._errors():
            self._connection = sqlite3.connect(self._path, timeout=BUSY_S_MAX, isolation_level=None)
            self._live.execute("PRAGMA journal_mode = WAL")
            self._live.execute("PRAGMA synchronous = NORMAL")  # after a power cut the log still has it all
            answer = self._live.execute("PRAGMA quick_check(1)").fetchone()[0]
            if answer != "ok":
                raise StoreDamaged(str(answer))
            with self._transaction():
                self._prepare_tables()

    def _prepare_tables(self) -> None:
        self._live.execute(_POSITIONS)
        known = dict(self._live.execute("SELECT name, version FROM projection").fetchall())
        for projection in self._projections:
            if known.get(projection.name) == projection.version:
                continue
            if projection.name in known:
                self._notice(
                    f"projection {projection.name} is now version {projection.version} (was {known[projection.name]}); "
                    "it is being built again from the log"
                )
            for kind in projection.kinds:
                self._create(kind)
            self._live.execute(
                "INSERT OR REPLACE INTO projection VALUES (?, ?, 0, ?, ?)",
                (projection.name, projection.version, NO_DIGEST, NO_DIGEST),
            )

    def _create(self, kind: type[Row]) -> None:
        columns = ", ".join(f"{field} NOT NULL" for field in (*kind.key, *kind.indexed))
        self._live.execute(f"DROP TABLE IF EXISTS {kind.table}")
        columns += f", body BLOB NOT NULL, PRIMARY KEY ({', '.join(kind.key)})"
        self._live.execute(f"CREATE TABLE {kind.table} ({columns}) WITHOUT ROWID")
        for field in kind.indexed:
            self._live.execute(f"CREATE INDEX {kind.table}_{field} ON {kind.table} ({field})")

    def _advance(self, projection: Projection, records: Sequence[Recorded[Event]]) -> None:
        statement = "SELECT seq, digest, first FROM projection WHERE name = ?"
        seq, digest, first = self._live.execute(statement, (projection.name,)).fetchone()
        start = seq
        for recorded in records:
            if recorded.seq <= seq:
                continue
            if recorded.seq != seq + 1:
                raise RecordSkipped(f"projection {projection.name} stands at {seq} and was given record {recorded.seq}")
            for change in projection.apply(self, recorded):
                self._write(change)
            seq, digest = recorded.seq, recorded.digest
            first = digest if seq == 1 else first
        if seq != start:
            statement = "UPDATE projection SET seq = ?, digest = ?, first = ? WHERE name = ?"
            self._live.execute(statement, (seq, digest, first, projection.name))

    def _write(self, change: Change) -> None:
        match change:
            case Gone():
                kind = change.kind
                conditions = " AND ".join(f"{field} = ?" for field in kind.key)
                self._live.execute(f"DELETE FROM {kind.table} WHERE {conditions}", change.key)  # noqa: S608 - names come from the row types, values are bound
            case Row():
                kind = type(change)
                fields = (*kind.key, *kind.indexed)
                marks = ", ".join("?" * (len(fields) + 1))
                values = (*(getattr(change, field) for field in fields), msgspec.json.encode(change))
                self._live.execute(f"INSERT OR REPLACE INTO {kind.table} VALUES ({marks})", values)  # noqa: S608 - names come from the row types, values are bound

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._live.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._live.rollback()
            raise
        self._live.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Tell damage, which a rebuild mends, from an outage, which it doesn't."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _DAMAGED:
                raise StoreDamaged(str(error)) from error
            raise StoreUnavailable(f"{self._path} can't be used: {error}") from error


def _column(kind: type[Row], field: str) -> str:
    assert field in (*kind.key, *kind.indexed), f"{kind.__name__} can't be looked up by {field}"
    return field
