"""The stage of `lumina demo`: a news page on loopback and the four layers of a character, made here and now."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from PIL import Image, ImageDraw

PORTS: Final = (8000, 8080, 5000, 3000)
CANVAS_PIXELS: Final = (128, 160)

HEADLINES: Final = (
    "Lighthouse keepers keep a log again",
    "Small models, small machines, real work",
    "River otters return to the old harbour",
    "Library lends tools on Saturdays",
    "Night train gets a third sleeping car",
    "Bakers vote for a later morning",
    "City maps its drinking fountains",
)

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Harbour News</title></head>
<body><h1>Harbour News</h1>
<nav><a href="/about">About</a></nav>
<main>
{articles}
</main></body></html>
"""

_ARTICLE: Final = '<article class="story"><h2>{title}</h2><a href="/news/{number}">Read on</a></article>'


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """One request of the demo: its kind, its words, and what it needs around it."""

    title: str
    request: str
    files: dict[str, bytes]
    hosts: tuple[str, ...] = ()


def news_page() -> str:
    """Return the page of the demo's newspaper, with seven articles."""
    articles = "\n".join(_ARTICLE.format(title=title, number=number) for number, title in enumerate(HEADLINES, start=1))
    return _PAGE.format(articles=articles)


def draw_layers() -> dict[str, bytes]:
    """Return four transparent PNG layers of a character, by file name."""

    def layer(draw_on: str, *, box: tuple[int, int, int, int] = (0, 0, *CANVAS_PIXELS)) -> bytes:
        image = Image.new("RGBA", CANVAS_PIXELS, (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        match draw_on:
            case "body":
                draw.ellipse((44, 12, 84, 56), fill=(238, 196, 160, 255))
                draw.rectangle((56, 52, 72, 64), fill=(238, 196, 160, 255))
                draw.rectangle((50, 112, 60, 150), fill=(90, 90, 120, 255))
                draw.rectangle((68, 112, 78, 150), fill=(90, 90, 120, 255))
            case "tunic":
                draw.polygon(((40, 62), (88, 62), (96, 118), (32, 118)), fill=(46, 125, 70, 255))
                draw.rectangle((32, 100, 96, 106), fill=(120, 84, 40, 255))
            case "boots":
                draw.rectangle((46, 138, 62, 156), fill=(92, 58, 28, 255))
                draw.rectangle((66, 138, 82, 156), fill=(92, 58, 28, 255))
            case _:
                draw.ellipse((53, 28, 59, 34), fill=(20, 20, 20, 255))
                draw.ellipse((69, 28, 75, 34), fill=(20, 20, 20, 255))
                draw.ellipse((60, 42, 68, 51), fill=(150, 40, 40, 255))
        out = io.BytesIO()
        image.crop(box).save(out, format="PNG")
        return out.getvalue()

    return {
        "base_character.png": layer("body"),
        "green_tunic.png": layer("tunic", box=(32, 62, 97, 119)),
        "leather_boots.png": layer("boots", box=(46, 138, 83, 157)),
        "surprised_face.png": layer("face", box=(53, 28, 76, 52)),
    }


@contextmanager
def newspaper() -> Iterator[str]:
    """Serve the news page on a free loopback port for the time of the block; yields `localhost:PORT`.

    The ports are those that the demo model has seen in addresses; it copies others less surely.
    """
    page = news_page().encode()

    class News(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer `/news.html` with the page, anything else with 404."""
            found = self.path == "/news.html"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page if found else b"not here")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            """Stay silent: the demo's own progress is what counts."""

    server = _listening(News)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listening(answers: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    for port in PORTS:
        try:
            return ThreadingHTTPServer(("127.0.0.1", port), answers)
        except OSError:  # somebody else listens there
            continue
    return ThreadingHTTPServer(("127.0.0.1", 0), answers)


def demo_requests(host: str) -> tuple[DemoRequest, ...]:
    """Return the five requests of the source documents (000, sections 4.1 to 4.3), with the news page at `host`."""
    return (
        DemoRequest(
            title="A wink and a smile (GSAP timeline)",
            request=(
                "Create a GSAP timeline where #left-eye closes (scaleY: 0.1) over 0.15 seconds, then #left-eye opens "
                "(scaleY: 1) over 0.15 seconds, then #mouth widens (scaleX: 1.2) over 0.3 seconds."
            ),
            files={},
        ),
        DemoRequest(
            title="The news (web scraping)",
            request=(
                "Write a Python script that scrapes the titles (h2) and URLs (a) of the first 5 articles "
                f"(article.story) from http://{host}/news.html."
            ),
            files={},
            hosts=(host,),
        ),
        DemoRequest(
            title="Rock, paper, scissors (game logic)",
            request=(
                "Generate JavaScript code for a simple rock-paper-scissors game function that takes playerChoice "
                "and returns 'win', 'lose', or 'tie'."
            ),
            files={},
        ),
        DemoRequest(
            title="A traveller's talk (NPC dialogue)",
            request=(
                "Generate Python code for an NPC dialogue tree where if player says 'hello', NPC responds "
                "'Greetings, traveler!', and if player says 'quest', NPC responds 'I have no quests for you today.'"
            ),
            files={},
        ),
        DemoRequest(
            title="A character in four layers (Pillow)",
            request=(
                "Generate a Python script using Pillow to layer 'base_character.png', 'green_tunic.png' "
                "(at coordinates 32,62), 'leather_boots.png' (at 46,138), and 'surprised_face.png' (at 53,28). "
                "Ensure all layers are transparent PNGs and composite them correctly. Save the output as "
                "'generated_character.png'."
            ),
            files=draw_layers(),
        ),
    )
