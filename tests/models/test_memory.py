"""The memory estimate: its terms by hand, and the whole against a real worker process."""

from pathlib import Path

import pytest

from lumina.models.errors import CorruptModel
from lumina.models.gguf import Header, Tensor, read_header
from lumina.models.llama_frames import LlamaSpec
from lumina.models.llama_pool import LlamaPool
from lumina.models.memory import PROCESS_BYTES, TOKEN_BYTES, Serving, context_trained, estimate

TOLERANCE = 1.10
"""Measured memory is at most the estimate, and the estimate at most a tenth above it."""
QWEN_SHAPE: dict[str, int] = {
    "block_count": 24,
    "context_length": 32_768,
    "embedding_length": 896,
    "feed_forward_length": 4864,
    "attention.head_count": 14,
    "attention.head_count_kv": 2,
}


def header(
    shape: dict[str, int | tuple[int, ...]] | dict[str, int], *, tensors: tuple[Tensor, ...] = (), vocabulary: int = 0
) -> Header:
    """Return a header with these numbers of the llama architecture."""
    values = {f"llama.{name}": value for name, value in shape.items()}
    return Header(
        values={"general.architecture": "llama", **values},
        counts={"tokenizer.ggml.tokens": vocabulary},
        tensors=tensors,
        file_bytes=0,
    )


def serving(context: int = 4096, *, ubatch: int = 64, mmap: bool = False) -> Serving:
    """Return how the model is served."""
    return Serving(context=context, ubatch=ubatch, mmap=mmap)


def test_the_terms_of_a_known_shape() -> None:
    """A 0.5B model with 152k tokens: 48 MiB of cache at 4,096, and logits rule the compute buffer."""
    found = estimate(header(QWEN_SHAPE, vocabulary=151_936), serving(4096, ubatch=512))
    assert found.cache == 48 * 2**20
    assert found.output == 4 * 151_936
    assert 300 * 2**20 <= found.compute <= 360 * 2**20
    assert found.process == PROCESS_BYTES + 151_936 * TOKEN_BYTES
    assert found.total == found.weights + found.repacked + found.cache + found.compute + found.output + found.process


def test_a_small_micro_batch_saves_most_of_the_compute_buffer() -> None:
    """The cheapest saving there is: an eighth."""
    model = header(QWEN_SHAPE, vocabulary=151_936)
    large, small = (estimate(model, serving(ubatch=ubatch)).compute for ubatch in (512, 64))
    assert abs(large - 8 * small) <= 8


@pytest.mark.parametrize(("context", "cells"), [(300, 512), (1000, 1024), (1024, 1024), (1025, 1280)])
def test_the_context_is_rounded_up_as_llama_cpp_does(context: int, cells: int) -> None:
    """The cache has a multiple of 256 cells."""
    per_cell = 24 * 2 * 2 * 64 * 2
    assert estimate(header(QWEN_SHAPE), serving(context)).cache == cells * per_cell


def test_key_length_comes_from_the_header_where_it_stands() -> None:
    """It is not always embedding over heads: Qwen3-0.6B has 128, not 64."""
    longer = {**QWEN_SHAPE, "attention.key_length": 128, "attention.value_length": 128}
    assert estimate(header(longer), serving()).cache == 2 * estimate(header(QWEN_SHAPE), serving()).cache


def test_recurrent_layers_have_a_state_instead_of_a_cache() -> None:
    """No key-value heads: convolution and state, f32, whatever the context."""
    hybrid: dict[str, int | tuple[int, ...]] = {
        **QWEN_SHAPE,
        "attention.head_count_kv": (2, 0) * 12,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 2048,
        "ssm.state_size": 128,
        "ssm.group_count": 1,
    }
    state = 12 * 4 * (3 * (2048 + 2 * 128) + 2048 * 128)
    assert estimate(header(hybrid), serving()).cache == 24 * 2**20 + state


def test_mapped_four_bit_weights_count_twice() -> None:
    """llama.cpp makes a copy laid out for the CPU, of all but the embedding and the norms."""
    tensors = (
        Tensor(name="token_embd.weight", shape=(64, 64), kind="Q4_0", size=1000),
        Tensor(name="blk.0.attn_q.weight", shape=(64, 64), kind="Q4_0", size=100),
        Tensor(name="blk.0.attn_k.weight", shape=(64, 64), kind="Q8_0", size=20),
        Tensor(name="blk.0.attn_norm.weight", shape=(64,), kind="F32", size=3),
    )
    model = header(QWEN_SHAPE, tensors=tensors)
    mapped, read = estimate(model, serving(mmap=True)), estimate(model, serving(mmap=False))
    assert (mapped.weights, mapped.repacked) == (1123, 100)
    assert (read.weights, read.repacked) == (1123, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"block_count": 0}, "has no layers"),
        ({"block_count": 10_000_000}, r"llama\.block_count is 10000000"),
        ({"embedding_length": -1}, r"llama\.embedding_length is -1"),
        ({"attention.head_count_kv": (1, 2)}, "has 2 entries for 24 layers"),
    ],
)
def test_absurd_numbers_are_refused(change: dict[str, int | tuple[int, ...]], why: str) -> None:
    """The file is broken, or no language model."""
    with pytest.raises(CorruptModel, match=why):
        estimate(header({**QWEN_SHAPE, **change}), serving())


def test_a_missing_number_is_refused() -> None:
    """A projector or an adapter has no layers."""
    with pytest.raises(CorruptModel, match=r"llama\.block_count is missing"):
        estimate(header({}), serving())


def test_the_trained_context() -> None:
    """None when the header does not say, or says nonsense."""
    assert context_trained(header(QWEN_SHAPE)) == 32_768
    assert context_trained(header({})) is None
    assert context_trained(header({"context_length": 0})) is None


@pytest.mark.anyio
@pytest.mark.parametrize("context", [2048, 8192])
async def test_a_real_worker_takes_at_most_the_estimate(slow_gguf: Path, pool: LlamaPool, context: int) -> None:
    """A model of 127 MB, loaded by llama.cpp in its process: resident memory against the estimate."""
    expected = estimate(read_header(slow_gguf), serving(context)).total
    _, loaded = await pool.ensure("slow#1", LlamaSpec(path=str(slow_gguf), context=context, ubatch=64, mmap=False))
    assert loaded is not None
    assert loaded.bytes_measured <= expected <= loaded.bytes_measured * TOLERANCE
