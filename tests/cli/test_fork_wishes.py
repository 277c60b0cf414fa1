"""What `lumina fork --set` and `--role` take, and what they say of anything else."""

import pytest

from lumina.cli.errors import UsageProblem
from lumina.cli.fork_wishes import options_of, pair_of


def test_values_are_read() -> None:
    """Each as its field has it."""
    assert options_of(["attempts=3", "timeout=1.5", "hosts=a, b", "plan=no"]) == {
        "attempts_max": 3,
        "timeout_ms": 1500,
        "hosts": ["a", "b"],
        "plan": False,
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("attempts=many", "--set attempts=many: give a whole number from 1 to 99"),
        ("attempts=0", "--set attempts=0: give a whole number from 1 to 99"),
        ("tokens=10000001", "--set tokens=10000001: give a whole number from 0 to 10,000,000"),
        ("timeout=nan", "--set timeout=nan: give seconds from 0 to 86,400"),
        ("timeout=86401", "give seconds from 0 to 86,400"),
        ("seed=-1", "give a whole number from 0 to 2,147,483,647"),
        ("cloud=maybe", "give yes or no"),
    ],
)
def test_a_wrong_value_is_told_what_is_right(setting: str, words: str) -> None:
    """In the user's words: no names of fields, nothing about how it is checked."""
    with pytest.raises(UsageProblem) as refused:
        options_of([setting])
    assert words in str(refused.value)
    assert "_max" not in str(refused.value)


def test_half_a_pair_is_told_how_to_write_it() -> None:
    """With an example that the caller chooses."""
    with pytest.raises(UsageProblem, match="for instance --role specialist=demo"):
        pair_of("specialist", option="--role", example="specialist=demo")
