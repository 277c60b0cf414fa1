"""A small OpenAI-compatible server for tests: a real HTTP server whose answers follow from the request's words."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], str]


def adds(prompt: str) -> str:
    """Answer a request for a function `NAME(a, b)` that adds, with the function."""
    name = re.findall(r"function called ([a-z_0-9]+)", prompt)
    return f"```python\ndef {name[-1] if name else 'unknown'}(a, b):\n    return a + b\n```\n"


@contextmanager
def openai_server(answer: Answer = adds, *, delay_s: float = 0.0) -> Iterator[str]:
    """Serve chat completions on loopback for the time of the block; yields the base URL."""

    class Chat(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """List one model."""
            self._send({"object": "list", "data": [{"id": "test", "object": "model"}]})

        def do_POST(self) -> None:
            """Answer a chat, streamed or whole."""
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = answer("\n".join(str(message["content"]) for message in asked["messages"]))
            time.sleep(delay_s)
            if asked.get("stream"):
                self._stream(text)
            else:
                message = {"role": "assistant", "content": text}
                self._send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def _send(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in re.findall(r"(?s).{1,12}", text):
                self._event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def _event(self, body: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
