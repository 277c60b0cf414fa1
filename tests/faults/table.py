"""The table that `make faults` prints."""

import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import TextIO

from tests.faults.judge import Finding, Verdict
from tests.faults.kinds import Fault

Row = tuple[Fault, Finding]

FAILURES = (Verdict.MISSED, Verdict.FALSE)
HEADS = {
    Verdict.EXACT: "exact",
    Verdict.BOUNDED: "later",
    Verdict.REFUSED: "refused",
    Verdict.HARMLESS: "harmless",
    Verdict.FALSE: "false",
    Verdict.MISSED: "MISSED",
}


def summary(rows: Iterable[Row]) -> list[str]:
    """Return one line per kind of fault, with counts, as a Markdown table."""
    counts: dict[str, dict[Verdict, int]] = defaultdict(lambda: dict.fromkeys(Verdict, 0))
    for fault, finding in rows:
        counts[fault.kind][finding.verdict] += 1
    counts["all"] = {verdict: sum(kind[verdict] for kind in counts.values()) for verdict in Verdict}
    lines = [
        "| Fault | injected | " + " | ".join(HEADS.values()) + " |",
        "|---|" + "---:|" * (len(HEADS) + 1),
    ]
    for kind, by_verdict in counts.items():
        cells = [str(sum(by_verdict.values())), *(str(by_verdict[verdict] or "") for verdict in HEADS)]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def tell(*lines: str, to: TextIO = sys.stdout) -> None:
    """Print lines at once."""
    to.write("".join(f"{line}\n" for line in lines))
    to.flush()


def line_of(row: Row) -> str:
    """Return one fault and its verdict in a line."""
    fault, finding = row
    where = ""
    if finding.first or finding.reported:
        where = f" (first {finding.first}, reported {finding.reported})"
    return f"{HEADS[finding.verdict]:9}{fault.kind}: {fault.name} [{fault.store}]{where} {finding.words}".rstrip()
