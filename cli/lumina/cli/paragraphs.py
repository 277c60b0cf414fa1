"""Joins the lines of each paragraph of a command's docstring, so that its help is wrapped by the terminal alone."""

from inspect import cleandoc

from lumina.cli.app import app


def join_lines() -> None:
    """Give every command that is registered its docstring as help, one line per paragraph."""
    for command in app.registered_commands:
        if command.help is None and command.callback is not None and command.callback.__doc__ is not None:
            paragraphs = cleandoc(command.callback.__doc__).split("\n\n")
            command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
