"""Writes `docs/events.md` from the event types: `python -m lumina.cli.eventdocs` (`--check` only compares).

Nothing in it is written by hand: fields and limits come from the JSON Schemas, writers from the catalogue, readers
from the filters of agents and projections. `tests/cli/test_eventdocs.py` fails when the file is stale.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from lumina.agents.governor import Governor
from lumina.agents.orchestrator import RUN_PREFIX, Orchestrator
from lumina.bus.subjects import LOG_STREAM, TAIL_ALL, Filter, live_subject, subject_matches
from lumina.bus.workers import WORKER_ROLES
from lumina.events.base import Event, category_of, type_of
from lumina.events.catalogue import CATEGORIES, EVENT_TYPES, SPOKEN_BY, WRITERS
from lumina.events.generation import GenerationFinished
from lumina.events.ids import StreamId
from lumina.events.schema import schema_of
from lumina.projections import attempts, queue, residency, runs

PATH: Final = Path("docs") / "events.md"
RUN: Final = StreamId(f"{RUN_PREFIX}0")
NODE: Final = StreamId("local")
_SEEN: Final = {
    "runs": get_args(runs.Seen),
    "attempts": get_args(attempts.Seen),
    "residency": get_args(residency.Seen),
    "queue": get_args(queue.Seen),
    "throughput": (GenerationFinished,),
}
_STREAMS: Final = {"node": (NODE,), "timer": (RUN, NODE)}

HEAD: Final = """\
# Events

Generated from the types by `python -m lumina.cli.eventdocs`; don't edit it.

Everything that agents tell each other is one of these {count} events, kept in one append-only log. The body is JSON;
`lumina schema TYPE` prints its JSON Schema. Unknown fields are to be ignored; fields with a default may be missing.
A stored type keeps its meaning for ever: a new field has a default, anything else is a new version.

## Subjects

    {log}
    {tail}
    {live}

`<stream>` is a run (`{run}…`) or a node. On the first stands the log, JetStream stream `{name}`. On the second every
record is announced as it lands: a hint, not a record. The third is unlogged progress, from which nothing is decided.
An external consumer gets read-only credentials from `lumina credentials consumer NAME`.

## Envelope

In NATS headers, as CloudEvents attributes in binary mode.

| Header | Meaning |
|---|---|
| `ce-specversion` | `1.0` |
| `ce-id` | The slot that the event fills: 32 hexadecimal digits, derived from its cause; also `Nats-Msg-Id` |
| `ce-type` | One of the types below |
| `ce-source` | `/lumina/<agent>`: who wrote it; the server lets each agent write only its own |
| `ce-time` | RFC 3339, UTC, milliseconds; a keeper's decision has the time of what it answers |
| `ce-subject` | The stream: run or node |
| `ce-dataschema` | `urn:lumina:<type>`, the `$id` of its JSON Schema |
| `ce-datacontenttype` | `application/json` |
| `ce-correlationid` | The stream again |
| `ce-causationid` | The `ce-id` of the event that it answers; absent for what nothing on the log caused |
| `ce-traceparent` | W3C trace context, derived from stream and id |
| `ce-luminaposition` | Its place in its writer's chain in this stream, from 1 |
| `ce-luminaprevious` | Digest of the record before it in that chain; 64 zeros for the first |
| `ce-luminabody` | SHA-256 of the bytes of the body |
| `ce-luminafields` | Digest over the body's fields, see below |
| `ce-luminadigest` | Digest of the record, see below; a reader that finds another one must stop |

The digest of a record is SHA-256 over a compact JSON object with the keys `id`, `type`, `stream`, `agent`, `time_ms`
(milliseconds since 1970), `causation` (null for none), `position`, `previous`, `body`, `fields`, in this order; the
last two are the headers above. `examples/consumers/` checks it in Python and in JavaScript.

The digest over the fields is SHA-256 over one line `name digest` for each field of the body, in their order, where
`digest` is SHA-256 of the bytes of its value. An export that leaves fields out names their digests instead, and the
rest can still be checked. A field that has its default value is not written.
"""


def render() -> str:
    """Return the whole document."""
    log = Filter(stream=StreamId("<stream>"), agent="<agent>", event=EVENT_TYPES["run.submitted.v1"]).subject()
    parts = [
        HEAD.format(
            count=len(EVENT_TYPES),
            log=log.replace("run", "<category>", 1).replace("submitted-v1", "<type>"),
            tail=TAIL_ALL.replace(">", "<category>.<stream>.<agent>.<type>"),
            live=live_subject(StreamId("<stream>"), agent="<agent>", what="<what>"),
            run=RUN_PREFIX,
            name=LOG_STREAM,
        )
    ]
    structs: dict[str, Any] = {}
    for category in CATEGORIES:
        parts.append(f"## {category.capitalize()}\n")
        for kind in EVENT_TYPES.values():
            if category_of(type_of(kind)) == category:
                schema = schema_of(kind)
                structs.update(schema.get("$defs", {}))
                parts.append(_event(kind, schema))
    parts.append("## Values\n\nParts of the events above.\n")
    parts.extend(_struct(name, structs[name]) for name in sorted(structs))
    return "\n".join(parts)


def readers_of(kind: type[Event]) -> tuple[str, ...]:
    """Return who acts on an event of this type: agents in the order of the main road, then projections."""
    streams = _STREAMS.get(category_of(type_of(kind)), (RUN,))
    subjects = [
        Filter(stream=stream, agent=agent, event=kind).subject() for stream in streams for agent in WRITERS[kind]
    ]
    orchestrator, governor = Orchestrator(), Governor(node=NODE)
    of_runs = [subject for subject in subjects if f".{RUN}." in subject]
    found = [
        orchestrator.name if _match(of_runs, orchestrator.inputs) and orchestrator.name not in WRITERS[kind] else "",
        governor.name if _match(subjects, governor.inputs) else "",
        *(role.name if _match(subjects, role.filters) else "" for role in WORKER_ROLES.values()),
    ]
    shown = ", ".join(name for name, seen in _SEEN.items() if kind in seen)
    return (*(name for name in found if name), *([f"projections ({shown})"] if shown else []))


def _match(subjects: list[str], filters: tuple[Filter, ...]) -> bool:
    return any(subject_matches(subject, pattern=each.subject()) for subject in subjects for each in filters)


def _event(kind: type[Event], schema: dict[str, Any]) -> str:
    writers = [
        f"{writer} (spoken by {' and '.join(SPOKEN_BY[writer])})" if writer in SPOKEN_BY else writer
        for writer in WRITERS[kind]
    ]
    return "\n".join(
        (
            f"### `{type_of(kind)}`\n",
            f"{schema['description']}\n",
            f"Written by: {', '.join(writers)}. Read by: {', '.join(readers_of(kind)) or 'nobody yet'}.\n",
            *_fields(schema),
        )
    )


def _struct(name: str, schema: dict[str, Any]) -> str:
    if "enum" in schema:
        values = ", ".join(f"`{value}`" for value in schema["enum"])
        return f"### {name}\n\n{schema.get('description', '')}\n\nOne of {values}.\n"
    return "\n".join((f"### {name}\n", f"{schema['description']}\n", *_fields(schema)))


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    yield "| Field | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for name, field in schema["properties"].items():
        if name == "type":
            continue
        default = "required" if name in schema["required"] else f"`{_json(field.get('default'))}`"
        meaning = field.get("description", "").replace("|", "\\|")
        yield f"| `{name}` | {_type(field)} | {default} | {meaning} |"
    yield ""


def _json(value: Any) -> str:
    """Return a default as JSON, but an object as `{…}`: its own table has the values."""
    return "{…}" if isinstance(value, dict) else msgspec.json.encode(value).decode()


def _type(field: dict[str, Any]) -> str:
    """Return a JSON Schema's type and limits in words."""
    match field:
        case {"$ref": reference}:
            name = str(reference).rsplit("/", 1)[1]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": options}:
            return " or ".join(_type(option) for option in options)
        case {"type": "array"}:
            size = _size(field.get("minItems"), field.get("maxItems"), unit="items")
            return f"list of {_type(field['items'])}{size}"
        case {"type": "string"}:
            if "pattern" in field:
                return "text that fits `{}`".format(field["pattern"].replace("|", "\\|").removesuffix(r"(?!\n)"))
            return f"text{_size(field.get('minLength'), field.get('maxLength'), unit='characters')}"
        case {"type": "integer"}:
            return f"whole number{_range(field)}"
        case {"type": "number"}:
            return f"number{_range(field)}"
        case {"type": kind}:
            return str(kind)
        case _:
            raise AssertionError(f"no words for {field}")


def _size(low: int | None, high: int | None, *, unit: str) -> str:
    if low and high:
        return f", {low:,} to {high:,} {unit}"
    if high is not None:
        return f", at most {high:,} {unit}"
    return f", at least {low:,} {unit}" if low else ""


def _range(field: dict[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    above = field.get("exclusiveMinimum")
    if above is not None:
        return f", above {above:,} and up to {high:,}"
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    return f", at least {low:,}" if low is not None else ""


def main(arguments: list[str]) -> int:
    """Write or check the file under the current folder; 1 when it is stale."""
    text = render()
    if "--check" in arguments:
        if PATH.exists() and PATH.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{PATH} is stale: run `python -m lumina.cli.eventdocs`\n")
        return 1
    PATH.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
