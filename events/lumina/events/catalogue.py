"""Every event there is, and who may say it. Permissions, documents and decoders are made from this table."""

from types import UnionType
from typing import Final, Literal, get_args

from lumina.events.base import Event, category_of, type_of
from lumina.events.execution import ExecutionEvent, ExecutionFinished, ExecutionRequested
from lumina.events.generation import GenerationEvent, GenerationFinished, GenerationRequested
from lumina.events.lease import LeaseEvent
from lumina.events.node import ModelUnloaded, NodeAnnounced, NodeEvent, UnloadRequested
from lumina.events.run import RunCancelRequested, RunClosed, RunEvent, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import StepEvent
from lumina.events.timer import TimerElapsed, TimerEvent
from lumina.events.validation import ValidationEvent, ValidationFinished, ValidationRequested

Agent = Literal["client", "orchestrator", "specialist", "validator", "sandbox", "governor", "clock", "node"]

AnyEvent = (
    RunEvent | StepEvent | GenerationEvent | LeaseEvent | ValidationEvent | ExecutionEvent | NodeEvent | TimerEvent
)


def _members(union: UnionType | type[Event]) -> tuple[type[Event], ...]:
    return (union,) if isinstance(union, type) else get_args(union)  # a union of one is that one


WRITERS: Final[dict[type[Event], tuple[Agent, ...]]] = {
    RunSubmitted: ("client",),
    RunForked: ("client",),
    RunCancelRequested: ("client",),
    **dict.fromkeys((RunPlanned, RunClosed), ("orchestrator",)),
    **dict.fromkeys(_members(StepEvent), ("orchestrator",)),
    **dict.fromkeys((GenerationRequested, ValidationRequested, ExecutionRequested), ("orchestrator",)),
    GenerationFinished: ("specialist",),
    ValidationFinished: ("validator",),
    ExecutionFinished: ("sandbox",),
    **dict.fromkeys(_members(LeaseEvent), ("governor",)),
    NodeAnnounced: ("node",),
    UnloadRequested: ("governor",),
    ModelUnloaded: ("specialist",),
    TimerElapsed: ("clock",),
}

EVENT_TYPES: Final[dict[str, type[Event]]] = {type_of(kind): kind for kind in _members(AnyEvent)}
CATEGORIES: Final[tuple[str, ...]] = tuple(sorted({category_of(tag) for tag in EVENT_TYPES}))
SPOKEN_BY: Final[dict[Agent, tuple[Agent, ...]]] = {"clock": ("orchestrator", "governor"), "node": ("governor",)}
"""Writers that are no process of their own, and whose process writes for them. A keeper's own chain then holds
decisions only: what its runner merely observes (time, the machine) stands in another one."""
