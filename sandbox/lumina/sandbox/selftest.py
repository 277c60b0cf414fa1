"""What the bubblewrap tier needs on a machine, and the test of its walls from inside before anything foreign runs."""

import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from lumina.events.contract import Language, Limits
from lumina.sandbox.policy import BWRAP_VERSION_MIN
from lumina.sandbox.port import DRIVERS, Ended, Job, Protection, Report, RunResult
from lumina.sandbox.rendering import sentence
from lumina.sandbox.seccomp import MACHINES

INSTALL_COMMAND: Final = "apt-get install -y bubblewrap"
NAMESPACES_COMMAND: Final = (
    "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
)
VARIABLES: Final = frozenset({"HOME", "LANG", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PWD", "TMPDIR"})
_PROBE_LIMITS: Final = Limits(wall_ms=10_000)


def obstacle() -> tuple[str, str] | None:
    """Return why bubblewrap can't be used here and the command that would change it; None when it can be tried."""
    if platform.machine() not in MACHINES:
        return f"the sandbox's system call filter is for x86_64, this machine is {platform.machine()}", "(none)"
    found = shutil.which("bwrap")
    if found is None:
        return "bubblewrap (bwrap), in which programs are run, is not installed", INSTALL_COMMAND
    if Path(found).stat().st_mode & stat.S_ISUID:
        return f"{found} is set-uid root, which opens holes that user namespaces do not have", f"chmod u-s {found}"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:3])
    if version < BWRAP_VERSION_MIN:
        wanted = ".".join(map(str, BWRAP_VERSION_MIN))
        return f"{sentence(said) or 'this bubblewrap'} is too old, {wanted} or newer is needed", INSTALL_COMMAND
    return None


@contextmanager
def canary() -> Iterator[tuple[tuple[int, str], str]]:
    """Offer what a program must not reach: (port, path) of a listener and a file, and the text in the file."""
    secret = os.urandom(16).hex()
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.NamedTemporaryFile("w") as kept:
        kept.write(secret)
        kept.flush()
        yield (listener.getsockname()[1], kept.name), secret


def job(listener: tuple[int, str]) -> Job:
    """Return the probe as a job."""
    port, path = listener
    return Job(
        command=("python", "-S", f"{DRIVERS}/harness/probe.py", str(port), path),
        language=Language.PYTHON,
        files=(),
        limits=_PROBE_LIMITS,
    )


def report(tier: str, result: RunResult, *, secret: str) -> Report:
    """Judge what the probe said. Pure."""
    if result.ended is Ended.BROKEN:
        return Report(tier=tier, available=False, reason=result.detail, command=_remedy(result.detail))
    try:
        found = msgspec.json.decode(result.stdout, type=dict[str, str])
    except msgspec.DecodeError:
        said = sentence((result.stderr or result.stdout).decode("utf-8", "replace"))
        return Report(tier=tier, available=False, reason=f"the self-test did not run: {said}", command="(none)")
    foreign = set(found.pop("environment").split(",")) - VARIABLES
    foreign = {name for name in foreign if not name.startswith("PYTHON")}
    descriptors = set(found.pop("descriptors").split(",")) - {"0", "1", "2", "3"}
    protections = [Protection(name=name, holds=not seen, detail=sentence(seen)) for name, seen in found.items()]
    protections.append(Protection(name="host environment", holds=not foreign, detail=",".join(sorted(foreign))))
    protections.append(Protection(name="open files", holds=not descriptors, detail=",".join(sorted(descriptors))))
    leaked = secret.encode() in result.stdout
    holes = [protection.name for protection in protections if not protection.holds]
    if holes or leaked:
        reason = f"the sandbox does not hold on this machine: {', '.join(holes) or 'host files'}"
        return Report(tier=tier, available=False, protections=tuple(protections), reason=reason, command="(none)")
    return Report(tier=tier, available=True, protections=tuple(protections))


def _remedy(detail: str) -> str:
    """Return the command that helps against what bubblewrap said."""
    if "namespace" in detail or "Operation not permitted" in detail or "uid map" in detail:
        return NAMESPACES_COMMAND
    return INSTALL_COMMAND
