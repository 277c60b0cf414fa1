"""Exit codes of every command. They are part of the interface: scripts branch on them."""

from enum import IntEnum

from lumina.events.run import RunStatus


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3  # for `verify`: diverged
    REFUSED = 4  # for `verify` and `import`: whole as far as it goes, but not all of it could be decided again
    DAMAGED = 5
    TIMEOUT = 124
    INTERRUPTED = 130
    PIPE_CLOSED = 141  # who read our output went away, as in `lumina logs | head`


def exit_of(status: RunStatus) -> Exit:
    """Return the exit code of a run that ended with `status`."""
    return {
        RunStatus.COMPLETED: Exit.OK,
        RunStatus.PARTIAL: Exit.PARTIAL,
        RunStatus.FAILED: Exit.FAILED,
        RunStatus.REFUSED: Exit.REFUSED,
        RunStatus.CANCELLED: Exit.INTERRUPTED,
        RunStatus.TIMED_OUT: Exit.TIMEOUT,
    }[status]
