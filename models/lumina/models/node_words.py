"""Reads the words of `node.toml` that need more than a type: amounts of memory, URLs, references to secrets."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

_AMOUNT: Final = re.compile(r"^\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(%|B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$", re.IGNORECASE)
_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_OWN_NETWORKS: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "::/128", "fc00::/7", "fe80::/10"),
    )
)
_REFERENCE: Final = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")
BYTES_MAX: Final = 2**50
_OWN_DOMAINS: Final = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
"""Names that exist only in the network of whoever uses them (RFC 6761, 6762, 8375, and ICANN's `.internal`)."""


def bytes_of(amount: str, *, available: int) -> int | None:
    """Return the bytes that `4GB`, `512 MiB` or `50%` of `available` are; None when it is no amount above zero."""
    match = _AMOUNT.match(amount)
    if match is None:
        return None
    number, unit = float(match[1]), match[2].lower()
    if unit == "%":
        return int(available * number / 100) if 0 < number <= 100 else None
    size = int(number * _UNITS[unit])
    return size if 0 < size <= BYTES_MAX else None


def url_problem(url: str) -> str | None:
    """Return what is wrong with the base URL of a server, None when nothing is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"{url!r} is no URL: {error}"
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or re.search(r"\s", url):
        return f"{url!r} is no http or https URL; write for instance http://127.0.0.1:8080/v1"
    if parts.username is not None or parts.password is not None:
        return "it holds a password; use api_key"
    if parts.query or parts.fragment:
        return f"{url!r} has a query or fragment; give the base URL only"
    return None


def is_elsewhere(url: str) -> bool:
    """Return whether a server runs on machines of others, as far as its address tells.

    Addresses of this machine and of private networks (loopback, RFC 1918, unique local, link-local), names without a
    dot and names of home networks are one's own. Everything else is not; so is what is no address at all.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return not host or ("." in host and not host.endswith(_OWN_DOMAINS))
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    return not any(address in network for network in _OWN_NETWORKS if network.version == address.version)


def key_problem(reference: str | None, *, environ: Mapping[str, str]) -> str | None:
    """Return what is wrong with a reference to a secret, None when nothing is. The text itself is never repeated."""
    if reference is None:
        return None
    match = _REFERENCE.match(reference)
    if match is None:
        return "must be a reference to an environment variable, ${NAME}; secrets do not belong into this file"
    if not environ.get(match[1]):
        return f"the environment variable {match[1]} is not set"
    return None
