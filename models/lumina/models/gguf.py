"""Reads what stands before the weights of a GGUF file: metadata, tensor shapes, vocabulary size. In milliseconds.

The `gguf` package needs more than ten seconds for a vocabulary of 152,000 tokens, since it decodes every one; this
reader hops over them. It is strict, because the memory estimate and the decision to load depend on it: a file that it
accepts is whole, and consists of tensors whose size is known.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; block sizes: `ggml_type` traits in `ggml.c`.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lumina.models.errors import CorruptModel

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
KEYS_MAX: Final = 2**20
TENSORS_MAX: Final = 2**20
STRING_BYTES_MAX: Final = 2**20
ARRAY_ELEMENTS_MAX: Final = 2**27
ARRAY_ELEMENTS_KEPT_MAX: Final = 4096
RANK_MAX: Final = 8
TENSOR_ELEMENTS_MAX: Final = 2**50
ALIGNMENT_DEFAULT: Final = 32
ALIGNMENT_MAX: Final = 2**20

_STRING: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}

BLOCKS: Final[dict[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Tensor type: name, elements per block, bytes per block. F64 (28) is left out on purpose: it loads, then crashes."""

Scalar = int | float | bool | str


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor: `shape` with the fastest dimension first, `kind` as in `BLOCKS`, `size` in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a GGUF file says about itself.

    Attributes:
        values: Scalars by key, and arrays of numbers of up to 4,096 elements.
        counts: Length of every array, kept or not.
        tensors: In the order of the file.
        file_bytes: Length of the file.
    """

    values: dict[str, Scalar | tuple[Scalar, ...]]
    counts: dict[str, int]
    tensors: tuple[Tensor, ...]
    file_bytes: int

    @property
    def architecture(self) -> str:
        """For instance `llama`; the prefix of most keys."""
        return str(self.values["general.architecture"])

    @property
    def vocabulary(self) -> int:
        """How many tokens there are; 0 when the file has no tokenizer."""
        return self.counts.get("tokenizer.ggml.tokens", 0)


def read_header(path: Path) -> Header:
    """Return the header of a GGUF file that is whole.

    Raises:
        CorruptModel: It is no GGUF, truncated, malformed, or of a kind that can't be run; the message says which.
        OSError: It can't be opened or mapped.
    """
    with path.open("rb") as file:
        try:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise CorruptModel(f"{path} is empty; download or copy it again") from error
        with view:
            try:
                return _Reader(view).header()
            except _Malformed as error:
                raise CorruptModel(f"{path} can't be used: {error}; download or copy it again") from error


class _Malformed(Exception):
    """What is wrong, as the middle of a sentence."""


class _Reader:
    """Walks over the mapped file. Every read is checked against the end."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view
        self._end = len(view)
        self._at = 0

    def header(self) -> Header:
        tensor_count, key_count = self._opening()
        values: dict[str, Scalar | tuple[Scalar, ...]] = {}
        counts: dict[str, int] = {}
        for _ in range(key_count):
            key = self._text("a key")
            if key in values or key in counts:
                raise _Malformed(f"the key {key[:80]!r} stands in it twice")
            self._entry(key, values, counts)
        alignment = values.get("general.alignment", ALIGNMENT_DEFAULT)
        if not isinstance(alignment, int) or not 8 <= alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
            raise _Malformed(f"its alignment {str(alignment)[:80]} is no power of two from 8 to {ALIGNMENT_MAX:,}")
        if not isinstance(values.get("general.architecture"), str):
            raise _Malformed("it does not name its architecture")
        tensors, data_bytes = self._tensors(tensor_count, alignment=alignment)
        start = -(-self._at // alignment) * alignment
        if start + data_bytes > self._end:
            missing = start + data_bytes - self._end
            raise _Malformed(f"it is truncated: the last {missing:,} of {start + data_bytes:,} bytes are missing")
        return Header(values=values, counts=counts, tensors=tensors, file_bytes=self._end)

    def _opening(self) -> tuple[int, int]:
        if self._view[:4] != MAGIC:
            raise _Malformed("it is not a GGUF file")
        self._at = 4
        version = self._number(4)
        if version not in VERSIONS:
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            why = "it is big-endian" if swapped in VERSIONS else f"its GGUF version {version} is unknown"
            raise _Malformed(why)
        tensors, keys = int(self._number(10)), int(self._number(10))
        if not 0 < tensors <= TENSORS_MAX:
            raise _Malformed(f"it names {tensors:,} tensors; 1 to {TENSORS_MAX:,} are possible")
        if keys > KEYS_MAX:
            raise _Malformed(f"it names {keys:,} metadata keys; {KEYS_MAX:,} are possible")
        return tensors, keys

    def _entry(self, key: str, values: dict[str, Scalar | tuple[Scalar, ...]], counts: dict[str, int]) -> None:
        kind = int(self._number(4))
        if kind != _ARRAY:
            values[key] = self._text(f"the value of {key[:80]}") if kind == _STRING else self._number(kind)
            return
        element, count = int(self._number(4)), int(self._number(10))
        if count > ARRAY_ELEMENTS_MAX:
            raise _Malformed(f"the array {key[:80]} has {count:,} elements; {ARRAY_ELEMENTS_MAX:,} are possible")
        counts[key] = count
        if element == _STRING:
            self._skip_strings(count, key=key)
        elif element not in _NUMBERS:
            raise _Malformed(f"the array {key[:80]} has elements of the unknown type {element}")
        elif count <= ARRAY_ELEMENTS_KEPT_MAX:
            values[key] = tuple(self._number(element) for _ in range(count))
        else:
            self._skip(count * _NUMBERS[element].size)

    def _tensors(self, count: int, *, alignment: int) -> tuple[tuple[Tensor, ...], int]:
        """Return the tensors and how many bytes their data takes."""
        tensors: list[Tensor] = []
        names: set[str] = set()
        data_bytes = 0
        for _ in range(count):
            name = self._text("the name of a tensor")
            if name in names:
                raise _Malformed(f"the tensor {name[:80]!r} stands in it twice")
            names.add(name)
            tensor, offset = self._tensor(name)
            if offset % alignment:
                raise _Malformed(f"the data of tensor {name[:80]} does not start at a multiple of {alignment}")
            data_bytes = max(data_bytes, offset + tensor.size)
            tensors.append(tensor)
        return tuple(tensors), data_bytes

    def _tensor(self, name: str) -> tuple[Tensor, int]:
        rank = int(self._number(4))
        if not 0 < rank <= RANK_MAX:
            raise _Malformed(f"tensor {name[:80]} has {rank} dimensions; 1 to {RANK_MAX} are possible")
        shape = tuple(int(self._number(10)) for _ in range(rank))
        elements = 1
        for length in shape:
            elements *= length
            if not 0 < elements <= TENSOR_ELEMENTS_MAX:
                raise _Malformed(f"tensor {name[:80]} has an impossible shape")
        code, offset = int(self._number(4)), int(self._number(10))
        if code not in BLOCKS:
            raise _Malformed(f"tensor {name[:80]} is of type {code}, which can't be run")
        kind, block, block_bytes = BLOCKS[code]
        if shape[0] % block:
            raise _Malformed(f"tensor {name[:80]} has rows of {shape[0]:,} elements, no multiple of {kind}'s {block}")
        return Tensor(name=name, shape=shape, kind=kind, size=elements // block * block_bytes), offset

    def _number(self, kind: int) -> int | float | bool:
        packed = _NUMBERS.get(kind)
        if packed is None:
            raise _Malformed(f"a value has the unknown type {kind}")
        start = self._skip(packed.size)
        value: int | float | bool = packed.unpack_from(self._view, start)[0]
        return value

    def _text(self, what: str) -> str:
        length = int(self._number(10))
        if length > STRING_BYTES_MAX:
            raise _Malformed(f"{what} has {length:,} bytes; {STRING_BYTES_MAX:,} are possible")
        start = self._skip(length)
        try:
            return self._view[start : self._at].decode()
        except UnicodeDecodeError as error:
            raise _Malformed(f"{what} is no UTF-8") from error

    def _skip_strings(self, count: int, *, key: str) -> None:
        """Hop from length to length; the only loop that a large vocabulary costs."""
        view, end, at = self._view, self._end, self._at
        unpack = _NUMBERS[10].unpack_from
        if count * 8 > end - at:
            raise _Malformed("it is truncated within its header")
        for _ in range(count):
            if at + 8 > end:
                raise _Malformed("it is truncated within its header")
            length = unpack(view, at)[0]
            if length > STRING_BYTES_MAX:
                raise _Malformed(f"an element of {key[:80]} has {length:,} bytes; {STRING_BYTES_MAX:,} are possible")
            at += 8 + length
        self._at = at
        self._skip(0)

    def _skip(self, size: int) -> int:
        """Return where the next `size` bytes start, and go past them."""
        start = self._at
        if start + size > self._end:
            raise _Malformed("it is truncated within its header")
        self._at = start + size
        return start
