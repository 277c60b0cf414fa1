"""Start the network with a copying circuit instead of waiting for one to emerge.

Most of what the demo model does is to copy names from the request. Networks learn
that late and abruptly, by two layers working together: heads that look at the token
before, and heads that look for an earlier token whose predecessor is the current one
(Olsson et al., "In-context Learning and Induction Heads", 2022). Both are laid out
here in the random initial weights; training then shapes them like any others.
"""

from typing import Final

import torch
from network import Network
from torch import Tensor

HEADS: Final = 2
SHARP: Final = 1.0
MATCH: Final = 2.2
CARRY: Final = 0.06
COPY: Final = 0.15
FAST_PAIRS: Final = 6
SLOW_PAIRS: Final = 9


def frame(rows: int, *, width: int, generator: torch.Generator) -> Tensor:
    """Return orthonormal rows (rows, width) that ignore the constant first coordinate."""
    basis, _ = torch.linalg.qr(torch.randn(width - 1, rows, generator=generator))
    return torch.cat((torch.zeros(rows, 1), basis.T), dim=1)


@torch.no_grad()
def lay_out(network: Network, *, seed: int) -> None:
    """Write the circuit into the first two blocks and a constant into the embedding."""
    shape = network.shape
    width, head = shape.width, shape.width // shape.heads
    generator = torch.Generator().manual_seed(seed)
    network.embedding.weight[:, 0] = 0.02 * width**0.5
    rows = HEADS * head
    seen = frame(rows, width=width, generator=generator)
    carried = frame(rows, width=width, generator=generator)
    copied = frame(rows, width=width, generator=generator)
    _look_back(network, seen=seen, carried=carried)
    slow = torch.zeros(head, dtype=torch.bool)
    slow[-2 * SLOW_PAIRS :] = True
    block = network.blocks[1]
    for index in range(HEADS):
        part = slice(index * head, (index + 1) * head)
        block.qkv.weight[:width][part] = MATCH * seen[part] * slow[:, None]
        block.qkv.weight[width : 2 * width][part] = MATCH * carried[part] * slow[:, None]
        block.qkv.weight[2 * width :][part] = copied[part]
        block.attn_output.weight[:, part] = COPY * copied[part].T


@torch.no_grad()
def _look_back(network: Network, *, seen: Tensor, carried: Tensor) -> None:
    """Make heads of the first block look one token back and pass on what was there."""
    shape = network.shape
    width, head = shape.width, shape.width // shape.heads
    frequency = shape.rope_base ** (-torch.arange(0, head, 2).float() / head)
    query, key = torch.zeros(head, width), torch.zeros(head, width)
    for pair in range(FAST_PAIRS):
        query[2 * pair, 0] = SHARP
        key[2 * pair, 0] = SHARP * torch.cos(frequency[pair])
        key[2 * pair + 1, 0] = SHARP * torch.sin(frequency[pair])
    block = network.blocks[0]
    for index in range(HEADS):
        part = slice(index * head, (index + 1) * head)
        block.qkv.weight[:width][part] = query
        block.qkv.weight[width : 2 * width][part] = key
        block.qkv.weight[2 * width :][part] = seen[part]
        block.attn_output.weight[:, part] = CARRY * carried[part].T
