"""Writes a tiny llama model with random weights: it loads, generates and streams like a real one; its text is noise."""

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("def", "return", "true", "false", "null", "import", "function")


def write_tiny_gguf(
    path: Path,
    *,
    layers: int = 2,
    width: int = 64,
    feed_forward: int = 128,
    context: int = 2048,
    seed: int = 1,
    endless: bool = False,
) -> Path:
    """Write the model to `path` and return it. The defaults make about 0.5 MB.

    An `endless` one never ends its answer by itself.
    """
    heads, kv_heads = 4, 2
    tokens = _tokens()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_chat_template(CHATML)
    _add_tokenizer(writer, tokens)
    silent = [index for index, (_, _, of) in enumerate(tokens) if of == gguf.TokenType.CONTROL] if endless else []
    _add_tensors(writer, layers=layers, width=width, ff=feed_forward, vocabulary=len(tokens), seed=seed, silent=silent)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokens() -> list[tuple[str, float, int]]:
    """Return (text, score, type) of every token."""
    kind = gguf.TokenType
    tokens = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    tokens += [("<|im_start|>", 0.0, kind.CONTROL), ("<|im_end|>", 0.0, kind.CONTROL)]
    plain = ["\u2581", *map(chr, range(33, 127)), *WORDS]
    tokens += [(text, -1.0 - index, kind.NORMAL) for index, text in enumerate(plain)]
    return [(text, score, int(of)) for text, score, of in tokens]


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[tuple[str, float, int]]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([of for _, _, of in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _add_tensors(
    writer: gguf.GGUFWriter, *, layers: int, width: int, ff: int, vocabulary: int, seed: int, silent: list[int]
) -> None:
    noise = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float) -> npt.NDArray[np.float32]:
        return (noise.standard_normal((rows, columns)) * float(scale)).astype(np.float32)

    half = width // 2  # two of four heads
    writer.add_tensor("token_embd.weight", matrix(vocabulary, width, 1.0))
    output = matrix(vocabulary, width, 2 / width**0.5)
    output[silent] = 0.0  # never among the likely ones
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    shapes = {
        "attn_q": (width, width),
        "attn_k": (half, width),
        "attn_v": (half, width),
        "attn_output": (width, width),
        "ffn_gate": (ff, width),
        "ffn_up": (ff, width),
        "ffn_down": (width, ff),
    }
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, dtype=np.float32))
        for name, (rows, columns) in shapes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix(rows, columns, columns**-0.5))
