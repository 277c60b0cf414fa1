"""How much memory a llama.cpp worker process will take for a model, from the header of its file alone.

Formulas: shared knowledge of llama.cpp at 0c1e57098, checked against its own dry run over 60 configurations (two
shapes, five contexts, three micro-batches): mean error of the compute buffer 1.5 %, worst -13 %, hence the margin.
Where the header leaves a doubt, the larger number counts:

- sliding windows are not credited: every attention layer is taken to keep the whole context;
- layers on a GPU are counted as if they were in main memory.
"""

import math
from dataclasses import dataclass
from typing import Final

from lumina.models.errors import CorruptModel
from lumina.models.gguf import Header

PROCESS_BYTES: Final = 64 * 2**20
"""A worker process that has loaded nothing yet: Python, llama_cpp, numpy, anyio (57 MiB measured)."""
TOKEN_BYTES: Final = 192
"""What llama.cpp's tokenizer and ours keep per token of the vocabulary: text, two maps, attributes, a logit's share."""
KV_CELLS: Final = 256
"""llama.cpp rounds the context up to a multiple of this."""
KV_ELEMENT_BYTES: Final = 2
"""The cache is kept as f16."""
COMPUTE_MARGIN: Final = 1.15
CONTEXT_MAX: Final = 10_000_000
LAYERS_MAX: Final = 4096
REPACKED: Final = frozenset({"Q4_0", "Q4_K", "IQ4_NL"})
"""Kinds of which llama.cpp makes a second copy, laid out for the CPU, when the file is mapped."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is going to be served, as far as that decides what it takes: as in `LlamaSpec`."""

    context: int
    ubatch: int
    mmap: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes of resident memory, by what takes them.

    Attributes:
        weights: All tensors.
        repacked: The second copy under mmap; see `REPACKED`.
        cache: Keys and values of all attention layers, and the states of recurrent ones.
        compute: The largest moment of a micro-batch.
        output: Logits.
        process: The interpreter, the libraries and the vocabulary.
    """

    weights: int
    repacked: int
    cache: int
    compute: int
    output: int
    process: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.repacked + self.cache + self.compute + self.output + self.process


def estimate(header: Header, serving: Serving) -> Estimate:
    """Return what a worker process takes with this model.

    Raises:
        CorruptModel: The header lacks a number that the formula needs, or has an absurd one.
    """
    shape = _Shape(header)
    context = -(-serving.context // KV_CELLS) * KV_CELLS
    return Estimate(
        weights=sum(tensor.size for tensor in header.tensors),
        repacked=_repacked(header) if serving.mmap else 0,
        cache=_attention_bytes(shape, context=context) + _recurrent_bytes(shape),
        compute=_compute_bytes(shape, context=context, ubatch=min(serving.ubatch, context)),
        output=4 * shape.vocabulary,
        process=PROCESS_BYTES + TOKEN_BYTES * shape.vocabulary,
    )


def context_trained(header: Header) -> int | None:
    """Return for how many tokens the model was trained; None when the header does not say."""
    value = header.values.get(f"{header.architecture}.context_length")
    return value if isinstance(value, int) and 0 < value <= CONTEXT_MAX else None


class _Shape:
    """The numbers of the formula, read from the header by their architecture's names."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self.layers = self._whole("block_count", most=LAYERS_MAX)
        self.embedding = self._whole("embedding_length")
        self.heads = max(self._per_layer("attention.head_count"))
        self.kv_heads = self._per_layer("attention.head_count_kv", default=self.heads)
        per_head = self.embedding // max(1, self.heads)
        self.key_length = self._whole("attention.key_length", default=per_head)
        self.value_length = self._whole("attention.value_length", default=per_head)
        experts = self._whole("expert_used_count", default=0) * self._whole("expert_feed_forward_length", default=0)
        self.feed_forward = max(*self._per_layer("feed_forward_length", default=0), experts, 0)
        self.vocabulary = header.vocabulary or self._whole("vocab_size", default=0)

    def _whole(self, name: str, *, default: int | None = None, most: int = 2**31) -> int:
        return self._checked(name, self._value(name), default=default, most=most)

    def _per_layer(self, name: str, *, default: int | None = None) -> tuple[int, ...]:
        value = self._value(name)
        if not isinstance(value, tuple):
            return (self._checked(name, value, default=default, most=2**31),) * self.layers
        if len(value) != self.layers:
            raise CorruptModel(
                f"the model's {name} has {len(value)} entries for {self.layers} layers; download it again"
            )
        return tuple(self._checked(name, one, default=default, most=2**31) for one in value)

    def optional(self, name: str) -> int:
        """Return a whole number that only some architectures have, 0 for the others."""
        return self._whole(name, default=0)

    def _value(self, name: str) -> object:
        return self._header.values.get(f"{self._header.architecture}.{name}")

    def _checked(self, name: str, value: object, *, default: int | None, most: int) -> int:
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            what = "is missing" if value is None else f"is {str(value)[:40]}"
            key = f"{self._header.architecture}.{name}"
            raise CorruptModel(
                f"the model's {key} {what}, so its memory is not known; it is no language model or broken"
            )
        if name == "block_count" and value == 0:
            raise CorruptModel("the model has no layers; it is no language model")
        return value


def _repacked(header: Header) -> int:
    """Return the size of all 2-D weights of a repackable kind but the token embedding."""
    return sum(
        tensor.size
        for tensor in header.tensors
        if tensor.kind in REPACKED and len(tensor.shape) > 1 and tensor.name != "token_embd.weight"
    )


def _attention_bytes(shape: _Shape, *, context: int) -> int:
    """Return the key and value cache: per layer and token, `kv heads * (key length + value length)` elements."""
    per_token = sum(shape.kv_heads) * (shape.key_length + shape.value_length) * KV_ELEMENT_BYTES
    return context * per_token


def _recurrent_bytes(shape: _Shape) -> int:
    """Return the f32 states of layers without attention (0 key-value heads), as Ollama's `GraphSize` counts them."""
    layers = shape.kv_heads.count(0)
    kernel = max(0, shape.optional("ssm.conv_kernel") - 1)
    inner, state = shape.optional("ssm.inner_size"), shape.optional("ssm.state_size")
    conv = kernel * (inner + 2 * shape.optional("ssm.group_count") * state)
    short = max(0, shape.optional("shortconv.l_cache") - 1) * shape.embedding
    return layers * 4 * (conv + inner * state + short)


def _compute_bytes(shape: _Shape, *, context: int, ubatch: int) -> int:
    """Return the compute buffer: the largest of logits, attention scores and feed-forward, and two residual streams.

    The scores are those without flash attention, the larger case.
    """
    logits = 4 * shape.vocabulary * ubatch
    scores = context * ubatch * (4 * shape.heads + 4)
    feed_forward = 12 * shape.feed_forward * ubatch
    return math.ceil(COMPUTE_MARGIN * (max(logits, scores, feed_forward) + 8 * shape.embedding * ubatch))
