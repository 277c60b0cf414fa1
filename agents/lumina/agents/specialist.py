"""The specialist: uses the leases that the governor grants on models, and gives models up when it asks for that.

Everything here but the injected effect is pure: what a model is told and what its answer is worth are derived again
on replay. `specialist_calls.py` has the effect.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Protocol, assert_never

import msgspec

from lumina.agents.errors import SpecialistInvalid
from lumina.agents.ports import NO_BLOBS, Conclusion, Progress, Raw, Recording
from lumina.agents.prompt_templates import render_prompt
from lumina.agents.specialist_files import SpecialistDefinition, parse_definition
from lumina.events.base import Event
from lumina.events.contract import Language
from lumina.events.generation import Ask, GenerationFinished, GenerationOutcome, Load, Purpose, Sampling, Usage
from lumina.events.lease import LeaseGranted
from lumina.events.node import ModelUnloaded, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.values import BlobRef, Canonical, clip
from lumina.models import turns
from lumina.models.answers import Code, Cut, Plan, Unusable, plan_schema, read_code, read_plan
from lumina.models.backend import Loaded, Message, Reply
from lumina.models.errors import ConversationLost
from lumina.models.prompting import (
    Prompt,
    SpecialistTexts,
    contract_words,
    fit,
    prompts,
    reserve,
    without_control,
)
from lumina.models.turns import Extended

SENTENCE_CHARACTERS_MAX: Final = 500
MEDIA_TYPES: Final = {Language.PYTHON: "text/x-python", Language.JAVASCRIPT: "text/javascript"}


class Call(Canonical, frozen=True, kw_only=True, tag="call"):
    """Ask a model.

    Attributes:
        instance: `MODEL#K`.
        load: Whether it is not resident yet, as far as the governor knows.
        context: Tokens that the lease allows; the backend may serve less.
        prompts: The complete one first; the first that fits is sent.
        schema: For a plan, what the answer is constrained to.
        timeout_ms: For the model call alone, without loading.
        expires_at: When the lease is void; nothing is begun after that, and what runs is stopped.
    """

    instance: str
    load: bool
    context: int
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    timeout_ms: int
    expires_at: int
    schema: dict[str, Any] | None = None


class Unload(Canonical, frozen=True, kw_only=True, tag="unload"):
    """End the process of an instance and wait until it has ended."""

    instance: str


class Hopeless(Canonical, frozen=True, kw_only=True, tag="hopeless"):
    """Nothing can be asked: the ask is incomplete, or the specialist's definition is not one."""

    reason: str


Effect = Call | Unload | Hopeless


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no reply: what it means for the run, and a sentence that is the same for the same cause."""

    outcome: GenerationOutcome
    detail: str


class SpecialistRaw(Raw, frozen=True, kw_only=True):
    """What came of an effect.

    Attributes:
        counts: Tokens of the prompts, as far as they were counted: up to the first that fits.
        context: Tokens that prompt and answer could have together; 0 when that was never known.
        reply: What the model said.
        problem: Why it said nothing.
        loaded: The load that the call caused.
        was_loaded: For an unload: whether there was a process to end.
    """

    counts: tuple[int, ...] = ()
    context: int = 0
    reply: Reply | None = None
    problem: Problem | None = None
    loaded: Loaded | None = None
    was_loaded: bool = False


class Perform(Protocol):
    """The effect itself."""

    async def __call__(self, effect: Effect, *, progress: Progress) -> SpecialistRaw:
        """Do it. Failures of models are part of what is returned."""
        ...


class Specialist:
    """The worker role `specialist`. Without `perform` it can only derive again what was performed before."""

    name = "specialist"
    raw_type = SpecialistRaw

    def __init__(self, *, perform: Perform | None = None) -> None:
        self._perform = perform

    def needs(self, request: Recorded[Event], *, blobs: Mapping[str, bytes] = NO_BLOBS) -> tuple[str, ...]:
        """Return the specialist's definition, the faulty code, and the conversation so far, as the ask names them."""
        match request.event:
            case LeaseGranted(ask=ask):
                definition = None if ask.specialist is None or ask.bare else ask.specialist.definition.digest
                previous = None if ask.previous is None else ask.previous.digest
                words = None if ask.words is None else ask.words.digest
                named = tuple(dict.fromkeys(digest for digest in (definition, previous, words) if digest is not None))
                return (*named, *_turns_missing(ask, blobs=blobs))
            case _:
                return ()

    def prepare(self, request: Recorded[Event], *, blobs: Mapping[str, bytes]) -> Effect:
        """Return the call with all its prompts, or the unload."""
        match request.event:
            case LeaseGranted() as lease:
                return _call(lease, blobs=blobs)
            case UnloadRequested(instance=instance):
                return Unload(instance=instance)
            case _:
                raise AssertionError(f"a specialist is not asked by {request.type}")

    async def perform(self, effect: Effect, *, progress: Progress) -> SpecialistRaw:
        """Do it."""
        assert self._perform is not None, "a specialist without models only derives"
        return await self._perform(effect, progress=progress)

    def stopped(self, request: Recorded[Event], *, ended_at_ms: int) -> SpecialistRaw | None:
        """Return that a call was stopped: the governor keeps the instance for it until there is an outcome."""
        if not isinstance(request.event, LeaseGranted):
            return None
        detail = "its run ended before there was an answer, so the call was stopped"
        return SpecialistRaw(
            ended_at_ms=ended_at_ms, problem=Problem(outcome=GenerationOutcome.TIMED_OUT, detail=detail)
        )

    def conclude(
        self, request: Recorded[Event], recording: Recording[SpecialistRaw], *, blobs: Mapping[str, bytes]
    ) -> Conclusion:
        """Return what the model's answer is worth, or that the model is gone."""
        match request.event:
            case LeaseGranted() as lease:
                return _finished(request, lease, recording=recording, effect=_call(lease, blobs=blobs), blobs=blobs)
            case UnloadRequested(node=node, instance=instance):
                unloaded = ModelUnloaded(
                    node=node,
                    instance=instance,
                    was_loaded=recording.raw.was_loaded,
                    effect=recording.effect,
                    raw=recording.ref,
                )
                return Conclusion(event=unloaded)
            case _:
                raise AssertionError(f"a specialist is not asked by {request.type}")


def _call(lease: LeaseGranted, *, blobs: Mapping[str, bytes]) -> Call | Hopeless:
    ask = lease.ask
    if ask.purpose is not Purpose.PLAN and (ask.contract is None or (ask.specialist is None and not ask.bare)):
        return Hopeless(reason="the ask for code names no contract or no specialist; whoever asked is broken")
    try:
        texts = _texts(ask, blobs=blobs)
        earlier = () if ask.turn is None else _said_before(ask.turn.digest, blobs=blobs)
    except (SpecialistInvalid, ConversationLost) as error:
        return Hopeless(reason=clip(str(error), limit=SENTENCE_CHARACTERS_MAX))
    previous = None if ask.previous is None else blobs[ask.previous.digest].decode("utf-8", "replace")
    words = None if ask.words is None else blobs[ask.words.digest].decode("utf-8", "replace")
    return Call(
        instance=lease.instance,
        load=lease.load,
        context=lease.context,
        prompts=prompts(ask, texts=texts, previous=previous, earlier=earlier, words=words),
        sampling=ask.sampling,
        timeout_ms=ask.timeout_ms,
        expires_at=lease.expires_at,
        schema=plan_schema(ask.kinds) if ask.purpose is Purpose.PLAN else None,
    )


def _turns_missing(ask: Ask, *, blobs: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return what is still needed of the conversation; nothing of one that can't be read, which `prepare` reports."""
    if ask.turn is None:
        return ()
    try:
        return turns.missing(ask.turn.digest, blobs=blobs)
    except ConversationLost:
        return ()


def _said_before(turn: str, *, blobs: Mapping[str, bytes]) -> tuple[Message, ...]:
    if turns.missing(turn, blobs=blobs):
        raise ConversationLost("the conversation was not handed over whole")
    return turns.messages(turn, blobs=blobs)


def _texts(ask: Ask, *, blobs: Mapping[str, bytes]) -> SpecialistTexts | None:
    """Return what the specialist's definition says; None where nobody's words are needed."""
    if ask.bare or ask.specialist is None or ask.contract is None:
        return None
    definition = parse_definition(blobs[ask.specialist.definition.digest], name=ask.specialist.name)
    return SpecialistTexts(
        role=definition.role, examples=len(definition.examples), render=_Renderer(definition, ask=ask)
    )


class _Renderer:
    """Renders the user message of one ask with some of the examples."""

    def __init__(self, definition: SpecialistDefinition, *, ask: Ask) -> None:
        assert ask.contract is not None, "code is asked for with a contract"
        self._definition = definition
        self._brief = ask.brief
        self._contract = contract_words(ask.contract)

    def __call__(self, examples: int, feedback: tuple[str, ...]) -> str:
        return render_prompt(
            self._definition,
            language=self._definition.language.value,
            brief=self._brief,
            contract=self._contract,
            examples=self._definition.examples[:examples],
            feedback=feedback,
        )


def _finished(
    request: Recorded[Event],
    lease: LeaseGranted,
    *,
    recording: Recording[SpecialistRaw],
    effect: Call | Hopeless,
    blobs: Mapping[str, bytes],
) -> Conclusion:
    """Return the outcome of a call."""
    raw, ask = recording.raw, lease.ask
    worth = _worth(ask, raw=raw, effect=effect)
    conversation = _conversation(ask, raw=raw, effect=effect, blobs=blobs)
    code: bytes | None = worth.text.encode("utf-8", "replace") if isinstance(worth, Code) else None
    outcome, detail = _outcome(worth)
    finished = GenerationFinished(
        request=lease.request,
        lease=request.id,
        step=ask.step,
        attempt=ask.attempt,
        model=ask.model,
        outcome=outcome,
        effect=recording.effect,
        raw=recording.ref,
        usage=_usage(raw, effect=effect),
        code=None if code is None else _code_ref(code, ask=ask),
        plan=worth.items if isinstance(worth, Plan) else (),
        load=None if raw.loaded is None else Load(**msgspec.structs.asdict(raw.loaded)),
        turn=None if conversation is None else conversation.turn,
        detail=clip(detail, limit=SENTENCE_CHARACTERS_MAX),
    )
    said = () if conversation is None else conversation.blobs
    return Conclusion(event=finished, blobs=(*(() if code is None else (code,)), *said))


def _conversation(
    ask: Ask, *, raw: SpecialistRaw, effect: Call | Hopeless, blobs: Mapping[str, bytes]
) -> Extended | None:
    """Return the conversation with what was asked now and the answer, None when it is not kept or there is none."""
    if not (ask.keep or ask.turn) or raw.reply is None or not isinstance(effect, Call):
        return None
    sent = fit(raw.counts, context=raw.context, tokens_max=effect.sampling.tokens_max)
    if sent is None:
        return None
    prompt = effect.prompts[sent].messages
    asked = prompt if ask.turn is None else prompt[-1:]
    answer = Message("assistant", without_control(raw.reply.text))
    return turns.extended(None if ask.turn is None else ask.turn.digest, blobs=blobs, said=(*asked, answer))


def _worth(ask: Ask, *, raw: SpecialistRaw, effect: Call | Hopeless) -> Code | Plan | Cut | Unusable | Problem:
    """Return what came of a call, read from the raw outcome."""
    if isinstance(effect, Hopeless):
        return Unusable(effect.reason)
    if raw.problem is not None:
        return raw.problem
    if raw.reply is None:
        tokens_max = ask.sampling.tokens_max
        kept = reserve(tokens_max, context=raw.context)
        shortest = raw.counts[-1] if raw.counts else 0
        detail = (
            f"the shortest prompt has {shortest:,} tokens and {kept:,} are kept for the answer, but {ask.model} serves"
            f" {raw.context:,}; shorten the request or use a model with more context"
        )
        return Problem(outcome=GenerationOutcome.DOES_NOT_FIT, detail=detail)
    if ask.purpose is Purpose.PLAN:
        return read_plan(raw.reply.text, kinds=ask.kinds, finish=raw.reply.finish)
    assert ask.contract is not None, "code is asked for with a contract"
    return read_code(raw.reply.text, contract=ask.contract, finish=raw.reply.finish)


def _outcome(worth: Code | Plan | Cut | Unusable | Problem) -> tuple[GenerationOutcome, str]:
    match worth:
        case Code(how=how) | Plan(how=how):
            return GenerationOutcome.ANSWERED, f"taken from {how}" if how else ""
        case Cut(reason=reason):
            return GenerationOutcome.LENGTH, reason
        case Unusable(reason=reason):
            return GenerationOutcome.UNUSABLE, reason
        case Problem(outcome=outcome, detail=detail):
            return outcome, detail
    assert_never(worth)


def _usage(raw: SpecialistRaw, *, effect: Call | Hopeless) -> Usage:
    reply = raw.reply
    sent = None
    if isinstance(effect, Call):
        sent = fit(raw.counts, context=raw.context, tokens_max=effect.sampling.tokens_max)
    trimmed = effect.prompts[sent].trimmed if isinstance(effect, Call) and sent is not None else ()
    if reply is None:
        return Usage(prompt_tokens=0, generated_tokens=0, context=raw.context, trimmed=trimmed)
    return Usage(
        prompt_tokens=reply.prompt_tokens,
        generated_tokens=reply.generated_tokens,
        context=raw.context,
        trimmed=trimmed,
        prompt_ms=reply.prompt_ms,
        generate_ms=reply.generate_ms,
    )


def _code_ref(code: bytes, *, ask: Ask) -> BlobRef:
    assert ask.contract is not None, "code is asked for with a contract"
    return BlobRef(digest=sha256(code).hexdigest(), size=len(code), media_type=MEDIA_TYPES[ask.contract.language])
