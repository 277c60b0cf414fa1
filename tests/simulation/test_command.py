"""`lumina simulate`: what it prints, what it takes, and how it says no."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lumina.cli.exits import Exit
from lumina.replay.simulation.scenarios import script_of
from lumina.replay.simulation.script import to_json


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "lumina.cli", "simulate", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_seeds_are_played_by_several_processes_and_counted() -> None:
    """Each seed once, whoever plays it; the history of a seed is the same in every process."""
    done = simulate("--seeds", "6", "--seed", "3", "--workers", "2", "--json")
    assert done.returncode == Exit.OK, done.stderr
    report = json.loads(done.stdout)
    assert report["seeds"] == 6
    assert report["failed"] == []
    assert report["records"] > 0


def test_a_script_that_was_written_down_is_played_again(tmp_path: Path) -> None:
    """What a failing seed prints can be saved and played."""
    path = tmp_path / "script.json"
    path.write_bytes(to_json(script_of(2, scenario="storm")))
    done = simulate("--script", str(path))
    assert done.returncode == Exit.OK, done.stdout
    assert "1 seed," in done.stdout
    assert "every history kept every law" in done.stdout


def test_what_it_does_not_know_is_named(tmp_path: Path) -> None:
    """Unknown scenarios and faults, files that are not there or no scripts: one sentence, exit code 2."""
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = 'one'\n")
    for options, word in (
        (("--scenario", "sunny"), "standard"),
        (("--faults", "crash,meteor"), "meteor"),
        (("--script", str(tmp_path / "none.json")), "none.json"),
        (("--script", str(broken)), "no script"),
    ):
        done = simulate(*options)
        assert done.returncode == Exit.USAGE, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_an_interrupted_simulation_says_so() -> None:
    """Ctrl-C: how many of how many were played, that it was interrupted, exit code 130, and no process is left."""
    command = [sys.executable, "-m", "lumina.cli", "simulate", "--seeds", "100000", "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    players: list[psutil.Process] = []
    while len(players) < 3 and time.monotonic() < deadline:  # two that play, and what multiprocessing has to tidy up
        time.sleep(0.05)
        players = psutil.Process(process.pid).children()
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, err
    assert "interrupted: " in out
    assert "of 100000 seeds were played" in out
    assert "every history" not in out
    assert "Traceback" not in err
    assert not psutil.wait_procs(players, timeout=20)[1]
