"""The `lumina` command: registers all commands and runs the one that was asked for."""

import logging
import os
import sys

import structlog

from lumina.cli import catalogues, demo, look, proof, run, system
from lumina.cli.app import app

__all__ = ["catalogues", "demo", "look", "proof", "run", "system"]


def main() -> None:
    """Run the command line. What parts of the system say for operators goes to standard error, if it is grave."""
    level = logging.getLevelNamesMapping().get(os.environ.get("LUMINA_LOG", "").upper(), logging.ERROR)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    app()
