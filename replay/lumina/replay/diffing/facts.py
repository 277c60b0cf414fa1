"""What a record says that matters when two runs are compared, and what does not.

Not compared, since two runs of the same decisions differ in it anyway:

- Names: ids of runs and events, and digests over them. Where an event names another one, their slots are compared.
- Clocks and gauges: times, durations, deadlines, the speed of a model, measured memory, how long a program ran.
- What else the machine did: which instance was lent, whether it had to be loaded, how many records of other agents had
  landed before the run was closed. The governor decides these for all runs together; `explain` tells why.

Compared is all the rest: requests, options, models, plans, rungs and their reasons, code digests, outcomes, verdicts,
findings, checks, output, files, and how many tokens were read and written, which follows from the texts.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished
from lumina.events.generation import GenerationFinished
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseReleased
from lumina.events.run import RunClosed, RunForked
from lumina.events.validation import ValidationFinished

NOTHING: Final = "nothing"
VALUE_CHARACTERS_MAX: Final = 300

NOT_COMPARED: Final[Mapping[type[Event], frozenset[str]]] = {
    # The effect of a model call holds the lease's end, a time; all else in it follows from the request. `raw` is what
    # the call returned with its times; the answer itself stands in `code` and `plan`. `load`: it came to be loaded now.
    GenerationFinished: frozenset({"effect", "raw", "load", "usage.prompt_ms", "usage.generate_ms"}),
    # The tools' raw output with times; what they found stands in `findings`.
    ValidationFinished: frozenset({"raw"}),
    ExecutionFinished: frozenset({"raw", "wall_ms"}),
    # `ask` repeats the request, which is compared where it stands. The rest is where and until when: the machine's.
    LeaseGranted: frozenset({"ask", "node", "instance", "load", "bytes_reserved", "expires_at", "reason"}),
    LeaseReleased: frozenset({"reason"}),
    LeaseExpired: frozenset({"reason"}),
    # Counts and digests over all records with their ids and times.
    RunClosed: frozenset({"records", "chains", "root"}),
}
"""Fields of events that don't matter, by dotted path, each with its reason. All other fields do."""


class FieldDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A field in which two records, or two submissions, differ; both values as JSON texts, or `nothing`."""

    field: str
    a: str
    b: str


def facts(event: Event, *, slots: Mapping[str, str]) -> dict[str, str]:
    """Return what matters of an event: dotted path to JSON text. Ids of records in `slots` are told as their slots."""
    if isinstance(event, RunForked):
        return {}  # what it asks for is told as what the fork was asked
    left_out = NOT_COMPARED.get(type(event), frozenset())
    return dict(_leaves(event, path="", left_out=left_out, slots=slots))


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[FieldDifference, ...]:
    """Return the fields in which two sets of facts differ, in the order of the fields."""
    fields = dict.fromkeys((*a, *b))
    return tuple(
        FieldDifference(field=field, a=_cut(a.get(field, NOTHING)), b=_cut(b.get(field, NOTHING)))
        for field in fields
        if a.get(field) != b.get(field)
    )


def _leaves(value: Any, *, path: str, left_out: frozenset[str], slots: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if path in left_out:
        return
    if isinstance(value, msgspec.Struct):  # field by field, since defaults are left out of what is encoded
        value = {field: getattr(value, field) for field in value.__struct_fields__}
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, path=f"{path}.{key}" if path else str(key), left_out=left_out, slots=slots)
    elif isinstance(value, list | tuple) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, path=f"{path}[{index}]", left_out=left_out, slots=slots)
    else:
        told = slots.get(value, value) if isinstance(value, str) else value
        yield path, msgspec.json.encode(told).decode()


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"
