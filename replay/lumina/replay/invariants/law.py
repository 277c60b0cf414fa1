"""The invariants in words. Each is checked in one of the `invariants_*.py`; `invariants.py` puts them together."""

from typing import Final

EVIDENCE: Final = "a step is accepted only with a passed validation and a passed execution of the same code"
BUDGET: Final = "the memory of a node is never over-committed"
SLOTS: Final = "a model instance serves no more calls at once than it has slots"
BUSY: Final = "an instance with a lease on it is never unloaded"
LEASE: Final = "a request is granted or refused once, and its lease ends once, in time"
SLOT: Final = "a slot is filled once, and a request has one outcome"
CAUSE: Final = "causes precede effects, and a keeper answers its inputs in their order"
BEGIN: Final = "a run begins once, with its submission or as a fork"
FORK: Final = "a fork is the first word of its run, and what it is a fork of stands before it"
END: Final = "nothing follows the end of a run but late outcomes, leases, timers and cancellations"
ENDS: Final = "a run that is out of time or cancelled ends at once"
RESULT: Final = "the end of a run says what became of its steps"
STEP: Final = "a planned step is tried until it ends, once"
ATTEMPTS: Final = "attempts count from 1 up to the limit of their run, and each asks a bounded number of times"
CLOUD: Final = "a model on machines of others is asked only if the run permits it, and with a reason"
WRITER: Final = "each event is written by one who may write it"
OPEN_LEASE: Final = "every lease is released or runs out"
OPEN_RUN: Final = "every run ends"

Fault = tuple[str, str]
"""An invariant, and how a record breaks it."""
