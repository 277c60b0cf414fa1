"""`make faults`: damage real stores in every way we know of, and see whether Lumina says so.

    python -m tests.faults [--seed N] [--count N] [--verbose] [--only TEXT]

Exits with 1 when a lost or changed record or blob was not reported.
"""

import argparse
import logging
import secrets
import sys
import tempfile
import time
from pathlib import Path

import anyio
import structlog
from tests.faults.injecting import every_fault, inject_all, stores
from tests.faults.table import FAILURES, line_of, summary, tell

ROOT = Path(__file__).resolve().parents[2]


async def run(options: argparse.Namespace) -> int:
    """Inject everything and print the table; return the exit code."""
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", dir=cache, ignore_cleanup_errors=True) as folder:
        prepared = await stores(Path(folder))
        faults = [
            fault
            for fault in every_fault(Path(folder), seed=options.seed, count=options.count)
            if options.only in f"{fault.kind}: {fault.name}"
        ]
        tell(f"seed {options.seed}, {len(faults)} faults", to=sys.stderr)
        rows = await inject_all(faults, prepared, folder=Path(folder), verbose=options.verbose)
    tell(*summary(rows))
    failed = [row for row in rows if row[1].verdict in FAILURES]
    tell(*map(line_of, failed))
    tell(f"seed {options.seed}: {len(rows)} faults in {time.monotonic() - started:.0f} s, {len(failed)} failed")
    return 1 if failed else 0


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of the random places")
    parser.add_argument("--count", type=int, default=60, help="how many flips at random places of blocks")
    parser.add_argument("--only", default="", help="faults whose kind or name contains this")
    parser.add_argument("--verbose", action="store_true", help="a line for each fault")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(anyio.run(run, parser.parse_args()))


if __name__ == "__main__":
    main()
