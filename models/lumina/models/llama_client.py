"""A model in a llama worker process, as a `Backend`. One connection per call; closing it stops the work."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, assert_never

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from lumina.models.backend import Constraint, Finish, Generation, Message, OnText, Reply, ignore_text
from lumina.models.errors import (
    ContextExceeded,
    CorruptModel,
    ModelError,
    ModelGarbage,
    ModelTimedOut,
    ModelUnavailable,
)
from lumina.models.llama_frames import (
    Chat,
    Count,
    Counted,
    Failed,
    Fault,
    Finished,
    LlamaSpec,
    Loading,
    Piece,
    Ready,
    Request,
    Response,
    receive_frame,
    send_frame,
    socket_address,
)

COUNT_S_MAX: Final = 30.0
GONE: Final = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class Talk:
    """One connection to a worker: a request was sent, replies come."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def next(self) -> Response:
        """Return the next frame. Raises one of `GONE`, or msgspec.DecodeError."""
        frame: Response = await receive_frame(self._buffered, Response)
        return frame


async def open_talk(socket: Path, request: Request) -> Talk:
    """Connect to the worker at `socket` and send the request. Raises one of `GONE`."""
    with socket_address(socket) as address:
        stream = await anyio.connect_unix(address)
    try:
        await send_frame(stream, request)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return Talk(stream)


@asynccontextmanager
async def talk(socket: Path, request: Request) -> AsyncIterator[Talk]:
    """Talk to the worker at `socket` for the length of the body. Raises one of `GONE`."""
    opened = await open_talk(socket, request)
    try:
        yield opened
    finally:
        await anyio.aclose_forcefully(opened.stream)


def error_of(failed: Failed) -> ModelError:
    """Return the error that a worker's failure stands for."""
    match failed.fault:
        case Fault.CORRUPT:
            return CorruptModel(failed.detail)
        case Fault.CONTEXT:
            return ContextExceeded(failed.detail)
        case Fault.BUSY | Fault.CANCELLED | Fault.ENGINE:
            return ModelUnavailable(failed.detail)
    assert_never(failed.fault)


class LlamaBackend:
    """Asks the worker process of one model instance."""

    def __init__(self, *, instance: str, socket: Path, spec: LlamaSpec) -> None:
        self._instance = instance
        self._socket = socket
        self._spec = spec

    @property
    def where(self) -> str:
        """The model file."""
        return self._spec.path

    @property
    def context(self) -> int:
        """Tokens served."""
        return self._spec.context

    async def count(self, messages: Sequence[Message]) -> int:
        """Count exactly, with the model's own tokenizer and template."""
        try:
            with anyio.fail_after(COUNT_S_MAX):
                async with talk(self._socket, Count(tuple(messages))) as replies:
                    frame = await replies.next()
        except TimeoutError as error:
            raise ModelTimedOut(f"the process of {self._instance} did not count within {COUNT_S_MAX:g} s") from error
        except GONE as error:
            raise self._gone() from error
        match frame:
            case Counted(tokens=tokens):
                return tokens
            case Failed():
                raise error_of(frame)
            case Loading() | Ready() | Piece() | Finished():
                raise ModelGarbage(f"the process of {self._instance} answered a count with {type(frame).__name__}")
        assert_never(frame)

    async def generate(self, call: Generation, *, on_text: OnText = ignore_text) -> Reply:
        """Answer, or raise as `Backend.generate` says."""
        chat = Chat(
            messages=call.messages,
            tokens_max=call.tokens_max,
            temperature=call.temperature,
            seed=call.seed,
            top_k=call.top_k,
            top_p=call.top_p,
            schema=call.schema,
        )
        try:
            with anyio.fail_after(call.timeout_s):
                async with talk(self._socket, chat) as replies:
                    return await self._collect(replies, constrained=call.schema is not None, on_text=on_text)
        except TimeoutError as error:
            raise ModelTimedOut(
                f"{self._instance} did not finish within {call.timeout_s:g} s; it was stopped"
            ) from error
        except GONE as error:
            raise self._gone() from error
        except msgspec.DecodeError as error:
            raise ModelGarbage(f"the process of {self._instance} does not speak its protocol: {error}") from error

    async def aclose(self) -> None:
        """Nothing is kept open between calls."""

    async def _collect(self, replies: Talk, *, constrained: bool, on_text: OnText) -> Reply:
        text: list[str] = []
        while True:
            frame = await replies.next()
            match frame:
                case Piece():
                    text.append(frame.text)
                    await on_text(frame.text, frame.tokens)
                case Finished():
                    return Reply(
                        text="".join(text),
                        finish=Finish.STOP if frame.stopped else Finish.LENGTH,
                        prompt_tokens=frame.prompt_tokens,
                        reused_tokens=frame.reused_tokens,
                        generated_tokens=frame.generated_tokens,
                        prompt_ms=frame.prompt_ms,
                        generate_ms=frame.generate_ms,
                        constraint=Constraint.GRAMMAR if constrained else Constraint.NONE,
                    )
                case Failed():
                    raise error_of(frame)
                case Loading() | Ready() | Counted():
                    raise ModelGarbage(f"the process of {self._instance} answered a chat with {type(frame).__name__}")
                case _:
                    assert_never(frame)

    def _gone(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"the process that serves {self._instance} ended or is not there; the next request starts it again"
        )
