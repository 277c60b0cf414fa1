"""A small server of the OpenAI protocol around a real model: it streams, limits, refuses, and stops with its client.

llama-cpp-python's own server (`llama_server` in http_servers.py) hangs for good once a client has left a stream, so it
can't stand for what servers do about cancelled calls.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
from tests.models.http_servers import piece, receive_request, response

from lumina.models.backend import Message
from lumina.models.errors import ContextExceeded
from lumina.models.llama_engine import Cancelled, LlamaEngine
from lumina.models.llama_frames import Chat, Finished

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def engine_server(engine: LlamaEngine) -> AsyncIterator[str]:
    """Serve the model on a free port of the loopback, one call at a time, and yield the base URL."""
    turn = anyio.Lock()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                _, body = await receive_request(stream)
                await _answer(engine, json.loads(body), stream=stream, turn=turn)
            except* (anyio.EndOfStream, anyio.BrokenResourceError):
                pass  # the client left

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/v1"
        tasks.cancel_scope.cancel()


async def _answer(
    engine: LlamaEngine, body: dict[str, Any], *, stream: anyio.abc.SocketStream, turn: anyio.Lock
) -> None:
    chat = Chat(
        messages=tuple(Message(message["role"], message["content"]) for message in body["messages"]),
        tokens_max=body["max_tokens"],
        temperature=body["temperature"],
        seed=body["seed"],
        top_k=40,
        top_p=body["top_p"],
        schema=body.get("response_format", {}).get("json_schema", {}).get("schema"),
    )
    if len(engine.prompt(chat.messages)) >= engine.context:
        refusal = {"error": {"code": "context_length_exceeded", "message": "the prompt is too long"}}
        await stream.send(response(json.dumps(refusal).encode(), status="400 Bad Request"))
        return
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            try:
                await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        async with turn:
            await _stream(engine, chat, stream=stream)
        tasks.cancel_scope.cancel()


async def _stream(engine: LlamaEngine, chat: Chat, *, stream: anyio.abc.SocketStream) -> None:
    engine.arm()
    await stream.send(HEAD)

    def say(payload: object) -> None:
        anyio.from_thread.run(stream.send, b"data: " + json.dumps(payload).encode() + b"\n\n")

    def work() -> None:
        try:
            finished: Finished = engine.chat(chat, on_piece=lambda text, _: say(piece(text)))
            say(piece(None, finish="stop" if finished.stopped else "length"))
            usage = {"prompt_tokens": finished.prompt_tokens, "completion_tokens": finished.generated_tokens}
            say({"choices": [], "usage": usage})
        except (Cancelled, ContextExceeded, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(work)
            tasks.cancel_scope.cancel()

        tasks.start_soon(run)
        try:
            await anyio.sleep_forever()
        finally:
            engine.stop()
    await stream.send(b"data: [DONE]\n\n")
