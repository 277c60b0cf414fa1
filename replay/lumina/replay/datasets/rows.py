"""Rows to learn from, each with its proof: accepted (prompt, code, verdict), and repairs (fault, finding, mended code).

Pure: the rows follow from the records of a run and the blobs that they name. A prompt is derived again by the same
`prepare` that made it, and is the one that was sent. So whoever has the log can make every row again and compare.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from hashlib import sha256
from typing import Any, Final

import msgspec

from lumina.agents.ports import Raw
from lumina.agents.specialist import Call, Specialist, SpecialistRaw
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.contract import Language
from lumina.events.execution import Check, ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationRequested, Purpose, Sampling
from lumina.events.ids import EventId
from lumina.events.lease import LeaseGranted
from lumina.events.record import Recorded
from lumina.events.step import StepAccepted
from lumina.events.validation import Finding, ValidationFinished, ValidationVerdict
from lumina.models.backend import Message
from lumina.models.prompting import fit
from lumina.replay.errors import RowLost

SPECIALIST: Final = Specialist()


class RowKind(Enum):
    """ACCEPTED: a prompt and code that was accepted. REPAIR: faulty code, what was wrong, and the accepted code."""

    ACCEPTED = "accepted"
    REPAIR = "repair"


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest record of the log when the rows were made, and which log that was."""

    log: str
    seq: int
    id: str
    stream: str
    agent: str
    digest: str


class Tried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attempt: what a model was told, what it wrote, and what became of that.

    Attributes:
        events: Ids of its records: request, lease, generation, validation, execution.
        digests: SHA-256 of the prompt (canonical JSON of its messages) and the code, and for each of generation,
            validation and execution of the effect and of the raw result, as `generation.effect`, `generation.raw`.
        prompt: The messages that were sent.
        stderr: Of the execution, as it is in the log.
        detail: What the execution, or else the validation, had to say.
    """

    attempt: int
    model: str
    sampling: Sampling
    events: dict[str, str]
    digests: dict[str, str]
    prompt: tuple[Message, ...]
    code: str
    validation: ValidationVerdict | None = None
    findings: tuple[Finding, ...] = ()
    execution: ExecutionVerdict | None = None
    checks: tuple[Check, ...] = ()
    stderr: str = ""
    detail: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the file.

    Attributes:
        kind: What it shows.
        step: Of the run's plan.
        specialist: Who wrote the code.
        brief: The request for this step.
        accepted: Id of the `step.accepted`.
        answer: The attempt that was accepted.
        faulty: For a repair, the attempt before it.
        feedback: For a repair, what the model was told about the fault.
        log: Where the log stood when the row was made.
    """

    kind: RowKind
    run: str
    step: int
    specialist: str
    language: Language
    brief: str
    accepted: str
    answer: Tried
    faulty: Tried | None = None
    feedback: tuple[str, ...] = ()
    log: Place


class Trail(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one attempt."""

    request: Recorded[Event]
    lease: Recorded[Event]
    generation: Recorded[Event]
    validation: Recorded[Event] | None = None
    execution: Recorded[Event] | None = None

    @property
    def asked(self) -> LeaseGranted:
        """The question as the specialist had it."""
        assert isinstance(self.lease.event, LeaseGranted)
        return self.lease.event

    @property
    def answered(self) -> GenerationFinished:
        """What came of it."""
        assert isinstance(self.generation.event, GenerationFinished)
        return self.generation.event


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """The records of which one row is made."""

    accepted: Recorded[Event]
    answer: Trail
    faulty: Trail | None = None


class Index:
    """The records of one run, with what it shares with its parents, by what rows are made of."""

    def __init__(self, records: Sequence[Recorded[Event]]) -> None:
        self.by_id: dict[EventId, Recorded[Event]] = {recorded.id: recorded for recorded in records}
        self._generations: list[Recorded[Event]] = []
        self._checks: dict[tuple[type[Event], int, int], Recorded[Event]] = {}
        for recorded in records:
            match recorded.event:
                case GenerationFinished():
                    self._generations.append(recorded)
                case ValidationFinished() | ExecutionFinished() as checked:
                    self._checks[type(checked), checked.step, checked.attempt] = recorded
                case _:
                    pass  # no part of a row

    def accepted_trail(self, accepted: StepAccepted) -> Trail:
        """Return the attempt that was accepted. Raises RowLost."""
        trail = self._trail(accepted.step, code=accepted.code.digest, before=accepted.attempt)
        if trail is None:
            raise RowLost(f"step {accepted.step}: no answer with the code {accepted.code.digest} stands in the log")
        return msgspec.structs.replace(trail, validation=self._validated(accepted), execution=self._executed(accepted))

    def _validated(self, accepted: StepAccepted) -> Recorded[Event]:
        """Return the validation that is the evidence of an acceptance. Raises RowLost."""
        found = self.by_id.get(accepted.validation)
        if found is None or not isinstance(found.event, ValidationFinished):
            raise RowLost(f"step {accepted.step}: its validation {accepted.validation} does not stand in the log")
        passed = found.event.verdict is ValidationVerdict.PASSED
        _check_evidence(found, of=accepted, step=found.event.step, code=found.event.code, passed=passed)
        return found

    def _executed(self, accepted: StepAccepted) -> Recorded[Event]:
        """Return the execution that is the evidence of an acceptance, and that was asked for. Raises RowLost."""
        found = self.by_id.get(accepted.execution)
        if found is None or not isinstance(found.event, ExecutionFinished):
            raise RowLost(f"step {accepted.step}: its execution {accepted.execution} does not stand in the log")
        passed = found.event.verdict is ExecutionVerdict.PASSED
        _check_evidence(found, of=accepted, step=found.event.step, code=found.event.code, passed=passed)
        return found

    def faulty_trail(self, answer: Trail) -> Trail | None:
        """Return the attempt that `answer` mends, None when it mends nothing."""
        ask = answer.asked.ask
        if ask.purpose is not Purpose.REPAIR or ask.previous is None:
            return None
        trail = self._trail(ask.step, code=ask.previous.digest, before=ask.attempt - 1)
        if trail is None:
            return None
        attempt = trail.answered.attempt
        return msgspec.structs.replace(
            trail,
            validation=self._checks.get((ValidationFinished, ask.step, attempt)),
            execution=self._checks.get((ExecutionFinished, ask.step, attempt)),
        )

    def _trail(self, step: int, *, code: str, before: int) -> Trail | None:
        """Return the newest attempt up to `before` that brought this code."""
        for recorded in reversed(self._generations):
            event = recorded.event
            assert isinstance(event, GenerationFinished)
            if event.step != step or event.attempt > before or event.code is None or event.code.digest != code:
                continue
            request, lease = self.by_id.get(event.request), self.by_id.get(event.lease)
            if request is None or lease is None or not isinstance(request.event, GenerationRequested):
                raise RowLost(f"record {recorded.seq} answers {event.request}, which does not stand in the log")
            return Trail(request=request, lease=lease, generation=recorded)
        return None


def _check_evidence(found: Recorded[Event], *, of: StepAccepted, step: int, code: str, passed: bool) -> None:
    """Check that a record speaks for an acceptance. Raises RowLost with its place."""
    place = f"record {found.seq} ({found.type}), the evidence of step {of.step},"
    if step != of.step:
        raise RowLost(f"{place} is about step {step}")
    if code != of.code.digest:
        raise RowLost(f"{place} is about the code {code}; accepted was {of.code.digest}")
    if not passed:
        raise RowLost(f"{place} is no pass")


def candidates(records: Iterable[Recorded[Event]], *, shared: Sequence[Recorded[Event]] = ()) -> Iterator[Candidate]:
    """Yield what rows can be made of in a run; `shared` is what it has of its parents.

    Raises:
        RowLost: A record that is needed is not among them.
    """
    own = list(records)
    index = Index([*shared, *own])
    for recorded in own:
        if isinstance(recorded.event, StepAccepted):
            answer = index.accepted_trail(recorded.event)
            yield Candidate(accepted=recorded, answer=answer)
            faulty = index.faulty_trail(answer)
            if faulty is not None:
                yield Candidate(accepted=recorded, answer=answer, faulty=faulty)


def needs(candidate: Candidate, *, blobs: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the digests of the blobs that its row is made of, as far as that is known from `blobs`."""
    found: list[str] = []
    for trail in (candidate.answer, candidate.faulty):
        if trail is not None:
            code = trail.answered.code
            assert code is not None, "a trail has code"
            found += [code.digest, trail.answered.raw.digest, *SPECIALIST.needs(trail.lease, blobs=blobs)]
    return tuple(dict.fromkeys(found))


def row_of(candidate: Candidate, *, blobs: Mapping[str, bytes], log: Place) -> Row:
    """Return the row; `blobs` has all that it needs. Raises RowLost when a raw result can't be read."""
    ask = candidate.answer.asked.ask
    assert ask.contract is not None, "code is asked for with a contract"
    accepted = candidate.accepted.event
    assert isinstance(accepted, StepAccepted)
    return Row(
        kind=RowKind.ACCEPTED if candidate.faulty is None else RowKind.REPAIR,
        run=candidate.accepted.stream,
        step=accepted.step,
        specialist="" if ask.specialist is None else ask.specialist.name,
        language=ask.contract.language,
        brief=ask.brief,
        accepted=candidate.accepted.id,
        answer=_tried(candidate.answer, blobs=blobs),
        faulty=None if candidate.faulty is None else _tried(candidate.faulty, blobs=blobs),
        feedback=() if candidate.faulty is None else ask.feedback,
        log=log,
    )


def execution_request(trail: Trail, *, index: Index) -> Recorded[Event] | None:
    """Return the request for the execution of an attempt's code, None when it was not run. Raises RowLost."""
    if trail.execution is None or not isinstance(trail.execution.event, ExecutionFinished):
        return None
    asked = trail.execution.event.request
    request = index.by_id.get(asked)
    if request is None or not isinstance(request.event, ExecutionRequested):
        raise RowLost(f"record {trail.execution.seq} answers {asked}, which does not stand in the log")
    if request.event.code.digest != trail.execution.event.code:
        raise RowLost(f"record {trail.execution.seq} is about other code than its request {asked}")
    return request


def decoded_raw(content: bytes, *, kind: type[Raw], of: Recorded[Event]) -> Any:
    """Return a recorded raw result. Raises RowLost."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RowLost(f"the raw result of record {of.seq} ({of.type}): {error}") from error


def first_difference(stated: Row, derived: Row) -> str | None:
    """Return the first field in which two rows differ, with both values; None when they are equal.

    Where the log stood is compared elsewhere: it goes on.
    """
    return _inside(
        "", msgspec.to_builtins(stated), msgspec.to_builtins(msgspec.structs.replace(derived, log=stated.log))
    )


def _inside(path: str, stated: Any, derived: Any) -> str | None:
    if isinstance(stated, dict) and isinstance(derived, dict):
        for key in dict.fromkeys((*stated, *derived)):
            found = _inside(f"{path}.{key}".lstrip("."), stated.get(key), derived.get(key))
            if found is not None:
                return found
        return None
    if isinstance(stated, list | tuple) and isinstance(derived, list | tuple) and len(stated) == len(derived):
        for number, (one, other) in enumerate(zip(stated, derived, strict=True)):
            found = _inside(f"{path}[{number}]", one, other)
            if found is not None:
                return found
        return None
    one_text, other_text = (msgspec.json.encode(value).decode() for value in (stated, derived))
    return None if one_text == other_text else f"{path}: the row says {one_text[:120]}, the log {other_text[:120]}"


def _tried(trail: Trail, *, blobs: Mapping[str, bytes]) -> Tried:
    ask, answered = trail.asked.ask, trail.answered
    assert answered.code is not None, "a trail has code"
    prompt = _sent(trail, blobs=blobs)
    tried = Tried(
        attempt=answered.attempt,
        model=answered.model,
        sampling=ask.sampling,
        events={
            "request": trail.request.id,
            "lease": trail.lease.id,
            "generation": trail.generation.id,
            **{
                name: recorded.id
                for name, recorded in (("validation", trail.validation), ("execution", trail.execution))
                if recorded is not None
            },
        },
        digests={
            "prompt": sha256(b"".join(encode(message) for message in prompt)).hexdigest(),
            "code": answered.code.digest,
            "generation.effect": answered.effect,
            "generation.raw": answered.raw.digest,
        },
        prompt=prompt,
        code=blobs[answered.code.digest].decode("utf-8", "replace"),
    )
    if trail.validation is not None and isinstance(trail.validation.event, ValidationFinished):
        tried = _read(tried, trail.validation.event)
    if trail.execution is not None and isinstance(trail.execution.event, ExecutionFinished):
        tried = _ran(tried, trail.execution.event)
    return tried


def _read(tried: Tried, event: ValidationFinished) -> Tried:
    digests = {**tried.digests, "validation.effect": event.effect, "validation.raw": event.raw.digest}
    return msgspec.structs.replace(
        tried, validation=event.verdict, findings=event.findings, detail=event.detail, digests=digests
    )


def _ran(tried: Tried, event: ExecutionFinished) -> Tried:
    digests = {**tried.digests, "execution.effect": event.effect, "execution.raw": event.raw.digest}
    return msgspec.structs.replace(
        tried,
        execution=event.verdict,
        checks=event.checks,
        stderr=event.stderr,
        detail=event.detail or tried.detail,
        digests=digests,
    )


def _sent(trail: Trail, *, blobs: Mapping[str, bytes]) -> tuple[Message, ...]:
    """Return the messages that the model was sent: the first prompt of the ladder that fitted."""
    effect = SPECIALIST.prepare(trail.lease, blobs=blobs)
    digest = sha256(encode(effect)).hexdigest()
    if digest != trail.answered.effect:
        raise RowLost(f"record {trail.generation.seq} came of the effect {trail.answered.effect}; derived: {digest}")
    raw: SpecialistRaw = decoded_raw(blobs[trail.answered.raw.digest], kind=SpecialistRaw, of=trail.generation)
    assert isinstance(effect, Call), "code came of it"
    chosen = fit(raw.counts, context=raw.context, tokens_max=effect.sampling.tokens_max)
    if chosen is None:
        raise RowLost(f"record {trail.generation.seq}: no prompt was sent, but there is an answer")
    return effect.prompts[chosen].messages
