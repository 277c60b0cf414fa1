"""What is encoded is read again as it was, from any constructible event, and from the golden files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from lumina.events.base import Event
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.codec import decode, encode
from lumina.events.schema import DIALECT, schema_of, schemas

GOLDEN = Path(__file__).parent / "golden"
EventsOf = Callable[[type[Event]], SearchStrategy[Event]]


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data())
def test_any_event_survives_the_codec(events_of: EventsOf, event_type: str, draw: st.DataObject) -> None:
    """Decoding the bytes of an event gives an equal event, and that has the same bytes."""
    event = draw.draw(events_of(EVENT_TYPES[event_type]))
    body = encode(event)
    again = decode(body, event_type=event_type)
    assert again == event
    assert encode(again) == body


def test_every_type_has_a_golden_file() -> None:
    """No type without a golden file, and no golden file without a type."""
    assert {path.stem for path in GOLDEN.glob("*.v*.json")} == set(EVENT_TYPES)


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_golden_bytes_are_still_what_is_written(event_type: str) -> None:
    """A golden file decodes, and encodes to exactly its bytes.

    When a field with a default is added on purpose, keep the old file as `old/TYPE.N.json` and write the new one.
    """
    body = (GOLDEN / f"{event_type}.json").read_bytes().removesuffix(b"\n")
    assert encode(decode(body, event_type=event_type)) == body


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_golden_files_show_every_field(event_type: str) -> None:
    """A golden file holds each field of its type, so that a renamed or dropped one is noticed."""
    body = json.loads((GOLDEN / f"{event_type}.json").read_bytes())
    assert list(body) == ["type", *EVENT_TYPES[event_type].__struct_encode_fields__]


def test_old_golden_files_can_be_read_for_ever() -> None:
    """What an earlier release wrote is still decoded; `old/` is empty as long as nothing has changed."""
    for path in sorted((GOLDEN / "old").glob("*.json")):
        event_type, _, _ = path.stem.rpartition(".")
        assert decode(path.read_bytes().removesuffix(b"\n"), event_type=event_type)


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_schemas_describe_the_golden_bodies(event_type: str) -> None:
    """The schema names the golden body's fields, requires none that is absent, and resolves its references."""
    schema = schema_of(EVENT_TYPES[event_type])
    body = json.loads((GOLDEN / f"{event_type}.json").read_bytes())
    assert schema["$schema"] == DIALECT
    assert schema["$id"] == f"urn:lumina:{event_type}"
    assert schema["description"]
    assert set(schema["properties"]) == set(body)
    assert set(schema["required"]) <= set(body)
    assert _references(schema) == {f"#/$defs/{name}" for name in schema.get("$defs", {})}


def test_schemas_are_listed_by_type() -> None:
    """All types, in alphabetical order, each under its own tag."""
    listed = schemas(EVENT_TYPES.values())
    assert list(listed) == sorted(EVENT_TYPES)


def test_a_field_says_what_it_means_in_its_schema() -> None:
    """The docstring's section `Attributes:` ends up at the fields."""
    schema = schema_of(EVENT_TYPES["step.accepted.v1"])
    assert schema["properties"]["code"]["description"] == "The accepted program."
    assert "Attributes" not in schema["description"]


def _references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        found = {schema["$ref"]} if "$ref" in schema else set()
        return found.union(*(_references(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(_references(value) for value in schema))
    return set()
