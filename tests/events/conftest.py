"""Draws any event of any type from the constraints of its fields."""

from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect as shape

from lumina.events.base import Event

ITEMS_MAX = 3
CHARACTERS_MAX = 60


def _text(kind: shape.StrType) -> SearchStrategy[str]:
    if kind.pattern is not None:
        return st.from_regex(kind.pattern)
    return st.text(
        st.characters(codec="utf-8"),
        min_size=kind.min_length or 0,
        max_size=min(kind.max_length or CHARACTERS_MAX, CHARACTERS_MAX),
    )


def _number(kind: shape.FloatType) -> SearchStrategy[float]:
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    return st.floats(low, high, allow_nan=False, exclude_min=kind.gt is not None, exclude_max=kind.lt is not None)


def _struct(kind: type[msgspec.Struct]) -> SearchStrategy[Any]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: _drawn(shape.type_info(hints[name])) for name in kind.__struct_fields__})


def _drawn(kind: shape.Type) -> SearchStrategy[Any]:
    match kind:
        case shape.Metadata():
            return _drawn(kind.type)
        case shape.StrType():
            return _text(kind)
        case shape.FloatType():
            return _number(kind)
        case shape.IntType():
            return st.integers(kind.ge, kind.le)
        case shape.BoolType():
            return st.booleans()
        case shape.NoneType():
            return st.none()
        case shape.EnumType():
            return st.sampled_from(kind.cls)
        case shape.VarTupleType():
            size = min(kind.max_length or ITEMS_MAX, ITEMS_MAX)
            items = st.lists(_drawn(kind.item_type), min_size=kind.min_length or 0, max_size=size)
            return items.map(tuple)
        case shape.UnionType():
            return st.one_of([_drawn(one) for one in kind.types])
        case shape.StructType():
            return _struct(kind.cls)
        case _:
            raise TypeError(f"no strategy for {kind}")


@pytest.fixture(scope="session")
def events_of() -> Callable[[type[Event]], SearchStrategy[Event]]:
    """Return the function that gives the strategy for one event type."""
    return _struct
