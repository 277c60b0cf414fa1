"""A server that we did not write, with a real model: llama-cpp-python's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.models.http_servers import llama_server

from lumina.models.backend import Constraint, Finish, Generation, Message
from lumina.models.openai import OpenAiBackend

pytestmark = pytest.mark.anyio

ASK = (Message("system", "Be short."), Message("user", "Say something."))


@pytest.fixture(scope="module")
def url(tiny_gguf: Path) -> Iterator[str]:
    """Yield the URL of a server with the tiny model."""
    with llama_server(tiny_gguf, context=2048) as url:
        yield url


async def test_it_streams_answers_that_repeat(url: str) -> None:
    """Without usage: pieces are counted, the prompt is estimated."""
    backend = OpenAiBackend(url=url, model="tiny")
    await backend.discover()
    assert backend.context == 4096  # it does not say
    call = Generation(messages=ASK, tokens_max=4)
    first, second = [await backend.generate(call) for _ in range(2)]
    await backend.aclose()
    assert first.text == second.text
    assert first.finish is Finish.LENGTH
    assert not first.exact


async def test_it_takes_a_schema_in_its_own_way(url: str) -> None:
    """It refuses `json_schema`; asked for a JSON object with a schema, it constrains the answer."""
    backend = OpenAiBackend(url=url, model="tiny")
    schema = {"type": "array", "items": {"enum": ["game", "scraper"]}, "minItems": 1, "maxItems": 3}
    call = Generation(messages=ASK, tokens_max=200, temperature=0.5, seed=3, schema=schema)
    reply = await backend.generate(call)
    await backend.aclose()
    assert (reply.constraint, reply.retries) == (Constraint.JSON_OBJECT, 1)
    assert set(json.loads(reply.text)) <= {"game", "scraper"}
