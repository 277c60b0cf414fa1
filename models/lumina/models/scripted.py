"""The model that says what it was told to say: a `Backend` and a `Models` for tests and simulations.

It stands beside the real ones and passes the same contract suite: it counts, streams, cuts at limits, refuses what
does not fit, queues beyond one slot, and stops when cancelled.
"""

import re
import time
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec

from lumina.models.backend import (
    Backend,
    Constraint,
    Finish,
    Generation,
    Loaded,
    Message,
    OnLoad,
    OnText,
    Reply,
    ignore_load,
    ignore_text,
)
from lumina.models.errors import ContextExceeded, ModelError, ModelTimedOut, UnknownModel

SECONDS_MAX: Final = 3600.0
_TOKEN: Final = re.compile(r"\s*\S{1,4}|\s+\Z")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered to which prompt. The first rule that fits is used.

    Attributes:
        contains: Stands somewhere in the messages, as `role: text` lines; the empty text fits everything.
        answers: Given in turn, the last one for ever.
        error: Raised instead of an answer, as many times as there are `errors_max`.
        first_s: Until the first token.
        token_s: For each token.
    """

    contains: str = ""
    answers: tuple[str, ...] = ("",)
    error: type[ModelError] | None = None
    errors_max: int = 1_000_000
    first_s: float = 0.0
    token_s: float = 0.0


class ScriptedBackend:
    """One scripted model with one slot. A token is up to four characters and the space before them."""

    def __init__(self, rules: Sequence[Rule], *, context: int = 4096, where: str = "the script") -> None:
        assert rules, "a script needs a rule"
        self._rules = tuple(rules)
        self._context = context
        self._where = where
        self._turn = anyio.Lock()
        self._used: dict[int, int] = {}
        self.calls: list[Generation] = []
        """What was asked, in order."""

    @property
    def where(self) -> str:
        """A name for messages."""
        return self._where

    @property
    def context(self) -> int:
        """Tokens served."""
        return self._context

    async def count(self, messages: Sequence[Message]) -> int:
        """Count exactly."""
        return sum(len(tokens_of(message.text)) + 4 for message in messages)

    async def generate(self, call: Generation, *, on_text: OnText = ignore_text) -> Reply:
        """Answer as the script says, or raise as `Backend.generate` says."""
        try:
            with anyio.fail_after(call.timeout_s):
                async with self._turn:
                    return await self._answer(call, on_text=on_text)
        except TimeoutError as error:
            raise ModelTimedOut(f"{self._where} did not finish within {call.timeout_s:g} s; it was stopped") from error

    async def aclose(self) -> None:
        """Hold nothing."""

    async def _answer(self, call: Generation, *, on_text: OnText) -> Reply:
        prompt_tokens = await self.count(call.messages)
        if prompt_tokens >= self._context:
            raise ContextExceeded(f"the prompt has {prompt_tokens:,} tokens, the context holds {self._context:,}")
        self.calls.append(call)
        number, rule = self._rule(call)
        use = self._used.get(number, 0)
        self._used[number] = use + 1
        if rule.error is not None and use < rule.errors_max:
            raise rule.error(f"{self._where} fails as it was told to")
        errors = rule.errors_max if rule.error is not None else 0
        text = rule.answers[min(use - errors, len(rule.answers) - 1)]
        await on_text("", 0)
        started = time.monotonic()
        await anyio.sleep(min(rule.first_s, SECONDS_MAX))
        first = time.monotonic()
        wanted = tokens_of(text)
        given = wanted[: min(call.tokens_max, self._context - prompt_tokens)]
        for number, token in enumerate(given, 1):
            await anyio.sleep(min(rule.token_s, SECONDS_MAX))
            await on_text(token, number)
        return Reply(
            text="".join(given),
            finish=Finish.STOP if len(given) == len(wanted) else Finish.LENGTH,
            prompt_tokens=prompt_tokens,
            generated_tokens=len(given),
            prompt_ms=round((first - started) * 1000),
            generate_ms=round((time.monotonic() - first) * 1000),
            constraint=Constraint.NONE,
        )

    def _rule(self, call: Generation) -> tuple[int, Rule]:
        said = "\n".join(f"{message.role}: {message.text}" for message in call.messages)
        for number, rule in enumerate(self._rules):
            if rule.contains in said:
                return number, rule
        raise ModelError(f"{self._where} has no rule for {said[-200:]!r}")


class ScriptedModels:
    """Scripted models by name, with loads that take `load_s` and measure `bytes_measured`."""

    def __init__(
        self, models: dict[str, ScriptedBackend], *, load_s: float = 0.0, bytes_measured: int = 1 << 20
    ) -> None:
        self._models = models
        self._load_s = load_s
        self._bytes = bytes_measured
        self._turn = anyio.Lock()
        self.resident: set[str] = set()
        """Instances that are loaded now."""

    async def backend_for(self, instance: str, *, on_load: OnLoad = ignore_load) -> tuple[Backend, Loaded | None]:
        """Return the scripted model, pretending to load it where it is not resident."""
        name = instance.rpartition("#")[0]
        if name not in self._models:
            raise UnknownModel(f"no model {name} in the script; its models: {', '.join(self._models)}")
        async with self._turn:
            if instance in self.resident:
                return self._models[name], None
            for step in range(3):
                await on_load(step / 2)
                await anyio.sleep(self._load_s / 3)
            self.resident.add(instance)
        return self._models[name], Loaded(load_ms=round(self._load_s * 1000), bytes_measured=self._bytes)

    async def unload(self, instance: str) -> bool:
        """Forget an instance."""
        was_loaded = instance in self.resident
        self.resident.discard(instance)
        return was_loaded

    async def aclose(self) -> None:
        """Hold nothing."""


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text; joined they are the text."""
    return _TOKEN.findall(text)
