"""A keeper's part of a history: decide every input again and compare what stands in the log."""

from typing import Any, Final

from lumina.agents.ancestry import history_of
from lumina.agents.law import Decider
from lumina.agents.ports import Keeper
from lumina.bus.log import Records
from lumina.events.base import Event
from lumina.events.ids import EventId
from lumina.events.record import Recorded
from lumina.replay.cast import Inputs
from lumina.replay.comparing import first_difference, missing, undecided
from lumina.replay.report import Difference

FAILURES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
"""What a pure core raises on records that contradict each other: a history that these agents did not write."""


class KeeperProof:
    """One keeper, following a history. Hand it every record in order, its own and its inputs.

    Args:
        keeper: Who decides.
        events: Where the histories of forks are found.
    """

    def __init__(self, keeper: Keeper[Any], *, events: Records) -> None:
        self.keeper = keeper
        self._events = events
        self.equal = 0
        self._decider = Decider(keeper)
        self._inputs = Inputs(keeper.inputs)
        self._awaited: dict[EventId, Recorded[Event]] = {}

    @property
    def pending(self) -> int:
        """How many decisions have not been seen in the log."""
        return len(self._awaited)

    async def take(self, recorded: Recorded[Event]) -> Difference | None:
        """Return how an own record differs from what is decided; None when it doesn't, and for inputs.

        Raises:
            LogDamaged: The history that a fork begins with is not whole.
        """
        if recorded.agent == self.keeper.name:
            return self._compare(recorded)
        if not self._inputs.hold(recorded):
            return None
        origin = self.keeper.origin(recorded)
        history = () if origin is None else await history_of(origin, events=self._events, before=recorded.seq)
        try:
            answers = self._decider.take(recorded, history=history)
        except FAILURES as error:
            decided = f"{self.keeper.name} fails on this record: {type(error).__name__}: {error}"
            return Difference(field="record", recorded=recorded.type, decided=decided)
        self._awaited.update((answer.id, answer) for answer in answers)
        return None

    def _compare(self, recorded: Recorded[Event]) -> Difference | None:
        first = next(iter(self._awaited.values()), None)
        decided = self._awaited.pop(recorded.id, None)
        if decided is not None and first is not None and decided is not first:
            # A keeper appends one decision after the other, whatever their streams: the earlier one was lost.
            return missing(first, before=recorded)
        if decided is None:
            # Name the decision whose place it takes, when there is one: that says more than `nothing`.
            place = (recorded.stream, recorded.position)
            decided = next((each for each in self._awaited.values() if (each.stream, each.position) == place), None)
        if decided is None:
            return undecided(recorded)
        difference = first_difference(recorded, decided)
        self.equal += difference is None
        return difference
