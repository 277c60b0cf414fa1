"""The list of members of a file that anybody may have made is looked through before anything is kept of it."""

import struct
import tracemalloc
from pathlib import Path

import pytest
from tests.bus.test_archive import file_of, read_all, seal, some_log

from lumina.bus.errors import ArchiveBroken

pytestmark = pytest.mark.anyio


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a good file."""
    return await file_of(await some_log(), tmp_path / "all.lumina")


@pytest.mark.parametrize("name", [b"", b"x", b"../../etc/passwd"])
async def test_a_list_of_bad_members_is_not_kept(path: Path, name: bytes) -> None:
    """Of very many members with names that no export writes, the first is refused before memory is taken for them."""
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<3H", len(name), 0, 0) + bytes(12) + name
    listed = entry * (20 * 2**20 // len(entry))
    content = path.read_bytes()
    end = bytearray(content[-78 - 22 : -78])
    end[12:16] = struct.pack("<L", len(listed))
    path.write_bytes(content[: -78 - 22] + listed + end + content[-78:])
    seal(path)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveBroken, match="which no export writes"):
            await read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(listed)
    finally:
        tracemalloc.stop()


async def test_the_long_list_can_not_be_hidden_behind_the_short_one(path: Path) -> None:
    """Where both kinds of list are there, the long one counts, for the limits as for `zipfile`."""
    content = path.read_bytes()
    long_end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 2**31, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(content) - 100, 1)
    path.write_bytes(content[: -78 - 22] + long_end + locator + content[-78 - 22 :])
    seal(path)
    with pytest.raises(ArchiveBroken, match="list of members has"):
        await read_all(path)
