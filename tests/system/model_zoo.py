"""OpenAI-compatible servers with every habit, good and bad, behind one port: the first part of the path says which."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

LATE_S: Final = 4.0
SLOW_S: Final = 300.0
HABITS: Final = ("adds", "mends", "late", "slow", "html", "broken", "hollow", "mute", "loops", "teapot")


def _sum(prompt: str) -> str:
    """Answer with the function that is asked for; with one that can't be parsed when its name begins with `bad`."""
    name = (re.findall(r"function called ([a-z_0-9]+)", prompt) or ["unknown"])[-1]
    body = "return a +" if name.startswith("bad") else "return a + b"
    return f"```python\ndef {name}(a, b):\n    {body}\n```\n"


def _mended(prompt: str) -> str:
    """Answer with a function that uses an unknown name, and with a good one when told so."""
    good = _sum(prompt)
    return good if "does not count" in prompt else good.replace("return a + b", "return a + c")


def _delta(text: str, *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _adds(prompt: str) -> Iterator[bytes]:
    yield _delta(_sum(prompt))
    yield _delta("", finish="stop")
    yield b"data: [DONE]\n\n"


def _mends(prompt: str) -> Iterator[bytes]:
    yield _delta(_mended(prompt))
    yield _delta("", finish="stop")
    yield b"data: [DONE]\n\n"


def _loops(_: str) -> Iterator[bytes]:
    while True:
        yield _delta("la la la ")


def _once(content: bytes) -> Callable[[str], Iterator[bytes]]:
    return lambda _: iter([content])


_STREAMS: Final[dict[str, Callable[[str], Iterator[bytes]]]] = {
    "adds": _adds,
    "mends": _mends,
    "late": _adds,
    "slow": _adds,
    "html": _once(b"<html><body>Welcome to the router</body></html>"),
    "broken": _once(b'data: {"choices": [{\n\n'),
    "hollow": _once(b'data: {"choices": []}\n\ndata: [DONE]\n\n'),
    "mute": _once(_delta("", finish="stop") + b"data: [DONE]\n\n"),
    "loops": _loops,
}


class Chat(BaseHTTPRequestHandler):
    """Answers in the way of the path, until `over` is set."""

    protocol_version = "HTTP/1.1"
    over: threading.Event

    def do_GET(self) -> None:
        """List one model; what is not a model server answers anything with a page."""
        if self.path.startswith("/html/"):
            self._begin("text/html")
            self.wfile.write(next(_STREAMS["html"]("")))
            return
        self._begin("application/json")
        self.wfile.write(json.dumps({"object": "list", "data": [{"id": "test", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        """Answer a chat in the way of the path."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        habit = self.path.split("/")[1]
        if habit == "teapot":
            self._begin("text/plain", status=418)
            self.wfile.write(b"I am a teapot")
            return
        if habit == "late":
            self.over.wait(LATE_S)
        if habit == "slow":
            self.over.wait(SLOW_S)
        self._begin("text/html" if habit == "html" else "text/event-stream")
        self._say(habit, asked)

    def _say(self, habit: str, asked: dict[str, Any]) -> None:
        prompt = "\n".join(str(message["content"]) for message in asked["messages"])
        try:
            for piece in _STREAMS[habit](prompt):
                self.wfile.write(piece)
                if self.over.is_set():
                    return
        except OSError:
            time.sleep(0)  # The client has heard enough.

    def _begin(self, media_type: str, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def model_zoo() -> Iterator[str]:
    """Serve on loopback for the time of the block; yields the root, to which `/HABIT/v1` is added."""
    over = threading.Event()
    chat = type("ChatUntilOver", (Chat,), {"over": over})
    server = ThreadingHTTPServer(("127.0.0.1", 0), chat)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def node_toml(root: str) -> str:
    """Return a node configuration that offers every habit under its name, and one server that is not there."""
    tables = [f'[[models]]\nid = "{habit}"\nurl = "{root}/{habit}/v1"\nslots = 4\n' for habit in HABITS]
    return "\n".join([*tables, '[[models]]\nid = "nobody"\nurl = "http://127.0.0.1:9/v1"\n'])
