"""Runs inside a sandbox: serves recorded pages as an HTTP proxy on loopback while it runs a program.

Arguments: the file with the pages, the program's command. A page is served for exactly the address under which it was
fetched; anything else is answered with an error and reported as a line `{"refused": "GET http://..."}`. Pages with
https are served behind CONNECT, with the certificate that came with them. Ends with the program's exit code. What it
reports is for people; nothing is judged by it. Standard library only.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

HEAD_BYTES_MAX = 65536
CONNECTION_TIMEOUT_S = 5.0
REPORTS_MAX = 200
CERTIFICATE = "/tmp/pages.pem"  # noqa: S108 - nobody else is in this sandbox
PORTS = {"http": 80, "https": 443}


class Connection(Protocol):
    """What plain and encrypted connections have in common."""

    def recv(self, size: int, /) -> bytes:
        """Read."""
        ...

    def sendall(self, content: bytes, /) -> None:
        """Write."""
        ...


def key(url: str) -> str:
    """Return the one spelling of an address: no fragment, no default port, lower-case host, a path."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    place = f"{host}:{port}" if port not in {None, PORTS.get(scheme)} else host
    return f"{scheme}://{place}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")


class Server:
    """Answers from a table of pages."""

    def __init__(self, served: dict[str, Any], *, report: int) -> None:
        self._pages = {key(page["url"]): page for page in served["pages"]}
        self._report = report
        self._reported = 0
        self._tls: ssl.SSLContext | None = None
        if served["certificate"]:
            self._tls = self._encrypt(served["certificate"] + served["key"])

    @staticmethod
    def _encrypt(pem: str) -> "ssl.SSLContext":
        import ssl  # noqa: PLC0415 - 15 ms that only https needs

        descriptor = os.open(CERTIFICATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(pem)
        offer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        offer.load_cert_chain(CERTIFICATE)
        return offer

    def refuse(self, what: str) -> None:
        """Report an attempt that was refused."""
        self._reported += 1
        if self._reported <= REPORTS_MAX:
            os.write(self._report, json.dumps({"refused": what[:500]}).encode() + b"\n")

    def serve(self, listener: socket.socket) -> None:
        """Answer one connection after the other, for ever."""
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(CONNECTION_TIMEOUT_S)
                try:
                    self._answer(connection)
                except OSError:
                    continue  # it went away; the next one is waiting

    def _answer(self, connection: socket.socket) -> None:
        method, target = self._request(connection)
        if method != "CONNECT":
            self._page(connection, method=method, url=target)
            return
        host = target.rpartition(":")[0]
        if self._tls is None or not any(urlsplit(page).hostname == host for page in self._pages):
            self.refuse(f"CONNECT {target}")
            self._send(connection, status=502, body=f"{target} was not fetched beforehand".encode())
            return
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self._tls.wrap_socket(connection, server_side=True) as inner:
            method, path = self._request(inner)
            self._page(inner, method=method, url=f"https://{target.removesuffix(':443')}{path}")

    @staticmethod
    def _request(connection: Connection) -> tuple[str, str]:
        """Return the method and the target of a request; a body is not read."""
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX:
            chunk = connection.recv(4096)
            if not chunk:
                break
            head += chunk
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        return (words[0], words[1]) if len(words) == 3 else ("", "")

    def _page(self, connection: Connection, *, method: str, url: str) -> None:
        page = self._pages.get(key(url)) if method in {"GET", "HEAD"} else None
        if page is None:
            self.refuse(f"{method} {url}")
            self._send(connection, status=502, body=f"{url} was not fetched beforehand".encode())
        elif page["problem"]:
            self._send(connection, status=502, body=page["problem"].encode())
        else:
            body = base64.b64decode(page["body"])
            self._send(connection, status=page["status"], body=body, media_type=page["media_type"], method=method)

    @staticmethod
    def _send(
        connection: Connection, *, status: int, body: bytes, media_type: str = "text/plain", method: str = "GET"
    ) -> None:
        head = f"HTTP/1.1 {status} Recorded\r\nContent-Type: {media_type or 'text/html'}\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1", "replace") + (body if method != "HEAD" else b""))


def main() -> None:
    """Serve, run the program, and end as it ends."""
    file, *command = sys.argv[1:]
    with open(file, encoding="utf-8") as opened:
        served = json.load(opened)
    report = int(os.environ.pop("LUMINA_RESULTS"))
    os.set_inheritable(report, False)
    server = Server(served, report=report)
    with socket.create_server(("127.0.0.1", served["port"]), backlog=64) as listener:
        threading.Thread(target=server.serve, args=(listener,), daemon=True).start()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
