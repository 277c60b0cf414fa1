"""Servers of strangers: what they do right is an answer, what they do wrong is one sentence that names the URL."""

import json
import time

import anyio
import anyio.abc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.http_servers import Canned, canned, events, piece, response

from lumina.models.backend import Constraint, Finish, Generation, Message, Reply
from lumina.models.errors import (
    ContextExceeded,
    ModelError,
    ModelGarbage,
    ModelTimedOut,
    ModelUnavailable,
    UnknownModel,
)
from lumina.models.openai import OpenAiBackend
from lumina.models.openai_wire import SseLines, context_in, estimated_tokens

pytestmark = pytest.mark.anyio

CALL = Generation(messages=(Message("user", "hi"),), tokens_max=50, timeout_s=20)
GOOD = events(piece("Hel"), piece("lo"), piece(None, finish="stop"))


async def ask(server: Canned, call: Generation = CALL, *, api_key: str | None = None) -> Reply:
    backend = OpenAiBackend(url=server.url, model="m", api_key=api_key)
    try:
        return await backend.generate(call)
    finally:
        await backend.aclose()


async def test_a_stream_becomes_an_answer() -> None:
    """Without usage, tokens are counted as pieces and the prompt is estimated, and it is said so."""
    async with canned(GOOD) as server:
        reply = await ask(server)
    assert (reply.text, reply.finish, reply.generated_tokens, reply.exact) == ("Hello", Finish.STOP, 2, False)
    assert server.requests[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert (server.requests[0]["max_tokens"], server.requests[0]["temperature"]) == (50, 0.0)


async def test_usage_of_the_server_is_taken_where_it_is_sent() -> None:
    """In the last event, which has no choices; cached tokens too."""
    usage = {"prompt_tokens": 7, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5}}
    async with canned(events(piece("x"), piece("", finish="length"), {"choices": [], "usage": usage})) as server:
        reply = await ask(server)
    assert (reply.prompt_tokens, reply.generated_tokens, reply.reused_tokens, reply.exact) == (7, 9, 5, True)
    assert reply.finish is Finish.LENGTH


async def test_thinking_is_kept_apart() -> None:
    """Where the server says which part it is."""
    thought = {"choices": [{"delta": {"reasoning_content": "hmm"}}]}
    async with canned(events(thought, piece("yes", finish="stop"))) as server:
        reply = await ask(server)
    assert (reply.text, reply.reasoning) == ("yes", "hmm")


async def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    """One JSON answer."""
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    async with canned(response(json.dumps(body).encode())) as server:
        assert (await ask(server)).text == "whole"


async def test_the_key_goes_into_the_header_and_nowhere_else() -> None:
    """A refused one is an outage that says what to set, without the key."""
    refusal = response(b'{"error": {"message": "bad key"}}', status="401 Unauthorized")
    async with canned(refusal) as server:
        with pytest.raises(ModelUnavailable, match=r"answered 401: bad key; set a valid api_key") as caught:
            await ask(server, api_key="secret-123")
    assert "secret-123" not in str(caught.value)
    assert "secret-123" not in json.dumps(server.requests)


async def test_nobody_listens() -> None:
    """The sentence names the URL and what to do."""
    async with canned(GOOD) as server:
        url = server.url
    backend = OpenAiBackend(url=url, model="m")
    with pytest.raises(ModelUnavailable, match=f"nobody answers at {url}; start the model server there or correct"):
        await backend.generate(CALL)
    with pytest.raises(ModelUnavailable, match="nobody answers"):
        await backend.discover()
    await backend.aclose()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(b"<!doctype html><h1>Welcome</h1>", kind="text/html"), "'<!doctype html><h1>Welcome</h1>'"),
        (response(b"<h1>Not found</h1>", kind="text/html", status="404 Not Found"), "ending in /v1"),
        (response(b"", status="302 Found", more="location: /login\r\n"), "answered 302"),
        (response(b'{"choices": ['), "no chat completion"),
        (response(b'{"choices": 7}'), "no chat completion"),
        (response(b'{"hello": "world"}'), "no choices"),
        (response(b"\xff\xfe\x00"), "no chat completion"),
        (response(b""), "no chat completion"),
        (events({"choices": []}), "no choices"),
        (events(b"{not json"), "no chat completion"),
        (events(piece("a"), {"choices": [{"delta": {"content": 7}}]}), "no chat completion"),
        (events({"choices": [], "usage": {"prompt_tokens": -1}}), "no chat completion"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n<html>\n", "in an event stream"),
        (b"220 mail.example ready\r\n\r\n", "does not speak HTTP"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"x" * (5 * 2**20),
            "sent a line of more than 4,194,304 bytes",
        ),
    ],
)
async def test_what_is_no_chat_completion_is_garbage(answer: bytes, words: str) -> None:
    """HTML, broken JSON, wrong shapes, other protocols: one sentence with the URL and what came back, no retries."""
    async with canned(answer) as server:
        with pytest.raises(ModelGarbage) as caught:
            await ask(server)
    assert server.url in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (
            "400 Bad Request",
            '{"error": {"type": "exceed_context_size_error", "message": "n_ctx"}}',
            ContextExceeded,
            "too",
        ),
        ("400 Bad Request", '{"error": {"code": "context_length_exceeded"}}', ContextExceeded, "too long for"),
        ("404 Not Found", '{"error": {"message": "model m not found"}}', UnknownModel, "it has no model m"),
        ("402 Payment Required", '{"error": {"message": "no credits"}}', ModelUnavailable, "answered 402: no credits"),
        ("500 Internal Server Error", '{"error": {"message": "boom"}}', ModelUnavailable, "answered 500: boom"),
    ],
)
async def test_a_refusal_is_named_and_not_repeated(status: str, body: str, error: type[ModelError], words: str) -> None:
    """Repeating it would change nothing."""
    async with canned(response(body.encode(), status=status)) as server:
        with pytest.raises(error, match=words):
            await ask(server)
    assert len(server.requests) == 1


async def test_a_busy_server_is_asked_again_when_it_says() -> None:
    """While it loads, or its queue is full."""
    busy = response(b'{"error": {"message": "Loading model"}}', status="503 Busy", more="retry-after: 1\r\n")
    started = time.monotonic()
    async with canned(busy, GOOD) as server:
        reply = await ask(server)
    assert (reply.text, reply.retries) == ("Hello", 1)
    assert time.monotonic() - started >= 1


async def test_a_server_that_stays_busy_is_an_outage_after_a_bounded_number_of_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five more than the first."""
    monkeypatch.setattr("lumina.models.openai.BUSY_S", 0.001)
    async with canned(response(b"{}", status="429 Too Many")) as server:
        with pytest.raises(ModelUnavailable, match=r"answered 429.*; try again later"):
            await ask(server)
    assert len(server.requests) == 6


async def test_a_stale_connection_is_replaced_once() -> None:
    """Then it is an outage."""
    async with canned(None, GOOD) as server:
        assert (await ask(server)).retries == 1
    async with canned(None) as server:
        with pytest.raises(ModelUnavailable, match="closed the connection before its answer was complete"):
            await ask(server)
    assert len(server.requests) == 2


async def test_the_servers_own_parser_is_given_another_seed() -> None:
    """llama-server answers 500 to some good answers of its own model."""
    words = b'{"error": {"message": "output does not match the expected peg-native format"}}'
    async with canned(response(words, status="500 Internal Server Error"), GOOD) as server:
        assert (await ask(server)).text == "Hello"
    assert [request["seed"] for request in server.requests] == [0, 1]


@pytest.mark.parametrize(
    "cut",
    [
        events(piece("Hal"), end=False),
        events(piece("Hal"), {"error": {"message": "provider gone", "code": 502}}, end=False),
    ],
)
async def test_an_answer_that_breaks_off_is_asked_for_once_more(cut: bytes) -> None:
    """Half an answer is never an answer."""
    async with canned(cut, GOOD) as server:
        reply = await ask(server)
    assert (reply.text, reply.retries) == ("Hello", 1)
    async with canned(cut) as server:
        with pytest.raises(ModelUnavailable, match="in the middle of an answer"):
            await ask(server)
    assert len(server.requests) == 2


async def test_a_refused_schema_is_asked_for_in_weaker_ways() -> None:
    """And it is said how far the answer was held to it."""
    call = Generation(messages=CALL.messages, tokens_max=50, schema={"type": "array"})
    refusal = response(b'{"error": {"message": "response_format.type must be text"}}', status="400 Bad Request")
    async with canned(GOOD) as server:
        assert (await ask(server, call)).constraint is Constraint.JSON_SCHEMA
    async with canned(refusal, GOOD) as server:
        assert (await ask(server, call)).constraint is Constraint.JSON_OBJECT
    async with canned(refusal, refusal, GOOD) as server:
        assert (await ask(server, call)).constraint is Constraint.NONE
    formats = [request.get("response_format", {}) for request in server.requests]
    assert [one.get("type") for one in formats if isinstance(one, dict)] == ["json_schema", "json_object", None]
    async with canned(refusal) as server:
        with pytest.raises(ModelUnavailable, match="response_format"):
            await ask(server, call)


async def test_a_model_that_never_stops_is_cut_although_the_server_does_not() -> None:
    """Some servers ignore the limit."""
    async with canned(events(*[piece("x ")] * 5000)) as server:
        reply = await ask(server)
    assert reply.finish is Finish.LENGTH
    assert reply.generated_tokens <= CALL.tokens_max + 65


async def test_a_slow_server_is_timed_out() -> None:
    """The limit holds for the whole call."""
    slow = b"|PAUSE|".join([events(piece("x"), end=False), b"data: [DONE]\n\n"])
    call = Generation(messages=CALL.messages, tokens_max=5, timeout_s=0.5)
    async with canned(slow, pause_s=30) as server:
        with pytest.raises(ModelTimedOut, match=r"/v1 did not finish within 0\.5 s"):
            await ask(server, call)


async def test_text_is_passed_on_as_it_comes_and_whole() -> None:
    """Pieces together are the answer."""
    told: list[tuple[str, int]] = []

    async def on_text(text: str, tokens: int) -> None:
        told.append((text, tokens))

    async with canned(events(*[piece(f"{n} ") for n in range(40)], piece("", finish="stop"))) as server:
        backend = OpenAiBackend(url=server.url, model="m")
        reply = await backend.generate(CALL, on_text=on_text)
        await backend.aclose()
    assert told[0] == ("", 0)
    assert "".join(text for text, _ in told) == reply.text
    assert [tokens for _, tokens in told] == sorted(tokens for _, tokens in told)


@pytest.mark.parametrize(
    ("others", "context"),
    [
        (response(b'{"default_generation_settings": {"n_ctx": 3072}}'), 3072),
        (response(b'{"data": [{"id": "m", "meta": {"n_ctx": 2048, "n_ctx_train": 9999}}]}'), 2048),
        (response(b'{"data": [{"id": "other", "max_model_len": 1}, {"id": "m", "max_model_len": 8192}]}'), 8192),
        (response(b'{"data": [{"id": "m"}]}'), 4096),
        (response(b'{"error": "no"}', status="404 Not Found"), 4096),
    ],
)
async def test_the_context_is_asked_for_where_it_is_not_configured(others: bytes, context: int) -> None:
    """At /props, at /v1/models; else 4,096 is assumed."""
    async with canned(GOOD, others=others) as server:
        backend = OpenAiBackend(url=server.url, model="m")
        await backend.discover()
        assert backend.context == context
        await backend.aclose()
        configured = OpenAiBackend(url="http://127.0.0.1:1/v1", model="m", context=1000)
        await configured.discover()
        assert configured.context == 1000
        await configured.aclose()


async def test_discovery_at_a_web_page_is_garbage() -> None:
    """Before anything is sent to it."""
    async with canned(GOOD, others=response(b"<html>shop</html>", kind="text/html")) as server:
        backend = OpenAiBackend(url=server.url, model="m")
        with pytest.raises(ModelGarbage, match=r"/v1/models answered '<html>shop</html>' instead of a list of models"):
            await backend.discover()
        await backend.aclose()


async def test_calls_beyond_the_slots_wait_here() -> None:
    """A server that takes one call gets one at a time."""
    answer = b"|PAUSE|".join([events(piece("x"), end=False), b"data: [DONE]\n\n"])
    async with canned(answer, pause_s=0.1) as server:
        backend = OpenAiBackend(url=server.url, model="m", slots=1)
        started = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(backend.generate, CALL)
        await backend.aclose()
    assert len(server.requests) == 3
    assert time.monotonic() - started >= 0.2


def test_a_url_without_a_path_gets_the_usual_one() -> None:
    """Others are taken as they are."""
    assert OpenAiBackend(url="http://h:1", model="m").where == "http://h:1/v1"
    assert OpenAiBackend(url="http://h:1/", model="m").where == "http://h:1/v1"
    assert OpenAiBackend(url="http://h:1/api/v3/", model="m").where == "http://h:1/api/v3"


@given(st.lists(st.sampled_from([b'data: {"a": 1}', b": ping", b"event: x", b"", b"data:2\r"]), max_size=20), st.data())
def test_events_are_the_same_however_the_bytes_arrive(lines: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere."""
    stream = b"\n".join(lines) + b"\n"
    whole = SseLines(where="x")
    expected = [*whole.feed(stream), *whole.end()]
    parts = SseLines(where="x")
    cut = data.draw(st.integers(0, len(stream)))
    assert [*parts.feed(stream[:cut]), *parts.feed(stream[cut:]), *parts.end()] == expected


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["data", "meta", "n_ctx", "id", "default_generation_settings"]),
            inner | st.lists(inner, max_size=3),
        ),
    )
)
def test_no_listing_breaks_the_reader(listing: object) -> None:
    """Whatever a server answers."""
    found = context_in(listing, model="m")
    assert found is None or found > 0


def test_the_estimate_of_tokens_is_rather_too_high() -> None:
    """Characters / 2.5 for ASCII, 1.5 tokens for each other one, and something for the template."""
    assert estimated_tokens([Message("user", "x" * 250)]) == 124
    assert estimated_tokens([Message("user", "é" * 100)]) == 174
