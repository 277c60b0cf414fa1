"""Write a trained checkpoint as GGUF and check it against PyTorch.

`python models/training/export.py --out build/demo --file demo.gguf`
"""

# ruff: noqa: PLC0415

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import tokenizer as tokens
import torch
from network import Network, Shape
from tokenizers import Tokenizer
from torch import Tensor
from train import SEED, encode

from lumina.models.demo import corpus

_DESCRIPTION: Final = "Lumina demo model: fills known request shapes, trained on synthetic text only"


def load(out: Path) -> tuple[Network, Tokenizer]:
    """Return the network and tokenizer that training left in `out`."""
    state = torch.load(out / "model.pt", weights_only=True)
    network = Network(Shape(**state["shape"]))
    network.load_state_dict(state["weights"])
    return network.eval(), tokens.load(out / "tokenizer.json")


def named(network: Network) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors under the names llama.cpp knows, fused matrices split."""
    yield "token_embd.weight", network.embedding.weight
    yield "output_norm.weight", network.norm.weight
    for index, block in enumerate(network.blocks):
        start = f"blk.{index}."
        query, key, value = block.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        yield start + "attn_norm.weight", block.attn_norm.weight
        yield start + "attn_q.weight", query
        yield start + "attn_k.weight", key
        yield start + "attn_v.weight", value
        yield start + "attn_output.weight", block.attn_output.weight
        yield start + "ffn_norm.weight", block.ffn_norm.weight
        yield start + "ffn_gate.weight", gate
        yield start + "ffn_up.weight", up
        yield start + "ffn_down.weight", block.ffn_down.weight


def metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Add what llama.cpp needs to know about the network."""
    writer.add_name("demo")
    writer.add_description(_DESCRIPTION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.width // shape.heads)


def vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Add the tokens, their merges, the control tokens and the chat template."""
    ids = tokenizer.get_vocab()
    words = sorted(ids, key=ids.__getitem__)
    control = set(corpus.SPECIALS)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word in control else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(ids["<|end|>"])
    writer.add_eot_token_id(ids["<|end|>"])
    writer.add_bos_token_id(ids["<|bos|>"])
    writer.add_pad_token_id(ids["<|pad|>"])
    writer.add_unk_token_id(ids["<|pad|>"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(corpus.CHAT_TEMPLATE)


def write(network: Network, *, tokenizer: Tokenizer, file: Path) -> None:
    """Write `file` as q8_0, the embedding included; norms stay in float32."""
    writer = gguf.GGUFWriter(str(file), "llama")
    metadata(writer, network.shape)
    vocabulary(writer, tokenizer)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in named(network):
        array = np.ascontiguousarray(tensor.detach().float().numpy())
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(file.name + ".sha256").write_text(f"{digest}  {file.name}\n")


def agreement(network: Network, *, tokenizer: Tokenizer, file: Path, count: int) -> dict[str, float]:
    """Return how often the file and PyTorch rank the same token first, fed the same text."""
    from llama_cpp import Llama  # only checking needs it

    model = Llama(str(file), n_ctx=1024, n_threads=1, logits_all=True, verbose=False)
    samples = list(islice(corpus.samples(seed=SEED + 3, part="validate"), count))
    same = positions = different_ids = 0
    for sample in samples:
        text = sample.prompt + sample.answer + "<|end|>"
        ids = tokenizer.encode(text).ids
        different_ids += model.tokenize(text.encode(), add_bos=False, special=True) != ids
    for ids, silent in encode(tokenizer, samples):
        model.reset()
        model.eval(ids)
        theirs = np.asarray(model.scores[: len(ids)]).argmax(-1)
        with torch.inference_mode():
            ours = network.logits(network(torch.tensor([ids])))[0].argmax(-1).numpy()
        same += int((theirs == ours)[silent - 1 : -1].sum())
        positions += len(ids) - silent
    return {
        "positions": positions,
        "same_argmax": same / positions,
        "texts": count,
        "texts_tokenised_differently": different_ids,
    }


def main() -> None:
    """Read the options, export and check."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/demo"))
    options.add_argument("--file", type=Path, required=True)
    options.add_argument("--check", type=int, default=60, help="number of conversations to compare on")
    given = options.parse_args()
    network, tokenizer = load(given.out)
    write(network, tokenizer=tokenizer, file=given.file)
    print(json.dumps(agreement(network, tokenizer=tokenizer, file=given.file, count=given.check)))


if __name__ == "__main__":
    main()
