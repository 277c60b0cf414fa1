"""Keeps the head and the tail of a stream of any length in bounded memory."""

import os

from lumina.sandbox.policy import CAPTURE_HEAD_BYTES, CAPTURE_TAIL_BYTES

READ_BYTES = 65536


class Capture:
    """What came out of one pipe: all of it counted, its head and tail kept."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.total_bytes = 0
        self._head = bytearray()
        self._tail = bytearray()

    def take(self) -> bool:
        """Read once; False at the end of the stream. Blocks when nothing is there."""
        chunk = os.read(self.descriptor, READ_BYTES)
        self.total_bytes += len(chunk)
        room = CAPTURE_HEAD_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:] if room < len(chunk) else b""
        del self._tail[: max(0, len(self._tail) - CAPTURE_TAIL_BYTES)]
        return bool(chunk)

    def chunk(self) -> bytes:
        """Read once and return what came, empty at the end; for streams that are kept elsewhere. Blocks."""
        return os.read(self.descriptor, READ_BYTES)

    def content(self) -> bytes:
        """Return what was kept, with a mark where bytes were left out."""
        left_out = self.total_bytes - len(self._head) - len(self._tail)
        mark = f"\n… {left_out:,} bytes cut …\n".encode() if left_out else b""
        return bytes(self._head) + mark + bytes(self._tail)
