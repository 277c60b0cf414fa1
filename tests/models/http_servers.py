"""HTTP servers of the tests: one that sends exactly the bytes that it is told to, and one with a real model."""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.abc
import httpx


class Canned:
    """Answers each request to the chat endpoint with the next of its texts, the last one for ever."""

    def __init__(self, *answers: bytes | None, others: bytes = b"", pause_s: float = 0.0) -> None:
        self.port = 0
        self.requests: list[dict[str, object]] = []
        self.closed = 0
        self._answers = answers
        self._others = others or response(b'{"error": {"message": "not here"}}', status="404 Not Found")
        self._pause_s = pause_s

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Answer one connection. An answer of None closes it without a word."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            head, _, body = head.partition(b"\r\n\r\n")
            length = next(
                (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
            )
            while len(body) < length:
                body += await stream.receive()
            if b"/chat/completions" not in head:
                await stream.send(self._others)
                return
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(json.loads(body))
            if answer is not None:
                for part in answer.split(b"|PAUSE|"):
                    await stream.send(part)
                    await anyio.sleep(self._pause_s)


@asynccontextmanager
async def canned(*answers: bytes | None, others: bytes = b"", pause_s: float = 0.0) -> AsyncIterator[Canned]:
    """Serve these answers on a free port of the loopback for the length of the body."""
    server = Canned(*answers, others=others, pause_s=pause_s)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server.port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        try:
            await server.serve(stream)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            server.closed += 1

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield server
        tasks.cancel_scope.cancel()


async def receive_request(stream: anyio.abc.SocketStream) -> tuple[bytes, bytes]:
    """Return the head and the body of one request."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    head, _, body = head.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line]
    while len(body) < (int(lengths[0]) if lengths else 0):
        body += await stream.receive()
    return head, body


def response(body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    """Return a whole HTTP answer."""
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}connection: close\r\n\r\n"
    )
    return head.encode() + body


def events(*payloads: object, end: bool = True) -> bytes:
    """Return an answer that is a stream of server-sent events."""
    lines = [payload if isinstance(payload, bytes) else json.dumps(payload).encode() for payload in payloads]
    body = b"".join(b"data: " + line + b"\n\n" for line in lines) + (b"data: [DONE]\n\n" if end else b"")
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body


def piece(text: str | None, *, finish: str | None = None) -> dict[str, object]:
    """Return one event of a chat."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


@contextmanager
def llama_server(model: Path, *, context: int) -> Iterator[str]:
    """Run llama-cpp-python's own server on a model, and yield its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", str(context), "--n_threads", "1", "--interrupt_requests", "False"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/v1/models", process=process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _wait_until_up(url: str, *, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "llama_cpp.server ended; are its dependencies installed?"
        try:
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("llama_cpp.server did not come up")
