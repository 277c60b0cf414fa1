"""`make bench`: what Lumina costs beside its effects, with raw nats-py in the same run as the yardstick.

See docs/benchmarks.md. Not a test: nothing here passes or fails.
"""

import argparse
import logging
import os
import sys
import time

import anyio
import msgspec
import structlog
from tests.bench import boot, growth, hop, passes, raw, steps
from tests.bench.figures import Figure, Results, machine, show

from lumina.bus.startup import Sync

MODES: tuple[Sync, ...] = ("always", "default")
SIZES = (1_000, 10_000)
LARGE = (100_000, 1_000_000)
PARTS = ("step", "hop", "log", "growth", "boot")


async def measure(options: argparse.Namespace) -> list[Figure]:
    """Return all figures of the parts that were asked for."""
    figures = []
    if {"step", "hop"} & set(options.parts):
        figures.append(raw.disk(count=200))
        for sync in MODES:
            _say(f"yardstick, {sync}")
            lines, yardstick = await raw.measure(sync, count=options.count)
            figures += lines
            if "hop" in options.parts:
                _say(f"hop, {sync}")
                figures += await hop.measure(sync, count=options.count, raw=yardstick)
            if "step" in options.parts:
                _say(f"steps, {sync}")
                figures += await steps.measure(sync, runs=options.count, raw_ms=yardstick.publish_ms)
    if "log" in options.parts:
        _say("whole logs")
        figures += await passes.measure((*SIZES, LARGE[0]) if options.large else SIZES)
        figures += await passes.measure_alone((*SIZES, *LARGE) if options.large else SIZES)
    if "growth" in options.parts:
        _say("growth of a long conversation")
        figures += await growth.measure()
    if "boot" in options.parts:
        _say("boot")
        figures += await anyio.to_thread.run_sync(lambda: boot.measure(repetitions=options.boots, idle_s=10.0))
    return figures


def _say(words: str) -> None:
    sys.stderr.write(f"bench: {words}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    parser.add_argument("--count", type=int, default=200, help="runs, hops and publishes per sync mode")
    parser.add_argument("--boots", type=int, default=3, help="repetitions of each start")
    parser.add_argument("--large", action="store_true", help="logs of up to a million events, too (hours)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    load, started = os.getloadavg()[0], time.monotonic()
    figures = anyio.run(measure, options)
    results = Results(machine=machine(load_before=load, seconds=time.monotonic() - started), figures=tuple(figures))
    if options.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    else:
        show(results)


if __name__ == "__main__":
    main()
