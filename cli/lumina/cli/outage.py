"""Notices that the system a command follows is gone for good: stopped by somebody else, or its server is down."""

from urllib.parse import urlsplit

import anyio

from lumina.cli.errors import SystemProblem

AWAY_S_MAX = 20.0
"""The embedded server is started again within a second or two; longer than this nobody comes back by himself."""
PROBE_S = 2.0
PORT = 4222


async def end_when_away(url: str, *, away_s_max: float = AWAY_S_MAX) -> None:
    """Wait for as long as somebody listens at the server's address.

    Raises:
        SystemProblem: Nobody did for `away_s_max` seconds.
    """
    seen = anyio.current_time()
    while anyio.current_time() - seen < away_s_max:
        await anyio.sleep(PROBE_S)
        if await _listens(url):
            seen = anyio.current_time()
    raise SystemProblem(
        f"the NATS server at {url} has been away for {away_s_max:.0f} s: nothing recorded is lost; start the system "
        "again (`lumina up`), and what was going on goes on (`lumina runs`)"
    )


async def _listens(url: str) -> bool:
    """Return whether any of the servers of a URL takes a connection."""
    for one in url.split(","):
        parts = urlsplit(one if "://" in one else f"nats://{one}")
        with anyio.move_on_after(PROBE_S):
            try:
                async with await anyio.connect_tcp(parts.hostname or "", parts.port or PORT):
                    return True
            except OSError:
                continue
    return False
