"""Which code decides here: two processes that report the same decide alike, on any machine.

The digest is over the source of everything that a decision, an event's bytes or a derived effect depends on.
"""

from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "lumina-agents"
DECIDING: Final = ("events", "agents", "models", "sandbox")
"""Sub-packages whose Python files, and specialists, are looked at; only the files directly in them."""
DIGEST_CHARACTERS: Final = 12


@cache
def code_version() -> str:
    """Return for instance `0.1.0+3f2a9c1b7d04`."""
    digest = sha256()
    for package in DECIDING:
        folder = Path(str(import_module(f"lumina.{package}.errors").__file__)).parent
        for path in sorted(folder.glob("*.py")):
            digest.update(f"{package}/{path.name}\n".encode())
            digest.update(sha256(path.read_bytes()).digest())
    return f"{version(DISTRIBUTION)}+{digest.hexdigest()[:DIGEST_CHARACTERS]}"
