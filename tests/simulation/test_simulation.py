"""Production agents and runners against faults: a fixed set of seeds, a fresh one, and all failures of the past."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lumina.replay.simulation.running import Outcome, simulate
from lumina.replay.simulation.scenarios import SCENARIOS, script_of
from lumina.replay.simulation.script import Script

TROPHIES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("trophies.toml").read_text())["trophy"]
FIXED = range(1, 9)
FRESH = 12


def check(outcome: Outcome, *, command: str) -> None:
    """Fail with what broke, and with the one command that shows it again."""
    assert not outcome.failures, "\n".join(
        [f"again, with the smallest script: {command}", *(f"{each.kind}: {each.reason}" for each in outcome.failures)]
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_histories_keep_every_law(scenario: str) -> None:
    """The same seeds each time: whatever goes wrong, no law is broken, and every run ends."""
    for seed in FIXED:
        command = f"lumina simulate --scenario {scenario} --seed {seed}"
        check(simulate(script_of(seed, scenario=scenario)), command=command)


def test_fresh_histories_keep_every_law() -> None:
    """Other seeds each time; one that fails is named."""
    first = int.from_bytes(os.urandom(4), "big")
    for seed in range(first, first + FRESH):
        scenario = ("standard", "storm")[seed % 2]
        command = f"lumina simulate --scenario {scenario} --seed {seed}"
        check(simulate(script_of(seed, scenario=scenario)), command=command)


@pytest.mark.parametrize("trophy", TROPHIES, ids=lambda trophy: str(trophy["name"]))
def test_what_failed_once_does_not_fail_again(trophy: dict[str, Any]) -> None:
    """Each bug that simulation found stays fixed: its script, or its seed, is played for ever."""
    assert trophy["what"], "a sentence says what went wrong"
    if "script" in trophy:
        script = msgspec.convert(trophy["script"], Script)
        check(simulate(script), command=f"the script {trophy['name']!r} of tests/simulation/trophies.toml")
    for seed in trophy.get("seeds", ()):
        command = f"lumina simulate --scenario {trophy['scenario']} --seed {seed}"
        check(simulate(script_of(seed, scenario=trophy["scenario"])), command=command)


def test_the_same_seed_gives_the_same_history() -> None:
    """Twice in one process, and in others in which sets and addresses have another order: equal to the byte."""
    seeds = ((2, "storm"), (3, "crowd"), (4, "twins"))
    own = [simulate(script_of(seed, scenario=scenario)).digest for seed, scenario in seeds]
    assert own == [simulate(script_of(seed, scenario=scenario)).digest for seed, scenario in seeds]
    program = (
        "from lumina.replay.simulation.running import simulate\n"
        "from lumina.replay.simulation.scenarios import script_of\n"
        f"print(*[simulate(script_of(seed, scenario=scenario)).digest for seed, scenario in {seeds!r}])"
    )
    for hash_seed in ("1", "77"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        said = subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True, text=True)
        assert said.stdout.split() == own


def test_nothing_goes_wrong_where_nothing_is_put_wrong() -> None:
    """Without faults no process dies and nothing is started twice; only models and tools have their moods."""
    for seed in range(1, 15):
        outcome = simulate(script_of(seed, scenario="calm"))
        check(outcome, command=f"lumina simulate --scenario calm --seed {seed}")
        assert outcome.restarts == 0
        assert outcome.statuses
