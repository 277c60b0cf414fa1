"""The keeper law as one pure object: the same answers, ids and chain digests on every machine and at every time.

The state on which a keeper decides an input is the fold of its inputs up to that one and of its own answers to the
inputs before it, whatever else has landed in the log meanwhile. Both the live runner and `replay` drive this class.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from lumina.agents.ports import Deadline, Keeper
from lumina.events.base import Event
from lumina.events.ids import StreamId, event_id
from lumina.events.record import Draft, Head, Recorded, chain

S = TypeVar("S")


class Decider(Generic[S]):
    """A keeper with the state of all its shards and the heads of all the chains that it writes."""

    def __init__(self, keeper: Keeper[S]) -> None:
        self.keeper = keeper
        self._states: dict[StreamId, S] = {}
        self._heads: dict[StreamId, Head] = {}
        self._deadlines: dict[StreamId, tuple[Deadline, ...]] = {}

    def take(
        self, recorded: Recorded[Event], *, history: Sequence[Recorded[Event]] = ()
    ) -> tuple[Recorded[Event], ...]:
        """Consume one input and return the answers as they must stand in the log (with `seq` 0).

        The caller hands in inputs only, in the order of their sequence; the keeper's own records are not inputs. For
        an input with an origin (`Keeper.origin`) it also hands in the history that `ancestry.history_of` finds there.
        """
        assert recorded.agent != self.keeper.name, "own answers are compared, not consumed"
        shard = self.keeper.shard(recorded)
        if shard is None:
            return ()
        state = self._states.get(shard)
        if state is None:
            state = self.keeper.initial(shard)
            for before in history:
                state = self.keeper.evolve(state, before)
        state = self.keeper.evolve(state, recorded)
        answers: list[Recorded[Event]] = []
        for ordinal, answer in enumerate(self.keeper.decide(state, recorded)):
            draft = Draft(
                event=answer.event,
                id=event_id(recorded.id, agent=self.keeper.name, ordinal=ordinal),
                stream=answer.stream,
                agent=self.keeper.name,
                time_ms=recorded.time_ms,
                causation=recorded.id,
            )
            written, _ = chain(draft, after=self._heads.get(answer.stream, Head()))
            self._heads[answer.stream] = Head(position=written.position, digest=written.digest)
            state = self.keeper.evolve(state, written)
            answers.append(written)
        self._settle(shard, state)
        return tuple(answers)

    def _settle(self, shard: StreamId, state: S) -> None:
        """Keep the state, or forget a shard that will never decide again."""
        if self.keeper.finished(state):
            self._states.pop(shard, None)
            self._deadlines.pop(shard, None)
            self._heads.pop(shard, None)
            return
        self._states[shard] = state
        self._deadlines[shard] = self.keeper.deadlines(state)

    def state(self, shard: StreamId) -> S | None:
        """Return the state of a shard, None when it has none yet or is forgotten."""
        return self._states.get(shard)

    def deadlines(self) -> tuple[Deadline, ...]:
        """Return what all shards wait for, the earliest first."""
        waiting = (deadline for several in self._deadlines.values() for deadline in several)
        return tuple(sorted(waiting, key=lambda deadline: (deadline.due_ms, deadline.stream, deadline.timer)))
