"""The adapter to nats-py. All that is known to go wrong in nats-py 2.16 is dealt with here, each at its place.

1. Ghost writes: a publish while disconnected would be kept and sent after the caller gave up (`pending_size=0`).
2. A pending request sleeps through a restart of the server: open requests fail as soon as the connection is lost.
3. Cancelled iterators and fetches lose messages: only callbacks are used, and they fill an `Inbox`.
4. Swallowed cancellation: only plain publishes are awaited; anyio's scopes cancel again until they are obeyed.
5. A message over `max_payload` closes the client for good: headers and body are measured before.
6. An `error_cb` that raises, and a `flush` that is cancelled, kill the read loop: ours can't raise, nothing flushes.
7. Permission violations look like silence: the server's text is mapped back to whoever asked.
"""

import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec
import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import Forbidden, LogUnavailable, PayloadTooLarge
from lumina.bus.transport import (
    INBOX_ITEMS_MAX,
    NO_HEADERS,
    NOBODY,
    NOBODY_LISTENS,
    REQUEST_S_MAX,
    Arrival,
    Inbox,
    Message,
    Reconnected,
    Transport,
)

CONNECT_S_MAX: Final = 5.0
RECONNECT_WAIT_S: Final = 0.2
PING_INTERVAL_S: Final = 10
PINGS_OUTSTANDING_MAX: Final = 2

_HEADER_FRAME_BYTES: Final = len("NATS/1.0\r\n\r\n")
_HEADER_LINE_BYTES: Final = len(": \r\n")
_headers: Final = msgspec.json.Decoder(dict[str, str])
_VIOLATION: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)
_UNAUTHORIZED: Final = "authorization violation"

log = structlog.get_logger()


@asynccontextmanager
async def connect(endpoint: Endpoint, *, timeout_s: float = CONNECT_S_MAX) -> AsyncIterator[Transport]:
    """Connect, and disconnect at the end of the block. In between the connection is re-established as often as needed.

    Raises:
        LogUnavailable: No server answers at that address within `timeout_s`.
        Forbidden: The server does not know these credentials.
    """
    transport = NatsTransport(endpoint)
    await transport.start(timeout_s=timeout_s)
    try:
        yield transport
    finally:
        with anyio.CancelScope(shield=True):
            await transport.stop()


class _QuickClient(Client):
    """Reads headers ten times as fast: nats-py looks at every character of every name, and a record has twenty.

    Should another version of nats-py do these things elsewhere, this is not called, and nothing but speed is lost.

    Attributes:
        answers: The number of the subscription on which all answers to requests arrive.
        on_answer: Takes them; it does not wait for anything.
    """

    answers: int = -1
    on_answer: Callable[[Message], None]

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        if b'"' not in raw and b"\\" not in raw:
            # As servers and clients write headers they are a few replacements away from JSON.
            text = raw.rstrip().replace(b"\r\n", b'","').replace(b": ", b'":"')
            try:
                return _headers.decode(b'{"' + text + b'"}')
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # some line is not `name: value`
        headers = {}
        for line in raw.decode(errors="replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip()] = value.strip()
        return headers

    async def _process_msg(  # noqa: PLR0917  # nats-py's own signature
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if sid != self.answers:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        # Straight to whoever asked: nats-py's queue and task in between are a fifth of what reading a log costs.
        found = await self._process_headers(headers) or {}
        self.on_answer(_arrived(subject.decode(), bytes(data), headers=found))


class NatsTransport:
    """See `Transport`. One nats-py client, one subscription for the answers to all requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = _QuickClient()
        self._connected = anyio.Event()
        self._closed = False
        self._starting = True
        self._stopping = False
        self._last_problem = "no answer"
        self._requests: dict[str, _Replies] = {}
        self._subscriptions: set[_Subscription] = set()
        self._reply_prefix = ""
        self._count = 0

    async def start(self, *, timeout_s: float) -> None:
        """Connect once; see `connect`."""
        attempts = max(1, math.ceil(timeout_s / RECONNECT_WAIT_S))
        try:
            await self._client.connect(
                servers=self._endpoint.url.split(","),
                name=self._endpoint.name,
                nkeys_seed_str=self._endpoint.seed,
                inbox_prefix=self._endpoint.inbox_prefix,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                max_reconnect_attempts=attempts,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it sleeps for whatever it is given
                connect_timeout=math.ceil(timeout_s),
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=PINGS_OUTSTANDING_MAX,
                pending_size=0,  # 1: raises OutboundBufferLimitError instead of keeping what can't be sent now.
            )
        except (TimeoutError, nats_errors.Error, OSError) as error:
            await self._client.close()  # nats-py leaves the socket of the last attempt open.
            where = f"{self._endpoint.url} as {self._endpoint.name}"
            if _UNAUTHORIZED in str(error).lower():
                raise Forbidden(f"{where}: the server does not know these credentials") from error
            raise LogUnavailable(f"no NATS server at {where}: {self._last_problem}") from error
        self._starting = False
        # Only the first connection gives up; what was connected once tries for as long as it is open.
        self._client.options["max_reconnect_attempts"] = -1
        self._reply_prefix = f"{self.new_inbox()}."
        answers = await self._client.subscribe(self._reply_prefix + "*", cb=self._on_reply)
        self._client.on_answer = self._answered
        self._client.answers = answers._id  # nothing else names a subscription where messages come in
        self._connected.set()

    async def stop(self) -> None:
        """Disconnect. Everybody who still waits gets LogUnavailable."""
        self._stopping = True
        await self._client.close()

    @property
    def max_payload_bytes(self) -> int:
        """See `Transport`."""
        return self._client.max_payload

    async def publish(
        self, subject: str, *, payload: bytes = b"", headers: Mapping[str, str] = NO_HEADERS, reply: str = ""
    ) -> None:
        """See `Transport`."""
        self._check_size(subject, payload=payload, headers=headers)
        try:
            await self._client.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)
        except nats_errors.MaxPayloadError as error:
            raise PayloadTooLarge(f"{subject}: {error}") from error
        except (nats_errors.Error, OSError) as error:
            raise LogUnavailable(f"{subject}: not sent: {error}") from error

    async def open(self, subject: str, *, payload: bytes = b"", headers: Mapping[str, str] = NO_HEADERS) -> "_Replies":
        """See `Transport`."""
        self._count += 1
        token = str(self._count)
        replies = _Replies(subject, forget=lambda: self._requests.pop(token, None))
        self._requests[token] = replies
        try:
            await self.publish(subject, payload=payload, headers=headers, reply=self._reply_prefix + token)
        except BaseException:
            replies.close()
            raise
        return replies

    async def request(
        self,
        subject: str,
        *,
        payload: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
        timeout_s: float = REQUEST_S_MAX,
    ) -> Message:
        """See `Transport`."""
        replies = await self.open(subject, payload=payload, headers=headers)
        try:
            messages = await replies.take(timeout_s=timeout_s)
        finally:
            replies.close()
        if not messages:
            raise LogUnavailable(f"{subject}: no answer within {timeout_s} s")
        if messages[0].status == NOBODY:
            raise LogUnavailable(f"{subject}: {NOBODY_LISTENS}")
        return messages[0]

    @asynccontextmanager
    async def subscribe(self, *subjects: str, items_max: int = INBOX_ITEMS_MAX) -> AsyncIterator["_Subscription"]:
        """See `Transport`."""
        subscription = _Subscription(self, subjects, items_max=items_max)
        self._subscriptions.add(subscription)
        try:
            await subscription.start(self._client)
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            with anyio.CancelScope(shield=True):
                await subscription.stop()

    def new_inbox(self) -> str:
        """See `Transport`."""
        return self._client.new_inbox()

    async def wait_connected(self, *, timeout_s: float) -> bool:
        """See `Transport`."""
        with anyio.move_on_after(timeout_s):
            await self._connected.wait()
        return self._connected.is_set() and not self._closed

    @property
    def is_closed(self) -> bool:
        """See `Transport`."""
        return self._closed

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client.is_connected and not self._closed

    def _check_size(self, subject: str, *, payload: bytes, headers: Mapping[str, str]) -> None:
        # 5: the server counts headers too and closes the connection for good; nats-py looks at the payload only.
        size = len(payload)
        if headers:
            size += _HEADER_FRAME_BYTES
            size += sum(len(key) + len(value.encode()) + _HEADER_LINE_BYTES for key, value in headers.items())
        if size > self.max_payload_bytes:
            limit = self.max_payload_bytes
            raise PayloadTooLarge(f"{subject}: {size:,} bytes with headers; the server takes {limit:,}")

    async def _on_reply(self, message: Msg) -> None:
        self._answered(_message(message))

    def _answered(self, message: Message) -> None:
        replies = self._requests.get(message.subject[len(self._reply_prefix) :])
        if replies is not None:
            replies.inbox.put(message)

    async def _on_disconnected(self) -> None:
        # 2: an answer that was under way will never come.
        self._connected = anyio.Event()
        for replies in list(self._requests.values()):
            replies.inbox.fail(LogUnavailable, f"{replies.subject}: the connection was lost before the answer came")
        if not (self._starting or self._stopping):
            log.warning("bus.disconnected", name=self._endpoint.name)

    async def _on_reconnected(self) -> None:
        self._connected.set()
        for subscription in self._subscriptions:
            subscription.inbox.put(Reconnected())
        log.info("bus.reconnected", name=self._endpoint.name)

    async def _on_closed(self) -> None:
        # 5: the client never comes back from here, so nobody may go on waiting for it.
        self._closed = True
        self._connected.set()
        for replies in list(self._requests.values()):
            replies.inbox.fail(LogUnavailable, f"{replies.subject}: the connection is closed")
        for subscription in self._subscriptions:
            subscription.inbox.fail(LogUnavailable, "the connection is closed")

    async def _on_error(self, error: Exception) -> None:
        # 6: nothing here can raise. 7: the only place where a violation of permissions shows.
        self._last_problem = str(error) or type(error).__name__
        if self._starting and _UNAUTHORIZED in self._last_problem.lower():
            self._client.options["allow_reconnect"] = False  # Wrong credentials do not get better by trying again.
        violation = _VIOLATION.search(self._last_problem)
        if violation is None:
            log.debug("bus.problem", name=self._endpoint.name, problem=self._last_problem)
            return
        subject = violation[2]
        log.error("bus.forbidden", name=self._endpoint.name, action=violation[1], subject=subject)
        reason = f"{self._endpoint.name} may not use {subject}"
        for replies in list(self._requests.values()):
            if replies.subject.lower() == subject.lower():
                replies.inbox.fail(Forbidden, reason)
        for subscription in self._subscriptions:
            if subscription.concerns(subject):
                subscription.inbox.fail(Forbidden, reason)


class _Replies:
    """See `Replies`."""

    def __init__(self, subject: str, *, forget: Callable[[], object]) -> None:
        self.subject = subject
        self.inbox = Inbox()
        self._forget = forget

    async def take(self, *, timeout_s: float) -> list[Message]:
        arrivals = await self.inbox.take(timeout_s=timeout_s)
        return [arrival for arrival in arrivals if isinstance(arrival, Message)]

    def close(self) -> None:
        self._forget()


class _Subscription:
    """See `Subscription`."""

    def __init__(self, transport: NatsTransport, subjects: tuple[str, ...], *, items_max: int) -> None:
        self.subjects = subjects
        self.inbox = Inbox(items_max=items_max)
        self._transport = transport
        self._asked: set[str] = set()
        self._parts: list[NatsSubscription] = []

    def concerns(self, subject: str) -> bool:
        """Whether a violation of the lower-cased `subject` was caused here."""
        return any(own.lower() == subject.lower() for own in (*self.subjects, *self._asked))

    async def start(self, client: Client) -> None:
        for subject in self.subjects:
            self._parts.append(await self._subscribe(client, subject))

    async def _subscribe(self, client: Client, subject: str) -> NatsSubscription:
        try:
            return await client.subscribe(subject, cb=self._on_message)
        except (nats_errors.Error, OSError) as error:
            raise LogUnavailable(f"{subject}: can't subscribe: {error}") from error

    async def stop(self) -> None:
        for part in self._parts:
            try:
                if self._transport.is_connected and self._asked:
                    # What is on its way still arrives, so that it can be given back.
                    await part.drain()  # type: ignore[no-untyped-call]  # nats-py forgot its annotation
                else:
                    await part.unsubscribe()
            except (nats_errors.Error, OSError) as error:
                log.debug("bus.unsubscribe_failed", subjects=self.subjects, problem=str(error))

    async def take(self, *, timeout_s: float) -> list[Arrival]:
        return await self.inbox.take(timeout_s=timeout_s)

    def take_nowait(self) -> list[Arrival]:
        return self.inbox.take_nowait()

    async def ask(self, subject: str, *, payload: bytes) -> None:
        assert len(self.subjects) == 1, "answers need one subject"
        self._asked.add(subject)
        await self._transport.publish(subject, payload=payload, reply=self.subjects[0])

    async def _on_message(self, message: Msg) -> None:
        self.inbox.put(_message(message))


def _message(message: Msg) -> Message:
    return _arrived(message.subject, message.data, headers=message.headers or {}, reply=message.reply)


def _arrived(subject: str, payload: bytes, *, headers: dict[str, str], reply: str = "") -> Message:
    status = headers.get("Status", "")
    number = int(status) if status.isdigit() else 0
    return Message(subject, payload, headers, reply, number, headers.get("Description", "") if status else "")
