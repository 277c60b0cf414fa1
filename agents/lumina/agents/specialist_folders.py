"""Finds the specialists of this machine: the built-in ones and those that the user dropped into a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from lumina.agents.errors import SpecialistInvalid
from lumina.agents.specialist_files import SpecialistDefinition, parse_definition

SUFFIX: Final = ".toml"
BUILT_IN: Final = "built in"


@dataclass(frozen=True, kw_only=True)
class SpecialistFile:
    """One file of one folder.

    Attributes:
        name: The stem of its name.
        origin: Its path, or `BUILT_IN`.
        content: Its bytes, as a run keeps them.
        definition: What it says; None when it is broken.
        problems: What is wrong with it.
    """

    name: str
    origin: str
    content: bytes
    definition: SpecialistDefinition | None
    problems: tuple[str, ...] = ()


def load_folders(folders: Sequence[Path] = ()) -> tuple[SpecialistFile, ...]:
    """Return the built-in specialists and those in `folders`, sorted by name.

    A good file replaces the good file of the same name in an earlier folder. A broken file is returned with its
    problems and replaces nothing, so the specialist that it should have replaced stays in use. A
    folder that does not exist has no files.

    Raises:
        OSError: A folder or file is there but can't be read.
    """
    good: dict[str, SpecialistFile] = {}
    broken: list[SpecialistFile] = []
    for folder, built_in in ((built_in_folder(), True), *((folder, False) for folder in folders)):
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if not entry.name.endswith(SUFFIX) or entry.name.startswith("."):
                continue
            loaded = _load(entry, origin=BUILT_IN if built_in else str(entry))
            if loaded.definition is None:
                broken.append(loaded)
            else:
                good[loaded.name] = loaded
    return tuple(sorted((*good.values(), *broken), key=lambda loaded: (loaded.name, loaded.origin)))


def built_in_folder() -> Traversable:
    """Return the folder of the specialists that are part of Lumina."""
    return files("lumina.agents").joinpath("specialists")


def _load(entry: Traversable, *, origin: str) -> SpecialistFile:
    name = entry.name.removesuffix(SUFFIX)
    content = entry.read_bytes()
    try:
        definition = parse_definition(content, name=name)
    except SpecialistInvalid as error:
        return SpecialistFile(name=name, origin=origin, content=content, definition=None, problems=error.problems)
    return SpecialistFile(name=name, origin=origin, content=content, definition=definition)
