"""The port through which every model is reached: messages in, text out, with limits, measures and cancellation.

`llama_client.py` (our own worker processes), `openai.py` (any compatible URL) and `scripted.py` (the fake) implement
it and pass one contract suite, tests/models/test_backend_contract.py.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any, Literal, Protocol

import msgspec

Role = Literal["system", "user", "assistant"]


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    text: str


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One call, complete.

    Attributes:
        messages: The last one is the user's.
        tokens_max: The answer is cut after so many tokens.
        temperature: 0 is greedy.
        schema: JSON schema that the answer is constrained to, as far as the backend can (`Reply.constraint` says how
            far). Whoever reads the answer validates it all the same.
        timeout_s: For the whole call, waiting in the backend's queue included.
    """

    messages: tuple[Message, ...]
    tokens_max: int
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 40
    top_p: float = 1.0
    schema: dict[str, Any] | None = None
    timeout_s: float = 120.0


class Finish(Enum):
    """Why an answer ended: the model was done, or the token limit cut it."""

    STOP = "stop"
    LENGTH = "length"


class Constraint(Enum):
    """What held the answer to its schema. NONE: nothing did, the model was only asked."""

    GRAMMAR = "grammar"
    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    NONE = "none"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to.

    Attributes:
        text: The answer, reasoning excluded where the server separates it.
        reasoning: What the server marked as thinking.
        prompt_tokens: As the backend counts; see `exact`.
        reused_tokens: Of the prompt, taken from the previous call's cache.
        prompt_ms: From sending to the first token.
        generate_ms: From the first token to the last.
        exact: False when the counts are estimates because the server sent none.
        retries: How often the request was sent again before this answer.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    generated_tokens: int
    prompt_ms: int
    generate_ms: int
    reasoning: str = ""
    reused_tokens: int = 0
    constraint: Constraint = Constraint.NONE
    exact: bool = True
    retries: int = 0


OnText = Callable[[str, int], Awaitable[None]]
"""Is told each new piece of text and how many tokens there are by now. Called at most about 30 times a second."""


async def ignore_text(text: str, tokens: int, /) -> None:
    """Watch nothing."""


class Backend(Protocol):
    """One model, ready to be asked. Calls beyond its slots wait in order; cancelling a call stops its work."""

    @property
    def where(self) -> str:
        """The place that errors name: a URL or a file."""
        ...

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        ...

    async def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the whole prompt that these messages become, template included.

        An estimate, rounded up, where the server offers no tokenizer.

        Raises:
            ModelUnavailable: The server or process is gone.
        """
        ...

    async def generate(self, call: Generation, *, on_text: OnText = ignore_text) -> Reply:
        """Return the answer.

        Raises:
            ModelUnavailable: The server or process is not there, or went away in the middle.
            ModelTimedOut: `timeout_s` ran out; the work was stopped.
            ModelGarbage: What came back is no answer.
            ContextExceeded: The prompt is too long; nothing was generated.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. The model stays where it is."""
        ...


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A load that happened: how long it took and the resident memory of the worker process afterwards."""

    load_ms: int
    bytes_measured: int


OnLoad = Callable[[float], Awaitable[None]]
"""Is told how far a load is, from 0 to 1."""


async def ignore_load(fraction: float, /) -> None:
    """Watch nothing."""


class Models(Protocol):
    """The models of one node, by instance (`MODEL#K`)."""

    async def backend_for(self, instance: str, *, on_load: OnLoad = ignore_load) -> tuple[Backend, Loaded | None]:
        """Return the backend of an instance, loading it first if it is not resident, and the load if there was one.

        Loads of one instance are single-flight over all processes of the node.

        Raises:
            UnknownModel: Not configured here.
            CorruptModel: Its file can't be used.
            ModelUnavailable: Its server or process can't be reached or started.
            ModelTimedOut: Loading took too long.
        """
        ...

    async def unload(self, instance: str) -> bool:
        """End the instance's process and wait until its memory is back; return whether there was one.

        Raises:
            ModelUnavailable: The process does not end.
        """
        ...

    async def aclose(self) -> None:
        """Let go of all backends. Worker processes without users end by themselves."""
        ...
