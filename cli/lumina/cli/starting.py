"""What comes before and after every command: what it was given can be read, what it said was written."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from lumina.cli.app import app, code_of, sentence_of, tell_problem
from lumina.cli.errors import CliProblem, UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.terminal import lost, mute


def start(register: Callable[[str], None]) -> None:
    """Run the command line; it ends with SystemExit.

    What parts of the system say for operators goes to standard error, if it is grave.
    """
    _open_closed()
    try:
        refuse_unreadable(sys.argv[1:], environ=os.environ)
        level = logging.getLevelNamesMapping().get(os.environ.get("LUMINA_LOG", "").upper(), logging.CRITICAL)
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        completing = any(name.endswith("_COMPLETE") for name in os.environ)
        register("" if completing else "".join(sys.argv[1:2]))
        try:
            app()
        finally:
            _flush()
    except BrokenPipeError:
        mute()
        sys.exit(Exit.PIPE_CLOSED)
    except (CliProblem, OSError) as error:  # outside of `work`, as where the help is printed
        code = code_of(error)
        if code is None:
            raise
        mute()  # what is left in its buffer goes nowhere
        tell_problem(sentence_of(error))
        sys.exit(code)


def refuse_unreadable(arguments: Sequence[str], *, environ: Mapping[str, str]) -> None:
    """Raise UsageProblem when something that was typed is not valid UTF-8: no record and no JSON could hold it."""
    given = {f"argument {number}": argument for number, argument in enumerate(arguments, start=1)}
    given |= {name: value for name, value in environ.items() if name.startswith("LUMINA_")}
    for name, text in given.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(text).decode(errors="backslashreplace")
            raise UsageProblem(f"{name} is not valid UTF-8: {shown}") from None


def _open_closed() -> None:
    """Have somewhere to write to when the caller closed an output (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process


def _flush() -> None:
    """Write what is buffered, while its failure can still be told. Raises as `lost` says, or BrokenPipeError."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise lost(error) from error
