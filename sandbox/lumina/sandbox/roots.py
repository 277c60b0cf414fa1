"""What of this machine a sandboxed program may see: interpreters, libraries and three Python packages.

Nothing of a home folder, of the checkout or of Lumina's data. An interpreter outside `/usr` is shown as
`/opt/python`, packages as `/opt/packages`, so that paths in tracebacks are the same everywhere.
"""

import shutil
import stat
import sys
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from lumina.sandbox.policy import Layout
from lumina.sandbox.port import DRIVERS

PACKAGES: Final = "/opt/packages"
_PROGRAMS: Final = "/opt/bin"
"""Links to the interpreters and tools, first in the path."""
PROGRAM_PACKAGES: Final = ("beautifulsoup4", "pillow", "requests")
"""What generated programs may import, with all that these need."""
LINTER_PACKAGES: Final = ("pylint",)
_SYSTEM_FOLDERS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
_ETC: Final = ("ld.so.cache", "localtime", "alternatives", "mime.types")


@cache
def program_layout(gsap: str | None = None) -> Layout:
    """Return what a generated program sees. `gsap` is the folder of that package, when it is there."""
    shown = () if gsap is None else ((gsap, f"{DRIVERS}/node_modules/gsap"),)
    return _layout(PROGRAM_PACKAGES, shown=shown, ruff=None)


@cache
def linter_layout(*, node_modules: str | None = None) -> Layout:
    """Return what the linters see: the same, and themselves."""
    shown: tuple[tuple[str, str], ...] = ()
    if node_modules is not None:
        configuration = str(Path(__file__).parent / "node" / "eslint.config.mjs")
        shown = ((node_modules, f"{DRIVERS}/node_modules"), (configuration, f"{DRIVERS}/eslint.config.mjs"))
    return _layout(PROGRAM_PACKAGES + LINTER_PACKAGES, shown=shown, ruff=find_ruff())


def _layout(packages: tuple[str, ...], *, shown: tuple[tuple[str, str], ...], ruff: str | None) -> Layout:
    binds: list[tuple[str, str]] = [("/usr", "/usr")]
    links: list[tuple[str, str]] = []
    for name in _SYSTEM_FOLDERS:
        folder = Path("/", name)
        if folder.is_symlink():
            links.append((str(folder.readlink()), str(folder)))
        elif folder.is_dir():
            binds.append((str(folder), str(folder)))
    binds += [(f"/etc/{name}", f"/etc/{name}") for name in _ETC if Path("/etc", name).exists()]
    binds += _packages(packages)
    programs: dict[str, str] = {}
    base, outside = Path(sys.base_prefix).resolve(), not Path(sys.base_prefix).resolve().is_relative_to("/usr")
    binds += _interpreter(base, programs) if outside else _system_interpreter(base, programs)
    binds += _node(programs)
    binds.append((str(Path(__file__).parent / "harness"), f"{DRIVERS}/harness"))
    binds += shown
    if ruff is not None:
        binds.append((ruff, "/opt/tools/ruff"))
        programs["ruff"] = "/opt/tools/ruff"
    links += [(path, f"{_PROGRAMS}/{name}") for name, path in programs.items()]
    links.append((programs["python"], f"{_PROGRAMS}/python3"))
    return Layout(
        binds=tuple(binds),
        links=tuple(links),
        path=(_PROGRAMS, "/usr/local/bin", "/usr/bin", "/bin"),
        packages=PACKAGES,
        hidden=tuple(_foreign_packages(outside=outside)),
        libraries="/opt/python/lib" if outside else "",
    )


def _system_interpreter(base: Path, programs: dict[str, str]) -> list[tuple[str, str]]:
    """Name the interpreter below `/usr`, which is shown anyway."""
    programs["python"] = str(base / "bin" / _PYTHON)
    return []


def _interpreter(base: Path, programs: dict[str, str]) -> list[tuple[str, str]]:
    """Show an installation outside `/usr` as `/opt/python`."""
    programs["python"] = f"/opt/python/bin/{_PYTHON}"
    libraries = base / "lib"
    shared = sorted(libraries.glob("libpython*.so*"))
    return [
        (str(base / "bin" / _PYTHON), programs["python"]),
        *((str(path.resolve()), f"/opt/python/lib/{path.name}") for path in shared),
        (str(libraries / _PYTHON), f"/opt/python/lib/{_PYTHON}"),
    ]


def _foreign_packages(*, outside: bool) -> list[str]:
    """Return, as seen inside, the folders of packages that are nobody's business but this machine's."""
    if outside:
        return [f"/opt/python/lib/{_PYTHON}/site-packages"]
    places = (
        "/usr/lib/python3/dist-packages",
        *(f"/usr/local/lib/{_PYTHON}/{name}-packages" for name in ("dist", "site")),
    )
    return [place for place in places if Path(place).is_dir()]


def _node(programs: dict[str, str]) -> list[tuple[str, str]]:
    found = shutil.which("node")
    if found is None:
        return []
    path = Path(found).resolve()
    if path.is_relative_to("/usr"):
        programs["node"] = str(path)
        return []
    programs["node"] = "/opt/tools/node"
    return [(str(path), "/opt/tools/node")]


def find_ruff() -> str | None:
    """Return where Ruff is: beside this interpreter, or in the path."""
    beside = Path(sys.executable).parent / "ruff"
    return str(beside) if beside.exists() else shutil.which("ruff")


def _packages(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the top-level files and folders of some distributions and of all that they require."""
    shown: dict[str, str] = {}
    for found in _closure(names):
        for file in found.files or ():
            top = file.parts[0]
            if top.startswith(("..", "__pycache__")) or top.endswith((".pth", ".dist-info")):
                continue
            shown[top] = str(Path(str(found.locate_file(top))).resolve())
    return [(source, f"{PACKAGES}/{top}") for top, source in sorted(shown.items())]


def _closure(names: tuple[str, ...]) -> list[Distribution]:
    """Return installed distributions and what they require on this machine, extras left out."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # an optional part, or one for another system
        required = found[name].requires or ()
        waiting.extend(_name_of(requirement) for requirement in required if "extra ==" not in requirement)
    return list(found.values())


def _name_of(requirement: str) -> str:
    """Return `soupsieve` for `soupsieve>1.2; python_version >= "3"`."""
    end = next((at for at, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end]


def writable_by_others(layout: Layout) -> str | None:
    """Return the first thing shown that anybody on this machine can change, or None."""
    for source, _ in layout.binds:
        mode = Path(source).stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return source
    return None
