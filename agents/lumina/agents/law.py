"""The keeper law as one pure object: the same answers, ids and chain digests on every machine and at every time.

The state on which a keeper decides an input is the fold of its inputs up to that one and of its own answers to the
inputs before it, whatever else has landed in the log meanwhile. Both the live runner and `replay` drive this class.

It needs memory for what is open, not for what is over: a finished shard is forgotten, and so is the keeper's chain in
a closed run where it owes nothing more (`Keeper.owes`).
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar, cast

from lumina.agents.ports import Answer, Deadline, Keeper
from lumina.events.base import Event
from lumina.events.ids import StreamId, event_id
from lumina.events.record import Draft, Head, Recorded, chain, is_successor
from lumina.events.run import RunClosed

S = TypeVar("S")

QUIET_MAX: Final = 1_024
"""How many chains of closed runs are kept beyond need. No keeper that follows its protocol asks for one again."""


class Decider(Generic[S]):
    """A keeper with the state of all its open shards and the heads of all the chains that it may go on with."""

    def __init__(self, keeper: Keeper[S], *, quiet_max: int = QUIET_MAX) -> None:
        self.keeper = keeper
        self._quiet_max = quiet_max
        self._states: dict[StreamId, S] = {}
        self._heads: dict[StreamId, Head] = {}
        self._ending: dict[StreamId, None] = {}  # closed runs whose chain is among the heads
        self._quiet: dict[StreamId, Head] = {}
        self._deadlines: dict[StreamId, tuple[Deadline, ...]] = {}
        self._stale: set[StreamId] = set()  # shards whose deadlines are not those of their state

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
            written = self._write(answer, to=recorded, ordinal=ordinal)
            if written is answer.written and answer.after is not None:
                state = cast("S", answer.after)
            else:
                state = self.keeper.evolve(state, written)
            answers.append(written)
        if isinstance(recorded.event, RunClosed):
            self._ending[recorded.stream] = None
        self._settle(shard, state)
        return tuple(answers)

    def _write(self, answer: Answer, *, to: Recorded[Event], ordinal: int) -> Recorded[Event]:
        draft = Draft(
            event=answer.event,
            id=event_id(to.id, agent=self.keeper.name, ordinal=ordinal),
            stream=answer.stream,
            agent=self.keeper.name,
            time_ms=to.time_ms,
            causation=to.id,
        )
        head = self._head(answer.stream)
        written = answer.written
        if written is None or not is_successor(written, draft=draft, after=head):
            written, _ = chain(draft, after=head)
        self._heads[answer.stream] = Head(position=written.position, digest=written.digest)
        return written

    def _head(self, stream: StreamId) -> Head:
        head = self._heads.get(stream)
        if head is None:
            head = self._quiet.pop(stream, None)
            if head is None:
                return Head()
            self._ending[stream] = None
        return head

    def _settle(self, shard: StreamId, state: S) -> None:
        """Keep the state, or forget a shard that will never decide again; and what is owed in no closed run."""
        for stream in [stream for stream in self._ending if not self.keeper.owes(state, stream)]:
            del self._ending[stream]
            if (head := self._heads.pop(stream, None)) is not None:
                self._rest(stream, head)
        if self.keeper.finished(state):
            self._states.pop(shard, None)
            self._deadlines.pop(shard, None)
            self._stale.discard(shard)
            self._heads.pop(shard, None)
            return
        self._states[shard] = state
        self._stale.add(shard)

    def _rest(self, stream: StreamId, head: Head) -> None:
        self._quiet[stream] = head
        if len(self._quiet) > self._quiet_max:
            del self._quiet[next(iter(self._quiet))]

    @property
    def remembered(self) -> int:
        """How many shards and chains it holds in memory."""
        return len(self._states) + len(self._heads) + len(self._quiet) + len(self._ending)

    def state(self, shard: StreamId) -> S | None:
        """Return the state of a shard, None when it has none yet or is forgotten."""
        return self._states.get(shard)

    def deadlines(self) -> tuple[Deadline, ...]:
        """Return what all shards wait for, the earliest first."""
        for shard in self._stale:
            self._deadlines[shard] = self.keeper.deadlines(self._states[shard])
        self._stale.clear()
        waiting = (deadline for several in self._deadlines.values() for deadline in several)
        return tuple(sorted(waiting, key=lambda deadline: (deadline.due_ms, deadline.stream, deadline.timer)))
