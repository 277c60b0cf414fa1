"""Requests for workers: one pull at a time on the durable consumer that all instances of a role share."""

from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

import anyio
import msgspec
import structlog

from lumina.bus.decoding import decoded
from lumina.bus.errors import LogDamaged, LogUnavailable
from lumina.bus.log import Delivery
from lumina.bus.stored import Stored
from lumina.bus.subjects import next_request_subject
from lumina.bus.transport import NOBODY, NOBODY_LISTENS, Arrival, Message, Reconnected, Subscription, Transport
from lumina.events.base import Event
from lumina.events.errors import EventError
from lumina.events.record import Recorded

PULL_S: Final = 20.0
PULL_GRACE_S: Final = 2.0
REFUSED_PAUSE_S: Final = 0.25
ACK_S_MAX: Final = 2.0
ACK_ATTEMPTS_MAX: Final = 3
NANOSECONDS: Final = 1_000_000_000

_EXPIRED: Final = {404, 408}
_SHORT_ACK_TOKENS: Final = 9

log = structlog.get_logger()


class JetStreamDelivery:
    """See `Delivery`."""

    def __init__(self, transport: Transport, *, recorded: Recorded[Event], reply: str) -> None:
        self._transport = transport
        self._recorded = recorded
        self._reply = reply

    @property
    def recorded(self) -> Recorded[Event]:
        """See `Delivery`."""
        return self._recorded

    async def ack(self) -> None:
        """See `Delivery`. Waits for the server's word, since a needless repetition of a model call is dear.

        When the server can't be reached, the request comes again, and its outcome is found in the log.
        """
        with anyio.CancelScope(shield=True):
            problem = ""
            for _ in range(ACK_ATTEMPTS_MAX):
                try:
                    await self._transport.request(self._reply, payload=b"+ACK", timeout_s=ACK_S_MAX)
                except LogUnavailable as error:
                    problem = str(error)
                    await self._transport.wait_connected(timeout_s=ACK_S_MAX)
                else:
                    return
            log.warning("work.ack_failed", seq=self._recorded.seq, problem=problem)

    async def in_progress(self) -> None:
        """See `Delivery`."""
        await _tell(self._transport, self._reply, b"+WPI")

    async def retry(self, *, delay_s: float) -> None:
        """See `Delivery`."""
        with anyio.CancelScope(shield=True):
            await _give_back(self._transport, self._reply, delay_s=delay_s)


async def pull_requests(transport: Transport, *, role: str, retry_s_max: float) -> AsyncGenerator[Delivery, None]:
    """Yield the requests of a role; see `EventLog.work`. What arrives after the reader left is given back.

    Raises:
        LogUnavailable: The consumer could not be reached for `retry_s_max`.
        Forbidden: These credentials are not those of the role.
    """
    pull = _Pull(transport, role=role, retry_s_max=retry_s_max)
    subscription: Subscription | None = None
    try:
        async with transport.subscribe(transport.new_inbox()) as subscription:
            while True:
                delivery = await pull.next(subscription)
                if delivery is not None:
                    yield delivery
    finally:
        if subscription is not None:
            with anyio.CancelScope(shield=True):
                pull.waiting.extend(subscription.take_nowait())
                for arrival in pull.waiting:
                    if isinstance(arrival, Message) and arrival.reply and not arrival.status:
                        await _give_back(transport, arrival.reply, delay_s=0.0)


class _Pull:
    """The one request for work that is open at the server, and what arrived for it."""

    def __init__(self, transport: Transport, *, role: str, retry_s_max: float) -> None:
        self.waiting: deque[Arrival] = deque()
        self._transport = transport
        self._role = role
        self._subject = next_request_subject(role)
        self._payload = msgspec.json.encode({"batch": 1, "expires": int(PULL_S * NANOSECONDS)})
        self._retry_s_max = retry_s_max
        self._reached = anyio.current_time()
        self._open = False

    async def next(self, subscription: Subscription) -> Delivery | None:
        """Return the next delivery, or None when something else happened and one should ask again."""
        if not self.waiting:
            await self._fill(subscription)
        while self.waiting:
            arrival = self.waiting.popleft()
            if isinstance(arrival, Reconnected):
                self._open = False  # The server forgot what was asked on the old connection.
            elif arrival.status:
                await self._heed(arrival)
            else:
                self._open = False
                self._reached = anyio.current_time()
                delivery = await self._delivery(arrival)
                if delivery is not None:
                    return delivery
        return None

    async def _fill(self, subscription: Subscription) -> None:
        self.waiting.extend(subscription.take_nowait())
        if self.waiting:
            return
        if not self._open:
            try:
                await subscription.ask(self._subject, payload=self._payload)
            except LogUnavailable as error:
                await self._pause(str(error))
                return
            self._open = True
        arrivals = await subscription.take(timeout_s=min(PULL_S + PULL_GRACE_S, self._retry_s_max))
        if not arrivals:
            self._open = False  # Not even a refusal came: ask again.
        self.waiting.extend(arrivals)

    async def _heed(self, message: Message) -> None:
        self._open = False
        if message.status == NOBODY:
            await self._pause(NOBODY_LISTENS)
            return
        self._reached = anyio.current_time()
        if message.status not in _EXPIRED:
            log.info("work.pull_refused", role=self._role, status=message.status, reason=message.description)
            await anyio.sleep(REFUSED_PAUSE_S)

    async def _pause(self, reason: str) -> None:
        waited_s = anyio.current_time() - self._reached
        if waited_s > self._retry_s_max or self._transport.is_closed:
            raise LogUnavailable(f"{self._subject}: {reason}; tried for {waited_s:.0f} s")
        await self._transport.wait_connected(timeout_s=self._retry_s_max)
        await anyio.sleep(REFUSED_PAUSE_S)

    async def _delivery(self, message: Message) -> Delivery | None:
        seq = _sequence(message.reply)
        try:
            recorded = decoded(Stored(seq, message.subject, message.headers, message.payload))
        except (EventError, LogDamaged) as error:
            # No instance of this version can ever answer it: it must not come again and again.
            log.exception("work.undecodable", role=self._role, seq=seq, problem=str(error))
            await _tell(self._transport, message.reply, f"+TERM {error}".encode())
            return None
        return JetStreamDelivery(self._transport, recorded=recorded, reply=message.reply)


def _sequence(reply: str) -> int:
    """Return the stream sequence from `$JS.ACK.…`, in its short form or the one with domain and account."""
    tokens = reply.split(".")
    return int(tokens[5] if len(tokens) == _SHORT_ACK_TOKENS else tokens[7])


async def _give_back(transport: Transport, reply: str, *, delay_s: float) -> None:
    delay = msgspec.json.encode({"delay": int(delay_s * NANOSECONDS)})
    await _tell(transport, reply, b"-NAK " + delay if delay_s > 0 else b"-NAK")


async def _tell(transport: Transport, reply: str, word: bytes) -> None:
    try:
        await transport.publish(reply, payload=word)
    except LogUnavailable as error:
        # Nothing is lost: what is not acknowledged comes again after the consumer's ack wait.
        log.debug("work.untold", word=word.decode(errors="replace"), problem=str(error))
