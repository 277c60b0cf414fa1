"""A worker as in production but for its effect, which takes no time: `python -m tests.bench.instant ROLE ...`.

What then passes between request and outcome is Lumina's own.
"""

import argparse
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from tests.bench import canned

from lumina.agents.executing import ExecutionEffect, ExecutionRaw
from lumina.agents.ports import Progress, Worker
from lumina.agents.sandbox import Sandbox
from lumina.agents.specialist import Effect, Specialist, SpecialistRaw
from lumina.agents.validating import ValidationEffect, ValidationRaw
from lumina.agents.validator import Validator
from lumina.agents.working import WorkerRunner
from lumina.cli.agent import configure_logging, end_with
from lumina.cli.following import now_ms
from lumina.cli.home import find_home
from lumina.cli.place import Place, bus


async def _say(effect: Effect, *, progress: Progress) -> SpecialistRaw:
    del progress
    return canned.said(effect, now_ms=now_ms(), token=secrets.token_hex(8))


class InstantValidator(Validator):
    """Finds nothing, at once."""

    async def perform(self, effect: ValidationEffect, *, progress: Progress) -> ValidationRaw:
        """See `Validator`."""
        del progress
        return canned.read(effect, now_ms=now_ms())


class InstantSandbox(Sandbox):
    """Has run everything already."""

    async def perform(self, effect: ExecutionEffect, *, progress: Progress) -> ExecutionRaw:
        """See `Sandbox`."""
        del progress
        return canned.ran(effect, now_ms=now_ms())


WORKERS: dict[str, Callable[[], Worker[Any, Any]]] = {
    "specialist": lambda: Specialist(perform=_say),
    "validator": InstantValidator,
    "sandbox": InstantSandbox,
}


async def serve(place: Place, *, role: str) -> None:
    """Answer requests until the process is ended."""
    async with bus(place, role=role, name=role) as connected:
        await WorkerRunner(WORKERS[role](), events=connected.events, blobs=connected.blobs, live=connected.live).run()


def main() -> None:
    """Run one worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=sorted(WORKERS))
    parser.add_argument("--url", required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    configure_logging(options.role)
    end_with(options.parent)
    anyio.run(lambda: serve(Place(home=find_home(options.home), url=options.url), role=options.role))


if __name__ == "__main__":
    main()
