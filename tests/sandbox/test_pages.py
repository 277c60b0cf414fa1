"""Recorded pages inside the sandbox: exactly those, by http and https, and nothing else."""

from threading import Event as Flag

import pytest

from lumina.events.contract import Form, Language, Limits
from lumina.sandbox.bubblewrap import Bubblewrap
from lumina.sandbox.certificates import self_signed
from lumina.sandbox.harness.serve_pages import key
from lumina.sandbox.port import RunResult
from lumina.sandbox.programs import Page, Program, Served, run_job
from lumina.sandbox.reports import refused_attempts

PLAIN = Page(url="http://news.example/list?page=1", status=200, media_type="text/html", body=b"<p>plain</p>")
SECURE = Page(url="https://news.example/", status=200, media_type="text/html", body="<p>sécure</p>".encode())
LOST = Page(url="http://news.example/lost", status=404, media_type="text/html", body=b"gone")
BROKEN = Page(url="http://news.example/broken", status=0, problem="it took too long")


def visit(tier: Bubblewrap, code: str) -> RunResult:
    """Run a scraper that is served the four pages."""
    certificate, private_key = self_signed(("news.example",))
    served = Served(pages=(PLAIN, SECURE, LOST, BROKEN), certificate=certificate, key=private_key)
    program = Program(code=code, language=Language.PYTHON, form=Form.ROWS, limits=Limits(wall_ms=8_000))
    return tier.run(run_job(program, served=served), stop=Flag())


def test_pages_are_served_as_they_were_fetched(tier: Bubblewrap) -> None:
    """Status, type and body, with http and https, by requests and by urllib."""
    code = """
import requests, urllib.request
for url in ("http://news.example/list?page=1", "http://NEWS.example:80/list?page=1#top", "https://news.example/",
            "http://news.example/lost", "http://news.example/broken"):
    answer = requests.get(url, timeout=5)
    print(answer.status_code, answer.headers["Content-Type"], answer.content.decode())
print(urllib.request.urlopen("https://news.example/").read().decode())
print(requests.head("http://news.example/list?page=1").status_code)
"""
    result = visit(tier, code)
    assert result.stdout.decode().splitlines() == [
        "200 text/html <p>plain</p>",
        "200 text/html <p>plain</p>",
        "200 text/html <p>sécure</p>",
        "404 text/html gone",
        "502 text/plain it took too long",
        "<p>sécure</p>",
        "200",
    ], result.stderr.decode()
    assert refused_attempts(result.results) == ()


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("requests.get('http://news.example/list?page=2')", "GET http://news.example/list?page=2"),
        ("requests.get('http://news.example/other')", "GET http://news.example/other"),
        ("requests.post('http://news.example/list?page=1', data='x')", "POST http://news.example/list?page=1"),
        ("requests.get('http://sub.news.example/')", "GET http://sub.news.example/"),
        ("requests.get('http://169.254.169.254/latest')", "GET http://169.254.169.254/latest"),
        ("requests.get('https://evil.example/')", "CONNECT evil.example:443"),
        ("requests.get('http://news.example:8080/list?page=1')", "GET http://news.example:8080/list?page=1"),
    ],
)
def test_anything_else_is_refused_and_reported(tier: Bubblewrap, line: str, refused: str) -> None:
    """Other paths, queries, methods, hosts and ports get an error status, and the attempt is named."""
    result = visit(tier, f"import requests\ntry:\n    print({line}.status_code)\nexcept OSError:\n    print(502)\n")
    assert result.stdout == b"502\n", result.stderr
    assert refused_attempts(result.results) == (refused,)


def test_the_exit_code_is_the_programs(tier: Bubblewrap) -> None:
    """The server passes on how the program ended."""
    assert visit(tier, "import sys; sys.exit(7)").exit_code == 7
    assert visit(tier, "import os; os.abort()").exit_code == 134


def test_one_page_has_one_spelling() -> None:
    """Fragments, default ports and the case of the host make no difference; everything else does."""
    assert key("HTTP://News.Example:80#top") == key("http://news.example/") == "http://news.example/"
    assert key("https://a/") != key("http://a/")
    assert key("http://a/b?c=1") != key("http://a/b?c=2")
    assert key("http://a:99999999/") != key("http://a/")
