"""`lumina verify` as a user has it: a proof that holds, a byte that was changed, a decision that would differ now."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.system.command import MARK, Lumina, sum_request

from lumina.bus.gate import CheckpointFile

DRIVER = """
from lumina.agents import ladder
from lumina.cli.main import main

ladder.ANSWER_TOKENS_MAX //= 2  # a later version of Lumina allows shorter answers
main()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[tuple[Lumina, str]]:
    """Return a data folder with one completed run, where nothing runs, and the run's id."""
    command = Lumina(home=tmp_path_factory.mktemp("proof") / "home")
    ended = command("run", "--json", "--model-url", f"{zoo}/adds/v1", sum_request("proved_1"))
    assert ended.code == 0, ended
    yield command, str(ended.events[0]["subject"])
    command.end()


def test_a_run_is_proved(recorded: tuple[Lumina, str]) -> None:
    """Every decision of a run, and of the whole log, is made again and is equal: exit code 0."""
    lumina, run = recorded
    one = lumina("verify", run[:9])
    assert one.code == 0, one
    assert "ok" in one.out
    report = lumina("verify", "--all", "--invariants", "--json")
    assert report.code == 0, report
    assert report.events[0]["status"] == "ok"


def test_verify_wants_to_know_what(recorded: tuple[Lumina, str]) -> None:
    """Neither a run nor --all, or both, is a wrong call."""
    lumina, run = recorded
    assert lumina("verify").code == 2
    assert lumina("verify", run, "--all").code == 2


def test_a_decision_that_would_differ_now(recorded: tuple[Lumina, str]) -> None:
    """Code that decides otherwise than what stands in the log: exit code 3, with the first record that differs."""
    lumina, run = recorded
    asked = next(event for event in lumina("logs", run, "--json").events if event["type"] == "generation.requested.v1")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "verify", run],
        capture_output=True,
        text=True,
        env={**os.environ, "LUMINA_HOME": str(lumina.home), MARK: lumina.mark},
        check=False,
    )
    assert done.returncode == 3, done
    assert "Traceback" not in done.stderr
    assert f"record {asked['seq']}" in done.stdout
    assert re.search(r"recorded by \S+\+[0-9a-f]{12}, decided by \S+\+[0-9a-f]{12}", done.stdout), done
    assert "because of record" in done.stdout
    assert lumina("verify", run).code == 0


def _flip(home: Path, digest: str) -> None:
    """Change one letter of the body that follows a record's digest in the files of the log."""
    for block in sorted((home / "nats" / "js").rglob("LUMINA_LOG/msgs/*.blk")):
        content = bytearray(block.read_bytes())
        at = content.find(f"ce-luminadigest: {digest}".encode())
        if at >= 0:
            content[content.index(b'"type":', at) + len(b'"type":"r')] ^= 1
            block.write_bytes(content)
            return
    raise AssertionError("the record is in no block")


def test_a_log_that_was_put_back_is_damaged(
    recorded: tuple[Lumina, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of one process it is known that it saw more than there is: exit code 5, though nothing in the log is wrong."""
    lumina, run = recorded
    lumina.end()
    home = tmp_path_factory.mktemp("put-back") / "home"
    shutil.copytree(lumina.home, home)
    other = Lumina(home=home)
    kept = [CheckpointFile(path).load() for path in (home / "checkpoints").glob("*.json")]
    seen = max(checkpoint.seq for checkpoint in kept if checkpoint is not None)
    file = CheckpointFile(home / "checkpoints" / "governor.json")  # one role alone has seen more than there is
    own = file.load()
    assert own is not None
    file.save(msgspec.structs.replace(own, seq=seen + 5))
    for arguments in (("--all",), (run,)):
        ended = other("verify", *arguments, "--json")
        assert ended.code == 5, ended
        assert ended.events[0]["status"] == "damaged"
        assert ended.events[0]["damage"]["seq"] > seen
        assert "governor" in ended.events[0]["damage"]["reason"]
    other.end()


def test_one_changed_byte_names_the_record(recorded: tuple[Lumina, str]) -> None:
    """A byte of an event is changed on the disk: verify of the run and of all exit with 5 and name the record."""
    lumina, run = recorded
    target = next(event for event in lumina("logs", run, "--json").events if event["type"] == "execution.finished.v1")
    _flip(lumina.home, target["digest"])
    for arguments in ((run,), ("--all",)):
        ended = lumina("verify", *arguments)
        assert ended.code == 5, ended
        assert f"record {target['seq']}" in f"{ended.out}{ended.err}", ended
