"""Where things stand in the files of a JetStream file store. Pure: bytes in, places out.

A record in a block that is not compressed yet (the newest one): length (4 bytes, the highest bit says that there are
headers), sequence (8), time (8), length of the subject (2), subject, length of the headers (4), headers, body and a
checksum (8) over all but the lengths. A full block is compressed as a whole: `cmp`, the algorithm, the original size,
the compressed records, and the checksum of the last one. See nats-server, `server/filestore.go`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

PARTS: Final = (
    "length",
    "sequence",
    "time",
    "subject length",
    "subject",
    "headers length",
    "headers",
    "body",
    "checksum",
)
COMPRESSED: Final = b"cmp"
_HEADERS_BIT: Final = 1 << 31
_FIXED_BYTES: Final = 22
_CHECKSUM_BYTES: Final = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """A record in a block.

    Attributes:
        seq: Its sequence.
        start: Its first byte.
        end: The first byte behind it.
        parts: The first byte of each of `PARTS`, in their order.
    """

    seq: int
    start: int
    end: int
    parts: tuple[int, ...]

    def span(self, part: str) -> tuple[int, int]:
        """Return where a part begins and where it ends."""
        spans = list(pairwise((*self.parts, self.end)))
        return spans[list[str](PARTS).index(part)]


def places(block: bytes) -> Iterator[Place]:
    """Yield the records of a block that is not compressed."""
    assert not block.startswith(COMPRESSED), "a compressed block has no places"
    start = 0
    while start < len(block):
        length = int.from_bytes(block[start : start + 4], "little")
        assert length & _HEADERS_BIT, "every record of ours has headers"
        end = start + (length & ~_HEADERS_BIT)
        subject_bytes = int.from_bytes(block[start + 20 : start + _FIXED_BYTES], "little")
        headers_at = start + _FIXED_BYTES + subject_bytes
        headers_bytes = int.from_bytes(block[headers_at : headers_at + 4], "little")
        parts = (
            start,
            start + 4,
            start + 12,
            start + 20,
            start + _FIXED_BYTES,
            headers_at,
            headers_at + 4,
            headers_at + 4 + headers_bytes,
            end - _CHECKSUM_BYTES,
        )
        seq = int.from_bytes(block[start + 4 : start + 12], "little")
        yield Place(seq=seq, start=start, end=end, parts=parts)
        start = end
