"""A console on which foreign text is only text: no program, model or server drives the terminal by what it says."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

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
