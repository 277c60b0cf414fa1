"""Makes a failing script small: fewer faults, fewer runs, no waiting, as long as it fails in the same way. Pure.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002), without its last
refinements: halves first, then single faults. Whatever is drawn is drawn by name, so a fault that is left out does
not move the others.
"""

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from lumina.replay.simulation.script import AnyFault, Job, Script

TRIES_MAX: Final = 200

Fails = Callable[[Script], bool]


def shrink(script: Script, *, fails: Fails, tries_max: int = TRIES_MAX) -> Script:
    """Return the smallest script found that still fails; `fails` plays one and says whether it does."""
    left = tries_max

    def still_fails(candidate: Script) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(candidate)

    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in _candidates(script):
            if still_fails(candidate):
                script, smaller = candidate, True
                break
    return script


def _candidates(script: Script) -> Iterator[Script]:
    """Yield simpler scripts, the boldest first."""
    for faults in _without_some(script.faults):
        yield replace(script, faults=faults)
    for number in range(len(script.jobs)):
        if len(script.jobs) > 1:
            yield replace(script, jobs=script.jobs[:number] + script.jobs[number + 1 :])
    if not script.calm:
        yield replace(script, calm=True)
    for number, job in enumerate(script.jobs):
        for simpler in _simpler(job):
            yield replace(script, jobs=(*script.jobs[:number], simpler, *script.jobs[number + 1 :]))
    machine = script.machine
    if (machine.specialists, machine.validators, machine.sandboxes) != (1, 1, 1):
        yield replace(script, machine=replace(machine, specialists=1, validators=1, sandboxes=1))


def _without_some(faults: tuple[AnyFault, ...]) -> Iterator[tuple[AnyFault, ...]]:
    size = len(faults)
    while size > 0:
        for start in range(0, len(faults), size):
            yield faults[:start] + faults[start + size :]
        size //= 2


def _simpler(job: Job) -> Iterator[Job]:
    if job.cancel_ms is not None:
        yield replace(job, cancel_ms=None)
    if job.plan:
        yield replace(job, plan=False)
    if len(job.models) > 1:
        yield replace(job, models=job.models[:1])
    if job.attempts_max > 1:
        yield replace(job, attempts_max=1)
