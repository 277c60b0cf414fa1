"""What Lumina asks of a NATS connection: publish, request, subscribe. `nats_transport.py` is its one adapter.

Everything that arrives is kept in an `Inbox`, from which the reader takes all there is at once: no message is lost
when the reader is cancelled while it waits, and no iterator of a client library is ever cancelled.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import anyio

from lumina.bus.errors import BusError, LogUnavailable

REQUEST_S_MAX: Final = 5.0
INBOX_ITEMS_MAX: Final = 65_536
NOBODY: Final = 503
"""The status with which the server says that nobody listens to a request."""
NOBODY_LISTENS: Final = "nobody listens there; JetStream starts up, or was not set up"
RETRY_PAUSE_S_MIN: Final = 0.02
RETRY_PAUSE_S_MAX: Final = 0.5

T = TypeVar("T")

NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived.

    Attributes:
        status: A status line of the server, for instance 404; 0 for an ordinary message.
        description: What the server says about the status.
    """

    subject: str
    payload: bytes
    headers: dict[str, str] = field(default_factory=dict)
    reply: str = ""
    status: int = 0
    description: str = ""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection was lost and is back. What was said meanwhile was not heard."""


Arrival = Message | Reconnected


class Inbox:
    """What has arrived for one reader and was not taken yet. Bounded: what does not fit is dropped and counted."""

    def __init__(self, *, items_max: int = INBOX_ITEMS_MAX) -> None:
        self._items: deque[Arrival] = deque()
        self._items_max = items_max
        self._arrived = anyio.Event()
        self._failure: tuple[type[BusError], str] | None = None
        self.dropped = 0

    def put(self, item: Arrival) -> None:
        """Add what arrived, or drop it when the reader is too far behind."""
        if len(self._items) >= self._items_max:
            self.dropped += 1
            return
        self._items.append(item)
        if not self._arrived.is_set():
            self._arrived.set()

    def fail(self, kind: type[BusError], reason: str) -> None:
        """Say that nothing more will come; the reader gets the error after what is still here."""
        self._failure = (kind, reason)
        self._arrived.set()

    def take_nowait(self) -> list[Arrival]:
        """Return all that has arrived, perhaps nothing."""
        items = list(self._items)
        self._items.clear()
        return items

    async def take(self, *, timeout_s: float) -> list[Arrival]:
        """Wait until something has arrived and return all of it; an empty list after `timeout_s`.

        Raises:
            BusError: Nothing more will come: the connection is gone, or the server forbids it.
        """
        if not self._items and self._failure is None:
            self._arrived = anyio.Event()
            with anyio.move_on_after(timeout_s):
                await self._arrived.wait()
        if not self._items and self._failure is not None:
            kind, reason = self._failure
            raise kind(reason)
        return self.take_nowait()


class Replies(Protocol):
    """The answers to one request; several may come."""

    async def take(self, *, timeout_s: float) -> list[Message]:
        """Wait for answers and return all that have come; an empty list after `timeout_s`.

        Raises:
            LogUnavailable: The connection was lost: no answer will come.
            Forbidden: These credentials may not ask that.
        """
        ...

    def close(self) -> None:
        """Forget the request; later answers are dropped."""
        ...


class Subscription(Protocol):
    """What arrives on some subjects."""

    async def take(self, *, timeout_s: float) -> list[Arrival]:
        """Wait for messages and return all that have come; an empty list after `timeout_s`.

        Raises:
            LogUnavailable: The connection is closed for good.
            Forbidden: These credentials may not hear one of the subjects, or not ask what was asked.
        """
        ...

    def take_nowait(self) -> list[Arrival]:
        """Return what has come and was not taken, also after the end of the subscription."""
        ...

    async def ask(self, subject: str, *, payload: bytes) -> None:
        """Publish a request whose answers arrive here. Only for a subscription to one subject without wildcards."""
        ...


class Transport(Protocol):
    """One connection to NATS. It reconnects by itself for as long as it is open."""

    @property
    def max_payload_bytes(self) -> int:
        """Headers and body of a message together, as the server allows them."""
        ...

    async def publish(
        self, subject: str, *, payload: bytes = b"", headers: Mapping[str, str] = NO_HEADERS, reply: str = ""
    ) -> None:
        """Say something. That it was heard is not known.

        Raises:
            LogUnavailable: There is no connection now; nothing was or will be sent.
            PayloadTooLarge: Nothing was sent.
        """
        ...

    async def open(self, subject: str, *, payload: bytes = b"", headers: Mapping[str, str] = NO_HEADERS) -> Replies:
        """Publish a request and return where its answers arrive. Raises as `publish` does."""
        ...

    async def request(
        self,
        subject: str,
        *,
        payload: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
        timeout_s: float = REQUEST_S_MAX,
    ) -> Message:
        """Ask and return the first answer.

        Raises:
            LogUnavailable: Nobody answered in time, or the connection was lost: whether it was heard is unknown.
            PayloadTooLarge: Nothing was sent.
            Forbidden: These credentials may not ask that.
        """
        ...

    def subscribe(self, *subjects: str, items_max: int = INBOX_ITEMS_MAX) -> AbstractAsyncContextManager[Subscription]:
        """Hear what is said on `subjects` from now on. Survives reconnections, which appear as `Reconnected`."""
        ...

    def new_inbox(self) -> str:
        """Return a subject that only this connection hears."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether it will never be connected again."""
        ...

    async def wait_connected(self, *, timeout_s: float) -> bool:
        """Wait until there is a connection; False after `timeout_s` or when it is closed for good."""
        ...


async def patiently(transport: Transport, operation: Callable[[], Awaitable[T]], *, retry_s_max: float) -> T:
    """Return what `operation` returns; do it again when the server can't be reached, for up to `retry_s_max`.

    Only for what may be done twice. Raises LogUnavailable when the time is over or the connection is closed for good.
    """
    deadline = anyio.current_time() + retry_s_max
    pause_s = RETRY_PAUSE_S_MIN
    while True:
        try:
            return await operation()
        except LogUnavailable:
            left_s = deadline - anyio.current_time()
            if left_s <= 0 or transport.is_closed:
                raise
            await transport.wait_connected(timeout_s=left_s)
            await anyio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, RETRY_PAUSE_S_MAX)
