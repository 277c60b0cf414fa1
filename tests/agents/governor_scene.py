"""A stage for the governor: inputs in, answers out, every record through the codec, the laws checked each time."""

from collections.abc import Sequence

from tests.agents.governor_ledger import Ledger

from lumina.agents.governor import LOCAL, Governor
from lumina.agents.governor_state import State
from lumina.agents.law import Decider
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.generation import (
    Ask,
    GenerationFinished,
    GenerationOutcome,
    GenerationRequested,
    Load,
    Purpose,
    Sampling,
    Usage,
)
from lumina.events.ids import EventId, StreamId, root_event_id
from lumina.events.lease import LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.node import Backend, ModelOffer, ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import NO_DIGEST, Draft, Recorded, from_headers, to_headers
from lumina.events.run import RunClosed, RunStatus
from lumina.events.timer import TimerElapsed
from lumina.events.values import BlobRef
from lumina.replay.scribe import Scribe

RAW = BlobRef(digest="d" * 64, size=80, media_type="application/json")
START_MS = 1_700_000_000_000
GB = 10**9


def local(model: str, size: int, *, slots: int = 1, instances_max: int = 1, pinned: bool = False) -> ModelOffer:
    """Return the offer of a model that takes `size` bytes of the node."""
    return ModelOffer(
        model=model,
        backend=Backend.LLAMA_CPP,
        bytes_estimated=size,
        context=2048,
        slots=slots,
        instances_max=instances_max,
        pinned=pinned,
    )


def remote(model: str, *, slots: int = 1, cloud: bool = False) -> ModelOffer:
    """Return the offer of a model that a server elsewhere holds."""
    return ModelOffer(model=model, backend=Backend.OPENAI, bytes_estimated=0, context=8192, slots=slots, cloud=cloud)


def node(*models: ModelOffer, bytes_max: int = 4 * GB, idle_ms: int = 300_000, file: str = "a") -> NodeAnnounced:
    """Return an announcement; `file` stands for the content of the configuration file."""
    return NodeAnnounced(node=LOCAL, bytes_max=bytes_max, models=models, idle_ms=idle_ms, configuration=file * 64)


def ask(model: str, *, cloud: str = "") -> Ask:
    """Return a question to a model; `cloud` says why one on machines of others may be asked."""
    return Ask(
        purpose=Purpose.CODE,
        step=1,
        attempt=1,
        model=model,
        brief="print the primes",
        sampling=Sampling(temperature=0.0, seed=1, tokens_max=100),
        cloud=cloud,
    )


class Scene:
    """Plays orchestrator, specialist, node and clock around one governor."""

    def __init__(self) -> None:
        self.governor = Governor()
        self.scribe = Scribe()
        self.ledger = Ledger()
        self.now_ms = START_MS
        self._decider = Decider(self.governor)
        self._named = 0

    @property
    def records(self) -> list[Recorded[Event]]:
        """The whole history."""
        return self.scribe.records

    @property
    def state(self) -> State:
        """What the governor knows."""
        return self._decider.state(LOCAL) or self.governor.initial(LOCAL)

    def take(self, event: Event, *, stream: str, agent: str) -> tuple[Event, ...]:
        """Let an input land now and return what the governor says to it."""
        self._named += 1
        return self._take(
            Draft(
                event=event,
                id=root_event_id(StreamId(stream), name=f"{agent}/{self._named}"),
                stream=StreamId(stream),
                agent=agent,
                time_ms=self.now_ms,
                causation=None,
            )
        )

    def _take(self, draft: Draft[Event]) -> tuple[Event, ...]:
        record = through_codec(self.scribe.write(draft))
        self.ledger.see(record)
        answers = self._decider.take(record)
        for answer in answers:
            written = self.scribe.write(
                Draft(
                    event=answer.event,
                    id=answer.id,
                    stream=answer.stream,
                    agent=answer.agent,
                    time_ms=answer.time_ms,
                    causation=answer.causation,
                )
            )
            assert written.digest == answer.digest, "the decider and the log agree on the chain"
            self.ledger.see(through_codec(written))
        self.ledger.settle()
        assert self.governor.decide(self.state, record) == (), "deciding twice adds nothing"
        return tuple(answer.event for answer in answers)

    def announce(self, announced: NodeAnnounced) -> tuple[Event, ...]:
        """Let the node announce itself."""
        return self.take(announced, stream=LOCAL, agent="node")

    def ask(self, model: str, *, run: str = "r-1", cloud: str = "") -> tuple[Event, ...]:
        """Let a run ask a model."""
        return self.take(GenerationRequested(ask=ask(model, cloud=cloud)), stream=run, agent="orchestrator")

    def last_request(self) -> EventId:
        """Return the id of the newest request."""
        return next(one.id for one in reversed(self.records) if isinstance(one.event, GenerationRequested))

    def leases(self) -> list[Recorded[LeaseGranted]]:
        """Return the leases that are out, oldest first."""
        return [self.granted(lease) for lease in self.ledger.out]

    def granted(self, lease: EventId) -> Recorded[LeaseGranted]:
        """Return the record of a lease."""
        found = next(one for one in self.records if one.id == lease)
        assert isinstance(found.event, LeaseGranted)
        return found  # type: ignore[return-value] # narrowed by its event

    def finish(
        self,
        lease: Recorded[LeaseGranted] | None = None,
        *,
        outcome: GenerationOutcome = GenerationOutcome.ANSWERED,
        load_ms: int | None = None,
    ) -> tuple[Event, ...]:
        """Let a specialist end a lease, the oldest by default."""
        lease = lease or self.leases()[0]
        finished = GenerationFinished(
            request=lease.event.request,
            lease=lease.id,
            step=1,
            attempt=1,
            model=lease.event.ask.model,
            outcome=outcome,
            effect=NO_DIGEST,
            raw=RAW,
            usage=Usage(prompt_tokens=1, generated_tokens=1, context=2048),
            load=None if load_ms is None else Load(load_ms=load_ms, bytes_measured=1),
        )
        return self.take(finished, stream=lease.stream, agent="specialist")

    def serve(self, model: str, *, run: str = "r-1") -> None:
        """Let a run ask a model that is free, and be answered."""
        answers = self.ask(model, run=run)
        assert any(isinstance(answer, LeaseGranted) for answer in answers), "the model is free"
        self.finish(self.leases()[-1])

    def unloaded(self, instance: str) -> tuple[Event, ...]:
        """Let the process of an instance end."""
        event = ModelUnloaded(node=LOCAL, instance=instance, was_loaded=True, effect=NO_DIGEST, raw=RAW)
        return self.take(event, stream=LOCAL, agent="specialist")

    def close(self, run: str) -> tuple[Event, ...]:
        """Let a run end."""
        event = RunClosed(
            status=RunStatus.CANCELLED, reason="", results=(), tokens=0, records=1, chains=(), root=NO_DIGEST
        )
        return self.take(event, stream=run, agent="orchestrator")

    def elapse(self) -> tuple[Event, ...]:
        """Let time pass until the next deadline of the governor."""
        deadline = min(self.governor.deadlines(self.state), key=lambda one: one.due_ms)
        self.now_ms = max(self.now_ms, deadline.due_ms)
        answers = self.take(
            TimerElapsed(timer=deadline.timer, due=deadline.due_ms), stream=deadline.stream, agent="clock"
        )
        assert deadline not in self.governor.deadlines(self.state), "a deadline that elapsed is not waited for again"
        return answers


def through_codec(record: Recorded[Event]) -> Recorded[Event]:
    """Return the record as a reader of the log sees it."""
    return from_headers(to_headers(record), body=encode(record.event), seq=record.seq)


def decided_again(records: Sequence[Recorded[Event]]) -> list[str]:
    """Return the digests of what a fresh governor says to the inputs among `records`."""
    decider = Decider(Governor())
    return [answer.digest for one in records if one.agent != "governor" for answer in decider.take(one)]


def granted(answers: Sequence[Event]) -> LeaseGranted:
    """Return the one answer, which must be a lease."""
    (lease,) = answers
    assert isinstance(lease, LeaseGranted)
    return lease


def refused(answers: Sequence[Event]) -> LeaseRefused:
    """Return the one answer, which must be a refusal."""
    (refusal,) = answers
    assert isinstance(refusal, LeaseRefused)
    return refusal


def unload(answers: Sequence[Event]) -> UnloadRequested:
    """Return the last answer, which must ask for memory; before it a lease may be released."""
    assert all(isinstance(answer, LeaseReleased) for answer in answers[:-1])
    assert isinstance(answers[-1], UnloadRequested)
    return answers[-1]
