"""States, events and rows as plain JSON values, the same on every machine, and what changed from one to the next."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

WHICH: Final = "is"
"""The key that names the class of a value, where a field may hold values of several classes: `"is": "Asking"`."""


_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field that has another value now. A side on which it did not exist is unset, and left out of JSON.

    Attributes:
        path: For instance `orchestrator.steps[0].stage.is`; for states a JMESPath of the object with all of them.
        before: As plain JSON.
        after: Likewise.
    """

    path: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET

    def plain(self) -> "Change":
        """Return it with plain values on both sides."""
        return Change(path=self.path, before=plain(self.before), after=plain(self.after))


def plain(value: Any, *, named: bool = False) -> Any:
    """Return a value as JSON has it: every field, defaults, too; keys of mappings sorted; bytes in base64.

    An event has its `type`. With `named`, a struct without one says under `is` which class it is of; fields for which
    several classes are possible always do.
    """
    match value:
        case msgspec.Struct():
            return _struct(value, named=named)
        case Enum():
            return value.value
        case bytes():
            return b64encode(value).decode()
        case Mapping():
            return {str(key): plain(each) for key, each in sorted(value.items(), key=lambda item: str(item[0]))}
        case list() | tuple():
            return [plain(each) for each in value]
        case set() | frozenset():
            return sorted(plain(each) for each in value)
        case _:
            return value


def _struct(value: msgspec.Struct, *, named: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    tag = value.__struct_config__.tag
    if tag is not None:
        fields[value.__struct_config__.tag_field or "type"] = tag
    elif named:
        fields[WHICH] = type(value).__name__
    open_fields = _open_fields(type(value))
    for field in value.__struct_fields__:
        fields[field] = plain(getattr(value, field), named=field in open_fields)
    return fields


@cache
def _open_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Return the fields of `kind` that may hold structs of several classes."""
    hints = get_type_hints(kind)
    return frozenset(field for field in kind.__struct_fields__ if _is_open(hints.get(field)))


def _is_open(hint: Any) -> bool:
    if get_origin(hint) not in {Union, UnionType}:
        return hint is Any
    structs = [each for each in get_args(hint) if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return len(structs) > 1


def changes(before: Any, after: Any, *, path: str, named: bool = False) -> Iterator[Change]:
    """Yield what is different in `after`, the deepest fields in their order; `path` and `named` are of the whole.

    What both share is not looked into, so two states of which one came of the other are compared quickly.
    """
    if before is after:
        return
    if isinstance(before, msgspec.Struct) and type(before) is type(after):
        for field in before.__struct_fields__:
            inside = field in _open_fields(type(before))
            yield from changes(getattr(before, field), getattr(after, field), path=f"{path}.{field}", named=inside)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            one, other = before.get(key, msgspec.UNSET), after.get(key, msgspec.UNSET)
            yield from changes(one, other, path=f"{path}.{_quoted(key)}")
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        for number in range(max(len(before), len(after))):
            one = before[number] if number < len(before) else msgspec.UNSET
            other = after[number] if number < len(after) else msgspec.UNSET
            yield from changes(one, other, path=f"{path}[{number}]")
    else:
        yield from _changed(plain(before, named=named), plain(after, named=named), path=path)


def _quoted(key: str) -> str:
    return key if _IDENTIFIER.fullmatch(key) else msgspec.json.encode(key).decode()


def _changed(before: Any, after: Any, *, path: str) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):  # structs of two classes
        yield from changes(before, after, path=path)
    # As texts: 1, 1.0 and true are equal in Python and three things in JSON.
    elif msgspec.UNSET in (before, after) or json_of(before) != json_of(after):
        yield Change(path=path, before=before, after=after)


def json_of(value: Any) -> bytes:
    """Return plain values as JSON in sorted order: equal values have equal bytes."""
    return msgspec.json.encode(value, order="sorted")
