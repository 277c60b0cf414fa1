"""The words that events are made of: constrained numbers and texts, and the structs shared by several events.

A constraint lives in the type, and every `Value` checks itself when it is built, so neither a constructor nor a
decoder can make an invalid one. Both raise `msgspec.ValidationError`, which names the field.

Defaults are never written. So a field that is added later, with a default, leaves the bytes of older records and
effects as they are, and what was recorded before can still be decided again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from functools import cache
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, inspect
from msgspec.structs import force_setattr

T = TypeVar("T")

REQUEST_CHARACTERS_MAX: Final = 20_000
TEXT_CHARACTERS_MAX: Final = 4_000
FILE_BYTES_MAX: Final = 8 * 2**20

_END: Final = r"$(?!\n)"
"""The end of the text: in Python `$` alone also matches before a last line feed. Other dialects agree on this form."""

Digest = Annotated[str, Meta(pattern=rf"^[0-9a-f]{{64}}{_END}", description="SHA-256 in hexadecimal")]
Name = Annotated[
    str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.:@/+-]{{0,119}}{_END}", description="A name without spaces")
]
Instance = Annotated[
    str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.:@/+-]{{0,119}}#[0-9]{{1,3}}{_END}", description="MODEL#K")
]
Identifier = Annotated[str, Meta(pattern=rf"^[A-Za-z_$][A-Za-z0-9_$]{{0,79}}{_END}", description="A name in a program")]
FileName = Annotated[
    str, Meta(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,119}}{_END}", description="A file name without folders")
]
Request = Annotated[str, Meta(min_length=1, max_length=REQUEST_CHARACTERS_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_CHARACTERS_MAX, description="Cut to 4,000 characters")]
Sentence = Annotated[str, Meta(max_length=500)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Bytes = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Bytes")]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Milliseconds since 1970, UTC")]
DurationMs = Annotated[int, Meta(ge=0, le=86_400_000, description="Milliseconds")]
TokenCount = Annotated[int, Meta(ge=0, le=10_000_000, description="Model tokens")]
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
StepNumber = Annotated[int, Meta(ge=1, le=32)]
AttemptNumber = Annotated[int, Meta(ge=1, le=99)]


_decoding: ContextVar[bool] = ContextVar("decoding", default=False)


@contextmanager
def checked_by_decoder() -> Iterator[None]:
    """Within this block `Value`s are built by a decoder of their own type, which has checked every field already."""
    token = _decoding.set(True)
    try:
        yield
    finally:
        _decoding.reset(token)


def checked_before(build: Callable[..., T], *arguments: Any, **fields: Any) -> T:
    """Return what `build` returns, as within `checked_by_decoder`, and sooner."""
    token = _decoding.set(True)
    try:
        return build(*arguments, **fields)
    finally:
        _decoding.reset(token)


class Canonical(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An immutable struct with one encoding: equal structs have equal bytes, and defaults are left out of them."""

    def __post_init__(self) -> None:
        """Put the default itself in the place of whatever equals it, since msgspec omits defaults by identity."""
        for field, default in _defaults(self.__class__):
            value = getattr(self, field)
            if value is not default and type(value) is type(default) and value == default:
                force_setattr(self, field, default)


class Value(Canonical, frozen=True, kw_only=True):
    """A canonical struct whose constraints hold from the moment that it exists."""

    def __post_init__(self) -> None:
        """Check every field against its type.

        Raises:
            msgspec.ValidationError: A field is outside its constraint; the message has its path.
        """
        if not _decoding.get():
            msgspec.convert(self, _unchecked_twin(type(self)), from_attributes=True)
            for field in _floats(self.__class__):
                if type(value := getattr(self, field)) is int:
                    force_setattr(self, field, float(value))  # 1 and 1.0 are equal, and are written differently
        # As above. It stands here again because half of the time that reading a log takes was spent in this method.
        for field, default in _defaults(self.__class__):
            value = getattr(self, field)
            if value is not default and type(value) is type(default) and value == default:
                force_setattr(self, field, default)


@cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """Return the fields of `kind` that have a default which an equal value need not be, and these."""
    return tuple(
        (field.name, field.default)
        for field in msgspec.structs.fields(kind)
        if field.default is not msgspec.NODEFAULT and not _is_one(field.default)
    )


@cache
def _floats(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of `kind` that hold a float, for which constructors take whole numbers, too."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(name for name in kind.__struct_fields__ if _may_be_float(inspect.type_info(hints[name])))


def _may_be_float(kind: inspect.Type) -> bool:
    match kind:
        case inspect.Metadata(type=inner):
            return _may_be_float(inner)
        case inspect.UnionType(types=several):
            return any(_may_be_float(each) for each in several)
        case _:
            return isinstance(kind, inspect.FloatType)


def _is_one(value: Any) -> bool:
    """Whether there is but one such object in CPython: what equals it, and has its type, is it."""
    return (
        value is None or isinstance(value, bool | Enum) or value in {"", ()} or (type(value) is int and value in _INTS)
    )


_INTS: Final = range(-5, 257)


@cache
def _unchecked_twin(kind: type[Value]) -> type[msgspec.Struct]:
    """Return a struct with the fields of `kind` and no `__post_init__`, for `convert` to check against."""
    hints = get_type_hints(kind, include_extras=True)
    return msgspec.defstruct(kind.__name__, [(field, hints[field]) for field in kind.__struct_fields__])


class BlobRef(Value, frozen=True, kw_only=True):
    """A large piece of data that stands outside the log, found by what it contains.

    Attributes:
        digest: SHA-256 of the bytes.
        size: Length in bytes.
        media_type: For instance `text/x-python`.
    """

    digest: Digest
    size: Bytes
    media_type: Annotated[str, Meta(pattern=rf"^[a-z]+/[A-Za-z0-9.+-]+{_END}")]


class FileRef(Value, frozen=True, kw_only=True):
    """A file by name and content, on its way into a sandbox or out of it."""

    name: FileName
    blob: BlobRef


def clip(text: str, *, limit: int = TEXT_CHARACTERS_MAX) -> str:
    """Return `text` cut to `limit` characters; a cut is marked in the middle, head and tail are kept."""
    if len(text) <= limit:
        return text
    mark = f"\n… {len(text) - limit:,} characters cut …\n"
    keep = max(0, limit - len(mark))
    head = keep // 3
    return (text[:head] + mark + text[len(text) - (keep - head) :])[:limit]
