"""Histories as long as one likes: every agent decides for real, in memory, and only effects are canned."""

from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from tests.bench import canned

from lumina.agents.executing import ExecutionEffect
from lumina.agents.governor import Governor
from lumina.agents.law import Decider
from lumina.agents.orchestrator import Orchestrator
from lumina.agents.ports import Raw, Recording, Worker
from lumina.agents.sandbox import Sandbox
from lumina.agents.specialist import Specialist
from lumina.agents.specialist_files import MEDIA_TYPE, to_ref
from lumina.agents.specialist_folders import load_folders
from lumina.agents.validating import ValidationEffect
from lumina.agents.validator import Validator
from lumina.bus.workers import WORKER_ROLES
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.record import NO_DIGEST, Draft, Head, Recorded, chain, draft_answer
from lumina.events.run import ModelChoice, RunOptions, RunSubmitted
from lumina.events.values import BlobRef
from lumina.replay.cast import Inputs

NODE = StreamId("local")
CONTEXT = 4096
START_MS = 1_700_000_000_000
TICK_MS = 7


class Fresh(NamedTuple):
    """What came about since one asked last."""

    records: list[Recorded[Event]]
    blobs: dict[str, bytes]


class History:
    """What would stand in the log after some runs, one after the other.

    `records` and `blobs` are what came about since `drain`; what is over needs no memory after that.
    """

    def __init__(self) -> None:
        """Begin with a node that offers one model."""
        self.records: list[Recorded[Event]] = []
        self.blobs: dict[str, bytes] = {}
        self.events = 0
        self._lasting: dict[str, bytes] = {}
        self._heads: dict[tuple[StreamId, str], Head] = {}
        self._time_ms = START_MS
        self._runs = 0
        self._fresh: deque[Recorded[Event]] = deque()
        orchestrator, governor = Orchestrator(), Governor(node=NODE)
        self._keepers: tuple[tuple[Decider[Any], Inputs], ...] = (
            (Decider(orchestrator), Inputs(orchestrator.inputs)),
            (Decider(governor), Inputs(governor.inputs)),
        )
        workers: tuple[Worker[Any, Any], ...] = (Specialist(), Validator(), Sandbox(tiers={}))
        self._workers = tuple((worker, Inputs(WORKER_ROLES[worker.name].filters)) for worker in workers)
        offer = ModelOffer(model=canned.MODEL, backend=Backend.OPENAI, bytes_estimated=0, context=CONTEXT, slots=16)
        announced = NodeAnnounced(node=NODE, bytes_max=2**32, models=(offer,), idle_ms=300_000, configuration=NO_DIGEST)
        self._say(announced, stream=NODE, agent="node")
        self._submission = self._submitted()
        self._lasting = dict(self.blobs)  # what every run names

    def extend(self, events: int) -> None:
        """Go on until there have been at least so many records, all runs closed."""
        while self.events < events:
            self._runs += 1
            run = StreamId(f"r-bench{self._runs:07d}")
            self._say(self._submission, stream=run, agent="client")
            self._heads = {where: head for where, head in self._heads.items() if where[0] != run}

    def drain(self) -> Fresh:
        """Return what is new, and forget it."""
        fresh = Fresh(self.records, self.blobs)
        self.records, self.blobs = [], dict(self._lasting)
        return fresh

    def _submitted(self) -> RunSubmitted:
        files = [file for file in load_folders() if file.definition and file.definition.kind == "function"]
        return RunSubmitted(
            request=canned.REQUEST,
            options=RunOptions(plan=False, kind="function"),
            specialists=tuple(
                to_ref(file.definition, blob=self._store(file.content, media_type=MEDIA_TYPE))
                for file in files
                if file.definition is not None
            ),
            models=(ModelChoice(model=canned.MODEL, context=CONTEXT),),
            cases=canned.CASES,
        )

    def _store(self, content: bytes, *, media_type: str) -> BlobRef:
        digest = sha256(content).hexdigest()
        self.blobs[digest] = content
        return BlobRef(digest=digest, size=len(content), media_type=media_type)

    def _say(self, event: Event, *, stream: StreamId, agent: str) -> None:
        slot = root_event_id(stream, name=type(event).__name__)
        self._land(Draft(event=event, id=slot, stream=stream, agent=agent, time_ms=self._tick(), causation=None))
        while self._fresh:
            self._hear(self._fresh.popleft())

    def _tick(self) -> int:
        self._time_ms += TICK_MS
        return self._time_ms

    def _land(self, draft: Draft[Event]) -> None:
        where = (draft.stream, draft.agent)
        written, _ = chain(draft, after=self._heads.get(where, Head()))
        self.events += 1
        recorded = msgspec.structs.replace(written, seq=self.events)
        self._heads[where] = Head(seq=recorded.seq, position=recorded.position, digest=recorded.digest)
        self.records.append(recorded)
        self._fresh.append(recorded)

    def _hear(self, recorded: Recorded[Event]) -> None:
        """Let everybody answer one record, as far as it concerns them."""
        for decider, inputs in self._keepers:
            if recorded.agent != decider.keeper.name and inputs.hold(recorded):
                for answer in decider.take(recorded):
                    self._land(_draft_of(answer))
        for worker, inputs in self._workers:
            if inputs.hold(recorded):
                self._work(worker, request=recorded)

    def _work(self, worker: Worker[Any, Any], *, request: Recorded[Event]) -> None:
        blobs: Mapping[str, bytes] = {digest: self.blobs[digest] for digest in worker.needs(request)}
        effect = worker.prepare(request, blobs=blobs)
        raw = self._raw(effect)
        ref = self._store(encode(raw), media_type="application/json")
        recording = Recording(effect=sha256(encode(effect)).hexdigest(), raw=raw, ref=ref)
        conclusion = worker.conclude(request, recording, blobs=blobs)
        for content in conclusion.blobs:
            self._store(content, media_type="text/plain")
        self._land(draft_answer(conclusion.event, to=request, agent=worker.name, ordinal=0, time_ms=raw.ended_at_ms))

    def _raw(self, effect: Any) -> Raw:
        now_ms = self._tick()
        match effect:
            case ValidationEffect():
                return canned.read(effect, now_ms=now_ms)
            case ExecutionEffect():
                return canned.ran(effect, now_ms=now_ms)
            case _:
                return canned.said(effect, now_ms=now_ms, token=f"run {self._runs}")


def _draft_of(answer: Recorded[Event]) -> Draft[Event]:
    return Draft(
        event=answer.event,
        id=answer.id,
        stream=answer.stream,
        agent=answer.agent,
        time_ms=answer.time_ms,
        causation=answer.causation,
    )
