"""What foreign text can do to a terminal, and to the files beside the code: nothing."""

import os
from hashlib import sha256
from io import StringIO
from pathlib import Path

import pytest
from rich.live import Live
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from lumina.bus.memory import MemoryBlobs
from lumina.cli.app import err, out
from lumina.cli.results import RunOutcome, StepOutcome, write_files
from lumina.cli.terminal import Terminal
from lumina.events.contract import Language
from lumina.events.values import BlobRef, FileRef

HOSTILE = (
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIH4=\x07",
    "\x9b2J",
    "\r\x08\x7f",
    "\u202egnp.exe",
    "\u2066hidden\u2069",
)


def shown(*things: object) -> str:
    """Return the characters that reach a terminal."""
    file = StringIO()
    console = Terminal(file=file, force_terminal=True, width=200, highlight=False)
    for thing in things:
        console.print(thing, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_foreign_text_is_only_text(hostile: str) -> None:
    """As a string, styled, as code, in a table: every control, format or direction character is written out."""
    table = Table("heading")
    table.add_row(Text(hostile))
    for thing in (escape(hostile), Text(hostile, style="bold red"), Syntax(f"# {hostile}", "python"), table):
        seen = shown(thing)
        assert hostile not in seen
        assert not set(seen) & (set(hostile) - {"\x1b"} - set(map(chr, range(0x20, 0x7F))))
        assert "\\x1b" in seen or "\x1b" not in hostile


def test_styles_and_moves_of_our_own_remain() -> None:
    """Colours and the redrawing of a live view are not foreign."""
    assert "\x1b[1;31mred" in shown(Text("red", style="bold red"))
    file = StringIO()
    console = Terminal(file=file, force_terminal=True, width=80)
    with Live(Text("one"), console=console, auto_refresh=False) as live:
        live.update(Text("two"), refresh=True)
    assert "\x1b[2K" in file.getvalue()
    assert "\\x1b" not in file.getvalue()


def test_all_commands_print_through_it() -> None:
    """Results and problems alike."""
    assert isinstance(out(), Terminal)
    assert isinstance(err(), Terminal)


@pytest.mark.anyio
async def test_an_artifact_does_not_replace_the_validated_code(tmp_path: Path) -> None:
    """A program that writes a file with its own name leaves the code as it was validated, and the file beside it."""
    blobs = MemoryBlobs()

    async def stored(content: bytes) -> BlobRef:
        return BlobRef(digest=await blobs.put(content), size=len(content), media_type="text/x-python")

    step = StepOutcome(
        number=1,
        kind="a/../layers",
        brief="",
        language=Language.PYTHON,
        accepted=True,
        code=await stored(b"good = 1\n"),
        artifacts=(FileRef(name="a----layers.PY", blob=await stored(b"bad = 1\n")),),
    )
    written = await write_files(RunOutcome(run="r-1", steps=[step]), blobs=blobs, folder=tmp_path / "out")
    assert {path.name: path.read_bytes() for path in written} == {
        "a----layers.py": b"good = 1\n",
        "file-a----layers.PY": b"bad = 1\n",
    }
    assert all(path.parent == tmp_path / "out" for path in written)
    assert sha256(written[0].read_bytes()).hexdigest() == step.code.digest  # type: ignore[union-attr] # set above


def test_a_reader_that_goes_away_is_an_error_of_its_own() -> None:
    """`lumina logs | head`: the console raises BrokenPipeError, which ends the command quietly, not SystemExit."""
    reads, writes = os.pipe()
    os.close(reads)
    with pytest.raises(BrokenPipeError), os.fdopen(writes, "w") as gone:
        Terminal(file=gone, highlight=False).print("a line")
