"""Train the demo model from seeds: `python models/training/train.py`.

Two stages, scheduled by steps. Everything goes to --out: the
tokenizer, checkpoints, and a log with one JSON object a line.
"""

# ruff: noqa: S311, RUF100

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import circuit
import tokenizer as tokens
import torch
from network import Network, Shape
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from lumina.models.demo import corpus

SEED: Final = 20261121
BATCH_TOKENS: Final = 2560
CHUNK: Final = 2048
LENGTH_MAX: Final = 800
STEPS: Final = 2600
PLANNED: Final = 2100  # the run was to end here; it was given more steps while it ran,
EXTENDED_AT: Final = 1860  # from this one on
WARM_UP: Final = 40
FALL: Final = 0.5
LATER: Final = ((1100, 0.4, 0.3),)
"""The stages after the first: steps, highest factor on the rates, share of `focus_sample`s."""

Encoded = tuple[list[int], int]
"""Token ids of a whole sample and the number of them that carry no loss."""


def encode(tokenizer: Tokenizer, samples: list[corpus.Sample]) -> list[Encoded]:
    """Return the samples as ids, without those that are too long."""
    prompts = tokenizer.encode_batch_fast([sample.prompt for sample in samples])
    answers = tokenizer.encode_batch_fast([sample.answer + "<|end|>" for sample in samples])
    pairs = ((p.ids + a.ids, len(p.ids)) for p, a in zip(prompts, answers, strict=True))
    return [pair for pair in pairs if len(pair[0]) <= LENGTH_MAX]


def batches(encoded: list[Encoded], rng: random.Random) -> list[list[Encoded]]:
    """Return batches of similar lengths, each within `BATCH_TOKENS` padded, shuffled."""
    made: list[list[Encoded]] = [[]]
    for pair in sorted(encoded, key=lambda pair: len(pair[0])):
        if (len(made[-1]) + 1) * len(pair[0]) > BATCH_TOKENS:
            made.append([])
        made[-1].append(pair)
    rng.shuffle(made)
    return made


def tensors(batch: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Return (ids, targets), both (batch, time); targets are -1 where no loss is wanted."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), -1, dtype=torch.long)
    for row, (text, silent) in enumerate(batch):
        ids[row, : len(text)] = torch.tensor(text)
        targets[row, silent - 1 : len(text) - 1] = torch.tensor(text[silent:])
    return ids, targets


def loss_of(network: Network, batch: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Return the mean loss over answer tokens and a mask of right ones."""
    ids, targets = tensors(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network(ids)
        wanted = targets >= 0
        logits = network.logits(hidden[wanted])
    logits = logits.float()
    right = torch.ones_like(targets, dtype=torch.bool)
    right[wanted] = logits.argmax(-1) == targets[wanted]
    return functional.cross_entropy(logits, targets[wanted]), right


def exact(network: Network, encoded: list[Encoded]) -> float:
    """Return the share of samples whose every answer token is the most likely one."""
    network.eval()
    hits = 0
    with torch.inference_mode():
        for batch in batches(encoded, random.Random(0)):
            hits += int(loss_of(network, batch)[1].all(dim=1).sum())
    network.train()
    return hits / len(encoded)


class Parts:
    """Matrices that are fused for speed, one by one as Muon has to see them.

    Muon makes an update orthogonal as a whole: fused, the values' gradient takes all directions and queries and keys
    hardly learn, so that no attention head ever learns to copy.
    """

    def __init__(self, network: Network) -> None:
        fused = {"qkv.weight": 3, "gate_up.weight": 2}
        self.whole: list[tuple[torch.nn.Parameter, list[torch.nn.Parameter]]] = []
        for name, weight in network.named_parameters():
            if weight.ndim == 2 and "embedding" not in name:
                count = next((n for ending, n in fused.items() if name.endswith(ending)), 1)
                views = weight.data.chunk(count)  # rows of the same memory: a step on a part moves the whole
                self.whole.append((weight, [torch.nn.Parameter(view) for view in views]))

    def all(self) -> list[torch.nn.Parameter]:
        """Return all parts, for the optimizer."""
        return [part for _, parts in self.whole for part in parts]

    def take_gradients(self) -> None:
        """Give every part its share of the gradient; call it before a step."""
        for weight, parts in self.whole:
            assert weight.grad is not None
            for part, gradient in zip(parts, weight.grad.chunk(len(parts)), strict=True):
                part.grad = gradient


def optimizers(network: Network, parts: Parts) -> list[torch.optim.Optimizer]:
    """Return Muon for the hidden matrices and AdamW for embeddings and norms."""
    others = [w for name, w in network.named_parameters() if w.ndim != 2 or "embedding" in name]
    return [
        torch.optim.Muon(parts.all(), lr=0.015, weight_decay=0.05),
        torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rates: a warm-up, a plateau, a straight fall to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    planned = min(steps, PLANNED) if step < EXTENDED_AT else steps
    left = (planned - step) / (planned * FALL)
    return max(0.02, min(1.0, left))


def later_rate(step: int, steps: int) -> float:
    """Return the part of the highest factor in a later stage: a warm-up, a straight fall to nothing."""
    return min((step + 1) / WARM_UP, (steps - step) / steps)


def run(out: Path, *, steps: int, first_stage: int, shape: Shape) -> None:
    """Train the stages, leaving `tokenizer.json`, `model.pt` and `log.jsonl` in `out`; from 1 on, go on from there."""
    out.mkdir(parents=True, exist_ok=True)
    first = list(islice(corpus.samples(seed=SEED + 1), 12_000))
    tokenizer = tokens.train(sample.prompt + sample.answer for sample in first)
    tokenizer.save(str(out / "tokenizer.json"))
    torch.manual_seed(SEED)
    network = Network(shape)
    circuit.lay_out(network, seed=SEED)
    if first_stage:
        network.load_state_dict(torch.load(out / "model.pt", weights_only=True)["weights"])
    held = encode(tokenizer, list(islice(corpus.samples(seed=SEED + 2, part="validate"), 120)))
    stages = [(SEED, steps, 1.0, 0.0, rate)]
    stages += [(SEED + 5 + index, *later, later_rate) for index, later in enumerate(LATER)]
    with (out / "log.jsonl").open("a" if first_stage else "w") as log:
        for number, (seed, count, peak, focus, rates) in list(enumerate(stages))[first_stage:]:
            feed = corpus.samples(seed=seed, focus=focus)
            for line in stage(
                network, tokenizer=tokenizer, seed=seed, feed=feed, steps=count, peak=peak, rates=rates, held=held
            ):
                save(out, network=network)
                print(json.dumps({"stage": number, **line}), file=log, flush=True)


def stage(
    network: Network,
    *,
    tokenizer: Tokenizer,
    seed: int,
    steps: int,
    rates: Callable[[int, int], float],
    feed: Iterator[corpus.Sample],
    peak: float,
    held: list[Encoded],
) -> Iterator[dict[str, float]]:
    """Train with fresh optimizers on the samples of `seed`; yield the state now and then."""
    rng = random.Random(seed)
    queue: list[list[Encoded]] = []
    parts = Parts(network)
    opts = optimizers(network, parts)
    peaks = [group["lr"] for opt in opts for group in opt.param_groups]
    seen, started, mean = 0, time.monotonic(), 0.0
    for step in range(steps):
        for group, highest in zip((g for o in opts for g in o.param_groups), peaks, strict=True):
            group["lr"] = highest * peak * rates(step, steps)
        if not queue:
            queue = batches(encode(tokenizer, list(islice(feed, CHUNK))), rng)
        batch = queue.pop()
        loss, _ = loss_of(network, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        parts.take_gradients()
        for opt in opts:
            opt.step()
        network.zero_grad(set_to_none=True)
        seen += len(batch) * max(len(ids) for ids, _ in batch)
        mean = loss.item() if step == 0 else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0 or step == steps - 1:
            line = {"step": step, "tokens": seen, "loss": round(mean, 4), "s": round(time.monotonic() - started)}
            if step and (step % 200 == 0 or step == steps - 1):
                line["exact"] = round(exact(network, held), 3)
            yield line


def save(out: Path, *, network: Network) -> None:
    """Write the weights and the shape."""
    state = {"shape": network.shape.to_json(), "weights": network.state_dict()}
    torch.save(state, out / "model.pt")


def main() -> None:
    """Read the options and train."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/demo"))
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--first-stage", type=int, default=0, help="stages before it are in --out already")
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    run(given.out, steps=given.steps, first_stage=given.first_stage, shape=Shape())


if __name__ == "__main__":
    main()
