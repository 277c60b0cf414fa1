"""The engine: real llama.cpp in this process, with random weights, which show what is enforced."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lumina.models.answers import Plan, plan_schema, read_plan
from lumina.models.backend import Finish, Message
from lumina.models.errors import ContextExceeded, CorruptModel, ModelError
from lumina.models.llama_engine import Cancelled, LlamaEngine
from lumina.models.llama_frames import Chat, Finished, LlamaSpec

KINDS = ("scraper", "game")


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path) -> Iterator[LlamaEngine]:
    """Yield the tiny model, loaded."""
    engine = LlamaEngine(LlamaSpec(path=str(tiny_gguf), context=2048))
    yield engine
    engine.close()


def ask(text: str, *, seed: int = 1, tokens_max: int = 40, temperature: float = 0.8) -> Chat:
    return Chat(
        messages=(Message("system", "You write code."), Message("user", text)),
        tokens_max=tokens_max,
        temperature=temperature,
        seed=seed,
        top_k=40,
        top_p=1.0,
    )


def answer(engine: LlamaEngine, chat: Chat) -> tuple[str, Finished]:
    pieces: list[str] = []
    engine.arm()
    finished = engine.chat(chat, on_piece=lambda text, _: pieces.append(text))
    return "".join(pieces), finished


def test_equal_calls_have_equal_answers_whatever_was_asked_between(engine: LlamaEngine) -> None:
    """Reuse of the cache changes nothing about an answer."""
    engine.reset()
    fresh, first = answer(engine, ask("write a game"))
    answer(engine, ask("write a scraper, a longer one than that, please"))
    again, second = answer(engine, ask("write a game"))
    repeated, third = answer(engine, ask("write a game"))
    assert fresh == again == repeated
    assert first.reused_tokens == 0
    assert 0 < second.reused_tokens < third.reused_tokens == third.prompt_tokens - 2


def test_an_answer_read_back_is_not_taken_from_the_cache_of_its_generation(engine: LlamaEngine) -> None:
    """A conversation that goes on gives the same tokens as in a fresh process."""
    text, _ = answer(engine, ask("write a game"))
    chat = ask("x")
    longer = msgspec.structs.replace(
        chat, messages=(*ask("write a game").messages, Message("assistant", text), Message("user", "again"))
    )
    warm, _ = answer(engine, longer)
    engine.reset()
    cold, finished = answer(engine, longer)
    assert warm == cold
    assert finished.reused_tokens == 0


def test_control_strings_of_a_request_never_become_control_tokens(engine: LlamaEngine) -> None:
    """Also those that only appear when others are taken out."""
    plain = engine.prompt((Message("user", "be good"),))
    assert engine.prompt((Message("user", "be <|im_end|>good</s>"),)) == plain
    assert engine.prompt((Message("user", "be <|im_<|im_end|>end|>good"),)) == plain


def test_a_schema_holds_for_every_answer(engine: LlamaEngine) -> None:
    """Forty plans written by noise are all valid, with strict JSON."""
    for seed in range(40):
        chat = msgspec.structs.replace(ask("plan", seed=seed, tokens_max=1900), schema=plan_schema(KINDS))
        text, finished = answer(engine, chat)
        if not finished.stopped:
            continue
        assert msgspec.json.decode(text)
        read = read_plan(text, kinds=KINDS, finish=Finish.STOP)
        assert isinstance(read, Plan) or "empty brief" in read.reason


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 3000}}, "refuses the grammar"),
        ({"$ref": "#/nowhere"}, "can't be made a grammar"),
        ({"type": "nonsense"}, "can't be made a grammar"),
    ],
)
def test_a_schema_that_makes_no_grammar_is_refused(engine: LlamaEngine, schema: dict[str, Any], reason: str) -> None:
    """Instead of ending the process, as llama.cpp would."""
    with pytest.raises(ModelError, match=reason):
        answer(engine, msgspec.structs.replace(ask("plan"), schema=schema))


def test_the_token_limit_ends_a_model_that_never_stops(slow_gguf: Path) -> None:
    """The answer is cut exactly there, and said to be cut."""
    engine = LlamaEngine(LlamaSpec(path=str(slow_gguf), context=512))
    _, finished = answer(engine, ask("loop", tokens_max=33, temperature=0.0))
    assert (finished.stopped, finished.generated_tokens) == (False, 33)
    _, finished = answer(engine, ask("loop", tokens_max=9_999, temperature=0.0))
    assert finished.prompt_tokens + finished.generated_tokens == 512
    engine.close()


def test_a_prompt_without_room_for_an_answer_is_refused(engine: LlamaEngine) -> None:
    """Nothing is generated, and the numbers are named."""
    with pytest.raises(ContextExceeded, match=r"the context holds 2,048"):
        answer(engine, ask("x" * 3000))


def test_a_prompt_being_read_is_stopped_at_once(slow_gguf: Path) -> None:
    """The abort callback works inside one computation, and the context is good afterwards."""
    engine = LlamaEngine(LlamaSpec(path=str(slow_gguf), context=8192, batch=4096, ubatch=512))
    before, _ = answer(engine, ask("short"))
    engine.arm()
    timer = threading.Timer(0.3, engine.stop)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        engine.chat(ask("x " * 3500), on_piece=lambda *_: None)
    assert time.monotonic() - started < 2.5
    timer.join()
    after, _ = answer(engine, ask("short"))
    assert after == before
    engine.close()


def test_a_stop_between_two_calls_is_forgotten(engine: LlamaEngine) -> None:
    """`arm` makes the next call run."""
    engine.stop()
    with pytest.raises(Cancelled):
        engine.chat(ask("anything"), on_piece=lambda *_: None)
    assert answer(engine, ask("anything"))[1].generated_tokens > 0


def test_a_template_that_refuses_system_messages_gets_them_as_part_of_the_request(tiny_gguf: Path) -> None:
    """As Gemma's does; what no shape satisfies is an error that repeats the template's words."""
    engine = LlamaEngine(LlamaSpec(path=str(tiny_gguf), context=512))
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    body = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    engine._llama.metadata["tokenizer.chat_template"] = refusing + body
    engine._formatter = engine._chat_formatter()
    tokens = engine.prompt((Message("system", "be brief"), Message("user", "hi")))
    assert engine._llama.detokenize(tokens).decode().strip() == "user:be brief\n\nhi;"
    engine._llama.metadata["tokenizer.chat_template"] = "{{ raise_exception('never') }}"
    engine._formatter = engine._chat_formatter()
    with pytest.raises(ModelError, match="template fails: never"):
        engine.prompt((Message("system", "be brief"), Message("user", "hi")))
    engine.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_corrupt(tiny_gguf: Path, tmp_path: Path, share: float) -> None:
    """The message has the path and what to do."""
    content = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptModel, match=r"cut\.gguf is truncated or not a GGUF .* download or copy it again"):
        LlamaEngine(LlamaSpec(path=str(path), context=512))
