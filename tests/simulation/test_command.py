"""`lumina simulate`: what it prints, what it takes, and how it says no."""

import json
import subprocess
import sys
from pathlib import Path

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
    assert "1 seeds" in done.stdout
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
