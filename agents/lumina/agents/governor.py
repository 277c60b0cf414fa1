"""The governor: which request may use which model instance, when, and what has to go for it. A pure keeper.

What it knows and how records change that stands in `governor_state.py`, what it does next in `governor_rules.py`.
Its laws (docs: design section 5) are properties in `tests/agents/test_governor_laws.py`.
"""

from typing import Final

from lumina.agents.governor_rules import NODE_WAIT_MS, idle, next_answer
from lumina.agents.governor_state import State, after, tick
from lumina.agents.ports import Answer, Deadline, Origin
from lumina.bus.subjects import Filter
from lumina.events.base import Event
from lumina.events.generation import GenerationFinished, GenerationRequested
from lumina.events.ids import StreamId, event_id
from lumina.events.node import ModelUnloaded, NodeAnnounced
from lumina.events.record import Recorded
from lumina.events.run import RunClosed
from lumina.events.timer import TimerElapsed

NAME: Final = "governor"
LOCAL: Final = StreamId("local")
"""The node of a system that runs on one machine."""


class Governor:
    """The keeper of one node's memory. One shard: the node."""

    name = NAME

    def __init__(self, node: StreamId = LOCAL) -> None:
        self.node = node
        self.inputs: tuple[Filter, ...] = (
            Filter(event=NodeAnnounced, stream=node),
            Filter(event=ModelUnloaded, stream=node),
            Filter(event=TimerElapsed, stream=node),
            Filter(event=GenerationRequested),
            Filter(event=GenerationFinished),
            Filter(event=RunClosed),
        )

    def shard(self, recorded: Recorded[Event]) -> StreamId | None:
        """Return the node for every input; other nodes' announcements and other keepers' timers are ignored."""
        match recorded.event:
            case GenerationRequested() | GenerationFinished() | RunClosed():
                return self.node
            case NodeAnnounced() | ModelUnloaded() | TimerElapsed():
                return self.node if recorded.stream == self.node else None
            case _:
                return None

    def origin(self, recorded: Recorded[Event]) -> Origin | None:
        """Return None: a node is no fork."""
        del recorded
        return None

    def initial(self, shard: StreamId) -> State:
        """Return the state before the first announcement: requests wait, nothing is held."""
        return State(node=shard)

    def evolve(self, state: State, recorded: Recorded[Event]) -> State:
        """Return the state after an input or an own answer."""
        if recorded.agent != NAME:
            state = tick(state, recorded)
        return after(state, recorded.event, record=recorded.id, stream=recorded.stream)

    def decide(self, state: State, recorded: Recorded[Event]) -> tuple[Answer, ...]:
        """Return all that has to be said now. It follows from the state alone; the record only names the answers."""
        answers: list[Answer] = []
        while (answer := next_answer(state)) is not None:
            slot = event_id(recorded.id, agent=NAME, ordinal=len(answers))
            state = after(state, answer.event, record=slot, stream=answer.stream)
            answers.append(answer)
        return tuple(answers)

    def deadlines(self, state: State) -> tuple[Deadline, ...]:
        """Return at most three moments: the next lease to run out, instance to idle, request to give up on a node."""
        dues: dict[str, list[int]] = {"lease": [lease.expires_at for lease in state.leases.values()]}
        if state.announced is None:
            dues["node"] = [waits.since_ms + NODE_WAIT_MS for waits in state.waiting]
        else:
            idle_ms = state.announced.idle_ms
            dues["idle"] = [state.instances[name].last_used_ms + idle_ms for name in idle(state)]
        return tuple(
            Deadline(stream=state.node, timer=timer, due_ms=max(min(times), state.elapsed_ms + 1))
            for timer, times in dues.items()
            if times
        )

    def finished(self, state: State) -> bool:
        """Return False: a node is never done."""
        del state
        return False

    def owes(self, state: State, stream: StreamId) -> bool:
        """Return whether a request of that run waits, or a lease of it was not given back yet.

        An outcome that comes after its lease was given back is not answered, nor is the moment at which it runs out.
        """
        if stream == state.node:
            return True
        leases = state.leases.values()
        return any(waits.run == stream for waits in state.waiting) or any(
            lease.run == stream and not lease.released for lease in leases
        )
