"""The cloud is never asked without an opt-in and a reason: the orchestrator leaves it out, the governor refuses it."""

import pytest
from tests.agents.fork_scene import accepted, fork
from tests.agents.governor_scene import Scene as GovernorScene
from tests.agents.governor_scene import granted, node, refused, remote
from tests.agents.run_scene import ROCK, SMALL, Scene, ended, error, rungs, submitted

from lumina.agents.step_models import permitted
from lumina.events.generation import GenerationRequested
from lumina.events.lease import Refusal
from lumina.events.run import ModelChoice, RunOptions, RunStatus
from lumina.events.step import AttemptStarted
from lumina.events.validation import ValidationVerdict

AWAY = ModelChoice(model="away", context=8192, plans=True, cloud=True)


def questions(scene: Scene) -> list[tuple[str, str]]:
    """Return which models were asked, each with the reason for asking a cloud."""
    events = (record.event for record in scene.records)
    return [(event.ask.model, event.ask.cloud) for event in events if isinstance(event, GenerationRequested)]


def test_without_permission_a_run_climbs_past_no_cloud() -> None:
    """A run that names a cloud model without permitting it fails with its own models; the cloud is asked nothing."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=(SMALL, AWAY), options=RunOptions(attempts_max=3, plan=False)))
    for number in range(3):
        scene.answer(f"code {number}")
        scene.validate(ValidationVerdict.FAILED, findings=(error("bad", rule="style"),))
    assert ended(scene)[0] is RunStatus.FAILED
    assert {model for _, model in rungs(scene)} == {"small"}
    assert {reason for _, reason in questions(scene)} == {""}


def test_only_cloud_models_and_no_permission_is_refused() -> None:
    """Such a run is refused with the option that permits it; nobody is asked, for a plan neither."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=(AWAY,)))
    status, reason = ended(scene)
    assert status is RunStatus.REFUSED
    assert "--allow-cloud" in reason
    assert questions(scene) == []


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ((AWAY,), "permitted by --allow-cloud; the only model"),
        ((AWAY, SMALL), "permitted by --allow-cloud; the first choice"),
    ],
)
def test_a_permitted_cloud_is_asked_with_the_reason(models: tuple[ModelChoice, ...], reason: str) -> None:
    """Each question to the cloud says why it is asked."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=models, options=RunOptions(cloud=True, plan=False)))
    assert questions(scene) == [("away", reason)]


def test_a_permitted_cloud_is_a_fallback() -> None:
    """When the local model has had its share, the cloud is asked, and the reason says after whom."""
    scene = Scene()
    scene.submit(submitted(ROCK, models=(SMALL, AWAY), options=RunOptions(cloud=True, attempts_max=2, plan=False)))
    scene.answer("bad")
    scene.validate(ValidationVerdict.FAILED, findings=(error("bad", rule="style"),))
    assert questions(scene) == [("small", ""), ("away", "permitted by --allow-cloud; fallback: small did not do it")]


def test_a_fork_to_a_cloud_that_is_not_permitted_is_refused() -> None:
    """A fork that names only cloud models, in a run that does not permit them, fails with the option that would."""
    parent = accepted(models=(SMALL,))
    started = next(record for record in parent.records if isinstance(record.event, AttemptStarted))
    (before,) = (record for record in parent.records if record.seq == started.seq - 1)
    child = fork(parent, at=before, run="r-fork", models=(AWAY,))
    status, reason = ended(child)
    assert status is RunStatus.REFUSED
    assert "--allow-cloud" in reason


def test_what_is_permitted_keeps_its_order() -> None:
    """Leaving the cloud out changes nothing about the other models."""
    run = submitted(ROCK, models=(AWAY, SMALL))
    assert permitted(run) == (SMALL,)


def test_the_governor_lends_no_cloud_without_a_reason() -> None:
    """Whoever asks: without a reason the request is refused at once, with one it is granted."""
    scene = GovernorScene()
    scene.announce(node(remote("cloud", cloud=True)))
    refusal = refused(scene.ask("cloud"))
    assert refusal.refusal is Refusal.NOT_PERMITTED
    assert "--allow-cloud" in refusal.detail
    assert granted(scene.ask("cloud", cloud="permitted by --allow-cloud")).instance == "cloud#1"
