"""The rules of the bubblewrap tier as data: limits and layout in, arguments and a start script out. Pure.

The root is read-only and made of the host's programs and libraries alone. What a program can write to are three tmpfs
of fixed size. The script sets the resource limits, says that everything stands, and waits for the word to go: until
then nothing foreign runs, so that the parent can take hold of `/code` and of the sandbox's `/proc` first.
"""

from dataclasses import dataclass
from typing import Final

from lumina.events.contract import Language, Limits
from lumina.sandbox.port import CODE, SHARED, TEMPORARY, File

MEBIBYTE: Final = 2**20
SANDBOX_ID: Final = 64990
"""User and group that a program sees as its own. Not `nobody`, which many things share."""
BWRAP_VERSION_MIN: Final = (0, 8, 0)
"""The first with `--disable-userns` and `--size`."""

TMP_BYTES_MAX: Final = 64 * MEBIBYTE
SHARED_BYTES_MAX: Final = 32 * MEBIBYTE
INODES_MAX: Final = 4096
"""In each writable folder."""
DESCRIPTORS_MAX: Final = 256
STACK_BYTES_MAX: Final = 8 * MEBIBYTE
RESERVE_BYTES: Final = {Language.PYTHON: 1024 * MEBIBYTE, Language.JAVASCRIPT: 2048 * MEBIBYTE}
"""Address space that a process may set aside beyond its memory: stacks of threads, Node's heap. What is really used is
the watchdog's business; this limit stops single huge requests at once."""
NODE_HEAP_SHARE: Final = 0.75
CAPTURE_HEAD_BYTES: Final = 512 * 1024
CAPTURE_TAIL_BYTES: Final = 64 * 1024
WATCH_INTERVAL_S: Final = 0.015

READY: Final = b"ready\n"
GO: Final = b"go\n"
_START: Final = """set -e
ulimit -c 0; ulimit -l 0; ulimit -n {descriptors}; ulimit -s {stack_kib}; ulimit -t {cpu_s}
ulimit -f {file_blocks}; ulimit -d {data_kib}
printf 'ready\\n'
read -r word
input=$1; shift
exec "$@" <"$input"
"""

PASSWD: Final = f"sandbox:x:{SANDBOX_ID}:{SANDBOX_ID}:sandbox:{TEMPORARY}:/bin/sh\n"
GROUP: Final = f"sandbox:x:{SANDBOX_ID}:\n"
HOSTS: Final = "127.0.0.1 localhost\n::1 localhost\n"
NSSWITCH: Final = "passwd: files\ngroup: files\nhosts: files\n"
SYSTEM_FILES: Final = {
    "/etc/passwd": PASSWD,
    "/etc/group": GROUP,
    "/etc/hosts": HOSTS,
    "/etc/nsswitch.conf": NSSWITCH,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What of the host a program can see, all of it read-only.

    Attributes:
        binds: (path on the host, path inside).
        links: (target, path inside).
        path: Folders in which programs are found, inside.
        packages: Folder with the Python packages, inside.
        hidden: Folders inside what is shown that are covered with empty ones.
        libraries: Folder with shared libraries, empty when the usual ones do.
    """

    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    path: tuple[str, ...]
    packages: str
    hidden: tuple[str, ...] = ()
    libraries: str = ""


@dataclass(frozen=True, kw_only=True)
class Descriptors:
    """The open files that bubblewrap is handed: numbers, and where their contents go inside."""

    seccomp: int
    status: int
    placed: tuple[tuple[int, str], ...]


def arguments(
    layout: Layout, *, limits: Limits, descriptors: Descriptors, environment: dict[str, str], given_bytes: int
) -> list[str]:
    """Return bubblewrap's arguments up to the `--` before the command.

    `given_bytes` is the size of the files that are placed into `/code`.
    """
    words = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"]
    words += ["--uid", str(SANDBOX_ID), "--gid", str(SANDBOX_ID), "--hostname", "sandbox", "--cap-drop", "ALL"]
    for source, target in layout.binds:
        words += ["--ro-bind", source, target]
    for folder in layout.hidden:
        words += ["--size", "4096", "--perms", "0555", "--tmpfs", folder, "--remount-ro", folder]
    for target, link in layout.links:
        words += ["--symlink", target, link]
    words += ["--proc", "/proc", "--dev", "/dev", *tmpfs(SHARED, size=SHARED_BYTES_MAX), "--remount-ro", "/dev"]
    words += [*tmpfs(TEMPORARY, size=TMP_BYTES_MAX), *tmpfs(CODE, size=code_bytes_max(limits, given_bytes=given_bytes))]
    for number, target in descriptors.placed:
        words += ["--perms", "0644", "--file", str(number), target]
    words += ["--remount-ro", "/proc", "--remount-ro", "/", "--chdir", CODE]
    words += ["--seccomp", str(descriptors.seccomp), "--json-status-fd", str(descriptors.status)]
    for name, value in sorted(environment.items()):
        words += ["--setenv", name, value]
    return words


def tmpfs(target: str, *, size: int) -> list[str]:
    """Return the arguments for a writable folder of at most `size` bytes."""
    return ["--size", str(size), "--perms", "1777", "--tmpfs", target]


def code_bytes_max(limits: Limits, *, given_bytes: int) -> int:
    """Return the size of `/code`: room for what is put there and for what the program may leave."""
    return limits.file_bytes_max + given_bytes + MEBIBYTE


def environment(layout: Layout, *, language: Language, limits: Limits) -> dict[str, str]:
    """Return the whole environment of a program."""
    variables = {"PATH": ":".join(layout.path), "HOME": TEMPORARY, "LANG": "C.UTF-8", "TMPDIR": TEMPORARY}
    if layout.libraries:
        variables["LD_LIBRARY_PATH"] = layout.libraries
    match language:
        case Language.PYTHON:
            variables |= {
                "PYTHONPATH": layout.packages,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONHASHSEED": "0",
                "PYTHONNOUSERSITE": "1",
                "PYTHONUNBUFFERED": "1",
                "PYTHONUTF8": "1",
            }
        case Language.JAVASCRIPT:
            heap = int(limits.memory_bytes_max * NODE_HEAP_SHARE) // MEBIBYTE
            variables |= {"NODE_OPTIONS": f"--max-old-space-size={max(16, heap)}", "NO_COLOR": "1"}
    return variables


def start_script(limits: Limits, *, language: Language) -> str:
    """Return the shell script that sets the limits, says `ready`, waits for a line, and becomes its arguments.

    Its first argument is the file to read as standard input. All limits are hard.
    """
    return _START.format(
        descriptors=DESCRIPTORS_MAX,
        stack_kib=STACK_BYTES_MAX // 1024,
        cpu_s=2 * (limits.wall_ms // 1000 + 1),
        file_blocks=max(1, limits.file_bytes_max // 512),
        data_kib=(limits.memory_bytes_max + RESERVE_BYTES[language]) // 1024,
    )


def placed_bytes(files: tuple[File, ...]) -> int:
    """Return the size of files as a tmpfs counts them: in whole pages."""
    return sum((len(file.content) + 4095) // 4096 * 4096 for file in files)
