"""What OpenAI-compatible servers send, as far as it is read here, and how a body becomes one of their events. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from lumina.models.backend import Constraint, Generation, Message
from lumina.models.errors import ModelGarbage

LINE_BYTES_MAX: Final = 4 * 2**20
CHARACTERS_PER_TOKEN: Final = 2.5
"""Of plain ASCII: conservative, English has about 4 and code about 3."""
TOKENS_PER_OTHER_CHARACTER: Final = 1.5
TOKENS_PER_MESSAGE: Final = 8
TOKENS_PER_PROMPT: Final = 16
SHOWN_CHARACTERS_MAX: Final = 120


Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]


class Delta(msgspec.Struct):
    """New text; servers call thinking one of two names."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    """One answer or a piece of it."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    """What of the prompt was cached."""

    cached_tokens: Tokens | None = None


class Usage(msgspec.Struct):
    """Exact counts, where a server sends them."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct):
    """An event of a stream, or a whole answer. `choices` is empty in the last event of some servers."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_chunks = msgspec.json.Decoder(Chunk)


def read_chunk(text: bytes, *, where: str) -> Chunk:
    """Return the event in `text`. Raises ModelGarbage when it is none."""
    try:
        return _chunks.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelGarbage(f"{where} answered {shown(text)}, which is no chat completion ({error})") from error


class SseLines:
    """Cuts a stream of bytes into the payloads of server-sent events."""

    def __init__(self, *, where: str) -> None:
        self._where = where
        self._rest = b""

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield the payloads of the `data:` lines that are complete now. Other fields and comments are passed over.

        Raises:
            ModelGarbage: A line is longer than `LINE_BYTES_MAX`, or is no field of an event stream.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise ModelGarbage(
                f"{self._where} sent a line of more than {LINE_BYTES_MAX:,} bytes; it is no model server"
            )
        for line in lines:
            payload = self._payload(line.rstrip(b"\r"))
            if payload is not None:
                yield payload

    def end(self) -> Iterator[bytes]:
        """Yield what stood in an unfinished last line."""
        payload = self._payload(self._rest.rstrip(b"\r"))
        if payload is not None:
            yield payload

    def _payload(self, line: bytes) -> bytes | None:
        if not line or line.startswith(b":"):
            return None
        field, colon, value = line.partition(b":")
        if not colon or field not in {b"data", b"event", b"id", b"retry"}:
            raise ModelGarbage(f"{self._where} answered {shown(line)} in an event stream; it is no model server")
        return value.removeprefix(b" ") if field == b"data" and value.strip() else None


def request_body(call: Generation, *, model: str, constraint: Constraint, seed: int) -> dict[str, Any]:
    """Return the JSON of a request. `top_k` and penalties are not part of the protocol and are left to the server."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.text} for message in call.messages],
        "max_tokens": call.tokens_max,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    match constraint:
        case Constraint.JSON_SCHEMA:
            schema = {"name": "answer", "strict": True, "schema": call.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        case Constraint.JSON_OBJECT:
            body["response_format"] = {"type": "json_object", "schema": call.schema}
        case Constraint.NONE | Constraint.GRAMMAR:
            pass
    return body


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens the prompt has, rather too many: ASCII characters / 2.5, others 1.5 each."""
    total = float(TOKENS_PER_PROMPT)
    for message in messages:
        plain = sum(character < "\x80" for character in message.text)
        total += plain / CHARACTERS_PER_TOKEN + (len(message.text) - plain) * TOKENS_PER_OTHER_CHARACTER
        total += TOKENS_PER_MESSAGE
    return math.ceil(total)


def context_in(listing: object, *, model: str) -> int | None:
    """Return the context that a `/props` or `/v1/models` answer states for `model`, None when it states none."""
    if not isinstance(listing, dict):
        return None
    settings = listing.get("default_generation_settings")
    if isinstance(settings, dict):
        return _positive(settings.get("n_ctx"))
    data = listing.get("data")
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    named = [entry for entry in entries if entry.get("id") == model] or (entries if len(entries) == 1 else [])
    for entry in named:
        meta = entry.get("meta")
        places = (meta if isinstance(meta, dict) else {}, entry)
        for key in ("n_ctx", "loaded_context_length", "max_model_len", "context_length", "max_context_length"):
            for place in places:
                if (found := _positive(place.get(key))) is not None:
                    return found
    return None


def error_words(body: bytes) -> str:
    """Return what a server says about a refused request, on one line and cut."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return shown(body)
    error = answer.get("error", answer.get("detail", answer)) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        said = [str(error[key]) for key in ("message", "type", "code") if error.get(key)]
        error = " ".join(said) or error
    return _short(str(error))


def shown(received: bytes) -> str:
    """Return the start of what came back, printable, in quotes."""
    return repr(_short(received[: 4 * SHOWN_CHARACTERS_MAX].decode("utf-8", "replace")))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 1] + "…"


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
