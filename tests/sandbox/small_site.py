"""A small web site on loopback with traps, for what fetches pages: `/news`, `/missing`, `/large`, `/moved`, `/away`."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

PAGE = b"""<html><body>
<article><h2> First </h2><a href="/1">read</a></article>
<article><h2>Second</h2><a href="/2">read</a></article>
<article><h2>Third</h2><a href="/3">read</a></article>
</body></html>"""


class _Site(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """Answer."""
        host = self.headers["Host"]
        match self.path:
            case "/news":
                self._send(200, PAGE)
            case "/large":
                self._send(200, b"x" * (3 * 2**20))
            case "/moved":
                self._send(302, b"", location="/news")
            case "/away":
                self._send(302, b"", location=f"http://localhost:{host.rpartition(':')[2]}/news")
            case "/loop":
                self._send(302, b"", location="/loop")
            case _:
                self._send(404, b"not here")

    def _send(self, status: int, body: bytes, *, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


@contextmanager
def served() -> Iterator[str]:
    """Serve the site and give its address, without a final slash."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
