"""The rows of a projection at every record of a history: each row is kept once per version, not once per record."""

from bisect import bisect_right
from typing import Any

from msgspec import UNSET

from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.projections.fold import Key, MemoryRows, Projection, Row
from lumina.replay.stepping.plain import Change, changes, plain

_Name = tuple[str, Key]


class TableHistory:
    """One projection. `apply` records one after the other; `mark` ends each of the moments that are asked for later."""

    def __init__(self, projection: Projection) -> None:
        self.projection = projection
        self._rows = MemoryRows()
        self._kinds = {kind.table: kind for kind in projection.kinds}
        self._touched: dict[_Name, None] = {}
        self._versions: dict[_Name, tuple[list[int], list[Row | None]]] = {}
        self._changed: list[tuple[_Name, ...]] = []

    @property
    def of_runs(self) -> bool:
        """Whether every row belongs to one run, so that the records of other runs change none of them."""
        return all("run" in kind.__struct_fields__ for kind in self.projection.kinds)

    def apply(self, recorded: Recorded[Event]) -> None:
        """Take the next record."""
        found = self.projection.apply(self._rows, recorded)
        self._rows.change(found)
        for change in found:
            name = (type(change).table, change.key_of()) if isinstance(change, Row) else (change.kind.table, change.key)
            self._touched[name] = None

    def mark(self) -> None:
        """End a moment: what was applied since the last one belongs to it."""
        moment = len(self._changed)
        changed = []
        for name in sorted(self._touched):
            table, key = name
            row = self._rows.get(self._kinds[table], *key)
            moments, rows = self._versions.setdefault(name, ([], []))
            if row != (rows[-1] if rows else None):
                moments.append(moment)
                rows.append(row)
                changed.append(name)
        self._touched.clear()
        self._changed.append(tuple(changed))

    def rows(self, moment: int) -> tuple[Row, ...]:
        """Return the rows as they were at the end of a moment, by table and key; none before the first (-1)."""
        found = ((name, self._row(name, moment)) for name in self._versions)
        present = ((name, row) for name, row in found if row is not None)
        return tuple(row for _, row in sorted(present, key=lambda item: item[0]))

    def tables(self, moment: int) -> dict[str, list[Any]]:
        """Return the rows of every table as plain JSON."""
        tables: dict[str, list[Any]] = {table: [] for table in sorted(self._kinds)}
        for row in self.rows(moment):
            tables[type(row).table].append(plain(row))
        return tables

    def changed(self, moment: int) -> tuple[Change, ...]:
        """Return what a moment changed, row by row and field by field."""
        found: list[Change] = []
        for name in self._changed[moment]:
            table, key = name
            path = f"{self.projection.name}.{table}[{'/'.join(map(str, key))}]"
            one, other = self._row(name, moment - 1), self._row(name, moment)
            if one is None or other is None:
                before, after = (UNSET if row is None else plain(row) for row in (one, other))
                found.append(Change(path=path, before=before, after=after))
            else:
                found.extend(changes(one, other, path=path))
        return tuple(found)

    def _row(self, name: _Name, moment: int) -> Row | None:
        moments, rows = self._versions[name]
        place = bisect_right(moments, moment)
        return rows[place - 1] if place else None
