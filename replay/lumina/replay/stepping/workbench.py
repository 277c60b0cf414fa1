"""What a worker had in hand at a moment of a timeline: request, effect, raw result, and what was concluded from it.

Effect and conclusion are derived again by the worker's production core from the request and the blobs. Nothing runs.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from lumina.agents.gathering import gathered
from lumina.agents.ports import Recording, Worker
from lumina.bus.log import Blobs
from lumina.bus.workers import WORKER_ROLES
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.record import Head, Recorded, chain, draft_answer
from lumina.events.values import BlobRef
from lumina.replay.cast import Inputs
from lumina.replay.comparing import first_difference, link_of, undecided
from lumina.replay.errors import BlobLost
from lumina.replay.report import Difference, Link
from lumina.replay.stepping.plain import Change, changes
from lumina.replay.stepping.timeline import Timeline
from lumina.replay.verifying.keepers import FAILURES
from lumina.replay.verifying.workers import Outcome, Shelf

IDLE: Final = "idle"
ASKED: Final = "asked"
CONCLUDED: Final = "concluded"


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as far as this run is concerned; the newest request counts.

    Attributes:
        stage: `idle` before the first request, then `asked`, then `concluded`.
        request: The newest one.
        requests: How many there were.
        unanswered: Older ones without an outcome.
        effect: What `prepare` derives from it and the blobs.
        effect_digest: Of its canonical JSON; stands in the outcome.
        raw: What the effect returned, as it was recorded.
        concluded: What `conclude` derives from that.
        difference: How the outcome in the log differs from what is derived.
        problem: Why something can't be derived here, for instance a lost blob.
    """

    stage: str = IDLE
    request: Link | None = None
    requests: int = 0
    unanswered: tuple[Link, ...] = ()
    effect: Any = None
    effect_digest: str = ""
    raw: Any = None
    concluded: Any = None
    difference: Difference | None = None
    problem: str = ""


class Workbench:
    """All workers along one timeline. What was derived once is kept while it is asked for again and again."""

    def __init__(self, timeline: Timeline, *, blobs: Blobs, workers: Mapping[str, Worker[Any, Any]]) -> None:
        self._timeline = timeline
        self._shelf = Shelf(blobs)
        self._workers = workers
        inputs = {name: Inputs(WORKER_ROLES[name].filters) for name in workers}
        self._requests = {
            name: tuple(moment for moment, stop in enumerate(timeline.stops) if inputs[name].hold(stop.recorded))
            for name in workers
        }
        self._asked = {
            (name, timeline.stops[each].recorded.id): each
            for name, several in self._requests.items()
            for each in several
        }
        self._outcomes = {
            (name, each): next(iter(timeline.effects(timeline.stops[each].recorded.id, agent=name)), None)
            for name, several in self._requests.items()
            for each in several
        }
        self._derived: dict[tuple[str, int, int | None], WorkerState] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Who they are."""
        return tuple(self._workers)

    async def state(self, name: str, moment: int) -> WorkerState:
        """Return what a worker has in hand at a moment.

        Raises:
            LogUnavailable: The blobs can't be reached.
        """
        requests = self._requests[name][: bisect_right(self._requests[name], moment)]
        if not requests:
            return WorkerState()
        newest = requests[-1]
        outcome = self._outcome(name, newest, until=moment)
        derived = await self._kept(name, request=newest, outcome=outcome)
        open_ones = (each for each in requests[:-1] if self._outcome(name, each, until=moment) is None)
        unanswered = tuple(link_of(self._timeline.stops[each].recorded) for each in open_ones)
        return msgspec.structs.replace(derived, requests=len(requests), unanswered=unanswered)

    async def changed(self, name: str, moment: int) -> tuple[Change, ...]:
        """Return what is different from the moment before."""
        before = await self.state(name, moment - 1) if moment else WorkerState()
        return tuple(changes(before, await self.state(name, moment), path=name))

    async def difference(self, moment: int) -> Difference | None:
        """Return how a worker's record differs from what is derived; None when it doesn't, and for other records."""
        recorded = self._timeline.stops[moment].recorded
        if recorded.agent not in self._workers:
            return None
        cause = recorded.causation
        request = None if cause is None else self._asked.get((recorded.agent, cause))
        if request is None or request > moment:
            return undecided(recorded)
        return (await self._kept(recorded.agent, request=request, outcome=moment)).difference

    async def problem(self, moment: int) -> str:
        """Return why a worker's record can't be derived here; empty when it can, and for other records."""
        recorded = self._timeline.stops[moment].recorded
        request = None if recorded.causation is None else self._asked.get((recorded.agent, recorded.causation))
        if request is None or request > moment:
            return ""
        return (await self._kept(recorded.agent, request=request, outcome=moment)).problem

    def request_at(self, name: str, moment: int) -> int | None:
        """Return the newest request to a worker at a moment, before the first one that; None when there is none."""
        requests = self._requests[name]
        place = max(0, bisect_right(requests, moment) - 1)
        return requests[place] if requests else None

    async def effect(self, name: str, request: int) -> Any:
        """Return what is to be done for a request. Raises BlobLost."""
        recorded = self._timeline.stops[request].recorded
        worker = self._workers[name]
        return worker.prepare(recorded, blobs=await self._blobs(worker, recorded))

    def _outcome(self, name: str, request: int, *, until: int) -> int | None:
        outcome = self._outcomes[name, request]
        return None if outcome is None or outcome > until else outcome

    async def _blobs(self, worker: Worker[Any, Any], request: Recorded[Event]) -> Mapping[str, bytes]:
        async def found(digests: Sequence[str]) -> list[bytes]:
            return [await self._shelf(digest, named_by=request) for digest in digests]

        return await gathered(worker, request, get=found)

    async def _kept(self, name: str, *, request: int, outcome: int | None) -> WorkerState:
        key = (name, request, outcome)
        if key not in self._derived:
            self._derived[key] = await self._derive(name, request=request, outcome=outcome)
        return self._derived[key]

    async def _derive(self, name: str, *, request: int, outcome: int | None) -> WorkerState:
        worker, asked = self._workers[name], self._timeline.stops[request].recorded
        state = WorkerState(stage=ASKED if outcome is None else CONCLUDED, request=link_of(asked))
        try:
            blobs = await self._blobs(worker, asked)
            effect = worker.prepare(asked, blobs=blobs)
            digest = sha256(encode(effect)).hexdigest()
            state = msgspec.structs.replace(state, effect=effect, effect_digest=digest)
            if outcome is None:
                return state
            landed = self._timeline.stops[outcome].recorded
            if not isinstance(landed.event, Outcome):
                return msgspec.structs.replace(state, difference=undecided(landed))
            content = await self._shelf(landed.event.raw.digest, named_by=landed)
            raw = msgspec.json.decode(content, type=worker.raw_type)
            state = msgspec.structs.replace(state, raw=raw)
            ref = BlobRef(digest=landed.event.raw.digest, size=len(content), media_type="application/json")
            conclusion = worker.conclude(asked, Recording(effect=digest, raw=raw, ref=ref), blobs=blobs)
        except (BlobLost, msgspec.MsgspecError, *FAILURES) as error:
            return msgspec.structs.replace(state, problem=f"{type(error).__name__}: {error}")
        draft = draft_answer(conclusion.event, to=asked, agent=name, ordinal=0, time_ms=raw.ended_at_ms)
        derived, _ = chain(draft, after=Head(position=landed.position - 1, digest=landed.previous))
        difference = first_difference(landed, derived)
        return msgspec.structs.replace(state, concluded=conclusion.event, difference=difference)
