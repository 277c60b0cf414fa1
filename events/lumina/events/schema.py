"""JSON Schemas of the events, for readers in any language. `$id` is what the header `ce-dataschema` names."""

import re
from collections.abc import Iterable
from functools import cache
from inspect import cleandoc
from typing import Any, Final

import msgspec

from lumina.events.base import Event, type_of

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def schema_of(kind: type[Event]) -> Schema:
    """Return the self-contained schema of one event type's body: draft 2020-12, other structs under `$defs`."""
    (reference,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    own = components.pop(reference["$ref"].rsplit("/", 1)[1])
    described = {name: _describe(component) for name, component in sorted(components.items())}
    schema = {"$schema": DIALECT, "$id": f"urn:lumina:{type_of(kind)}", **_describe(own)}
    return {**schema, "$defs": described} if described else schema


def schemas(kinds: Iterable[type[Event]]) -> dict[str, Schema]:
    """Return the schemas by event type, in alphabetical order."""
    return {type_of(kind): schema_of(kind) for kind in sorted(kinds, key=type_of)}


@cache
def meaning_and_fields(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into what the struct means and what its fields mean (its section `Attributes:`)."""
    meaning, _, attributes = cleandoc(docstring).partition("Attributes:")
    fields: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w+:)", attributes):
        name, _, words = entry.strip().partition(":")
        if words:
            fields[name] = " ".join(words.split())
    paragraphs = (" ".join(paragraph.split()) for paragraph in meaning.strip().split("\n\n"))
    return "\n\n".join(paragraphs), fields


def _describe(schema: Schema) -> Schema:
    """Return the schema of one struct with the meaning of each field at the field instead of in one long text."""
    meaning, fields = meaning_and_fields(schema.get("description", ""))
    described = {**schema, "description": meaning} if meaning else dict(schema)
    if "properties" in described:
        described["properties"] = {
            name: _with_words(value, fields.get(name)) for name, value in described["properties"].items()
        }
    return described


def _with_words(value: Schema, words: str | None) -> Schema:
    if words is None:
        return value
    unit = value.get("description")
    return {**value, "description": words if unit is None else f"{words} ({unit})"}
