"""What tests of the sandbox share: the type of their runner, and a look at the host's processes."""

from pathlib import Path
from typing import Protocol

from lumina.events.contract import Language
from lumina.sandbox.port import File, RunResult


class RunProgram(Protocol):
    """Runs code as a script in the real sandbox; limits are given by name."""

    def __call__(
        self, code: str, *, language: Language = Language.PYTHON, files: tuple[File, ...] = (), **limits: int
    ) -> RunResult:
        """Return what it left behind."""
        ...


def alive(marker: str) -> list[str]:
    """Return the command lines of all processes of this machine that contain `marker`."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if marker.encode() in words:
            found.append(words.decode(errors="replace"))
    return found
