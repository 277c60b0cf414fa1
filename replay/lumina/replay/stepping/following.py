"""A keeper's states and decisions along a history, record by record, decided again by its production core.

Beside `KeeperProof`, which only compares: this one also keeps the state on which each input was decided. By the keeper
law that is the fold of the inputs up to this one and of the keeper's answers to the inputs before it. An answer is
then folded when it lands; one that lands after a later input (`late`) was folded before that input and changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from lumina.agents.law import Decider
from lumina.agents.ports import Keeper
from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId
from lumina.events.record import Recorded
from lumina.replay.cast import Inputs
from lumina.replay.comparing import first_difference, undecided
from lumina.replay.report import Difference
from lumina.replay.verifying.keepers import FAILURES


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a record meant to a keeper.

    Attributes:
        shard: Whose state it concerns; None when it is none of the keeper's business.
        answers: What the keeper decides on an input, as it must stand in the log (with `seq` 0).
        difference: How an own record differs from what was decided, or that the core fails on this input.
        late: It is an own record that landed after a later input.
    """

    shard: StreamId | None = None
    answers: tuple[Recorded[Event], ...] = ()
    difference: Difference | None = None
    late: bool = False


class _Shard:
    """The newest input of a shard: the state on which it was decided, and what of the answers has been folded."""

    def __init__(self, state: Any, answers: tuple[Recorded[Event], ...]) -> None:
        self.state = state
        self.open = {answer.id: answer for answer in answers}

    def fold(self, keeper: Keeper[Any], *, until: EventId | None = None) -> None:
        """Fold the answers up to `until`; all of them without it."""
        for known in tuple(self.open):
            self.state = keeper.evolve(self.state, self.open.pop(known))
            if known == until:
                return


class Following:
    """One keeper, following a history. Hand it every record in order, its own and its inputs."""

    def __init__(self, keeper: Keeper[Any]) -> None:
        self.keeper = keeper
        self._decider = Decider(keeper)
        self._inputs = Inputs(keeper.inputs)
        self._awaited: dict[EventId, tuple[Recorded[Event], StreamId]] = {}
        self._shards: dict[StreamId, _Shard] = {}

    @property
    def pending(self) -> tuple[Recorded[Event], ...]:
        """What is decided and has not been seen in the log."""
        return tuple(answer for answer, _ in self._awaited.values())

    def state(self, shard: StreamId) -> Any:
        """Return the state of a shard; before its first record, its initial one."""
        known = self._shards.get(shard)
        return self.keeper.initial(shard) if known is None else known.state

    def take(self, recorded: Recorded[Event], *, history: Sequence[Recorded[Event]] = ()) -> Taken:
        """Fold a record; decide it, if it is an input, and compare it, if it is an own one.

        Args:
            recorded: The next record.
            history: For an input with an origin (`Keeper.origin`), what `ancestry.history_of` finds there.
        """
        if recorded.agent == self.keeper.name:
            return self._compare(recorded)
        shard = self.keeper.shard(recorded) if self._inputs.hold(recorded) else None
        if shard is None:
            return Taken()
        before = self._before(shard, history=history)
        try:
            state = self.keeper.evolve(before, recorded)
            answers = self._decider.take(recorded, history=history)
        except FAILURES as error:
            decided = f"{self.keeper.name} fails on this record: {type(error).__name__}: {error}"
            return Taken(shard=shard, difference=Difference(field="record", recorded=recorded.type, decided=decided))
        self._shards[shard] = _Shard(state, answers)
        self._awaited.update((answer.id, (answer, shard)) for answer in answers)
        return Taken(shard=shard, answers=answers)

    def _before(self, shard: StreamId, *, history: Sequence[Recorded[Event]]) -> Any:
        """Return the state that an input meets: all answers to the inputs before it are folded."""
        known = self._shards.get(shard)
        if known is not None:
            known.fold(self.keeper)
            return known.state
        state = self.keeper.initial(shard)
        for before in history:
            state = self.keeper.evolve(state, before)
        return state

    def _compare(self, recorded: Recorded[Event]) -> Taken:
        decided, shard = self._awaited.pop(recorded.id, (None, None))
        if decided is None or shard is None:
            # Name the decision whose place it takes, when there is one: that says more than `nothing`.
            place = (recorded.stream, recorded.position)
            instead = (each for each, _ in self._awaited.values() if (each.stream, each.position) == place)
            decided = next(instead, None)
            return Taken(difference=undecided(recorded) if decided is None else first_difference(recorded, decided))
        known = self._shards.get(shard)
        late = known is None or recorded.id not in known.open
        if known is not None and not late:
            known.fold(self.keeper, until=recorded.id)
        return Taken(shard=shard, difference=first_difference(recorded, decided), late=late)
