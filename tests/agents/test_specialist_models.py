"""The specialist with real models: llama.cpp in worker processes, as a node's configuration describes them."""

import os
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import anyio
import msgspec
import psutil
import pytest
from tests.agents.specialist_scene import finished, lease
from tests.agents.worker_at_work import Blobs, answer, concluded, recorded
from tests.models.tiny_gguf import write_tiny_gguf

from lumina.agents.specialist import Call, Specialist
from lumina.agents.specialist_calls import specialist
from lumina.events.codec import encode
from lumina.events.generation import GenerationOutcome, Purpose, Sampling
from lumina.events.node import ModelUnloaded, UnloadReason, UnloadRequested
from lumina.models.llama_client import talk
from lumina.models.llama_frames import Hold, Ready
from lumina.models.node import ModelConfig, NodeConfig
from lumina.models.registry import NodeModels

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of random weights that never ends its answer, slow enough to be interrupted."""
    path = tmp_path_factory.mktemp("gguf") / "noise.gguf"
    return write_tiny_gguf(path, layers=6, width=384, feed_forward=1024, context=8192, endless=True)


@pytest.fixture
async def models(noise: Path, tmp_path: Path) -> AsyncIterator[NodeModels]:
    """Return the models of a node that has one."""
    config = NodeConfig(models=(ModelConfig(id="coder", path=str(noise), context=8192),))
    models = NodeModels(config, folder=tmp_path / "models", environ=os.environ)
    yield models
    await models.clear()
    await models.aclose()


async def worker_process(folder: Path) -> psutil.Process:
    socket = folder / f"llama-{sha256(b'coder#0').hexdigest()[:16]}.sock"
    with anyio.fail_after(20):
        while True:
            if socket.exists():
                async with talk(socket, Hold()) as held:
                    while not isinstance(ready := await held.next(), Ready):
                        pass
                    return psutil.Process(ready.pid)
            await anyio.sleep(0.05)


async def test_a_model_is_loaded_asked_and_unloaded(models: NodeModels, tmp_path: Path) -> None:
    """Load and memory are measured, noise runs into the token limit, and unloading ends the process."""
    blobs = Blobs()
    event, outcome = await finished(models, lease(blobs, context=8192, load=True), blobs=blobs)
    assert event.outcome is GenerationOutcome.LENGTH
    assert event.usage.generated_tokens == 200
    assert event.usage.prompt_tokens > 100
    assert event.load is not None
    assert event.load.bytes_measured > 30 * 2**20
    again = concluded(Specialist(), outcome.request, outcome.body, blobs=blobs)
    assert encode(again.event) == encode(event)
    process = await worker_process(tmp_path / "models")
    request = UnloadRequested(node="local", instance="coder#0", reason=UnloadReason.ROOM)
    unloaded = (await answer(specialist(models), request, blobs=blobs)).conclusion.event
    assert isinstance(unloaded, ModelUnloaded)
    assert unloaded.was_loaded
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_killing_the_worker_process_in_the_middle_is_an_outage(models: NodeModels, tmp_path: Path) -> None:
    """The run goes on with another attempt, for which the process is started again."""
    blobs = Blobs()
    long = Sampling(temperature=0.0, seed=1, tokens_max=4000)

    async def kill() -> None:
        process = await worker_process(tmp_path / "models")
        await anyio.sleep(0.5)
        process.kill()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        event, _ = await finished(models, lease(blobs, context=8192, sampling=long), blobs=blobs)
    assert event.outcome is GenerationOutcome.UNAVAILABLE
    assert event.detail.startswith("the process that serves coder#0 ended")
    retried, _ = await finished(models, lease(blobs, context=8192, attempt=2), blobs=blobs)
    assert retried.outcome is GenerationOutcome.LENGTH
    assert retried.load is not None


async def test_a_constrained_plan_of_pure_noise_is_still_a_plan(models: NodeModels) -> None:
    """Or it is cut; never is raw text taken for one."""
    blobs = Blobs()
    seen = set()
    for seed in range(4):
        sampling = Sampling(temperature=0.9, seed=seed, tokens_max=900)
        granted = lease(
            blobs,
            context=8192,
            purpose=Purpose.PLAN,
            step=0,
            kinds=("game", "scraper"),
            contract=None,
            specialist=None,
            sampling=sampling,
        )
        event, _ = await finished(models, granted, blobs=blobs)
        assert event.outcome in {GenerationOutcome.ANSWERED, GenerationOutcome.LENGTH, GenerationOutcome.UNUSABLE}
        assert {item.kind for item in event.plan} <= {"game", "scraper"}
        seen.add(event.outcome)
    assert GenerationOutcome.ANSWERED in seen


async def test_a_truncated_model_file_is_an_outcome_with_the_path(noise: Path, tmp_path: Path) -> None:
    """It was whole when the node started."""
    path = tmp_path / "half.gguf"
    path.write_bytes(noise.read_bytes())
    models = NodeModels(
        NodeConfig(models=(ModelConfig(id="coder", path=str(path), context=2048),)),
        folder=tmp_path / "models",
        environ={},
    )
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    blobs = Blobs()
    event, _ = await finished(models, lease(blobs), blobs=blobs)
    assert event.outcome is GenerationOutcome.UNAVAILABLE
    assert "half.gguf" in event.detail
    await models.aclose()


async def test_the_same_ask_has_the_same_effect_in_every_process(models: NodeModels) -> None:
    """So that its digest in the outcome can be checked."""
    blobs = Blobs()
    granted = recorded(lease(blobs))
    one, other = (specialist(models).prepare(granted, blobs=blobs) for _ in range(2))
    assert isinstance(one, Call)
    assert encode(one) == encode(other)
    assert msgspec.json.decode(encode(one), type=Call) == one
