"""Models for the tests: a tiny one with random weights, and one that is slow enough to be interrupted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.models.tiny_gguf import write_tiny_gguf

from lumina.models.llama_frames import LlamaSpec
from lumina.models.llama_pool import LlamaPool


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of 0.5 MB."""
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def slow_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that reads a few hundred tokens a second and never ends its answer."""
    path = tmp_path_factory.mktemp("gguf") / "slow.gguf"
    return write_tiny_gguf(path, layers=8, width=512, feed_forward=2048, context=8192, endless=True)


@pytest.fixture
def tiny_spec(tiny_gguf: Path) -> LlamaSpec:
    """Return how the tiny model is loaded."""
    return LlamaSpec(path=str(tiny_gguf), context=2048)


@pytest.fixture
def slow_spec(slow_gguf: Path) -> LlamaSpec:
    """Return how the slow model is loaded."""
    return LlamaSpec(path=str(slow_gguf), context=8192)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[LlamaPool]:
    """Return a pool whose workers are gone after the test."""
    pool = LlamaPool(tmp_path / "models")
    yield pool
    await pool.clear()
    await pool.aclose()
