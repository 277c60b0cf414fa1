"""Imported runs as a table."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lumina.cli.imports import Imported
from lumina.cli.words import shorten, size
from lumina.events.record import rfc3339


def imports_table(entries: Sequence[Imported]) -> Table:
    """Return one row per file."""
    table = Table(box=None, pad_edge=False)
    for heading in ("RUN", "STATUS", "STARTED", "RECORDS", "SIZE", "HERE", "REQUEST"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=18 if heading == "RUN" else None)
    for entry in entries:
        table.add_row(
            entry.run or f"a log of {len(entry.runs)} runs",
            entry.status,
            rfc3339(entry.submitted_ms)[:19].replace("T", " ") if entry.submitted_ms else "",
            f"{entry.records:,}",
            size(entry.bytes),
            entry.verdict,
            Text(shorten(entry.request or ("(hidden)" if entry.hidden_records else ""), limit=60)),
        )
    return table
