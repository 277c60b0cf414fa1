"""The simulation's eyes are open: a defect that is planted is found, and what is sound is not suspected."""

import pytest
from tests.simulation.mutants import MUTANTS, CredulousOrchestrator

from lumina.replay.simulation.casting import Casting
from lumina.replay.simulation.running import simulate
from lumina.replay.simulation.scenarios import SCENARIOS, script_of
from lumina.replay.simulation.script import FAULTS, Damage, from_json, to_json
from lumina.replay.simulation.shrinking import shrink

SEEDS_MAX = 40


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_defect_is_found(name: str) -> None:
    """Each mutant breaks something that is looked at, within a few seeds."""
    scenario, kinds, casting = MUTANTS[name]
    for seed in range(1, SEEDS_MAX + 1):
        if simulate(script_of(seed, scenario=scenario, kinds=kinds), casting=casting).failures:
            return
    pytest.fail(f"{SEEDS_MAX} seeds of {scenario} did not notice an agent that {name}")


def test_a_damaged_record_is_named_by_verify_and_stops_those_who_read_it() -> None:
    """A changed bit is found in its place, whatever record it strikes; processes that start again stop there."""
    struck = 0
    for seed in range(1, 13):
        script = script_of(seed, scenario="damage")
        assert any(isinstance(fault, Damage) for fault in script.faults)
        outcome = simulate(script)
        assert not outcome.failures, (seed, outcome.failures)
        struck += outcome.records > 0
    assert struck == 12


def test_a_script_shrinks_to_what_is_needed() -> None:
    """What has no part in a failure is left out: here no fault at all is needed."""
    casting = Casting(orchestrator=CredulousOrchestrator)
    script = script_of(1, scenario="storm")
    assert len(script.faults) > 2
    kind = simulate(script, casting=casting).failures[0].kind
    small = shrink(script, fails=lambda each: kind in {f.kind for f in simulate(each, casting=casting).failures})
    assert not small.faults
    assert len(small.jobs) == 1
    assert small.calm
    assert kind in {failure.kind for failure in simulate(small, casting=casting).failures}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_script_survives_being_written_down(scenario: str) -> None:
    """What is printed for a failing seed can be read again, and is the same script."""
    for seed in range(1, 30):
        script = script_of(seed, scenario=scenario)
        assert from_json(to_json(script)) == script


def test_a_fault_that_is_left_out_does_not_move_the_others() -> None:
    """Everything is drawn by name: with only some kinds allowed, machine and requests stay as they are."""
    whole, none = script_of(5), script_of(5, kinds=())
    assert whole.machine == none.machine
    assert whole.jobs == none.jobs
    assert not none.faults


def test_every_kind_of_fault_is_drawn() -> None:
    """No kind is forgotten by the scenarios."""
    drawn = {
        type(fault)
        for scenario in ("storm", "damage")
        for seed in range(1, 60)
        for fault in script_of(seed, scenario=scenario).faults
    }
    assert drawn == set(FAULTS.values())
