"""What is kept of an imported file is what was proved, whatever becomes of the file meanwhile."""

from pathlib import Path

import pytest

from lumina.cli.home import Home
from lumina.cli.imports import Imported, arriving, imported, keep

ENTRY = Imported(file="r-1.lumina", sha256="0" * 64, run="r-1", runs=("r-1",))


def test_what_was_looked_at_is_kept(tmp_path: Path) -> None:
    """The file is written anew between the look and the end: the copy that was looked at is what is kept."""
    home, file = Home(root=tmp_path / "home"), tmp_path / "sent.lumina"
    file.write_bytes(b"proved")
    with arriving(home, file) as copy:
        assert (copy.name, copy.read_bytes()) == (file.name, b"proved")
        file.write_bytes(b"another")
        kept = keep(home, copy, entry=ENTRY)
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"proved", 0o600)
    assert imported(home) == (ENTRY,)
    assert sorted(each.name for each in home.imports.iterdir()) == ["r-1.json", "r-1.lumina"]


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """A file that turns out to be damaged is in no list, and no copy of it stays."""
    home, file = Home(root=tmp_path / "home"), tmp_path / "sent.lumina"
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"), arriving(home, file):
        raise ValueError("damaged")
    assert list(home.imports.iterdir()) == []
