"""What a projection is: a pure fold from records to changes of keyed rows.

A projection never holds its state itself. It is handed the rows as they are (`Rows`) and one record, and returns what
changes. So the same fold runs on a dictionary (`MemoryRows`, for replay and tests) and on SQLite (`store.py`), and a
record costs what it touches, not what there is.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, Self, TypeVar

import msgspec

from lumina.events.base import Event
from lumina.events.record import Recorded

Key = tuple[str | int, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a projection's table.

    Attributes:
        table: Its table.
        key: The fields that name it, in order.
        indexed: Other fields by which rows are looked up.
    """

    table: ClassVar[str] = ""
    key: ClassVar[tuple[str, ...]] = ()
    indexed: ClassVar[tuple[str, ...]] = ()

    def key_of(self) -> Key:
        """Return the values of the key fields."""
        return tuple(getattr(self, field) for field in self.key)

    def but(self, **fields: Any) -> Self:
        """Return a copy with other values in `fields`."""
        return msgspec.structs.replace(self, **fields)


RowT = TypeVar("RowT", bound=Row)


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is no more."""

    kind: type[Row]
    key: Key


Change = Row | Gone
"""A row to write, whether it is new or not, or one to forget."""


class Rows(Protocol):
    """The rows as they are before a record is applied."""

    def get(self, kind: type[RowT], *key: str | int) -> RowT | None:
        """Return the row with this key, None when there is none."""
        ...

    def where(self, kind: type[RowT], **equal: str | int) -> tuple[RowT, ...]:
        """Return the rows whose key or indexed fields equal these values, in the order of their keys."""
        ...


class Projection(Protocol):
    """A fold and its tables. Raise `version` whenever `apply` or a row changes; the store is then built again."""

    @property
    def name(self) -> str:
        """What it is called; its position is kept under this name."""
        ...

    @property
    def version(self) -> int:
        """Of the fold and its rows."""
        ...

    @property
    def kinds(self) -> tuple[type[Row], ...]:
        """Its tables."""
        ...

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes; at most one change per row. Must not look at anything else."""
        ...


class MemoryRows:
    """Rows in a dictionary: the state of a projection without a store."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[type[Row], dict[Key, Row]] = {}
        self.change(rows)

    def get(self, kind: type[RowT], *key: str | int) -> RowT | None:
        """Return the row with this key, None when there is none."""
        row = self._rows.get(kind, {}).get(key)
        assert row is None or isinstance(row, kind)
        return row

    def where(self, kind: type[RowT], **equal: str | int) -> tuple[RowT, ...]:
        """Return the rows whose fields equal these values, in the order of their keys."""
        table = self._rows.get(kind, {})
        found = (row for _, row in sorted(table.items()) if isinstance(row, kind))
        return tuple(row for row in found if all(getattr(row, field) == value for field, value in equal.items()))

    def change(self, changes: Iterable[Change]) -> None:
        """Write and forget rows."""
        for change in changes:
            match change:
                case Gone():
                    self._rows.get(change.kind, {}).pop(change.key, None)
                case Row():
                    self._rows.setdefault(type(change), {})[change.key_of()] = change

    def all(self) -> tuple[Row, ...]:
        """Return every row, by table and key."""
        tables = sorted(self._rows.items(), key=lambda item: item[0].table)
        return tuple(row for _, table in tables for _, row in sorted(table.items()))


def fold(projection: Projection, records: Iterable[Recorded[Event]]) -> MemoryRows:
    """Return the rows after all `records`, applied in order to an empty projection."""
    rows = MemoryRows()
    for recorded in records:
        rows.change(projection.apply(rows, recorded))
    return rows
