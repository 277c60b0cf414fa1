"""A file appears whole or not at all, and nothing that stands in its folder can lead the writing elsewhere."""

import os
from pathlib import Path

import pytest

from lumina.bus.appearing import appearing


def write(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a whole file."""
    with appearing(path, replace=replace) as file:
        file.write(content)


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Before the end nothing has the name; the rights are those of any new file."""
    path = tmp_path / "rows.jsonl"
    with appearing(path) as file:
        file.write(b"rows")
        assert not path.exists()
    other = tmp_path / "other"
    other.touch()
    assert (path.read_bytes(), path.stat().st_mode) == (b"rows", other.stat().st_mode)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """After an error in the block the folder is as it was, also when a file was to be replaced."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), appearing(path, replace=True) as file:
        file.writelines((b"half", "no bytes"))  # type: ignore[arg-type]  # this is the error
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("rows.jsonl", b"old")]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    """A file, also one that came meanwhile, and a link to nothing are refused; asked to, they are replaced."""
    path = tmp_path / "rows.jsonl"
    with pytest.raises(FileExistsError), appearing(path):
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    with pytest.raises(FileExistsError):
        write(path, b"mine")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write(path, b"mine")
    write(path, b"mine", replace=True)
    assert (path.is_symlink(), path.read_bytes()) == (False, b"mine")
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_laid_in_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    """Whatever names somebody lays out links under, by name and process: what they point to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    path = shared / "rows.jsonl"
    for name in (f".rows.jsonl.{os.getpid()}.new", f".rows.jsonl.{os.getpid()}", ".rows.jsonl.new", "rows.jsonl"):
        (shared / name).symlink_to(victim)
    write(path, b"rows", replace=True)
    assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"rows")


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    """Nobody is told of a file that he never named."""
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "nowhere" / "rows.jsonl", b"rows")
    assert caught.value.filename == str(tmp_path / "nowhere" / "rows.jsonl")
