"""What a command can't do, said in one sentence, with its exit code.

CliProblem
├── UsageProblem     the command was asked for something that can't be meant: mend the call (exit 2)
├── SystemProblem    a part of the system is missing or broken: the message says which and what to do (exit 1)
├── Refused          a constraint says no (exit 4)
└── Damaged          the log is not what was written (exit 5)
"""

from typing import Final

from lumina.cli.exits import Exit

REPAIR: Final = "`lumina repair` says what can be restored"


class CliProblem(Exception):
    """Base of all problems that end a command with one sentence."""

    code: Exit = Exit.FAILED


class UsageProblem(CliProblem):
    """The call is wrong."""

    code = Exit.USAGE


class SystemProblem(CliProblem):
    """Something that the command needs is missing or broken."""


class Refused(CliProblem):
    """A constraint says no."""

    code = Exit.REFUSED


class Damaged(CliProblem):
    """The log can't be trusted."""

    code = Exit.DAMAGED


def first_leaf(error: BaseException) -> BaseException:
    """Return the first exception inside nested groups that says why, which the end of a generator does not."""
    while isinstance(error, BaseExceptionGroup):
        _, told = error.split(GeneratorExit)
        error = (told or error).exceptions[0]
    return error


def one_sentence(error: BaseException) -> str:
    """Return what went wrong, without the groups around it."""
    return str(first_leaf(error))
