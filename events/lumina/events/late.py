"""Which records of a run are late: they landed when its end had been decided already, and nothing follows from them.

`run.closed` says how many records of each writer belong to the run (`chains`). What stands in a writer's chain behind
that count came too late: an outcome of work that was under way, the end of a lease, a timer, a cancellation. It may
even stand before `run.closed` in the log, since others write while the orchestrator decides.
"""

from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.events.run import ChainHead, RunClosed


def is_late(recorded: Recorded[Event], *, closed: RunClosed) -> bool:
    """Return whether a record of the run that `closed` ends came too late. The end itself never does."""
    if isinstance(recorded.event, RunClosed):
        return False
    return recorded.position > counted(closed.chains, agent=recorded.agent)


def counted(chains: tuple[ChainHead, ...], *, agent: str) -> int:
    """Return how many records of `agent` belong to a run whose end names these chains."""
    return next((head.count for head in chains if head.agent == agent), 0)
