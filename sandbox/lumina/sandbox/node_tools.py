"""Finds ESLint and GSAP, which `npm ci` installs beside `node/package.json`, or where LUMINA_NODE_MODULES says."""

import os
from pathlib import Path
from typing import Final

from lumina.sandbox.errors import NodeToolsMissing

VARIABLE: Final = "LUMINA_NODE_MODULES"
PACKAGE_FOLDER: Final = Path(__file__).parent / "node"
CONFIGURATION: Final = PACKAGE_FOLDER / "eslint.config.mjs"


def node_modules() -> Path:
    """Return the folder `node_modules`.

    Raises:
        NodeToolsMissing: A package is not there; the command installs it.
    """
    folder = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else PACKAGE_FOLDER / "node_modules"
    for package in ("eslint", "gsap", "globals", "@eslint/js"):
        if not (folder / package / "package.json").is_file():
            raise NodeToolsMissing(
                f"{package} is not installed (looked in {folder})",
                command=f"npm ci --ignore-scripts --prefix {PACKAGE_FOLDER}",
            )
    return folder.resolve()
