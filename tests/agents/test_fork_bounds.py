"""A fork that no `lumina fork` made: too large for the log, or with a false account of its parent, it is refused.

What would follow from it is never decided, so it stops neither the orchestrator nor the governor.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.agents.fork_scene import World, accepted, begin, fork, forked_from, lived, of_type, outcome, planned, step_of
from tests.agents.run_scene import ROCK, SMALL, Scene, ended, said, specialists, submitted

from lumina.agents.closing import root_of
from lumina.agents.planning import SUBMISSION_BYTES_MAX
from lumina.bus.memory import PAYLOAD_BYTES_MAX
from lumina.events.codec import encode
from lumina.events.contract import Case
from lumina.events.generation import GenerationRequested
from lumina.events.lease import LeaseGranted
from lumina.events.record import to_headers
from lumina.events.run import PlannedStep, RunStatus, SpecialistRef

CASE_BYTES = 18_000
TOO_MUCH = f"at most {SUBMISSION_BYTES_MAX:,} can be worked on"


def heavy_step(parent: Scene, *, cases: int) -> PlannedStep:
    """Return the parent's first step with so many cases, each of some 18,000 bytes."""
    step = step_of(parent)
    case = Case(arguments=f'["{"x" * 3_500}"]', one_of=tuple(f'"{letter * 3_600}"' for letter in "abcd"))
    return replace(step, contract=replace(step.contract, cases=(case,) * cases))


def heavy_specialist(name: str, *, keywords: int) -> SpecialistRef:
    """Return a specialist of the run with so many keywords, each of some 3,000 bytes."""
    found = next(each for each in specialists() if each.name == name)
    return replace(found, keywords=("\x01" * 500,) * keywords)


def bytes_of(scene: Scene) -> int:
    """Return the size of the largest record that agents wrote, and of the leases for what is asked."""
    sizes = []
    for record in scene.records[1:]:
        sizes.append(len(encode(record.event)) + sum(map(len, (*to_headers(record), *to_headers(record).values()))))
        match record.event:
            case GenerationRequested(ask=ask):
                lease = LeaseGranted(
                    request=record.id,
                    ask=ask,
                    node="n" * 100,
                    instance=f"{ask.model}#1",
                    load=True,
                    bytes_reserved=2**53 - 1,
                    context=1024,
                    expires_at=2**53 - 1,
                )
                sizes.append(sizes[-1] - len(encode(record.event)) + len(encode(lease)))
            case _:
                pass
    return max(sizes)


def test_a_step_that_no_lease_could_hold_is_refused() -> None:
    """Its fork is closed at once; a step that is merely large is done."""
    parent = accepted()
    huge = heavy_step(parent, cases=PAYLOAD_BYTES_MAX // CASE_BYTES - 2)
    assert SUBMISSION_BYTES_MAX < len(encode(huge)) < PAYLOAD_BYTES_MAX
    child = fork(parent, at=parent.records[-1], run="r-child", steps=(huge,))
    status, reason = ended(child)
    assert status is RunStatus.REFUSED
    assert "step 1 and its specialist have" in reason
    assert TOO_MUCH in reason
    assert said(child.last) == ["closed"]
    large = heavy_step(parent, cases=SUBMISSION_BYTES_MAX // CASE_BYTES - 2)
    other = fork(parent, at=parent.records[-1], run="r-other", steps=(large,))
    World(seed=1, luck=16).finish(other)
    assert ended(other) == (RunStatus.COMPLETED, "accepted")


def test_two_forks_do_not_add_up() -> None:
    """A large specialist in one fork, a large contract in the fork of that: each fits, both together are refused."""
    parent = accepted(models=(SMALL,))
    specialist = heavy_specialist(step_of(parent).specialist, keywords=100)
    child = fork(parent, at=planned(parent), run="r-child", specialists=(specialist,))
    assert said(child.last) == ["attempt_started", "requested"]
    step = heavy_step(parent, cases=14)
    alone = fork(parent, at=planned(parent), run="r-alone", steps=(step,))
    assert said(alone.last) == ["attempt_started", "requested"]
    assert len(encode(step)) + len(encode(specialist)) > SUBMISSION_BYTES_MAX
    grandchild = fork(child, at=child.records[-1], run="r-grandchild", steps=(step,))
    assert ended(grandchild)[0] is RunStatus.REFUSED
    assert TOO_MUCH in ended(grandchild)[1]
    other = fork(alone, at=alone.records[-1], run="r-other", specialists=(specialist,))
    assert ended(other)[0] is RunStatus.REFUSED
    two = tuple(heavy_specialist(each.name, keywords=100) for each in specialists()[:2])
    both = fork(parent, at=planned(parent), run="r-both", specialists=two)
    assert ended(both)[0] is RunStatus.REFUSED
    assert "the request with its cases has" in ended(both)[1]


def test_what_its_parent_could_do_a_fork_can() -> None:
    """The plan of a request just under the limit repeats its cases; a fork that changes nothing is not refused."""
    parent = Scene()
    case = heavy_step(accepted(), cases=1).contract.cases
    parent.submit(submitted(ROCK, models=(SMALL,), cases=case * (SUBMISSION_BYTES_MAX // CASE_BYTES - 1)))
    World(seed=1, luck=16).finish(parent)
    assert ended(parent)[0] is RunStatus.COMPLETED
    child = fork(parent, at=planned(parent), run="r-child")
    World(seed=1, luck=16).finish(child)
    assert outcome(child) == outcome(parent)


@settings(max_examples=20, deadline=None)
@given(
    luck=st.integers(4, 16),
    parts=st.lists(st.tuples(st.integers(0, 64), st.integers(0, 100), st.floats(0, 1)), min_size=1, max_size=3),
)
def test_what_follows_from_any_fork_fits_the_log(luck: int, parts: list[tuple[int, int, float]]) -> None:
    """Large steps and specialists in forks of forks, anywhere: every record and every lease has room."""
    world = World(seed=3, luck=luck)
    scene = parent = lived(ROCK, models=(SMALL,), world=world)
    for number, (cases, keywords, place) in enumerate(parts):
        at = scene.records[int(place * (len(scene.records) - 1))]
        fields: dict[str, Any] = {}
        if cases:
            fields["steps"] = (heavy_step(parent, cases=cases),)
        if keywords:
            fields["specialists"] = (heavy_specialist(step_of(parent).specialist, keywords=keywords),)
        scene = fork(scene, at=at, run=f"r-fork-{number}", **fields)
        world.finish(scene)
        assert bytes_of(scene) < PAYLOAD_BYTES_MAX


@pytest.mark.parametrize("wrong", ["none", "fewer", "more", "count", "digest", "root"])
def test_a_fork_with_a_false_account_of_its_parent_is_refused(wrong: str) -> None:
    """Chains or a root that are not those of the parent at that record: nothing is begun, and a fork of it neither."""
    parent = accepted()
    other = Scene(log=parent.log)
    event = forked_from(parent, at=parent.records[-1])
    first = event.chains[0]
    chains = {
        "none": (),
        "fewer": event.chains[1:],
        "more": (*event.chains, replace(first, agent="zeno")),
        "count": (replace(first, count=first.count + 1), *event.chains[1:]),
        "digest": (replace(first, digest="1" * 64), *event.chains[1:]),
        "root": event.chains,
    }[wrong]
    root = "1" * 64 if wrong == "root" else root_of(chains)
    child = begin(other.log, replace(event, chains=chains, root=root), run="r-child")
    assert said(child.last) == ["closed"]
    status, reason = ended(child)
    assert status is RunStatus.REFUSED
    assert ("root of the chains" if wrong == "root" else "its chains are others than those named") in reason
    assert not of_type(child, GenerationRequested)
    if wrong != "root":
        assert child.shared == ()
        assert ended(fork(child, at=child.records[-1], run="r-again"))[0] is RunStatus.REFUSED
    assert said(fork(parent, at=planned(parent), run="r-honest").last) == ["attempt_started", "requested"]
