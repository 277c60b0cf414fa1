"""A console on which foreign text is only text: no program, model or server drives the terminal by what it says."""

import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lumina.cli.errors import SystemProblem
from lumina.sandbox.rendering import escape


class Terminal(Console):
    r"""Rich's console, with control characters and the like written as `\xNN`. Its own styles and moves remain."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is shown, escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Say that the reader went away; rich would end the process from within, which a task group reports."""
        raise BrokenPipeError

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what was printed. Raises as `lost` says; progress and problems that can't be shown stop nothing."""
        try:
            super().__exit__(exc_type, exc_value, traceback)
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self.stderr:
                raise lost(error) from error


def lost(error: OSError) -> SystemProblem:
    """Return the problem that results can't be written, as on a disk that is full. What follows goes nowhere."""
    mute()
    return SystemProblem(f"standard output can't be written: {error.strerror}")


def mute() -> None:
    """Send what is left in the buffer of standard output, and all that follows, nowhere."""
    with suppress(io.UnsupportedOperation):  # it is no file, as in a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
