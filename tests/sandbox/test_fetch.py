"""Pages are fetched on the host, from permitted hosts only, within limits."""

import pytest

from lumina.sandbox.fetch import authority, fetch_all
from lumina.sandbox.programs import Page

pytestmark = pytest.mark.anyio


async def fetch(url: str, *, allow: bool = True) -> Page:
    """Fetch one page, with its host allowed or not."""
    (page,) = await fetch_all((url,), allowed=frozenset({authority(url)}) if allow else frozenset())
    return page


async def test_a_page_is_kept_as_it_came(site: str) -> None:
    """Address, status, media type and body."""
    page = await fetch(f"{site}/news")
    assert (page.status, page.media_type, page.problem) == (200, "text/html; charset=utf-8", "")
    assert b"<h2>Second</h2>" in page.body


async def test_an_error_page_is_a_page_too(site: str) -> None:
    """What the program would have seen."""
    assert (await fetch(f"{site}/missing")).status == 404


async def test_redirects_stay_on_their_host(site: str) -> None:
    """Within the host they are followed, elsewhere and for ever they are not."""
    assert b"Second" in (await fetch(f"{site}/moved")).body
    assert "another host" in (await fetch(f"{site}/away")).problem
    assert "redirects" in (await fetch(f"{site}/loop")).problem


async def test_large_pages_are_left(site: str) -> None:
    """More than 2 MiB are not read to the end."""
    page = await fetch(f"{site}/large")
    assert "larger than" in page.problem
    assert page.body == b""


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/", "/etc/passwd", "http://", "http://[::1"])
async def test_only_web_addresses_are_fetched(url: str) -> None:
    """Other schemes and what is no address are refused."""
    assert (await fetch(url)).problem


async def test_private_addresses_have_to_be_allowed(site: str) -> None:
    """Loopback and the metadata address of clouds are out of reach unless they are named."""
    assert "not a public address" in (await fetch(f"{site}/news", allow=False)).problem
    assert "not a public address" in (await fetch("http://169.254.169.254/latest", allow=False)).problem
    assert "not a public address" in (await fetch("http://localhost:1/", allow=False)).problem


async def test_nobody_there_is_a_problem_of_the_page(site: str) -> None:
    """A refused connection is told with the address."""
    page = await fetch("http://127.0.0.1:1/x")
    assert page.problem.startswith("http://127.0.0.1:1/x could not be fetched")


def test_an_authority_names_its_port() -> None:
    """Allowed hosts are compared with the port that is really used."""
    assert authority("https://Example.com/a") == "example.com:443"
    assert authority("http://example.com:8080/a") == "example.com:8080"
    assert authority("http://user@127.0.0.1:80/") == "127.0.0.1:80"
    assert authority("javascript:alert(1)") == ""
