"""What can go wrong with the sandbox itself. What a program does wrong is a result, never an error.

SandboxError
├── TierMissing      the sandbox can't be offered on this machine: refuse the step; `command` provides what is missing
└── NodeToolsMissing ESLint or GSAP is not installed: run `command`, then try again
"""


class SandboxError(Exception):
    """Base of all errors of the sandbox."""


class TierMissing(SandboxError):
    """A sandbox can't be offered here. Nothing was run.

    Attributes:
        command: What the user has to do, one line.
    """

    def __init__(self, message: str, *, command: str) -> None:
        super().__init__(message)
        self.command = command


class NodeToolsMissing(SandboxError):
    """A Node package that Lumina needs is not installed.

    Attributes:
        command: What the user has to do, one line.
    """

    def __init__(self, message: str, *, command: str) -> None:
        super().__init__(message)
        self.command = command
