"""Worker processes: real ones, started, shared, cancelled, killed, orphaned."""

import time
from hashlib import sha256
from pathlib import Path

import anyio
import gguf
import numpy as np
import psutil
import pytest
from tests.models.tiny_gguf import CHATML

from lumina.models.backend import Finish, Generation, Loaded, Message
from lumina.models.errors import ContextExceeded, CorruptModel, ModelTimedOut, ModelUnavailable
from lumina.models.llama_client import LlamaBackend, talk
from lumina.models.llama_frames import ORPHAN_S, Cancel, Chat, Hold, LlamaSpec, Ready, send_frame
from lumina.models.llama_pool import LlamaPool

pytestmark = pytest.mark.anyio

SHORT = Generation(messages=(Message("user", "hi"),), tokens_max=3, temperature=0.0, timeout_s=60)
ENDLESS = Generation(messages=(Message("user", "hi"),), tokens_max=8_000, temperature=0.0, timeout_s=120)
LONG_PROMPT = Generation(messages=(Message("user", "x " * 3800),), tokens_max=4, temperature=0.0, timeout_s=120)


def socket_of(folder: Path, instance: str) -> Path:
    return folder / f"llama-{sha256(instance.encode()).hexdigest()[:16]}.sock"


async def process_of(folder: Path, instance: str) -> psutil.Process:
    async with talk(socket_of(folder, instance), Hold()) as held:
        ready = await held.next()
        assert isinstance(ready, Ready)
        return psutil.Process(ready.pid)


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def until_over(process: psutil.Process, *, within_s: float) -> float:
    started = time.monotonic()
    with anyio.fail_after(within_s):
        for _ in range(int(within_s / 0.05)):
            if is_over(process):
                break
            await anyio.sleep(0.05)
    assert is_over(process)
    return time.monotonic() - started


async def test_a_model_is_loaded_on_demand_once_and_its_memory_measured(pool: LlamaPool, tiny_spec: LlamaSpec) -> None:
    """The load is reported by the call that caused it, with progress before it and real bytes after it."""
    fractions: list[float] = []

    async def on_load(fraction: float) -> None:
        fractions.append(fraction)

    backend, loaded = await pool.ensure("tiny#0", tiny_spec, on_load=on_load)
    assert isinstance(loaded, Loaded)
    assert 20 * 2**20 < loaded.bytes_measured < 300 * 2**20
    assert all(0 <= fraction < 1 for fraction in fractions)
    assert (await pool.ensure("tiny#0", tiny_spec))[1] is None
    reply = await backend.generate(SHORT)
    assert reply.prompt_tokens == await backend.count(SHORT.messages)


async def test_two_users_share_one_process_however_they_race(
    pool: LlamaPool, tiny_spec: LlamaSpec, tmp_path: Path
) -> None:
    """Loads are single-flight over pools, as over processes: exactly one of six reports the load."""
    others = [LlamaPool(tmp_path / "models") for _ in range(5)]
    loads: list[Loaded | None] = []

    async def ensure(one: LlamaPool) -> None:
        loads.append((await one.ensure("tiny#0", tiny_spec))[1])

    async with anyio.create_task_group() as tasks:
        for one in (pool, *others):
            tasks.start_soon(ensure, one)
    assert sorted(loaded is None for loaded in loads) == [False, True, True, True, True, True]
    for other in others:
        await other.aclose()


async def test_two_calls_on_one_worker_are_answered_one_after_the_other(pool: LlamaPool, slow_spec: LlamaSpec) -> None:
    """Nothing is interleaved, nothing is lost: the same answers as alone."""
    backend, _ = await pool.ensure("slow#0", slow_spec)
    call = Generation(messages=SHORT.messages, tokens_max=60, temperature=0.9, seed=5, timeout_s=60)
    alone = await backend.generate(call)
    replies: list[str] = []
    order: list[str] = []

    async def ask(name: str) -> None:
        async def on_text(text: str, tokens: int) -> None:
            order.append(name)

        replies.append((await backend.generate(call, on_text=on_text)).text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "a")
        tasks.start_soon(ask, "b")
    assert replies == [alone.text] * 2
    half = order[: len(order) // 2]  # what two sockets carried may be read a little out of order on a busy machine
    assert half.count(order[0]) > 0.9 * len(half)


@pytest.mark.parametrize("call", [LONG_PROMPT, ENDLESS], ids=["reading the prompt", "generating"])
async def test_a_cancelled_call_stops_the_work(pool: LlamaPool, slow_spec: LlamaSpec, call: Generation) -> None:
    """The worker is free for the next call at once, and idle."""
    backend, _ = await pool.ensure("slow#0", slow_spec)
    with anyio.move_on_after(0.7) as scope:
        await backend.generate(call)
    assert scope.cancelled_caught
    started = time.monotonic()
    reply = await backend.generate(SHORT)
    assert reply.generated_tokens == 3
    assert time.monotonic() - started < 4


async def test_a_waiting_call_that_is_cancelled_never_starts(pool: LlamaPool, slow_spec: LlamaSpec) -> None:
    """Its place in the queue is free; the call under way is not disturbed."""
    backend, _ = await pool.ensure("slow#0", slow_spec)
    whole = Generation(messages=SHORT.messages, tokens_max=250, temperature=0.0, timeout_s=60)
    told: list[int] = []

    async def waits() -> None:
        async def on_text(text: str, tokens: int) -> None:
            told.append(tokens)

        with anyio.move_on_after(0.3):
            await backend.generate(ENDLESS, on_text=on_text)

    async with anyio.create_task_group() as tasks:
        started = anyio.Event()

        async def on_text(text: str, tokens: int) -> None:
            started.set()

        async def first() -> None:
            assert (await backend.generate(whole, on_text=on_text)).generated_tokens == 250

        tasks.start_soon(first)
        await started.wait()
        tasks.start_soon(waits)
    assert told == []


async def test_a_cancel_frame_does_the_same_as_closing(pool: LlamaPool, slow_spec: LlamaSpec, tmp_path: Path) -> None:
    """For clients that keep their connection."""
    await pool.ensure("slow#0", slow_spec)
    chat = Chat(messages=SHORT.messages, tokens_max=8_000, temperature=0.0, seed=1, top_k=40, top_p=1.0)
    async with talk(socket_of(tmp_path / "models", "slow#0"), chat) as replies:
        await replies.next()
        await send_frame(replies.stream, Cancel())
        ended = False
        with anyio.move_on_after(5):
            try:
                for _ in range(10_000):
                    await replies.next()
            except (anyio.EndOfStream, anyio.IncompleteRead):
                ended = True
        assert ended


async def test_a_call_that_takes_too_long_is_stopped_and_said_to_be(pool: LlamaPool, slow_spec: LlamaSpec) -> None:
    """The limit is the caller's."""
    backend, _ = await pool.ensure("slow#0", slow_spec)
    call = Generation(messages=ENDLESS.messages, tokens_max=8_000, timeout_s=0.5)
    with pytest.raises(ModelTimedOut, match=r"slow#0 did not finish within 0\.5 s; it was stopped"):
        await backend.generate(call)


async def test_killing_the_worker_in_the_middle_is_an_outage_and_the_next_call_starts_it_again(
    pool: LlamaPool, slow_spec: LlamaSpec, tmp_path: Path
) -> None:
    """One sentence says so; nothing hangs."""
    backend, _ = await pool.ensure("slow#0", slow_spec)
    process = await process_of(tmp_path / "models", "slow#0")

    async def on_text(text: str, tokens: int) -> None:
        if tokens > 5:
            process.kill()

    with pytest.raises(ModelUnavailable, match="slow#0 ended or is not there; the next request starts it again"):
        await backend.generate(ENDLESS, on_text=on_text)
    again, loaded = await pool.ensure("slow#0", slow_spec)
    assert loaded is not None
    assert (await again.generate(SHORT)).generated_tokens == 3


async def test_unloading_waits_until_the_process_has_ended(
    pool: LlamaPool, tiny_spec: LlamaSpec, tmp_path: Path
) -> None:
    """Only then its memory is free; a second unload finds nothing, and a call finds nobody."""
    backend, _ = await pool.ensure("tiny#0", tiny_spec)
    process = await process_of(tmp_path / "models", "tiny#0")
    assert await pool.unload("tiny#0") is True
    assert is_over(process)
    assert await pool.unload("tiny#0") is False
    with pytest.raises(ModelUnavailable):
        await backend.generate(SHORT)


async def test_a_process_that_does_not_listen_is_ended_by_force(
    pool: LlamaPool, tiny_spec: LlamaSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is wanted back all the same."""
    monkeypatch.setattr("lumina.models.llama_pool.UNLOAD_S_MAX", 0.5)
    await pool.ensure("tiny#0", tiny_spec)
    process = await process_of(tmp_path / "models", "tiny#0")
    process.suspend()
    with anyio.fail_after(10):
        assert await pool.unload("tiny#0") is True
    assert is_over(process)


async def test_a_worker_without_users_ends_by_itself(tiny_spec: LlamaSpec, tmp_path: Path) -> None:
    """Whoever was killed, nothing is left running."""
    pool = LlamaPool(tmp_path / "models")
    await pool.ensure("tiny#0", tiny_spec)
    process = await process_of(tmp_path / "models", "tiny#0")
    await pool.aclose()
    assert await until_over(process, within_s=ORPHAN_S + 5) > ORPHAN_S - 2
    assert not socket_of(tmp_path / "models", "tiny#0").exists()


async def test_another_way_of_loading_replaces_the_process(
    pool: LlamaPool, tiny_spec: LlamaSpec, tiny_gguf: Path, tmp_path: Path
) -> None:
    """A changed configuration holds from the next call on."""
    await pool.ensure("tiny#0", tiny_spec)
    first = await process_of(tmp_path / "models", "tiny#0")
    backend, loaded = await pool.ensure("tiny#0", LlamaSpec(path=str(tiny_gguf), context=512))
    assert loaded is not None
    assert is_over(first)
    with pytest.raises(ContextExceeded, match="the context holds 512"):
        await backend.generate(Generation(messages=(Message("user", "x" * 600),), tokens_max=5))


async def test_sockets_have_short_names_in_long_folders(tiny_spec: LlamaSpec, tmp_path: Path) -> None:
    """The kernel takes 107 bytes; a data folder may be longer than that."""
    folder = tmp_path / ("long" * 20) / ("folder" * 10)
    pool = LlamaPool(folder)
    backend, _ = await pool.ensure("tiny#0", tiny_spec)
    assert (await backend.generate(SHORT)).finish is Finish.LENGTH
    assert await pool.unload("tiny#0") is True


async def test_a_truncated_file_is_one_sentence(pool: LlamaPool, tiny_gguf: Path, tmp_path: Path) -> None:
    """It names the path and what to do, for all who wait, and leaves no process."""
    path = tmp_path / "half.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:200_000])
    with pytest.raises(CorruptModel, match=r"half\.gguf is truncated or not a GGUF .*; download or copy it again$"):
        await pool.ensure("half#0", LlamaSpec(path=str(path), context=512))


async def test_a_missing_file_is_one_sentence(pool: LlamaPool, tmp_path: Path) -> None:
    """No process is started for it."""
    with pytest.raises(ModelUnavailable, match=r"none\.gguf does not exist; correct the path"):
        await pool.ensure("none#0", LlamaSpec(path=str(tmp_path / "none.gguf"), context=512))
    assert not (tmp_path / "models").exists()


async def test_a_file_that_crashes_llama_cpp_takes_only_its_own_process_along(pool: LlamaPool, tmp_path: Path) -> None:
    """Weights of 64 bits load, then crash: it is the file that is named."""
    path = tmp_path / "doubles.gguf"
    write_doubles(path)
    with pytest.raises(CorruptModel, match=r"doubles\.gguf crashes llama\.cpp \(SIG\w+\) while it is loaded"):
        await pool.ensure("doubles#0", LlamaSpec(path=str(path), context=512))


def write_doubles(path: Path) -> None:
    """Write a model whose matrices are float64."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    writer.add_tensor("token_embd.weight", np.ones((len(tokens), 64), dtype=np.float32))
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{norm}.weight", np.ones(64, dtype=np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones((64, 64), dtype=np.float64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def test_strangers_on_the_socket_do_no_harm(pool: LlamaPool, tiny_spec: LlamaSpec, tmp_path: Path) -> None:
    """Bytes that are no frame, a frame that is too long, a client that says nothing."""
    backend, _ = await pool.ensure("tiny#0", tiny_spec)
    path = socket_of(tmp_path / "models", "tiny#0")
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x00\x00\x00\x02{}", b""):
        async with await anyio.connect_unix(path) as stream:
            await stream.send(noise or b"\x00")
    assert isinstance(backend, LlamaBackend)
    assert (await backend.generate(SHORT)).generated_tokens == 3
