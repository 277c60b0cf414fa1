"""The `lumina` command: registers the commands and runs the one that was asked for.

Importing this file imports next to nothing: what takes its time is imported while `main` runs, which meets Ctrl-C.
"""

import sys
from importlib import import_module
from typing import Final

INTERRUPTED: Final = 130
"""As `Exit.INTERRUPTED`, which is not imported yet when it may be needed."""

MODULES: Final = {
    "run": ("run",),
    "look": ("runs", "show", "watch", "logs", "cancel"),
    "proof": ("verify",),
    "replay": ("replay",),
    "diff": ("diff",),
    "explain": ("explain",),
    "fork": ("fork", "invalidate"),
    "bundles": ("export", "import", "freeze"),
    "repair": ("repair",),
    "dataset": ("dataset",),
    "system": ("up", "ps", "down", "agent"),
    "catalogues": ("specialists", "schema", "credentials"),
    "simulate": ("simulate",),
    "demo": ("demo", "examples"),
}
"""Which module of this folder has which commands, in the order of the help."""


def register(asked: str) -> None:
    """Import the module of the command that was asked for; all of them for the help and for completion."""
    for module, commands in MODULES.items():
        if asked in commands:
            import_module(f"lumina.cli.{module}")
            break
    else:
        for module in MODULES:
            import_module(f"lumina.cli.{module}")
    import_module("lumina.cli.paragraphs").join_lines()


def main() -> None:
    """Run the command line."""
    try:
        from lumina.cli.starting import start  # noqa: PLC0415 - it takes half a second, in which Ctrl-C may come

        start(register)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
