"""One llama.cpp model in this process: load, count, answer, stop. Not thread-safe; `llama_worker.py` keeps order.

What is done differently from llama-cpp-python's own chat calls, and why:

- Control strings are taken out of the text of messages: they would be read as control tokens.
- Penalties are off (`repeat_penalty` 1.0, `min_p` 0), which code needs: it repeats names.
- Only the prompt of the previous call is reused from the cache, and at least two tokens are always read again, so
  that equal calls give equal answers.
- The schema converter's string rule is repaired: it lets raw control characters through, which JSON forbids.
- The abort callback is the C library's `strlen` on a buffer of ours: no Python runs inside a computation, and one
  byte written to the buffer stops it. llama.cpp honours it on the CPU only; on a GPU a call stops between batches
  and between tokens.
"""

import codecs
import ctypes
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import jinja2
import llama_cpp
import psutil
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

from lumina.models.backend import Message
from lumina.models.errors import ContextExceeded, CorruptModel, ModelError, ModelUnavailable
from lumina.models.llama_frames import Chat, Finished, LlamaSpec

FALLBACK_TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
"""ChatML, for a file without a template of its own."""

PIECE_BYTES: Final = 512
READ_LAST: Final = 2

OnPiece = Callable[[str, int], None]


class Cancelled(ModelError):
    """The call was stopped because nobody wants its answer any more. Never leaves the worker."""


def grammar_of(schema: dict[str, Any]) -> str:
    """Return the GBNF grammar of a JSON schema, with the converter's string rule repaired."""
    text: str = json_schema_to_gbnf(json.dumps(schema))
    return text.replace('[^"\\\\]', '[^"\\\\\\x7F\\x00-\\x1F]')


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


class LlamaEngine:
    """A loaded model and its one context."""

    def __init__(self, spec: LlamaSpec) -> None:
        """Load the file and decode one token, so that all memory is really taken.

        Raises:
            CorruptModel: llama.cpp refuses the file.
            ModelUnavailable: The file is good, but its context can't be made.
        """
        self._stop = ctypes.create_string_buffer(2)
        try:
            self._llama: Any = llama_cpp.Llama(
                model_path=spec.path,
                n_ctx=spec.context,
                n_batch=min(spec.batch, spec.context),
                n_ubatch=min(spec.ubatch, spec.context),
                n_threads=spec.threads,
                n_threads_batch=spec.threads,
                n_gpu_layers=spec.gpu_layers,
                use_mmap=spec.mmap,
                verbose=False,
            )
        except ValueError as error:
            if "context" in str(error):
                raise ModelUnavailable(
                    f"{spec.path}: llama.cpp can't make a context of {spec.context:,} tokens, probably for want of"
                    " memory; configure a smaller context"
                ) from error
            raise CorruptModel(
                f"{spec.path} is truncated or not a GGUF model that llama.cpp can load; download or copy it again"
            ) from error
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._llama.model)
        self._control = self._control_pattern()
        self._formatter = self._chat_formatter()
        self._set_abort_callback()
        self._prompt_tokens = 0
        self._llama.eval([max(0, self._llama.token_bos())])
        self.reset()

    @property
    def context(self) -> int:
        """Tokens served."""
        return int(self._llama.n_ctx())

    def stop(self) -> None:
        """Stop the call that is under way, from any thread."""
        self._stop[0] = b"x"

    def arm(self) -> None:
        """Forget an earlier `stop`. Call it before `chat`, where no `stop` for that chat can have come yet."""
        self._stop[0] = b"\0"

    def reset(self) -> None:
        """Forget all that was read."""
        self._llama.reset()
        self._prompt_tokens = 0
        memory: Any = llama_cpp.llama_get_memory(self._llama.ctx)
        llama_cpp.llama_memory_clear(memory, True)

    def close(self) -> None:
        """Free the model."""
        self._llama.close()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of the prompt that the model's template makes of the messages.

        Raises:
            ModelError: The template can't be rendered.
        """
        turns = [{"role": message.role, "content": self.strip_control(message.text)} for message in messages]
        text = self._render(turns)
        tokens: list[int] = self._llama.tokenize(text.encode(), add_bos=False, special=True)
        bos = self._llama.token_bos()
        if llama_cpp.llama_vocab_get_add_bos(self._vocab) and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def strip_control(self, text: str) -> str:
        """Return the text without what the tokenizer would read as a control token, however nested."""
        if self._control is None:
            return text
        while (stripped := self._control.sub("", text)) != text:
            text = stripped
        return text

    def chat(self, ask: Chat, *, on_piece: OnPiece) -> Finished:
        """Answer; `on_piece` is told each new piece of text with the number of tokens so far.

        Raises:
            ContextExceeded: The prompt leaves no room for an answer.
            Cancelled: `stop` was called since `arm`.
            ModelError: llama.cpp failed.
        """
        prompt = self.prompt(ask.messages)
        room = self.context - len(prompt)
        if room < 1:
            raise ContextExceeded(f"the prompt has {len(prompt):,} tokens, the context holds {self.context:,}")
        try:
            return self._answer(ask, prompt=prompt, tokens_max=min(ask.tokens_max, room), on_piece=on_piece)
        except RuntimeError as error:
            self.reset()
            if self._stop[0] != b"\0":
                raise Cancelled("stopped") from error
            raise ModelError(f"llama.cpp failed: {error}") from error

    def _answer(self, ask: Chat, *, prompt: list[int], tokens_max: int, on_piece: OnPiece) -> Finished:
        started = time.monotonic()
        first = started
        reused = self._reuse(prompt)
        self._read(prompt, reused=reused)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        count, stopped = 0, False
        for token in self._tokens(ask, prompt=prompt):
            if count == 0:
                first = time.monotonic()
            if self._stop[0] != b"\0":
                raise Cancelled("stopped")
            if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                stopped = True
                break
            count += 1
            on_piece(decoder.decode(self._piece(token)), count)
            if count >= tokens_max:
                break
        on_piece(decoder.decode(b"", final=True), count)
        return Finished(
            stopped=stopped,
            prompt_tokens=len(prompt),
            reused_tokens=reused,
            generated_tokens=count,
            prompt_ms=round((first - started) * 1000),
            generate_ms=round((time.monotonic() - first) * 1000),
        )

    def _tokens(self, ask: Chat, *, prompt: list[int]) -> Iterator[int]:
        grammar = None if ask.schema is None else self._grammar(ask.schema)
        self._llama.set_seed(ask.seed)
        tokens: Iterator[int] = self._llama.generate(
            prompt,
            temp=ask.temperature,
            top_k=ask.top_k,
            top_p=ask.top_p,
            min_p=0.0,
            repeat_penalty=1.0,
            grammar=grammar,
        )
        return tokens

    def _grammar(self, schema: dict[str, Any]) -> Any:
        """Return the grammar of a schema, tried out first: one that llama.cpp refuses would end the process later."""
        try:
            text = grammar_of(schema)
        except (AssertionError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"this JSON schema can't be made a grammar: {error!r}") from error
        trial: Any = llama_cpp.llama_sampler_init_grammar(self._vocab, text.encode(), b"root")
        if not trial:
            raise ModelError("llama.cpp refuses the grammar of this JSON schema; limit fewer or shorter repetitions")
        llama_cpp.llama_sampler_free(trial)
        return LlamaGrammar.from_string(text, verbose=False)

    def _reuse(self, prompt: list[int]) -> int:
        """Return how much of the cache equals the start of this prompt and was read as a prompt."""
        model = self._llama.model
        if llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model):
            self.reset()  # their state can't be cut back
            return 0
        keep = min(self._llama.n_tokens, self._prompt_tokens, max(0, len(prompt) - READ_LAST))
        cached = self._llama.input_ids[:keep].tolist()
        return next((at for at, token in enumerate(cached) if token != prompt[at]), keep)

    def _read(self, prompt: list[int], *, reused: int) -> None:
        """Read the prompt but for its last tokens, which `generate` reads; stop between batches when asked to."""
        self._llama.n_tokens = self._prompt_tokens = reused
        end = len(prompt) - READ_LAST
        for start in range(reused, end, self._llama.n_batch):
            if self._stop[0] != b"\0":
                raise Cancelled("stopped")
            self._llama.eval(prompt[start : min(end, start + self._llama.n_batch)])
        self._prompt_tokens = max(0, end)

    def _render(self, turns: list[dict[str, str]]) -> str:
        shapes = [turns]
        if len(turns) > 1 and turns[0]["role"] == "system":
            # Some templates refuse a system message (`raise_exception`): it goes before the first user message.
            merged = {"role": "user", "content": turns[0]["content"] + "\n\n" + turns[1]["content"]}
            shapes.append([merged, *turns[2:]])
        problem = ""
        for shape in shapes:
            try:
                text: str = self._formatter(messages=shape).prompt
            except (ValueError, TypeError, jinja2.TemplateError) as error:
                problem = problem or str(error)
            else:
                return text
        raise ModelError(f"the model's chat template fails: {problem}")

    def _chat_formatter(self) -> Any:
        template = self._llama.metadata.get("tokenizer.chat_template", FALLBACK_TEMPLATE)
        eos, bos = self._llama.token_eos(), self._llama.token_bos()
        return Jinja2ChatFormatter(template=template, eos_token=self._text(eos), bos_token=self._text(bos))

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text: bytes = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(PIECE_BYTES)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, PIECE_BYTES, 0, False)
        if length < 0:  # that many bytes are needed
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, -length, 0, False)
        return buffer.raw[:length]

    def _control_pattern(self) -> re.Pattern[str] | None:
        count = llama_cpp.llama_vocab_n_tokens(self._vocab)
        controls = [token for token in range(count) if llama_cpp.llama_vocab_is_control(self._vocab, token)]
        texts = sorted({text for token in controls if (text := self._text(token))}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts))) if texts else None

    def _set_abort_callback(self) -> None:
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        assert strlen is not None
        self._abort = llama_cpp.ggml_abort_callback(strlen)  # kept: llama.cpp holds the pointer
        llama_cpp.llama_set_abort_callback(self._llama.ctx, self._abort, ctypes.c_void_p(ctypes.addressof(self._stop)))
