"""The demo model's network: a small Llama, as llama.cpp runs it."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the network; heads of 32, one key and value head per head."""

    vocabulary: int = 1536
    context: int = 1024
    width: int = 192
    layers: int = 6
    heads: int = 6
    inner: int = 512
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    def to_json(self) -> dict[str, float]:
        """Return the sizes by name."""
        return asdict(self)


class Norm(nn.Module):
    """Root mean square normalisation."""

    def __init__(self, width: int, *, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with unit root mean square, weighted."""
        return functional.rms_norm(x.float(), (x.shape[-1],), self.weight, self.epsilon)


class Block(nn.Module):
    """Attention and a gated feed-forward layer, each after a norm and added back."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attn_norm = Norm(shape.width, epsilon=shape.epsilon)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = Norm(shape.width, epsilon=shape.epsilon)
        self.gate_up = nn.Linear(shape.width, 2 * shape.inner, bias=False)
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return (batch, time, width) after the block."""
        batch, time, width = x.shape
        q, k, v = self.qkv(self.attn_norm(x)).view(batch, time, 3, self.heads, -1).unbind(2)
        q, k = rotate(q.transpose(1, 2), turn), rotate(k.transpose(1, 2), turn)
        mixed = functional.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.ffn_down(functional.silu(gate) * up)


class Network(nn.Module):
    """Token ids to hidden states; the embedding doubles as the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, epsilon=shape.epsilon)
        deep = 0.02 / (2 * shape.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=deep if last else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the normalised hidden states, (batch, time, width), for ids (batch, time)."""
        turn = angles(self.shape, ids.shape[1])
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, turn)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores over the vocabulary for hidden states."""
        return functional.linear(hidden, self.embedding.weight.to(hidden.dtype))


def angles(shape: Shape, time: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, (time, head width / 2), of the rotary positions."""
    head = shape.width // shape.heads
    frequency = shape.rope_base ** (-torch.arange(0, head, 2).float() / head)
    angle = torch.arange(time).float()[:, None] * frequency[None, :]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate neighbouring pairs of `x`, llama.cpp's convention for this architecture."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cosine, sine = (part.to(x.dtype) for part in turn)
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)
