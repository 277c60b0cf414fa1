"""What can be wrong before or around a run: each gets one clear sentence and the documented exit code."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from tests.system.command import Lumina, finished, sum_request, until

from lumina.bus.server import embedded_server
from lumina.bus.startup import find_nats_server
from lumina.models.node import DEMO_FILE

ASK = sum_request("any_1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", ""), "the request is empty; say what to do"),
        (("run", "  \n "), "the request is empty; say what to do"),
        (("run", "x" * 20_001), "the request has 20,001 characters, 20,000 are allowed; put long material into files"),
        (("run",), "give either a request or --file"),
        (("run", "--file", "nosuch.toml"), "nosuch.toml: can't be read"),
        (("run", "--kind", "poem", ASK), "no specialist answers the kind 'poem'; these do: animation"),
        (("run", "--with", "nosuch.png", ASK), "nosuch.png: can't be read"),
        (("run", "--timeout", "-1", ASK), "timeout_s: expected `float` > 0.0"),
        (("run", "--attempts", "0", ASK), "attempts_max: expected `int` >= 1"),
        (("run", "--model", "nosuch.gguf", ASK), "nosuch.gguf does not exist"),
        (("run", "--model-url", "nowhere", ASK), "--model-url: models[0].url: 'nowhere' is no http or https URL"),
        (("run", "--detach", ASK), "--detach needs a running system: start one with `lumina up --detach`"),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, tuple) else "",
)
def test_a_wrong_call(lumina: Lumina, arguments: tuple[str, ...], sentence: str) -> None:
    """One sentence on standard error, exit code 2, and nothing was started."""
    ended = lumina(*arguments)
    assert ended.code == 2, ended
    assert sentence in ended.err
    assert ended.err.count("\n") == 1
    assert not ended.out
    assert not lumina.processes()
    assert not (lumina.home / "nats").exists()


def test_a_task_file_with_a_fault(lumina: Lumina) -> None:
    """A key that is wrong or unknown is named with its place in the task file."""
    task = lumina.home.parent / "task.toml"
    for content, sentence in (
        ('request = "x"\nattempts_max = "many"\n', "$.attempts_max"),
        ('request = "x"\ntemprature = 1\n', "temprature"),
        ('request = "x\n', "line 1"),
    ):
        task.write_text(content)
        ended = lumina("run", "--file", "task.toml")
        assert ended.code == 2, ended
        assert sentence in ended.err


def test_a_truncated_model_file(lumina: Lumina, tmp_path: Path) -> None:
    """A model file that was not copied to its end is refused before anything starts."""
    (tmp_path / "short.gguf").write_bytes(DEMO_FILE.read_bytes()[:100_000])
    ended = lumina("run", "--model", str(tmp_path / "short.gguf"), ASK)
    assert ended.code == 2, ended
    assert "it is truncated" in ended.err
    assert "download or copy it again" in ended.err
    assert not lumina.processes()


@contextmanager
def _nats_server(*arguments: str) -> Iterator[str]:
    """Run somebody else's NATS server on a free port; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(find_nats_server()), "-a", "127.0.0.1", "-p", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert until(listens, within_s=10)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_nobody_at_the_nats_url(lumina: Lumina) -> None:
    """No server at the address: exit code 1 within seconds, naming the address."""
    ended = lumina("run", "--nats-url", "nats://127.0.0.1:9", ASK)
    assert ended.code == 1, ended
    assert "no NATS server at nats://127.0.0.1:9" in ended.err
    assert not lumina.processes()


def test_a_nats_server_without_jetstream(lumina: Lumina) -> None:
    """A server that keeps nothing is refused, and the sentence says what to enable."""
    with _nats_server() as url:
        ended = lumina("run", "--nats-url", url, ASK)
    assert ended.code == 1, ended
    assert "JetStream" in ended.err
    assert "enable" in ended.err
    assert not lumina.processes()


def test_somebody_elses_nats_server(lumina: Lumina, zoo: str, tmp_path: Path) -> None:
    """A run on a foreign JetStream server completes; when that goes away for good, the command says so and ends."""
    with _nats_server("-js", "-sd", str(tmp_path / "js")) as url:
        ended = lumina("run", "--nats-url", url, "--model-url", f"{zoo}/adds/v1", ASK)
        assert ended.code == 0, ended
        process = lumina.start("run", "--json", "--nats-url", url, "--model-url", f"{zoo}/slow/v1", ASK)
        assert process.stdout is not None
        assert any("lease.granted.v1" in line for line in process.stdout)
    away = finished(process, timeout_s=60)
    assert away.code == 1, away
    assert f"the NATS server at {url} has been away" in away.err
    assert "nothing recorded is lost" in away.err
    assert lumina.gone(within_s=10), lumina.processes()


def test_a_corrupt_data_folder(lumina: Lumina, zoo: str) -> None:
    """A log whose own description is damaged is not replaced by an empty one: every command says so and leaves it."""
    assert lumina("run", "--model-url", f"{zoo}/adds/v1", ASK).code == 0
    described = next((lumina.home / "nats" / "js").rglob("LUMINA_LOG/meta.inf"))
    content = described.read_bytes()
    described.write_bytes(b"")
    for arguments in (("run", "--model-url", f"{zoo}/adds/v1", ASK), ("runs",)):
        ended = lumina(*arguments)
        assert ended.code == 1, ended
        assert str(lumina.home) in ended.err
        assert ended.err.rstrip().count("\n") == ended.err.count("\nstarting"), ended.err
        assert not lumina.processes()
    described.write_bytes(content)
    assert "completed" in lumina("runs").out


def test_no_room_for_blobs(lumina: Lumina, zoo: str, tmp_path: Path) -> None:
    """A store that is full: the sentence says so, exit code 1, and what is in the log stays and can be read."""

    async def make_small() -> None:
        async with embedded_server(lumina.home, store_bytes_max=4 * 2**20):
            await anyio.lowlevel.checkpoint()

    anyio.run(make_small)
    assert lumina("run", "--model-url", f"{zoo}/adds/v1", ASK).code == 0
    (tmp_path / "large.bin").write_bytes(b"x" * (6 * 2**20))
    ended = lumina("run", "--model-url", f"{zoo}/adds/v1", "--with", str(tmp_path / "large.bin"), ASK)
    assert ended.code == 1, ended
    assert "full" in ended.err or "room" in ended.err, ended
    assert [row["phase"] for row in lumina("runs", "--json").events] == ["completed"]
    assert lumina("verify", "--all").code == 0


def test_no_place_for_the_result(lumina: Lumina, zoo: str, tmp_path: Path) -> None:
    """When the folder for the code can't be written, that is said; the run stands in the log and can be shown."""
    (tmp_path / "file").write_text("in the way")
    ended = lumina("run", "--model-url", f"{zoo}/adds/v1", "--output", str(tmp_path / "file"), ASK)
    assert ended.code == 1, ended
    assert str(tmp_path / "file") in ended.err
    run = lumina("runs", "--json").events[0]["run"]
    assert "def any_1" in lumina("show", str(run)).out


def test_a_home_that_cannot_be(lumina: Lumina, tmp_path: Path) -> None:
    """A data folder that can't be made is named."""
    (tmp_path / "file").write_text("in the way")
    for arguments in (("up",), ("runs",), ("run", ASK)):
        ended = lumina(*arguments, "--home", str(tmp_path / "file" / "home"))
        assert ended.code == 2, ended
        assert str(tmp_path / "file") in ended.err


def test_a_file_without_a_slash_and_a_full_disk(lumina: Lumina, zoo: str) -> None:
    """A name that no run has is that of a file in this folder; a dataset that can't be written ends in a sentence."""
    assert lumina("run", "--model-url", f"{zoo}/adds/v1", ASK).code == 0
    run = str(lumina("runs", "--json").events[0]["run"])
    assert lumina("export", run, "--output", "one.lumina").code == 0
    assert lumina("export", "--all", "--output", "all.lumina").code == 0
    for name in ("one", "all"):
        (lumina.home.parent / f"{name}.lumina").rename(lumina.home.parent / f"{name}.bin")
    for name in ("one.bin", f"one.bin#{run}", "all.bin", f"all.bin#{run}"):
        assert lumina("verify", name).code == 0, name
    (lumina.home.parent / "rows").write_text(lumina("dataset", run).out)
    assert lumina("dataset", "verify", "rows", "--from", "one.bin").code == 0
    (lumina.home.parent / run).write_text("called like a run, which comes first")
    assert lumina("verify", run).code == 0
    missing = lumina("verify", "two.bin")
    assert missing.code == 2
    assert "no run is called 'two.bin'" in missing.err
    assert "nor is there a file of this name" in missing.err
    command = [sys.executable, "-m", "lumina.cli", "dataset", "--all", "--home", str(lumina.home)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=90)
    assert (done.returncode, done.stderr) == (
        1,
        "lumina: standard output can't be written: No space left on device\n",
    )


def test_a_damaged_log_names_the_way_out(lumina: Lumina, zoo: str) -> None:
    """What an agent finds when it starts ends `run` and `up` with 5 and one sentence that names `lumina repair`."""
    assert lumina("run", "--model-url", f"{zoo}/adds/v1", ASK).code == 0
    lumina.end()
    for checkpoint in (lumina.home / "checkpoints").iterdir():
        checkpoint.unlink()  # they would find it before any agent does
    (block,) = (lumina.home / "nats" / "js").rglob("LUMINA_LOG/msgs/*.blk")
    content = bytearray(block.read_bytes())
    content[content.index(b'"type":"lease.granted') + 9] ^= 1
    block.write_bytes(content)
    for arguments in (("run", ASK), ("up", "--detach"), ("up",)):
        ended = lumina(*arguments)
        assert ended.code == 5, ended
        said = ended.err.splitlines()[-1]
        assert said.startswith("lumina: record ")
        assert said.count("lumina") == 2
        assert "`lumina repair`" in said


def test_up_is_stopped_while_it_starts(lumina: Lumina) -> None:
    """Ctrl-C at once after `lumina up` leaves nothing behind."""
    up = lumina.start("up")
    assert until((lumina.home / "nats" / "lock").exists, within_s=30)
    up.send_signal(signal.SIGINT)
    assert finished(up, timeout_s=30).code in {0, 130}
    assert lumina.gone(within_s=10), lumina.processes()
