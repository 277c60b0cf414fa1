"""Histories written down without a log: whole records, with ids, chains and sequence, from events alone.

For simulation, for what-if questions, and for tests of whatever reads records.
"""

import msgspec

from lumina.events.base import Event
from lumina.events.ids import EventId, StreamId, root_event_id
from lumina.events.record import Draft, Head, Recorded, chain, draft_answer


class Scribe:
    """Writes one history. `records` is all of it, in order."""

    def __init__(self, *, time_ms: int = 1_700_000_000_000, tick_ms: int = 10) -> None:
        """Start at `time_ms`; each record is `tick_ms` later than the one before it."""
        self.records: list[Recorded[Event]] = []
        self._time_ms = time_ms
        self._tick_ms = tick_ms
        self._heads: dict[tuple[StreamId, str], Head] = {}
        self._answers: dict[tuple[EventId, str], int] = {}

    def root(self, event: Event, *, stream: str, agent: str, name: str | None = None) -> Recorded[Event]:
        """Write a record that nothing on the log caused, in the slot `name` (default: the type)."""
        self._time_ms += self._tick_ms
        named = StreamId(stream)
        slot = root_event_id(named, name=name or f"{type(event).__name__}/{len(self.records)}")
        return self.write(Draft(event=event, id=slot, stream=named, agent=agent, time_ms=self._time_ms, causation=None))

    def answer(
        self, event: Event, *, to: Recorded[Event], agent: str, stream: str | None = None, ordinal: int | None = None
    ) -> Recorded[Event]:
        """Write the next answer of `agent` to the record `to`, in its stream or another."""
        self._time_ms += self._tick_ms
        count = self._answers.get((to.id, agent), 0)
        self._answers[to.id, agent] = count + 1
        draft = draft_answer(
            event, to=to, agent=agent, ordinal=count if ordinal is None else ordinal, time_ms=self._time_ms
        )
        if stream is None:
            return self.write(draft)
        return self.write(
            Draft(
                event=event,
                id=draft.id,
                stream=StreamId(stream),
                agent=agent,
                time_ms=self._time_ms,
                causation=to.id,
            )
        )

    def write(self, draft: Draft[Event]) -> Recorded[Event]:
        """Write a draft as it is at the end of its chain and of the history."""
        where = (draft.stream, draft.agent)
        written, _ = chain(draft, after=self._heads.get(where, Head()))
        recorded = msgspec.structs.replace(written, seq=len(self.records) + 1)
        self._heads[where] = Head(seq=recorded.seq, position=recorded.position, digest=recorded.digest)
        self.records.append(recorded)
        return recorded

    def heads(self, stream: str) -> dict[str, Head]:
        """Return the head of every chain in `stream`, by agent in alphabetical order."""
        return {agent: self._heads[named, agent] for named, agent in sorted(self._heads) if named == stream}
