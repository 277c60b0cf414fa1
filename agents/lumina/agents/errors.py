"""What stops an agent.

AgentError
├── SpecialistInvalid   a specialist's file can't be used; its `problems` name each field; mend the file
├── ToolBroken          a validation tool itself did not work: nothing is known about the code, never a pass
└── Diverged            the log holds another decision than this code makes: another version wrote it, or a defect
                        did; the agent writes nothing more. `lumina verify` shows the run, the version that wrote it
                        can go on.
"""

from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.record import Recorded


class AgentError(Exception):
    """Base of all errors of agents."""


class SpecialistInvalid(AgentError):
    """A specialist's file can't be used.

    Attributes:
        name: Which one.
        problems: All that is wrong, each with the path of the field.
    """

    def __init__(self, name: str, *, problems: tuple[str, ...]) -> None:
        super().__init__(f"specialist {name!r}: {'; '.join(problems)}")
        self.name = name
        self.problems = problems


class ToolBroken(AgentError):
    """A validation tool did not work. The message says which and why; the outcome is an ERROR, not a verdict."""


class Diverged(AgentError):
    """What stands in the log and what is decided now differ.

    Attributes:
        recorded: What stands in the log; None when nothing does.
        decided: What is decided now; None when nothing is.
    """

    def __init__(self, *, recorded: Recorded[Event] | None, decided: Recorded[Event] | None) -> None:
        super().__init__(_difference(recorded, decided))
        self.recorded = recorded
        self.decided = decided


def _difference(recorded: Recorded[Event] | None, decided: Recorded[Event] | None) -> str:
    if decided is None:
        assert recorded is not None
        return f"record {recorded.seq} ({recorded.type}, {recorded.id}) stands in the log, but is not decided now"
    if recorded is None:
        return f"{decided.type} ({decided.id}) is decided now, but later decisions stand in the log without it"
    for field in ("type", "stream", "agent", "time_ms", "causation", "position", "previous"):
        was, now = getattr(recorded, field), getattr(decided, field)
        if was != now:
            return f"record {recorded.seq} ({recorded.type}): {field}: recorded {was!r}, decided {now!r}"
    was_body, now_body = encode(recorded.event).decode(), encode(decided.event).decode()
    return f"record {recorded.seq} ({recorded.type}): recorded {was_body}, decided {now_body}"
