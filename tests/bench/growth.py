"""How a log grows over one long conversation: a hundred model calls, each with all that was said before.

Real JetStream, blobs, events and governor, and the production specialist; only the model is a script. Every call adds
about 2,000 tokens that were never said before: half of them asked, half answered. Beside it: what the same calls would
cost if each stored its whole prompt, and the published figure of Temporal's SDK (sdk-python #1890: dead at call 53 of
100, at 50 MB, with 209,000 tokens).
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from hashlib import sha256

import anyio
from nats.aio.client import Client
from tests.bench.figures import Figure
from tests.bench.raw import admin
from tests.bench.stage import served

from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.specialist_calls import specialist
from lumina.agents.working import WorkerRunner
from lumina.bus.log import Blobs, EventLog, Live
from lumina.bus.subjects import BLOB_STREAM, LOG_STREAM, Filter
from lumina.cli.following import now_ms
from lumina.cli.place import bus
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.generation import (
    Ask,
    GenerationFinished,
    GenerationOutcome,
    GenerationRequested,
    Purpose,
    Sampling,
)
from lumina.events.ids import StreamId, event_id, root_event_id
from lumina.events.lease import LeaseReleased
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.record import NO_DIGEST, Draft, Recorded
from lumina.events.run import RunOptions, RunSubmitted
from lumina.events.values import BlobRef
from lumina.models.backend import Finish, Generation, Message, OnText, Reply, ignore_text
from lumina.models.scripted import Rule, ScriptedBackend, ScriptedModels

PART = "growth"
CALLS = 100
ASKED_CHARACTERS = ANSWERED_CHARACTERS = 4_000
"""1,000 tokens each, of four characters."""
CONTEXT = 400_000
MARKS = (25, 50, 75, 100)
LIMIT_BYTES = 3_000_000
MODEL = "long"
RUN, NODE = StreamId("r-growth"), StreamId("local")


def novel(seed: str, *, characters: int) -> str:
    """Return a text that was never said before and that nothing makes shorter."""
    digests = (sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(characters // 64 + 1))
    return "".join(digests)[:characters]


class LongBackend(ScriptedBackend):
    """Answers each call with a new program, and counts tokens by length: four characters are one."""

    def __init__(self) -> None:
        """Answer whatever is asked."""
        super().__init__([Rule()], context=CONTEXT)
        self.prompts: list[tuple[Message, ...]] = []

    async def count(self, messages: Sequence[Message]) -> int:
        """Count all characters of the prompt."""
        return sum(len(message.text) for message in messages) // 4

    async def generate(self, call: Generation, *, on_text: OnText = ignore_text) -> Reply:
        """Answer with text that was never said before."""
        del on_text
        self.prompts.append(call.messages)
        text = novel(f"answer {len(self.prompts)}", characters=ANSWERED_CHARACTERS - 30)
        return Reply(
            text=f'```python\nprint("{text}")\n```',
            finish=Finish.STOP,
            prompt_tokens=await self.count(call.messages),
            generated_tokens=ANSWERED_CHARACTERS // 4,
            prompt_ms=0,
            generate_ms=0,
        )


class Conversation:
    """One run that asks one model again and again; the orchestrator's questions are written here."""

    def __init__(self, logs: Mapping[str, EventLog], *, blobs: Blobs) -> None:
        self._logs = logs
        self._events = logs["orchestrator"]
        self._blobs = blobs
        self._turn: BlobRef | None = None
        self._cause: Recorded[Event] | None = None
        self.tokens = 0

    async def begin(self) -> None:
        """Announce a node and submit the run."""
        offer = ModelOffer(model=MODEL, backend=Backend.OPENAI, bytes_estimated=0, context=CONTEXT)
        announced = NodeAnnounced(node=NODE, bytes_max=0, models=(offer,), idle_ms=600_000, configuration=NO_DIGEST)
        await self._root(announced, stream=NODE, agent="node", role="governor")
        submitted = RunSubmitted(request="a long talk", options=RunOptions(), specialists=(), models=())
        self._cause = await self._root(submitted, stream=RUN, agent="client", role="client")

    async def _root(self, event: Event, *, stream: StreamId, agent: str, role: str) -> Recorded[Event]:
        slot = root_event_id(stream, name=type(event).__name__)
        return await self._logs[role].append(
            Draft(event=event, id=slot, stream=stream, agent=agent, time_ms=now_ms(), causation=None)
        )

    async def call(self, number: int) -> GenerationFinished:
        """Ask, and wait for the answer and the end of its lease."""
        text = novel(f"question {number}", characters=ASKED_CHARACTERS).encode()
        words = BlobRef(digest=await self._blobs.put(text), size=len(text), media_type="text/plain")
        ask = Ask(
            purpose=Purpose.CODE,
            step=1,
            attempt=min(number, 99),
            model=MODEL,
            brief="Go on." if self._turn is not None else text.decode(),
            sampling=Sampling(temperature=0.0, seed=number, tokens_max=2_000),
            contract=OutputContract(language=Language.PYTHON, form=Form.SCRIPT),
            bare=True,
            turn=self._turn,
            words=None if self._turn is None else words,
            keep=True,
        )
        assert self._cause is not None
        slot = event_id(self._cause.id, agent="orchestrator", ordinal=0)
        asked = await self._events.append(
            Draft(
                event=GenerationRequested(ask=ask),
                id=slot,
                stream=RUN,
                agent="orchestrator",
                time_ms=self._cause.time_ms,
                causation=self._cause.id,
            )
        )
        finished = await self._answer(after=asked.seq)
        assert finished.outcome is GenerationOutcome.ANSWERED, finished.detail
        assert finished.turn is not None
        self._turn = finished.turn
        self.tokens = finished.usage.prompt_tokens + finished.usage.generated_tokens
        return finished

    async def _answer(self, *, after: int) -> GenerationFinished:
        found: GenerationFinished | None = None
        with anyio.fail_after(60):
            async with aclosing(self._events.follow((Filter(stream=RUN),), after=after)) as records:
                async for recorded in records:
                    match recorded.event:
                        case GenerationFinished() as finished:
                            found, self._cause = finished, recorded
                        case LeaseReleased() if found is not None:
                            return found
                        case _:
                            pass  # the lease
        raise AssertionError("the log has no end")


AfterCall = Callable[[], Awaitable[None]]


async def converse(
    logs: Mapping[str, EventLog], *, blobs: Blobs, live: Live, calls: int, after_call: AfterCall
) -> tuple[Conversation, LongBackend]:
    """Hold the conversation; `logs` is the log as each role has it. Calls `after_call` after each call."""
    backend = LongBackend()
    conversation = Conversation(logs, blobs=blobs)
    worker = specialist(ScriptedModels({MODEL: backend}))
    await conversation.begin()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(KeeperRunner(Governor(node=NODE), events=logs["governor"], now_ms=now_ms).run)
        tasks.start_soon(WorkerRunner(worker, events=logs["specialist"], blobs=blobs, live=live).run)
        for number in range(1, calls + 1):
            await conversation.call(number)
            await after_call()
        tasks.cancel_scope.cancel()
    return conversation, backend


class CountedBlobs:
    """Blobs of which the sizes are noted, each content once."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.sizes: dict[str, int] = {}

    async def put(self, content: bytes) -> str:
        """See `Blobs`."""
        digest = await self._blobs.put(content)
        self.sizes[digest] = len(content)
        return digest

    async def get(self, digest: str) -> bytes:
        """See `Blobs`."""
        return await self._blobs.get(digest)


class Stored:
    """What the server says that its streams hold, call by call."""

    def __init__(self, client: Client) -> None:
        self._js = client.jetstream()
        self.events: list[int] = []
        self.blobs: list[int] = []

    async def look(self) -> None:
        """Note the bytes of both streams."""
        for stream, seen in ((LOG_STREAM, self.events), (BLOB_STREAM, self.blobs)):
            seen.append((await self._js.stream_info(stream)).state.bytes)

    def totals(self) -> list[int]:
        """Return the bytes of both streams together after each look."""
        return [events + blobs for events, blobs in zip(self.events, self.blobs, strict=True)]


async def measure() -> list[Figure]:
    """Hold the conversation on a real server, and return what it left there."""
    async with served("default") as place, AsyncExitStack() as stack:
        roles = ("client", "orchestrator", "governor", "specialist")
        buses = {role: await stack.enter_async_context(bus(place, role=role)) for role in roles}
        client = await stack.enter_async_context(admin(place))
        stored = Stored(client)
        await stored.look()
        worker = buses["specialist"]
        blobs = CountedBlobs(worker.blobs)
        started = time.perf_counter()
        conversation, backend = await converse(
            {role: each.events for role, each in buses.items()},
            blobs=blobs,
            live=worker.live,
            calls=CALLS,
            after_call=stored.look,
        )
        seconds = time.perf_counter() - started
        bodies = 0
        async for recorded in buses["client"].events.read():
            bodies += len(encode(recorded.event))
        logical = (bodies, sum(blobs.sizes.values()))
        return _figures(stored, conversation=conversation, backend=backend, seconds=seconds, logical=logical)


def _figures(
    stored: Stored, *, conversation: Conversation, backend: LongBackend, seconds: float, logical: tuple[int, int]
) -> list[Figure]:
    totals = [total - stored.totals()[0] for total in stored.totals()]
    events, blobs = stored.events[-1] - stored.events[0], stored.blobs[-1] - stored.blobs[0]
    whole = sum(len(message.text) for prompt in backend.prompts for message in prompt)
    new = CALLS * (ASKED_CHARACTERS + ANSWERED_CHARACTERS)
    within = "under" if totals[-1] < LIMIT_BYTES else "OVER"
    shares = f"events {events:,} (bodies {logical[0]:,}) + blobs {blobs:,} (contents {logical[1]:,})"
    lines = [
        _line(
            f"{CALLS} calls, {conversation.tokens:,} tokens in the end",
            size=totals[-1],
            note=f"{shares}; {within} {LIMIT_BYTES:,}; new text {new:,}; {seconds:.0f} s",
        )
    ]
    lines += [
        _line(f"the {mark}th call alone", size=totals[mark] - totals[mark - 1], note=f"{totals[mark]:,} so far")
        for mark in MARKS
    ]
    words = f"{whole / totals[-1]:.0f} times as much; Temporal's SDK died at call 53 with 50 MB (sdk-python #1890)"
    return [*lines, _line("the same calls with whole prompts stored", size=whole, note=words)]


def _line(what: str, *, size: int, note: str) -> Figure:
    return Figure(part=PART, what=f"{what}, bytes", count=size, note=note)
