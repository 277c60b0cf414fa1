"""Train the demo model's byte-level tokenizer.

llama.cpp's `smollm` pre-tokenizer is what reads it back. Merges never join a space
and a letter, so that a word is the same tokens after a space, a quote or a dot:
copying is most of the model's work.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lumina.models.demo.corpus import SPECIALS

VOCABULARY: Final = 1536


def pre_tokenizer(*, training: bool) -> pre_tokenizers.PreTokenizer:
    """Return digits apart, then GPT-2's split; in training, spaces before words apart too."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    spaces = pre_tokenizers.Split(Regex(r" (?=\p{L})"), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([digits, spaces, level] if training else [digits, level])


def train(texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer of `VOCABULARY` tokens whose first ids are the control tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(training=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=30,
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = pre_tokenizer(training=False)
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Return the tokenizer saved at `path`."""
    return Tokenizer.from_file(str(path))
