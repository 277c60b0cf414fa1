"""The specialist, with a scripted model: from a lease to an outcome, and the same outcome again from the record."""

import json
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
import pytest
from tests.agents.specialist_scene import BRIEF, CODE, FAR, at, finished, lease
from tests.agents.worker_at_work import Blobs, answer, concluded, recorded

from lumina.agents.specialist import Call, Hopeless, Specialist, SpecialistRaw, Unload
from lumina.agents.specialist_calls import specialist
from lumina.events.codec import encode
from lumina.events.generation import GenerationFinished, GenerationOutcome, Load, PlanItem, Purpose, Sampling
from lumina.events.node import ModelUnloaded, UnloadReason, UnloadRequested
from lumina.models.errors import (
    ContextExceeded,
    CorruptModel,
    ModelError,
    ModelGarbage,
    ModelTimedOut,
    ModelUnavailable,
)
from lumina.models.scripted import Rule, ScriptedBackend, ScriptedModels

pytestmark = pytest.mark.anyio

FENCED = f"Here you are.\n```python\n{CODE}```\n"


def scripted(*rules: Rule, context: int = 4096) -> ScriptedModels:
    return ScriptedModels({"coder": ScriptedBackend(rules or (Rule(answers=(FENCED,)),), context=context)})


async def test_a_lease_becomes_a_program() -> None:
    """Fences are stripped, the blob is there, and what it cost is recorded."""
    blobs = Blobs()
    event, outcome = await finished(scripted(), granted := lease(blobs), blobs=blobs)
    assert event.outcome is GenerationOutcome.ANSWERED
    assert outcome.conclusion.blobs == (CODE.encode(),)
    assert event.code is not None
    assert event.code.digest == blobs.add(CODE.encode()).digest
    assert (event.request, event.lease) == (granted.request, outcome.request.id)
    assert (event.step, event.attempt, event.model) == (1, 1, "coder")
    assert event.usage.prompt_tokens > 50
    assert event.usage.generated_tokens > 5
    assert event.usage.context == 4096
    assert event.usage.trimmed == ()
    assert event.detail == "taken from the python block of an answer with other text"


async def test_the_load_is_reported_by_the_call_that_caused_it() -> None:
    """With the measured bytes; the next call reports none."""
    blobs, models = Blobs(), scripted()
    first, _ = await finished(models, lease(blobs, load=True), blobs=blobs)
    second, _ = await finished(models, lease(blobs, attempt=2), blobs=blobs)
    assert first.load == Load(load_ms=0, bytes_measured=1 << 20)
    assert second.load is None


async def test_the_outcome_is_derived_again_from_the_record_without_any_model() -> None:
    """Effect and event, byte for byte."""
    blobs = Blobs()
    event, outcome = await finished(scripted(), lease(blobs), blobs=blobs)
    again = concluded(Specialist(), outcome.request, outcome.body, blobs=blobs)
    assert encode(again.event) == encode(event)
    assert again.blobs == outcome.conclusion.blobs


async def test_examples_are_left_out_when_the_context_is_tight_and_named() -> None:
    """The model sees the brief all the same; no more is sent than fits."""
    blobs = Blobs()
    models = scripted()
    granted = lease(blobs)
    prepared = specialist(models).prepare(recorded(granted), blobs=blobs)
    assert isinstance(prepared, Call)
    assert len(prepared.prompts) >= 2
    backend, _ = await models.backend_for("coder#0")
    full = await backend.count(prepared.prompts[0].messages)
    event, _ = await finished(models, lease(blobs, context=full + 199), blobs=blobs)
    assert event.outcome is GenerationOutcome.ANSWERED
    assert event.usage.trimmed == (f"example-{len(prepared.prompts) - 1}",)
    assert event.usage.prompt_tokens + 200 <= full + 199
    assert isinstance(backend, ScriptedBackend)
    assert BRIEF in backend.calls[-1].messages[-1].text


async def test_a_prompt_that_never_fits_is_not_sent() -> None:
    """The numbers are named."""
    blobs, models = Blobs(), scripted()
    event, outcome = await finished(models, lease(blobs, context=100), blobs=blobs)
    assert event.outcome is GenerationOutcome.DOES_NOT_FIT
    assert "serves 100; shorten the request or use a model with more context" in event.detail
    assert isinstance(outcome.raw, SpecialistRaw)
    assert len(outcome.raw.counts) >= 2
    backend, _ = await models.backend_for("coder#0")
    assert isinstance(backend, ScriptedBackend)
    assert backend.calls == []


async def test_the_smaller_of_lease_and_server_is_what_is_served() -> None:
    """A server may have been started with less than was announced."""
    blobs = Blobs()
    event, _ = await finished(scripted(context=3000), lease(blobs, context=4096), blobs=blobs)
    assert event.usage.context == 3000


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ModelUnavailable, GenerationOutcome.UNAVAILABLE),
        (CorruptModel, GenerationOutcome.UNAVAILABLE),
        (ModelTimedOut, GenerationOutcome.TIMED_OUT),
        (ModelGarbage, GenerationOutcome.GARBAGE),
        (ContextExceeded, GenerationOutcome.DOES_NOT_FIT),
    ],
)
async def test_every_failure_of_a_model_is_an_outcome(error: type[ModelError], outcome: GenerationOutcome) -> None:
    """With the model's sentence; nothing is raised."""
    blobs = Blobs()
    event, _ = await finished(scripted(Rule(error=error)), lease(blobs), blobs=blobs)
    assert event.outcome is outcome
    assert event.detail == "the script fails as it was told to"
    assert event.code is None


async def test_an_unknown_model_is_an_outage_that_names_the_known_ones() -> None:
    """The governor's knowledge may be older than the configuration."""
    blobs = Blobs()
    event, _ = await finished(ScriptedModels({"other": ScriptedBackend((Rule(),))}), lease(blobs), blobs=blobs)
    assert event.outcome is GenerationOutcome.UNAVAILABLE
    assert event.detail == "no model coder in the script; its models: other"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("I would rather not.", GenerationOutcome.UNUSABLE),
        ("", GenerationOutcome.UNUSABLE),
        ("x = 1\n" * 500, GenerationOutcome.LENGTH),
    ],
)
async def test_text_without_a_complete_program_is_no_answer(text: str, outcome: GenerationOutcome) -> None:
    """Prose, nothing, and a model that loops until its limit."""
    blobs = Blobs()
    event, _ = await finished(scripted(Rule(answers=(text,))), lease(blobs), blobs=blobs)
    assert (event.outcome, event.code) == (outcome, None)
    assert event.detail
    assert event.usage.generated_tokens <= 200


async def test_a_repair_sends_the_faulty_code_and_what_is_wrong_with_it() -> None:
    """After the request of the first attempt."""
    blobs = Blobs()
    backend = ScriptedBackend((Rule(contains="E0602 undefined", answers=(FENCED,)), Rule(answers=("no",))))
    granted = lease(
        blobs,
        purpose=Purpose.REPAIR,
        attempt=2,
        previous=blobs.add(b"def double(x): return y\n"),
        feedback=("line 1: E0602 undefined variable 'y'",),
    )
    event, _ = await finished(ScriptedModels({"coder": backend}), granted, blobs=blobs)
    assert event.outcome is GenerationOutcome.ANSWERED
    assert "return y" in backend.calls[0].messages[-2].text


async def test_a_bare_model_needs_no_definition_and_gets_the_plain_request() -> None:
    """As the demo model was trained."""
    blobs = Blobs()
    backend = ScriptedBackend((Rule(answers=(CODE,)),))
    granted = lease(blobs, bare=True)
    assert specialist(ScriptedModels({})).needs(recorded(granted)) == ()
    event, _ = await finished(ScriptedModels({"coder": backend}), granted, blobs=blobs)
    assert event.outcome is GenerationOutcome.ANSWERED
    assert [message.text for message in backend.calls[0].messages] == [BRIEF]


async def test_a_plan_is_validated() -> None:
    """Known kinds only; the schema goes along with the call."""
    blobs = Blobs()
    plan = [{"kind": "game", "brief": "Write a game."}]
    backend = ScriptedBackend((Rule(answers=(json.dumps(plan), '[{"kind": "poem", "brief": "Rhyme."}]')),))
    models = ScriptedModels({"coder": backend})
    ask: dict[str, Any] = {"purpose": Purpose.PLAN, "step": 0, "kinds": ("game",), "contract": None, "specialist": None}
    good, _ = await finished(models, lease(blobs, **ask), blobs=blobs)
    bad, _ = await finished(models, lease(blobs, **ask), blobs=blobs)
    assert (good.outcome, good.plan) == (GenerationOutcome.ANSWERED, (PlanItem(kind="game", brief="Write a game."),))
    assert (bad.outcome, bad.plan) == (GenerationOutcome.UNUSABLE, ())
    assert backend.calls[0].schema is not None


async def test_a_lease_that_has_run_out_is_not_used() -> None:
    """Nothing is loaded for it."""
    blobs, models = Blobs(), scripted()
    outcome = await answer(at(FAR + 1, models), lease(blobs, load=True), blobs=blobs)
    event = outcome.conclusion.event
    assert isinstance(event, GenerationFinished)
    assert event.outcome is GenerationOutcome.UNAVAILABLE
    assert "the lease on coder#0 had run out before the call began" in event.detail
    assert models.resident == set()


async def test_a_lease_that_runs_out_stops_the_call() -> None:
    """Whatever the model's own limit."""
    blobs, models = Blobs(), scripted(Rule(answers=(FENCED,), first_s=30))
    outcome = await answer(at(FAR - 200, models), lease(blobs), blobs=blobs)
    event = outcome.conclusion.event
    assert isinstance(event, GenerationFinished)
    assert (event.outcome, event.detail) == (
        GenerationOutcome.TIMED_OUT,
        "the lease on coder#0 ran out during the call, which was stopped",
    )


async def test_a_broken_definition_is_an_outcome_not_a_crash() -> None:
    """It was valid when the run was submitted by a version that thought so."""
    blobs = Blobs()
    granted = lease(blobs)
    assert granted.ask.specialist is not None
    broken = msgspec.structs.replace(granted.ask.specialist, definition=blobs.add(b"name = 1"))
    granted = msgspec.structs.replace(granted, ask=msgspec.structs.replace(granted.ask, specialist=broken))
    assert isinstance(specialist(scripted()).prepare(recorded(granted), blobs=blobs), Hopeless)
    event, _ = await finished(scripted(), granted, blobs=blobs)
    assert event.outcome is GenerationOutcome.UNUSABLE
    assert "function" in event.detail


async def test_an_unload_ends_the_instance_and_says_whether_there_was_one() -> None:
    """Twice is once."""
    models = scripted()
    await models.backend_for("coder#0")
    request = UnloadRequested(node="local", instance="coder#0", reason=UnloadReason.IDLE)
    first = (await answer(specialist(models), request, blobs=Blobs())).conclusion.event
    second = (await answer(specialist(models), request, blobs=Blobs())).conclusion.event
    assert isinstance(first, ModelUnloaded)
    assert isinstance(second, ModelUnloaded)
    assert (first.was_loaded, second.was_loaded, first.instance) == (True, False, "coder#0")
    assert isinstance(specialist(models).prepare(recorded(request), blobs={}), Unload)


async def test_progress_tells_the_phases_in_order_and_not_too_often() -> None:
    """Loading, queued, prompt, generating with tokens and speed, at most about ten times a second."""
    said: list[tuple[str, Mapping[str, float | str]]] = []

    async def progress(phase: str, **figures: float | str) -> None:
        said.append((phase, figures))

    blobs, models = Blobs(), scripted(Rule(answers=("x = 1\n" * 60,), token_s=0.005))
    worker = specialist(models)
    effect = worker.prepare(recorded(lease(blobs, load=True)), blobs=blobs)
    await worker.perform(effect, progress=progress)
    phases = list(dict.fromkeys(phase for phase, _ in said))
    assert phases == ["loading", "queued", "prompt", "generating"]
    spoken = [figures for phase, figures in said if phase == "generating"]
    assert 3 <= len(spoken) <= 20
    assert spoken[-1].keys() == {"tokens", "tokens_per_s"}


async def test_cancelling_stops_the_model() -> None:
    """The next call does not wait for the one that nobody wants."""
    blobs = Blobs()
    models = scripted(Rule(answers=(FENCED,), first_s=60))
    worker = specialist(models)
    effect = worker.prepare(recorded(lease(blobs)), blobs=blobs)

    async def quiet(phase: str, **figures: float | str) -> None:
        del phase, figures

    for _ in range(2):
        with anyio.move_on_after(0.1) as scope:
            await worker.perform(effect, progress=quiet)
        assert scope.cancelled_caught
    backend, _ = await models.backend_for("coder#0")
    assert isinstance(backend, ScriptedBackend)
    assert len(backend.calls) == 2


async def test_equal_requests_have_equal_effects_and_constant_parts_come_first() -> None:
    """Two briefs for one specialist share the bytes of the prompt up to the brief."""
    blobs = Blobs()
    worker = specialist(scripted())

    def prepared(brief: str) -> str:
        call = worker.prepare(recorded(lease(blobs, brief=brief)), blobs=blobs)
        assert isinstance(call, Call)
        return "".join(f"{message.role}\n{message.text}" for message in call.prompts[0].messages)

    assert prepared("aaa") == prepared("aaa")
    one, other = prepared("aaa bbb"), prepared("zzz bbb")
    assert one.index("aaa") == other.index("zzz")
    assert one[: one.index("aaa")] == other[: other.index("zzz")]
    assert one.index("aaa") > len(one) / 2


async def test_the_answer_is_cut_to_what_the_context_has_left() -> None:
    """An ask may allow more tokens than there is room for; half of the context is kept for them at most."""
    blobs = Blobs()
    models = scripted(Rule(answers=("x = 1\n" * 3000,)))
    sampling = Sampling(temperature=0.0, seed=1, tokens_max=100_000)
    event, _ = await finished(models, lease(blobs, sampling=sampling), blobs=blobs)
    assert event.usage.prompt_tokens + event.usage.generated_tokens == 4096
    assert event.outcome is GenerationOutcome.LENGTH
