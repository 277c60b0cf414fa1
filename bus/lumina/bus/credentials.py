"""Who is who on the NATS server: one nkey per role, kept in files that only the owner can read.

    <home>/nats/keys/<role>.nk      mode 0600 in a folder of mode 0700; the seed, as `nats --nkey FILE` takes it

The server knows the public halves only. Keys are made once and kept, so that processes survive a restart of it.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any, Final

import nkeys

from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import CredentialsMissing
from lumina.bus.permissions import AGENT_ROLES, CONSUMER_PREFIX

ADMIN: Final = "admin"
"""Creates streams and consumers when a system starts; no agent has it."""
CURATOR: Final = "curator"
"""Creates the mirrors in the account of the external consumers."""
SYSTEM: Final = "system"
"""The NATS system account: for operators' tools such as `nats server report`."""
BUILT_IN_ROLES: Final = (ADMIN, CURATOR, SYSTEM, *AGENT_ROLES)

SEED_BYTES: Final = 32
CONSUMER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def nats_folder(home: Path) -> Path:
    """Return where everything of the embedded server lives."""
    return home / "nats"


def keys_folder(home: Path) -> Path:
    """Return where the seeds are."""
    return nats_folder(home) / "keys"


def ensure_keys(home: Path) -> dict[str, str]:
    """Make the keys that are not there yet and return every role's public key, external consumers included."""
    for role in BUILT_IN_ROLES:
        make_key(home, role=role)
    return {path.stem: public_key(path) for path in sorted(keys_folder(home).glob("*.nk"))}


def make_key(home: Path, *, role: str) -> Path:
    """Make the key of `role` unless there is one, and return its file."""
    folder = keys_folder(home)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = folder / f"{role}.nk"
    if path.exists():
        path.chmod(0o600)
        return path
    seed: bytes = nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    write_private(path, content=seed + b"\n")
    return path


def make_consumer_key(home: Path, *, name: str) -> Path:
    """Make the key of an external consumer and return its file.

    Raises:
        ValueError: The name is not 1 to 40 lower-case letters, digits and hyphens.
    """
    if not CONSUMER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't name a consumer: use 1 to 40 lower-case letters, digits and hyphens")
    return make_key(home, role=consumer_role(name))


def consumer_role(name: str) -> str:
    """Return the role, and the user name, of the external consumer `name`."""
    return f"{CONSUMER_PREFIX}{name}"


def load_endpoint(home: Path, *, role: str, url: str) -> Endpoint:
    """Return how `role` connects to the server at `url`.

    Raises:
        CredentialsMissing: That role has no key in this data folder, or what is there is none.
    """
    path = keys_folder(home) / f"{role}.nk"
    try:
        seed = path.read_text().strip()
    except FileNotFoundError as error:
        raise CredentialsMissing(
            f"{role} has no key in {keys_folder(home)}; start the system once, or `lumina credentials consumer NAME`"
        ) from error
    public_key(path)
    return Endpoint(url=url, name=role, seed=seed)


def public_key(path: Path) -> str:
    """Return the public half of the seed in `path`.

    Raises:
        CredentialsMissing: The file does not hold a user's seed.
    """
    try:
        pair = nkeys.from_seed(bytearray(path.read_bytes().strip()))
        public: Any = pair.public_key  # bytes, whatever its type hints say
    except (nkeys.NkeysError, ValueError) as error:
        raise CredentialsMissing(f"{path} does not hold an nkey seed: delete it, and a new one is made") from error
    return str(public, "ascii")


def write_private(path: Path, *, content: bytes) -> None:
    """Put `content` into `path` at once, readable by the owner only; a reader sees the old file or the new one."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
