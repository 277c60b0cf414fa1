"""Where Lumina keeps things: one folder, and what lies where in it."""

import os
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lumina.cli.errors import UsageProblem


@dataclass(frozen=True, kw_only=True)
class Home:
    """The data folder of one installation.

    `$LUMINA_HOME`, else `$XDG_DATA_HOME/lumina`, else `~/.local/share/lumina`.
    """

    root: Path

    @property
    def node_file(self) -> Path:
        """The node's configuration, written by the user."""
        return self.root / "node.toml"

    @property
    def specialists(self) -> Path:
        """A file dropped here is one more specialist."""
        return self.root / "specialists"

    @property
    def runtime(self) -> Path:
        """Where model processes have their sockets: a short path, as a socket's may have 107 bytes at most."""
        name = sha256(str(self.root).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"lumina-{os.getuid()}-{name}"

    @property
    def logs(self) -> Path:
        """What each agent process says, one file each."""
        return self.root / "logs"

    @property
    def system_file(self) -> Path:
        """What the running supervisor has under it."""
        return self.root / "system.json"

    @property
    def start_file(self) -> Path:
        """Locked by a command while it finds out whether a system runs, and starts one if not."""
        return self.root / "start.lock"

    @property
    def joined_file(self) -> Path:
        """Locked (shared) by every command that uses a system which another one started."""
        return self.root / "joined.lock"

    @property
    def checkpoints(self) -> Path:
        """How far each process knows the log to reach."""
        return self.root / "checkpoints"

    @property
    def imports(self) -> Path:
        """Files of runs that were recorded elsewhere."""
        return self.root / "imports"

    @property
    def projections(self) -> Path:
        """The disposable database of the views."""
        return self.root / "projections.sqlite"

    def ensure(self) -> None:
        """Create the folders, private to the user. Raises UsageProblem when they can't be at this place."""
        for folder in (self.root, self.logs, self.specialists, self.checkpoints):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError, PermissionError) as error:
                said = f"{folder}: {error.strerror}; give another data folder with --home or LUMINA_HOME"
                raise UsageProblem(said) from error


def find_home(given: Path | None) -> Home:
    """Return the data folder that was asked for, or the default one."""
    if given is not None:
        return Home(root=given.expanduser().absolute())
    if named := os.environ.get("LUMINA_HOME"):
        return Home(root=Path(named).expanduser().absolute())
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Home(root=Path(base).expanduser().absolute() / "lumina")
