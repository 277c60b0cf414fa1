"""The `lumina` command: registers the commands and runs the one that was asked for."""

import logging
import os
import sys
from importlib import import_module
from typing import Final

import structlog

from lumina.cli.app import app

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
            return
    for module in MODULES:
        import_module(f"lumina.cli.{module}")


def main() -> None:
    """Run the command line. What parts of the system say for operators goes to standard error, if it is grave."""
    level = logging.getLevelNamesMapping().get(os.environ.get("LUMINA_LOG", "").upper(), logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    register("" if completing else "".join(sys.argv[1:2]))
    app()
