"""The typer application and what all commands share: the data folder, output, and one sentence per problem."""

import errno
import os
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, TypeVar

import anyio
import typer
from rich.console import Console
from rich.table import Table

from lumina.agents.errors import AgentError
from lumina.bus.errors import BusError, LogDamaged
from lumina.cli.errors import REPAIR, CliProblem, first_leaf
from lumina.cli.exits import Exit
from lumina.cli.home import Home, find_home
from lumina.cli.terminal import Terminal, lost, mute
from lumina.events.errors import EventError
from lumina.models.errors import BadConfiguration, ModelError
from lumina.projections.errors import NoSuchRun, ProjectionError
from lumina.replay.errors import BadBreakpoint, ReplayError, RunUnknown, SeqOutside

T = TypeVar("T")

WIDTH_CHARACTERS: Final = 240
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Why the operating system does not write. Such an error names no file."""

app = typer.Typer(
    name="lumina",
    help="Turns a request in words into validated, executed code written by small local language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        out().print(f"lumina {version('lumina-agents')}")
        raise typer.Exit


@app.callback()
def lumina(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a request in words into validated, executed code written by small local language models."""


HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Data folder (default: $LUMINA_HOME or ~/.local/share/lumina).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id, or enough of its beginning.")]


def out() -> Console:
    """Return the console for results."""
    return Terminal(no_color=_no_color(), highlight=False)


def table_out(table: Table) -> None:
    """Print a table of results. Where nobody looks at it, in a file or a pipe, nothing of it is left out."""
    width = None if sys.stdout.isatty() else WIDTH_CHARACTERS
    Terminal(no_color=_no_color(), highlight=False, width=width).print(table)


def err() -> Console:
    """Return the console for progress and problems."""
    return Terminal(stderr=True, no_color=_no_color(), highlight=False)


def _no_color() -> bool | None:
    return True if os.environ.get("NO_COLOR") else None


def work(job: Callable[[Home], Awaitable[T]], *, home: Path | None) -> T:
    """Run an async command on a data folder; a problem ends it with one sentence and its exit code."""
    try:
        return anyio.run(job, find_home(home))
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BaseException as error:
        leaf = first_leaf(error)
        if isinstance(leaf, KeyboardInterrupt):
            raise typer.Exit(Exit.INTERRUPTED) from None
        if isinstance(leaf, BrokenPipeError):
            mute()
            raise typer.Exit(Exit.PIPE_CLOSED) from None
        code = code_of(leaf)
        if code is None:
            raise
        tell_problem(sentence_of(leaf))
        raise typer.Exit(code) from error


def tell_problem(sentence: str) -> None:
    """Print why a command ends, on standard error."""
    err().print(f"lumina: {sentence}", style="red", markup=False, soft_wrap=True)


def code_of(error: BaseException) -> Exit | None:
    """Return the exit code of an expected problem, None for a defect, which keeps its traceback."""
    match error:
        case CliProblem():
            return error.code
        case LogDamaged():
            return Exit.DAMAGED
        case NoSuchRun() | BadConfiguration() | RunUnknown() | SeqOutside() | BadBreakpoint():
            return Exit.USAGE
        case BusError() | AgentError() | EventError() | ModelError() | ProjectionError() | ReplayError():
            return Exit.FAILED
        case FileNotFoundError() | NotADirectoryError() | IsADirectoryError() if error.filename is not None:
            return Exit.USAGE  # a path that was typed
        case OSError() if error.filename is not None or error.errno in NO_ROOM:
            return Exit.FAILED
        case _:
            return None


def sentence_of(error: BaseException) -> str:
    """Return what to tell the user: the message, or for the operating system's refusal the file and the reason."""
    match error:
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case OSError() if error.strerror is not None:
            return f"what it makes can't be written: {error.strerror}"
        case LogDamaged() if REPAIR not in str(error):
            return f"{error}; {REPAIR}"
        case _:
            return str(error)


def print_json(line: bytes) -> None:
    """Write one line of JSON to standard output, at once."""
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise lost(error) from error
