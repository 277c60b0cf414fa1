"""Fetches pages on the host, before a scraper runs: the sandbox itself has no network.

GET by http and https only, without cookies, credentials or proxies, with a size and a time limit. A redirect is
followed within the same host and port. An address that is not public is only fetched when its `host:port` is allowed:
the orchestrator passes nothing but the addresses of hosts that the user allowed.
"""

import socket
import ssl
from ipaddress import ip_address
from typing import Final

import anyio
import httpx

from lumina.sandbox.programs import Page
from lumina.sandbox.rendering import sentence

PAGE_BYTES_MAX: Final = 2 * 2**20
TOTAL_TIMEOUT_S: Final = 15.0
REDIRECTS_MAX: Final = 3
USER_AGENT: Final = "Lumina/0.1 (page recorder)"
_PORTS: Final = {"http": 80, "https": 443}


class _Refused(Exception):
    """A page is not fetched; the message says why."""


def authority(url: str) -> str:
    """Return `host:port` of an address, with the scheme's port where none is named. Empty when it is not one."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return ""
    if parsed.scheme not in _PORTS or not parsed.host:
        return ""
    return f"{parsed.host}:{parsed.port or _PORTS[parsed.scheme]}"


async def fetch_all(urls: tuple[str, ...], *, allowed: frozenset[str]) -> tuple[Page, ...]:
    """Return one page per address, in order; failures are pages with a `problem`. At most 15 s for all together."""
    pages: dict[str, Page] = {url: _failed(url, "it took too long") for url in urls}
    with anyio.move_on_after(TOTAL_TIMEOUT_S):
        async with (
            httpx.AsyncClient(trust_env=False, timeout=TOTAL_TIMEOUT_S, headers={"User-Agent": USER_AGENT}) as client,
            anyio.create_task_group() as tasks,
        ):

            async def one(url: str) -> None:
                try:
                    pages[url] = await _fetch(client, url, allowed=allowed)
                except (_Refused, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                    pages[url] = _failed(url, str(error) or type(error).__name__)

            for url in pages:
                tasks.start_soon(one, url)
    return tuple(pages.values())


def _failed(url: str, problem: str) -> Page:
    return Page(url=url, status=0, problem=sentence(f"{url} could not be fetched: {problem}"))


async def _fetch(client: httpx.AsyncClient, url: str, *, allowed: frozenset[str]) -> Page:
    home = authority(url)
    if not home:
        raise _Refused("only http and https addresses can be fetched")
    if home not in allowed:
        await _require_public(home)
    asked = httpx.URL(url)
    for _ in range(REDIRECTS_MAX + 1):
        async with client.stream("GET", asked) as response:
            if response.next_request is None:
                return await _read(url, response)
            asked = response.next_request.url
            if authority(str(asked)) != home:
                raise _Refused(f"it redirects to another host, {asked.host}")
    raise _Refused(f"more than {REDIRECTS_MAX} redirects")


async def _read(url: str, response: httpx.Response) -> Page:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > PAGE_BYTES_MAX:
            raise _Refused(f"it is larger than {PAGE_BYTES_MAX:,} bytes")
    media_type = response.headers.get("content-type", "text/html")
    return Page(url=url, status=response.status_code, media_type=media_type, body=bytes(body))


async def _require_public(home: str) -> None:
    """Refuse a host that any of its addresses places in a private network."""
    host, _, port = home.rpartition(":")
    found = await anyio.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    for *_, address in found:
        if not ip_address(str(address[0]).split("%", 1)[0]).is_global:
            raise _Refused(f"{host} is not a public address")
