"""What must hold on every prefix of every history: generated, simulated, recorded or live. Written once.

A pure fold: hand it the records in order, it returns what each of them breaks. What must come true some day (leases
end, runs close) is asked for with `unsettled` when a history is over.

**Memory** is bounded by what is open: runs that have not ended, requests that have no outcome, leases, the instances
of the nodes. It does not grow with the log. What a run that is closed and settled leaves behind is dropped, and no
check gets weaker by that:

- *A slot is filled once.* Ids are derived: an answer's id is the hash of its cause, its writer and its number among
  that writer's answers to that cause. So instead of all ids ever seen it is enough that a keeper answers its inputs in
  their order and counts its answers to each (its newest cause and number are kept), and that an outcome has number 0
  and takes its request with it. A second record in a slot then has a number or a request that is not there any more.
  The root records of a run are compared with those of the run while it is open; later, what may still come is known by
  its place in its chain (a client has two words: it submits, it cancels) or changes nothing (a timer).
- *Causes precede effects.* The orchestrator decides nothing about a run that is closed, so the ids of a run are needed
  while it is open. Workers answer requests. The governor answers its inputs in their order, so those before the one
  that it answered last are not needed. Those behind it are few, since nearly every one has an answer; only a run that
  asks no model leaves one without. Of those `GOVERNOR_INPUTS_MAX` are kept: the one bounded window. A governor's record
  whose cause may have been behind it is not judged.
- *Late records.* They stand behind the counts in `run.closed`. At the end of a run it is checked that its counts do
  not exceed what stands before it; chains ascend; so whatever follows is late, and only its type is left to be judged.
- *Forks.* What a fork shares with its parent may lie far back, in runs that are dropped. Whoever has the log hands it
  in (`history`, as `ancestry.history_of` finds it), and it is folded into the new run. Without it, what the fork may
  have inherited is not judged.
"""

import msgspec

from lumina.agents.orchestrator import RUN_PREFIX
from lumina.events.base import Event
from lumina.events.catalogue import WRITERS
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Recorded
from lumina.events.timer import TimerElapsed
from lumina.replay.comparing import link_of
from lumina.replay.invariants.governor import GOVERNOR_INPUTS_MAX, GovernorLaws
from lumina.replay.invariants.law import (
    ATTEMPTS,
    BEGIN,
    BUDGET,
    BUSY,
    CAUSE,
    CLOUD,
    END,
    ENDS,
    EVIDENCE,
    FORK,
    LEASE,
    OPEN_LEASE,
    OPEN_RUN,
    RESULT,
    SLOT,
    SLOTS,
    STEP,
    WRITER,
    Fault,
)
from lumina.replay.invariants.outcomes import OutcomeLaws
from lumina.replay.invariants.runs import RunLaws
from lumina.replay.report import Broken
from lumina.replay.verifying.testimony import OUTSIDE

__all__ = [
    "ATTEMPTS",
    "BEGIN",
    "BUDGET",
    "BUSY",
    "CAUSE",
    "CLOUD",
    "END",
    "ENDS",
    "EVIDENCE",
    "FORK",
    "GOVERNOR_INPUTS_MAX",
    "LEASE",
    "OPEN_LEASE",
    "OPEN_RUN",
    "RESULT",
    "SLOT",
    "SLOTS",
    "STEP",
    "WRITER",
    "Invariants",
    "Open",
]


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """How much a fold remembers: what is open in its history."""

    runs: int
    requests: int
    leases: int
    instances: int


class Invariants:
    """The fold.

    Args:
        run: The records are those of one run and what its governor saw: other runs have gaps. None for a whole log.
        inputs_max: How many inputs that the governor has not answered are kept as possible causes.
    """

    def __init__(self, *, run: StreamId | None = None, inputs_max: int = GOVERNOR_INPUTS_MAX) -> None:
        self._only = run
        self._runs = RunLaws()
        self._governor = GovernorLaws(inputs_max=inputs_max)
        self._outcomes = OutcomeLaws()

    def take(
        self, recorded: Recorded[Event], *, history: tuple[Recorded[Event], ...] | None = None
    ) -> tuple[Broken, ...]:
        """Return what the next record breaks.

        For the first record of a fork, `history` is what `ancestry.history_of` finds; None when nobody looked.
        """
        faults: list[Fault] = []
        event = recorded.event
        if recorded.agent not in WRITERS[type(event)]:
            faults.append((WRITER, f"{recorded.agent} may not write {recorded.type}"))
        if recorded.agent in OUTSIDE and recorded.causation is not None:
            faults.append((CAUSE, f"nothing on the log causes what a {recorded.agent} writes"))
        if isinstance(event, TimerElapsed):
            slot = root_event_id(recorded.stream, name=f"timer/{event.timer}/{event.due}")
            if recorded.id != slot:
                faults.append((SLOT, f"it stands in the slot {recorded.id}; that of this moment is {slot}"))
        in_run = recorded.stream.startswith(RUN_PREFIX)
        if in_run and self._only in {None, recorded.stream}:
            self._runs.take(recorded, history=history, faults=faults)
        self._outcomes.take(recorded, faults=faults)
        run = self._runs.find(recorded.stream) if in_run else None
        self._governor.take(recorded, options=None if run is None else run.options, faults=faults)
        if self._governor.emptied or (run is not None and run.closed is not None):
            self._settle(recorded.stream)
        if not faults:
            return ()
        at = link_of(recorded)
        return tuple(Broken(invariant=invariant, at=at, reason=reason) for invariant, reason in faults)

    def unsettled(self) -> tuple[Broken, ...]:
        """Return the leases and runs that have not ended; a history that is over has none."""
        leases = tuple(
            Broken(invariant=OPEN_LEASE, at=link_of(lease.granted), reason=f"{lease.instance} is still held")
            for lease in self._governor.leases.values()
        )
        runs = tuple(
            Broken(invariant=OPEN_RUN, at=run.begun, reason=f"{run.begun.stream} is still open")
            for run in self._runs.open.values()
            if run.closed is None
        )
        return (*leases, *runs)

    @property
    def remembered(self) -> Open:
        """What is kept, in numbers."""
        return Open(
            runs=len(self._runs.open),
            requests=len(self._outcomes.requests) + len(self._governor.undecided),
            leases=len(self._governor.leases),
            instances=len(self._governor.instances),
        )

    def _settle(self, stream: StreamId) -> None:
        """Forget the runs that have ended and in which nothing is still to come."""
        for each in (stream, *self._governor.emptied):
            run = self._runs.find(each)
            if run is None or run.closed is None:
                continue
            if not self._outcomes.waited_for(each) and not self._governor.waited_for(each):
                self._runs.forget(each)
        self._governor.emptied.clear()
