"""Decompresses what a JetStream file store compressed (S2, a dialect of Snappy), as far as it is whole. Pure.

Only for salvage: whoever asks checks digests. Formats: google/snappy `framing_format.txt` and `format_description.txt`,
and klauspost/compress `s2` for the repeated offset.
"""

from typing import Final

CHUNK_BYTES_MAX: Final = 4 * 2**20
_COMPRESSED: Final = 0x00
_PLAIN: Final = 0x01
_CRC_BYTES: Final = 4
_LONGEST_SHORT_LITERAL: Final = 60


def decompressed(stream: bytes) -> bytes:
    """Return what the chunks of a stream hold, each up to the place where it can't be read any more."""
    found, at = bytearray(), 0
    while at + 4 <= len(stream):
        kind, size = stream[at], int.from_bytes(stream[at + 1 : at + 4], "little")
        chunk = stream[at + 4 + _CRC_BYTES : at + 4 + size]
        if kind == _COMPRESSED:
            found += _block(chunk)
        elif kind == _PLAIN:
            found += chunk
        at += 4 + size
    return bytes(found)


def _block(source: bytes) -> bytes:
    """Return what one compressed chunk holds, up to its first impossible instruction."""
    size, at = varint(source, at=0)
    if size > CHUNK_BYTES_MAX:
        return b""
    found = bytearray()
    offset = 0
    try:
        while at < len(source) and len(found) < size:
            tag = source[at]
            if tag & 3 == 0:
                length, at = _literal(source, at=at)
                found += source[at : at + length]
                at += length
                continue
            length, offset, at = _copy(source, at=at, offset=offset)
            if not 0 < offset <= len(found):
                break
            _repeat(found, offset=offset, length=length)
    except IndexError:
        pass  # the chunk ends within an instruction
    return bytes(found[:size])


def _literal(source: bytes, *, at: int) -> tuple[int, int]:
    """Return how many bytes follow as they are, and where they begin."""
    length = source[at] >> 2
    if length < _LONGEST_SHORT_LITERAL:
        return length + 1, at + 1
    extra = length - _LONGEST_SHORT_LITERAL + 1
    return int.from_bytes(source[at + 1 : at + 1 + extra], "little") + 1, at + 1 + extra


def _copy(source: bytes, *, at: int, offset: int) -> tuple[int, int, int]:
    """Return how many bytes are repeated, from how far back, and where the next instruction begins."""
    tag = source[at]
    if tag & 3 == 2:
        return 1 + (tag >> 2), int.from_bytes(source[at + 1 : at + 3], "little"), at + 3
    if tag & 3 == 3:
        return 1 + (tag >> 2), int.from_bytes(source[at + 1 : at + 5], "little"), at + 5
    length, near = tag >> 2 & 7, (tag & 0xE0) << 3 | source[at + 1]
    at += 2
    if near:
        return length + 4, near, at
    # The offset of the copy before; the lengths 5 to 7 stand for one to three bytes of length.
    extra = max(0, length - 4)
    if extra:
        base = {1: 4, 2: 1 << 8, 3: 1 << 16}[extra]
        length = int.from_bytes(source[at : at + extra], "little") + base
    return length + 4, offset, at + extra


def _repeat(found: bytearray, *, offset: int, length: int) -> None:
    """Append `length` bytes from `offset` bytes before the end; they may overlap with what is appended."""
    start = len(found) - offset
    if offset >= length:
        found += found[start : start + length]
        return
    pattern = bytes(found[start:])
    found += (pattern * (length // offset + 1))[:length]


def varint(source: bytes, *, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, seven bits a byte, and where it ends."""
    value, shift = 0, 0
    while at < len(source) and shift < 64:
        byte = source[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at
