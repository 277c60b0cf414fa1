"""The `lumina` command: registers all commands and runs the one that was asked for."""

from lumina.cli import catalogues, demo, look, proof, run, system
from lumina.cli.app import app

__all__ = ["catalogues", "demo", "look", "proof", "run", "system"]


def main() -> None:
    """Run the command line."""
    app()
