"""Any server that speaks the OpenAI chat protocol, as a `Backend`: LM Studio, Ollama, llama-server, vLLM, a cloud.

What such servers do wrong is known (they are named in `openai_wire.py` and here), and each has an answer: what passes
is tried again a bounded number of times, what does not is one sentence that names the URL and what came back.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx
import msgspec

from lumina.models.backend import Constraint, Finish, Generation, Message, OnText, Reply, ignore_text
from lumina.models.errors import (
    ContextExceeded,
    ModelError,
    ModelGarbage,
    ModelTimedOut,
    ModelUnavailable,
    UnknownModel,
)
from lumina.models.openai_wire import (
    Chunk,
    SseLines,
    context_in,
    error_words,
    estimated_tokens,
    read_chunk,
    request_body,
    shown,
)

CONTEXT_DEFAULT: Final = 4096
"""Assumed when neither the configuration nor the server says how much it serves."""
CONNECT_S_MAX: Final = 10.0
DISCOVERY_S_MAX: Final = 10.0
ANSWER_BYTES_MAX: Final = 32 * 2**20
ERROR_BYTES_MAX: Final = 64 * 2**10
END_S_MAX: Final = 1.0
TEXT_EVERY_S: Final = 0.03
RETRIES_MAX: Final = {"stale": 1, "busy": 5, "parser": 2, "cut": 1, "schema": 2}
"""How often a call is sent again, by reason: a connection that was closed before it answered; loading, or a full
queue; llama-server's own parser tripping over a good answer; an answer cut off in the middle; a refused schema."""
BUSY_S: Final = 0.5
BUSY_S_MAX: Final = 15.0
_WEAKER: Final = {Constraint.JSON_SCHEMA: Constraint.JSON_OBJECT, Constraint.JSON_OBJECT: Constraint.NONE}
_CONTEXT_WORDS: Final = (
    "context_length_exceeded",
    "exceed_context",
    "context length",
    "context size",
    "context window",
)


class _Again(Exception):
    """The request may be sent again, for `reason`, after `delay_s`; when that is used up, `error` holds."""

    def __init__(self, reason: str, *, error: ModelError, delay_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.delay_s = delay_s


class OpenAiBackend:
    """One model of one server. Calls beyond `slots` wait here, in order."""

    def __init__(
        self, *, url: str, model: str, api_key: str | None = None, context: int | None = None, slots: int = 1
    ) -> None:
        parts = urlsplit(url)
        self._base = url.rstrip("/") if parts.path.strip("/") else url.rstrip("/") + "/v1"
        self._root = f"{parts.scheme}://{parts.netloc}"
        self._model = model
        self._context = context
        self._slots = anyio.CapacityLimiter(slots)
        self._client = httpx.AsyncClient(
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(None, connect=CONNECT_S_MAX),
            trust_env=parts.hostname not in {"127.0.0.1", "::1", "localhost"},
        )

    @property
    def where(self) -> str:
        """The base URL."""
        return self._base

    @property
    def context(self) -> int:
        """Tokens served: as configured, else as the server told `discover`, else 4,096."""
        return self._context or CONTEXT_DEFAULT

    async def discover(self) -> None:
        """Ask the server how much context it serves, unless that is configured.

        Raises:
            ModelUnavailable: Nobody listens there.
            ModelGarbage: Whoever listens there is no model server.
        """
        if self._context is not None:
            return
        try:
            with anyio.fail_after(DISCOVERY_S_MAX):
                props = await self._get(f"{self._root}/props", must_be_json=False)
                found = context_in(props, model=self._model)
                if found is None:
                    found = context_in(await self._get(f"{self._base}/models", must_be_json=True), model=self._model)
        except TimeoutError as error:
            raise ModelTimedOut(f"{self._base} did not answer within {DISCOVERY_S_MAX:g} s") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._context = found

    async def count(self, messages: Sequence[Message]) -> int:
        """Return an estimate, rather too high: there is no common way to ask a server."""
        return estimated_tokens(messages)

    async def generate(self, call: Generation, *, on_text: OnText = ignore_text) -> Reply:
        """Answer, or raise as `Backend.generate` says."""
        try:
            with anyio.fail_after(call.timeout_s):
                async with self._slots:
                    return await self._insist(call, on_text=on_text)
        except TimeoutError as error:
            raise ModelTimedOut(
                f"{self._base} did not finish within {call.timeout_s:g} s; it was told to stop"
            ) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _insist(self, call: Generation, *, on_text: OnText) -> Reply:
        """Send the call, and again as far as `RETRIES_MAX` allows."""
        constraint = Constraint.NONE if call.schema is None else Constraint.JSON_SCHEMA
        used: Counter[str] = Counter()
        while True:
            body = request_body(call, model=self._model, constraint=constraint, seed=call.seed + used["parser"])
            try:
                reply = await self._once(body, call=call, on_text=on_text)
            except _Again as again:
                if used[again.reason] >= RETRIES_MAX[again.reason]:
                    raise again.error from again
                used[again.reason] += 1
                if again.reason == "schema":
                    constraint = _WEAKER[constraint]
                await anyio.sleep(
                    again.delay_s or min(BUSY_S_MAX, BUSY_S * 2 ** (used["busy"] - 1)) * bool(used["busy"])
                )
            else:
                return msgspec.structs.replace(reply, constraint=constraint, retries=used.total())

    async def _once(self, body: dict[str, Any], *, call: Generation, on_text: OnText) -> Reply:
        answer = _Answer(call, on_text=on_text)
        try:
            async with self._post(body) as response:
                if response.status_code != 200:
                    raise self._refusal(response, await self._read(response), body=body)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind == "text/event-stream":
                    await self._stream(response, answer=answer)
                else:
                    whole = await self._read(response, limit=ANSWER_BYTES_MAX)
                    await answer.add(self._checked(read_chunk(whole, where=self._base), answer=answer))
        except httpx.TransportError as error:
            raise self._broken(error, started=answer.started) from error
        except httpx.DecodingError as error:
            raise ModelGarbage(f"{self._base} sent a broken {error.request.method} answer: {error}") from error
        await answer.tell_rest()
        return answer.reply(where=self._base)

    @asynccontextmanager
    async def _post(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """Send a request on a connection of its own: some servers close it after a stream without saying so."""
        url = f"{self._base}/chat/completions"
        async with self._client.stream("POST", url, json=body, headers={"Connection": "close"}) as response:
            yield response

    async def _stream(self, response: httpx.Response, *, answer: "_Answer") -> None:
        lines = SseLines(where=self._base)
        received = 0
        parts = response.aiter_bytes()
        async for part in parts:
            received += len(part)
            if received > ANSWER_BYTES_MAX:
                raise ModelGarbage(f"{self._base} sent more than {ANSWER_BYTES_MAX:,} bytes in one answer")
            for payload in lines.feed(part):
                if await self._take(payload, answer=answer):
                    await self._let_end(parts, answer=answer)
                    return
        for payload in lines.end():
            if await self._take(payload, answer=answer):
                return
        if not answer.finished:
            cut = ModelUnavailable(f"{self._base} closed the connection in the middle of an answer; try again")
            raise _Again("cut", error=cut)

    @staticmethod
    async def _let_end(parts: AsyncIterator[bytes], *, answer: "_Answer") -> None:
        """Let a server that is done close the stream itself: some hang when a client leaves before that."""
        if answer.runs_away:
            return
        with anyio.move_on_after(END_S_MAX):
            async for _ in parts:
                pass

    async def _take(self, payload: bytes, *, answer: "_Answer") -> bool:
        """Add one event; return whether it was the last that matters."""
        if payload.strip() == b"[DONE]":
            answer.done = True
            return True
        await answer.add(self._checked(read_chunk(payload, where=self._base), answer=answer))
        return answer.runs_away

    def _checked(self, chunk: Chunk, *, answer: "_Answer") -> Chunk:
        """Return the chunk unless it reports an error, which servers do with status 200 once they have begun."""
        if chunk.error is not None:
            words = error_words(msgspec.json.encode({"error": chunk.error}))
            error = ModelUnavailable(f"{self._base} failed in the middle of an answer: {words}")
            raise _Again("cut" if answer.started else "stale", error=error)
        return chunk

    def _refusal(self, response: httpx.Response, content: bytes, *, body: dict[str, Any]) -> Exception:
        """Return what a status other than 200 means."""
        status, words = response.status_code, error_words(content)
        said = f"{self._base} answered {status}: {words}"
        lower = content.decode("utf-8", "replace").lower()
        if status in {400, 413, 422, 500} and any(mark in lower for mark in _CONTEXT_WORDS):
            return ContextExceeded(f"the prompt is too long for {self._base}: {words}")
        if status in {429, 503}:
            return _Again("busy", error=ModelUnavailable(said + "; try again later"), delay_s=_retry_after(response))
        if status == 500 and "peg-native" in lower:
            return _Again("parser", error=ModelUnavailable(said))
        if status in {400, 422, 500} and "response_format" in body:
            return _Again("schema", error=ModelUnavailable(said))
        if status in {401, 403}:
            return ModelUnavailable(said + "; set a valid api_key for this model")
        if status == 404 and "model" in lower and lower.lstrip().startswith("{"):
            return UnknownModel(said + f"; it has no model {self._model}")
        if 300 <= status < 500 and not lower.lstrip().startswith("{"):
            return ModelGarbage(said + "; is this the base URL of a model server, ending in /v1?")
        return ModelUnavailable(said)

    async def _get(self, url: str, *, must_be_json: bool) -> object:
        """Return the JSON at `url`, None when there is none and none is needed."""
        async with self._client.stream("GET", url) as response:
            content = await self._read(response, limit=ANSWER_BYTES_MAX)
        try:
            answer: object = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if must_be_json and response.status_code != 404:
                raise ModelGarbage(f"{url} answered {shown(content)} instead of a list of models") from error
            return None
        return answer if response.status_code == 200 else None

    async def _read(self, response: httpx.Response, *, limit: int = ERROR_BYTES_MAX) -> bytes:
        content = b""
        async for part in response.aiter_bytes():
            content += part
            if len(content) > limit:
                break
        return content[:limit]

    def _broken(self, error: httpx.TransportError, *, started: bool) -> Exception:
        """Return what a failed connection means."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return self._unreachable(error)
        if isinstance(error, httpx.RemoteProtocolError) and not started and "disconnected" not in str(error):
            return ModelGarbage(f"{self._base} does not speak HTTP ({error}); check the URL")
        gone = ModelUnavailable(f"{self._base} closed the connection before its answer was complete; try again")
        return _Again("cut" if started else "stale", error=gone)

    def _unreachable(self, error: httpx.TransportError) -> ModelError:
        if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
            return ModelGarbage(f"{self._base} does not speak HTTP ({error}); check the URL")
        return ModelUnavailable(f"nobody answers at {self._base}; start the model server there or correct the URL")


class _Answer:
    """An answer as it grows."""

    def __init__(self, call: Generation, *, on_text: OnText) -> None:
        self.done = False
        self._call = call
        self._on_text = on_text
        self._sent_at = time.monotonic()
        self._first_at: float | None = None
        self._told_at = 0.0
        self._untold = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._pieces = 0
        self._choices = 0
        self._reason: str | None = None
        self._last: Chunk | None = None

    @property
    def started(self) -> bool:
        """Whether any text came."""
        return self._pieces > 0

    @property
    def finished(self) -> bool:
        """Whether the server said that this is all."""
        return self.done or self._reason is not None

    @property
    def runs_away(self) -> bool:
        """Whether the server goes on although the limit is reached. A piece is a token, or more."""
        return self._pieces > self._call.tokens_max + 64

    async def add(self, chunk: Chunk) -> None:
        """Add an event."""
        if self._choices == 0:
            await self._on_text("", 0)
        if chunk.usage is not None:
            self._last = chunk
        for choice in chunk.choices[:1]:
            self._choices += 1
            self._reason = choice.finish_reason or self._reason
            delta = choice.delta or choice.message
            if delta is None:
                continue
            thought = delta.reasoning_content or delta.reasoning or ""
            text = delta.content or ""
            if text or thought:
                self._pieces += 1
                self._first_at = self._first_at or time.monotonic()
                self._reasoning.append(thought)
                self._text.append(text)
                await self._tell(text)

    async def _tell(self, text: str) -> None:
        self._untold += text
        if time.monotonic() - self._told_at >= TEXT_EVERY_S:
            self._told_at = time.monotonic()
            untold, self._untold = self._untold, ""
            await self._on_text(untold, self._pieces)

    async def tell_rest(self) -> None:
        """Pass on what was held back."""
        if self._untold:
            await self._on_text(self._untold, self._pieces)

    def reply(self, *, where: str) -> Reply:
        """Return the whole. Raises ModelGarbage when there was no answer in what came."""
        if self._choices == 0:
            raise ModelGarbage(
                f"{where} sent no choices; it is no chat completion server, or the model is no chat model"
            )
        usage = None if self._last is None else self._last.usage
        cached = usage.prompt_tokens_details if usage is not None else None
        first = self._first_at or time.monotonic()
        cut = self._reason == "length" or self.runs_away
        return Reply(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            finish=Finish.LENGTH if cut else Finish.STOP,
            prompt_tokens=usage.prompt_tokens if usage else estimated_tokens(self._call.messages),
            generated_tokens=usage.completion_tokens if usage else self._pieces,
            reused_tokens=(cached.cached_tokens or 0) if cached else 0,
            prompt_ms=round((first - self._sent_at) * 1000),
            generate_ms=round((time.monotonic() - first) * 1000),
            exact=usage is not None,
        )


def _retry_after(response: httpx.Response) -> float:
    """Return how long the server asks to wait, at most `BUSY_S_MAX`; 0 when it does not say."""
    value = response.headers.get("retry-after", "")
    return min(BUSY_S_MAX, float(value)) if value.isascii() and value.isdigit() else 0.0
