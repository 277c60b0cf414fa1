"""What a fork takes over, for whoever judges its records: found in the log that it stands in."""

from lumina.agents.ancestry import history_of
from lumina.agents.orchestrator import Orchestrator
from lumina.bus.log import Records
from lumina.events.base import Event
from lumina.events.record import Recorded


async def inherited(recorded: Recorded[Event], *, events: Records) -> tuple[Recorded[Event], ...] | None:
    """Return the history that a fork begins with, empty when there is none; None for any record that begins no fork.

    Raises:
        LogDamaged: The parent's part of the log is not whole.
        LogUnavailable: The log can't be reached.
    """
    origin = Orchestrator().origin(recorded)
    return None if origin is None else await history_of(origin, events=events, before=recorded.seq)
