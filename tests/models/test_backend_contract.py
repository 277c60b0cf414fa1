"""What every backend does: a worker process, a server of the OpenAI protocol, and the scripted one beside them."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from tests.models.engine_server import engine_server

from lumina.models.answers import plan_schema
from lumina.models.backend import Backend, Constraint, Finish, Generation, Message
from lumina.models.errors import ContextExceeded, ModelTimedOut
from lumina.models.llama_engine import LlamaEngine
from lumina.models.llama_frames import LlamaSpec
from lumina.models.llama_pool import LlamaPool
from lumina.models.openai import OpenAiBackend
from lumina.models.scripted import Rule, ScriptedBackend

pytestmark = pytest.mark.anyio

CONTEXT = 4096
ASK = (Message("system", "Be short."), Message("user", "Say something."))
PLAN = '[{"kind": "game", "brief": "Write it."}]'


@pytest.fixture(scope="module")
def engine(slow_gguf: Path) -> Iterator[LlamaEngine]:
    """Yield the model for the server."""
    engine = LlamaEngine(LlamaSpec(path=str(slow_gguf), context=CONTEXT))
    yield engine
    engine.close()


@pytest.fixture(params=["llama_cpp", "openai", "scripted"])
async def backend(request: pytest.FixtureRequest, slow_gguf: Path, tmp_path: Path) -> AsyncIterator[Backend]:
    """Yield one backend of each kind; each would go on for ever if it were let."""
    if request.param == "llama_cpp":
        pool = LlamaPool(tmp_path / "models")
        yield (await pool.ensure("slow#0", LlamaSpec(path=str(slow_gguf), context=CONTEXT)))[0]
        await pool.clear()
        await pool.aclose()
    elif request.param == "openai":
        async with engine_server(request.getfixturevalue("engine")) as url:
            remote = OpenAiBackend(url=url, model="slow", context=CONTEXT)
            yield remote
            await remote.aclose()
    else:
        rules = (Rule(contains="system: plan", answers=(PLAN,)), Rule(answers=("word " * 20_000,), token_s=0.004))
        yield ScriptedBackend(rules, context=CONTEXT)


def call(tokens_max: int, *, timeout_s: float = 60.0, text: str = "Say something.") -> Generation:
    return Generation(messages=(ASK[0], Message("user", text)), tokens_max=tokens_max, timeout_s=timeout_s)


async def test_it_answers_within_the_limit_and_says_that_it_was_cut(backend: Backend) -> None:
    """Text, counts and times."""
    reply = await backend.generate(call(8))
    assert reply.text
    assert reply.finish is Finish.LENGTH
    assert 1 <= reply.generated_tokens <= 8
    assert reply.prompt_tokens > 0
    assert reply.prompt_ms >= 0
    assert reply.generate_ms >= 0


async def test_the_text_that_is_passed_on_is_the_answer(backend: Backend) -> None:
    """From the start of the work, with counts that grow."""
    told: list[tuple[str, int]] = []

    async def on_text(text: str, tokens: int) -> None:
        told.append((text, tokens))

    reply = await backend.generate(call(40), on_text=on_text)
    assert told[0] == ("", 0)
    assert "".join(text for text, _ in told) == reply.text
    assert [tokens for _, tokens in told] == sorted(tokens for _, tokens in told)


async def test_greedy_answers_repeat(backend: Backend) -> None:
    """Temperature 0."""
    first = await backend.generate(call(16))
    assert (await backend.generate(call(16))).text == first.text


async def test_a_prompt_that_does_not_fit_is_refused(backend: Backend) -> None:
    """Nothing is generated."""
    with pytest.raises(ContextExceeded):
        await backend.generate(call(8, text="x y " * (CONTEXT + 100)))


async def test_too_slow_is_an_error_and_the_next_call_is_answered(backend: Backend) -> None:
    """The work was stopped."""
    with pytest.raises(ModelTimedOut, match=r"did not finish within 0\.4 s"):
        await backend.generate(call(3_500, timeout_s=0.4))
    started = time.monotonic()
    assert (await backend.generate(call(4))).generated_tokens >= 1
    assert time.monotonic() - started < 8


async def test_a_cancelled_call_stops_the_work(backend: Backend) -> None:
    """It would have gone on for minutes, times three."""
    for _ in range(3):
        with anyio.move_on_after(0.3) as scope:
            await backend.generate(call(3_500))
        assert scope.cancelled_caught
    started = time.monotonic()
    assert (await backend.generate(call(4))).generated_tokens >= 1
    assert time.monotonic() - started < 10


async def test_calls_at_once_are_all_answered(backend: Backend) -> None:
    """One after the other."""
    texts: list[str] = []

    async def ask() -> None:
        texts.append((await backend.generate(call(12))).text)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
    assert len(set(texts)) == 1
    assert len(texts) == 3


async def test_a_schema_is_held_as_far_as_it_is_said(backend: Backend) -> None:
    """A complete answer under a constraint is JSON."""
    schema = plan_schema(("game",))
    ask = Generation(messages=(Message("system", "plan"), ASK[1]), tokens_max=700, temperature=0.8, schema=schema)
    reply = await backend.generate(ask)
    assert reply.constraint is not Constraint.NONE or isinstance(backend, ScriptedBackend)
    if reply.finish is Finish.STOP:
        assert json.loads(reply.text, strict=False)[0]["kind"] == "game"


async def test_longer_prompts_count_more(backend: Backend) -> None:
    """Exactly, or as an estimate."""
    short = await backend.count(ASK)
    assert 0 < short < await backend.count((*ASK, Message("assistant", "and more " * 20)))
    assert backend.context == CONTEXT
    assert backend.where
