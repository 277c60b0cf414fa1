"""The name of the code that decides."""

import re
import subprocess
import sys
from importlib.metadata import version

from lumina.agents.version import code_version


def test_it_names_the_release_and_the_source() -> None:
    """The version of the distribution and twelve digits of a digest over the deciding source."""
    assert re.fullmatch(re.escape(version("lumina-agents")) + r"\+[0-9a-f]{12}", code_version())


def test_every_process_finds_the_same() -> None:
    """It depends on nothing but the files."""
    found = subprocess.run(
        [sys.executable, "-c", "from lumina.agents.version import code_version; print(code_version())"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == code_version()
