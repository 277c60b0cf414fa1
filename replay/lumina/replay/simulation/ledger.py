"""What the world saw with its own eyes, beside what the log says: no fold of production code is used here.

- What an outcome speaks of was done at least once, by somebody, before it was recorded.
- An accepted program is one that really is good: its fate says so, not a verdict.
- A model process is started only while memory is reserved for it, and none is there when its memory is said to be free.
"""

from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome
from lumina.events.lease import LeaseGranted
from lumina.events.node import ModelUnloaded
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked, RunStatus, RunSubmitted
from lumina.events.step import StepAccepted
from lumina.events.validation import ValidationFinished, ValidationVerdict
from lumina.replay.simulation.fates import Fate

_ANSWERED = (GenerationOutcome.ANSWERED, GenerationOutcome.UNUSABLE, GenerationOutcome.LENGTH)
_RAN = (ExecutionVerdict.PASSED, ExecutionVerdict.FAILED)


class Ledger:
    """See above. Every method returns what is wrong, empty when nothing is."""

    def __init__(self) -> None:
        self._done: set[str] = set()
        self._reserved: set[str] = set()
        self._accepted: dict[str, set[int]] = {}
        self.submitted: dict[str, Recorded[Event]] = {}
        self.closed: dict[str, Recorded[Event]] = {}

    def perform(self, effect: str) -> None:
        """Take note that an effect with this digest is being done."""
        self._done.add(effect)

    def load(self, instance: str) -> str:
        """Take note that a model process is started."""
        return "" if instance in self._reserved else f"{instance} is loaded, and no memory is reserved for it"

    def take(self, recorded: Recorded[Event], *, fate: Fate | None) -> str:
        """Take note of a record that landed; `fate` is that of the program that it accepts."""
        event = recorded.event
        match event:
            case RunSubmitted() | RunForked():
                self.submitted.setdefault(recorded.stream, recorded)
            case LeaseGranted():
                self._reserved.add(event.instance)
            case ModelUnloaded():
                self._reserved.discard(event.instance)
            case RunClosed():
                return self._closed(recorded, event)
            case GenerationFinished(outcome=outcome) if outcome in _ANSWERED and event.usage.context:
                return self._outcome(event.effect)
            case ValidationFinished(verdict=ValidationVerdict.PASSED):
                return self._outcome(event.effect)
            case ExecutionFinished(verdict=verdict) if verdict in _RAN:
                return self._outcome(event.effect)
            case StepAccepted():
                self._accepted.setdefault(recorded.stream, set()).add(event.step)
                if fate is not Fate.GOOD:
                    return f"step {event.step} of {recorded.stream} was accepted with a program whose fate is {fate}"
            case _:
                pass
        return ""

    def _outcome(self, effect: str) -> str:
        return "" if effect in self._done else f"an outcome speaks of the effect {effect[:12]}, which nobody did"

    def _closed(self, recorded: Recorded[Event], event: RunClosed) -> str:
        if recorded.stream in self.closed:
            return f"{recorded.stream} was closed twice"
        self.closed[recorded.stream] = recorded
        said = {result.number for result in event.results if result.accepted}
        seen = self._accepted.get(recorded.stream, set())
        forked = isinstance(self.submitted[recorded.stream].event, RunForked)
        if not seen <= said or (said != seen and not forked):  # a fork shares steps of its parent
            return f"{recorded.stream} was closed with accepted steps {sorted(said)}, but {sorted(seen)} were"
        if event.status is RunStatus.COMPLETED and not said:
            return f"{recorded.stream} was completed with no accepted step"
        return ""
