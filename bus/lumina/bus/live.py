"""Chatter on core NATS: token streams, progress, heartbeats. What nobody hears is gone."""

from collections.abc import AsyncGenerator
from typing import Final

import structlog

from lumina.bus.errors import LogUnavailable, PayloadTooLarge
from lumina.bus.transport import Message, Transport

LIVE_ITEMS_MAX: Final = 10_000
LISTEN_S: Final = 60.0

log = structlog.get_logger()


class NatsLive:
    """See `Live`. A listener that is more than `LIVE_ITEMS_MAX` behind misses what comes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def say(self, subject: str, *, payload: bytes) -> None:
        """See `Live`."""
        try:
            await self._transport.publish(subject, payload=payload)
        except (LogUnavailable, PayloadTooLarge) as error:
            log.debug("live.dropped", subject=subject, problem=str(error))

    async def hear(self, subject: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """See `Live`.

        Raises:
            LogUnavailable: The connection is closed for good.
            Forbidden: These credentials may not hear that.
        """
        async with self._transport.subscribe(subject, items_max=LIVE_ITEMS_MAX) as subscription:
            while True:
                for arrival in await subscription.take(timeout_s=LISTEN_S):
                    if isinstance(arrival, Message):
                        yield arrival.subject, arrival.payload
