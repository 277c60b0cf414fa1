"""The specialist's effect: load, count, choose the prompt that fits, ask, and report how it goes on."""

import time
from collections.abc import Callable
from typing import Final

import anyio
import structlog

from lumina.agents.ports import Progress
from lumina.agents.specialist import Call, Effect, Hopeless, Problem, Specialist, SpecialistRaw, Unload
from lumina.events.generation import GenerationOutcome
from lumina.models.backend import Backend, Generation, Loaded, Models, Reply
from lumina.models.errors import ContextExceeded, ModelError, ModelGarbage, ModelTimedOut, ModelUnavailable
from lumina.models.prompting import fit

PROGRESS_EVERY_S: Final = 0.1
UNLOAD_RETRY_S: Final = 5.0

log = structlog.get_logger(__name__)


def specialist(models: Models) -> Specialist:
    """Return a specialist that reaches its models through `models`."""
    return Specialist(perform=ModelCalls(models))


class ModelCalls:
    """Performs calls and unloads."""

    def __init__(self, models: Models, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._models = models
        self._now_ms = now_ms

    async def __call__(self, effect: Effect, *, progress: Progress) -> SpecialistRaw:
        """Do it; cancelled, it stops the model's work and leaves nothing running."""
        match effect:
            case Hopeless():
                return SpecialistRaw(ended_at_ms=self._now_ms())
            case Unload(instance=instance):
                return await self._unload(instance, progress=progress)
            case Call():
                return await self._call(effect, progress=progress)

    async def _unload(self, instance: str, *, progress: Progress) -> SpecialistRaw:
        """End the instance, however long that takes: until then its memory is not free, and nobody may say so."""
        while True:
            await progress("unloading", instance=instance)
            try:
                was_loaded = await self._models.unload(instance)
            except ModelUnavailable as error:
                log.warning("specialist.unload_fails", instance=instance, reason=str(error))
                await anyio.sleep(UNLOAD_RETRY_S)
            else:
                return SpecialistRaw(ended_at_ms=self._now_ms(), was_loaded=was_loaded)

    async def _call(self, call: Call, *, progress: Progress) -> SpecialistRaw:
        """Ask, within the lease."""
        left_s = (call.expires_at - self._now_ms()) / 1000
        asking = _Asking(call, models=self._models, progress=progress)
        problem: Problem | None = None
        if left_s <= 0:
            detail = f"the lease on {call.instance} had run out before the call began; it is asked for again"
            problem = Problem(outcome=GenerationOutcome.UNAVAILABLE, detail=detail)
        else:
            try:
                with anyio.fail_after(left_s):
                    await asking.run()
            except TimeoutError:
                detail = f"the lease on {call.instance} ran out during the call, which was stopped"
                problem = Problem(outcome=GenerationOutcome.TIMED_OUT, detail=detail)
            except ModelError as error:
                problem = Problem(outcome=_outcome(error), detail=str(error))
        return SpecialistRaw(
            ended_at_ms=self._now_ms(),
            counts=tuple(asking.counts),
            context=asking.context,
            reply=asking.reply,
            problem=problem,
            loaded=asking.loaded,
        )


class _Asking:
    """One call under way, and what is known of it however it ends."""

    def __init__(self, call: Call, *, models: Models, progress: Progress) -> None:
        self.counts: list[int] = []
        self.context = 0
        self.reply: Reply | None = None
        self.loaded: Loaded | None = None
        self._call = call
        self._models = models
        self._progress = progress
        self._first_at = 0.0
        self._told_at = 0.0

    async def run(self) -> None:
        """Load, count, ask. Raises ModelError."""
        call = self._call
        await self._progress("loading" if call.load else "queued", instance=call.instance)
        backend, self.loaded = await self._models.backend_for(call.instance, on_load=self._on_load)
        self.context = min(call.context, backend.context)
        chosen = await self._choose(backend)
        if chosen is None:
            return
        room = self.context - self.counts[-1]
        generation = Generation(
            messages=call.prompts[chosen].messages,
            tokens_max=min(call.sampling.tokens_max, room),
            temperature=call.sampling.temperature,
            seed=call.sampling.seed,
            top_k=call.sampling.top_k,
            top_p=call.sampling.top_p,
            schema=call.schema,
            timeout_s=call.timeout_ms / 1000,
        )
        await self._progress("queued", instance=call.instance)
        self.reply = await backend.generate(generation, on_text=self._on_text)

    async def _choose(self, backend: Backend) -> int | None:
        """Count the prompts until one fits, and return which; None when none does."""
        tokens_max = self._call.sampling.tokens_max
        for prompt in self._call.prompts:
            self.counts.append(await backend.count(prompt.messages))
            chosen = fit(tuple(self.counts), context=self.context, tokens_max=tokens_max)
            if chosen is not None:
                return chosen
        return None

    async def _on_load(self, fraction: float) -> None:
        await self._progress("loading", instance=self._call.instance, fraction=round(fraction, 3))

    async def _on_text(self, text: str, tokens: int) -> None:
        now = anyio.current_time()
        if tokens == 0:
            await self._progress("prompt", prompt_tokens=self.counts[-1])
            return
        self._first_at = self._first_at or now
        if now - self._told_at >= PROGRESS_EVERY_S:
            self._told_at = now
            speed = (tokens - 1) / (now - self._first_at) if now > self._first_at else 0.0
            await self._progress("generating", tokens=tokens, tokens_per_s=round(speed, 1))


def _outcome(error: ModelError) -> GenerationOutcome:
    """Return what a failure of a model means for the run."""
    match error:
        case ModelTimedOut():
            return GenerationOutcome.TIMED_OUT
        case ModelGarbage():
            return GenerationOutcome.GARBAGE
        case ContextExceeded():
            return GenerationOutcome.DOES_NOT_FIT
        case _:  # ModelUnavailable, CorruptModel, UnknownModel and whatever is added: no answer from there
            return GenerationOutcome.UNAVAILABLE
