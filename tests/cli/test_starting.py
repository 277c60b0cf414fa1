"""Before and after a command: what it can't read is refused, what it can't write is said, Ctrl-C is quiet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "lumina.cli")
FULL = Path("/dev/full")
INTERRUPTED = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "lumina.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from lumina.cli.main import main
main()
"""


def ended(*arguments: str | bytes, home: bytes = b"home", unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command with standard output on a disk that is full."""
    environ = {**os.environb, b"LUMINA_HOME": home, b"PYTHONUNBUFFERED": unbuffered.encode()}
    with FULL.open("wb") as full:
        return subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environ, timeout=90
        )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((b"run", b"caf\x9b"), r"lumina: argument 2 is not valid UTF-8: caf\x9b"),
        ((b"verify", b"\x9bzz"), r"lumina: argument 2 is not valid UTF-8: \x9bzz"),
        ((b"fork", b"r-1@3", b"--set", b"hosts=\xc3\xa9\x9b"), r"lumina: argument 4 is not valid UTF-8: hosts=é\x9b"),
    ],
)
def test_arguments_that_are_no_text(arguments: tuple[bytes, ...], sentence: str) -> None:
    """Bytes that are not UTF-8: exit code 2 and a sentence that names the argument and shows it escaped."""
    done = ended(*arguments)
    assert done.returncode == 2
    assert done.stderr == sentence + "\n"


def test_a_data_folder_whose_name_is_no_text() -> None:
    """The environment is looked at like the arguments."""
    done = ended("ps", home=b"/tmp/\x9b")
    assert done.returncode == 2
    assert done.stderr == "lumina: LUMINA_HOME is not valid UTF-8: /tmp/\\x9b\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--help",), ("specialists",), ("schema",), ("ps",), ("ps", "--json")], ids=str)
def test_output_that_cannot_be_written(arguments: tuple[str, ...], unbuffered: str) -> None:
    """On a full disk every command ends with one sentence and exit code 1, whoever writes and whatever is buffered."""
    done = ended(*arguments, unbuffered=unbuffered)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("lumina: ")
    assert done.stderr.endswith("can't be written: No space left on device\n")
    assert done.stderr.count("\n") == 1


def test_progress_that_cannot_be_shown_stops_nothing() -> None:
    """Standard error on a full disk, or closed outputs: results and exit code are the same."""
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" 2>/dev/full && "$@" >&- 2>&-', "sh", *COMMAND, "ps"],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done
    assert done.stderr == ""


def test_an_interrupt_while_it_is_imported() -> None:
    """Ctrl-C before the command has begun ends it with 130, without a word."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
