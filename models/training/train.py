"""Train the demo model from seeds: `python models/training/train.py`.

One run, scheduled by steps, without restarts. Everything goes to --out: the
tokenizer, checkpoints, and a log with one JSON object a line.
"""

# ruff: noqa: S311, RUF100

import argparse
import json
import random
import time
from itertools import islice
from pathlib import Path
from typing import Final

import tokenizer as tokens
import torch
from network import Network, Shape
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from lumina.models.demo import corpus

SEED: Final = 20261121
BATCH_TOKENS: Final = 5120
CHUNK: Final = 2048
LENGTH_MAX: Final = 800
STEPS: Final = 3400
WARM_UP: Final = 60
FALL: Final = 0.4

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


def optimizers(network: Network) -> list[torch.optim.Optimizer]:
    """Return Muon for the hidden matrices and AdamW for embeddings and norms."""
    hidden = [w for name, w in network.named_parameters() if w.ndim == 2 and "embedding" not in name]
    others = [w for name, w in network.named_parameters() if w.ndim != 2 or "embedding" in name]
    return [
        torch.optim.Muon(hidden, lr=0.02, weight_decay=0.05),
        torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rates: a warm-up, a plateau, a straight fall to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    left = (steps - step) / (steps * FALL)
    return max(0.02, min(1.0, left))


def run(out: Path, *, steps: int, shape: Shape) -> None:
    """Train for `steps` steps, leaving `tokenizer.json`, `model.pt` and `log.jsonl` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    stream = corpus.samples(seed=SEED)
    first = list(islice(corpus.samples(seed=SEED + 1), 12_000))
    tokenizer = tokens.train(sample.prompt + sample.answer for sample in first)
    tokenizer.save(str(out / "tokenizer.json"))
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    network = Network(shape)
    opts = optimizers(network)
    peaks = [group["lr"] for opt in opts for group in opt.param_groups]
    held = encode(tokenizer, list(islice(corpus.samples(seed=SEED + 2, part="validate"), 240)))
    queue: list[list[Encoded]] = []
    seen, started, mean = 0, time.monotonic(), 0.0
    with (out / "log.jsonl").open("w") as log:
        for step in range(100_000):
            if step % 20 == 0 and (out / "steps").exists():
                steps = int((out / "steps").read_text())
            if step >= steps:
                break
            if not queue:
                queue = batches(encode(tokenizer, list(islice(stream, CHUNK))), rng)
            batch = queue.pop()
            for group, peak in zip((g for o in opts for g in o.param_groups), peaks, strict=True):
                group["lr"] = peak * rate(step, steps)
            loss, _ = loss_of(network, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for opt in opts:
                opt.step()
                opt.zero_grad(set_to_none=True)
            seen += len(batch) * max(len(ids) for ids, _ in batch)
            mean = loss.item() if step == 0 else 0.95 * mean + 0.05 * loss.item()
            if step % 20 == 0 or step == steps - 1:
                line = {"step": step, "tokens": seen, "loss": round(mean, 4), "s": round(time.monotonic() - started)}
                if step and (step % 200 == 0 or step == steps - 1):
                    line["exact"] = round(exact(network, held), 3)
                    save(out, network=network, step=step)
                log.write(json.dumps(line) + "\n")
                log.flush()


def save(out: Path, *, network: Network, step: int) -> None:
    """Write the weights and the shape."""
    state = {"shape": network.shape.to_json(), "weights": network.state_dict(), "step": step}
    torch.save(state, out / "model.pt")


def main() -> None:
    """Read the options and train."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/demo"))
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    run(given.out, steps=given.steps, shape=Shape())


if __name__ == "__main__":
    main()
