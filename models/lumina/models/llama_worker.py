"""The process that holds one llama.cpp model: `python -m lumina.models.llama_worker SOCKET SPEC_JSON`.

It listens on a unix socket (see `llama_frames.py`), answers one chat at a time in order of arrival, and stops a chat
when its client closes the connection. It ends on `Unload`, when its model can't be loaded, and by itself when nobody
has been connected for `ORPHAN_S`; nobody has to clean up after it, whoever was killed.
"""

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from lumina.models.errors import ContextExceeded, CorruptModel, ModelError
from lumina.models.llama_engine import Cancelled, LlamaEngine, resident_bytes
from lumina.models.llama_frames import (
    ORPHAN_S,
    Chat,
    Count,
    Counted,
    Failed,
    Fault,
    Finished,
    Hold,
    LlamaSpec,
    Loading,
    Piece,
    Ready,
    Request,
    Response,
    Unload,
    receive_frame,
    send_frame,
    socket_address,
)

QUEUE_MAX: Final = 64
SEND_S_MAX: Final = 10.0
FAILED_S: Final = 5.0
"""So long a worker whose model can't be loaded stays to say so to all who wait."""
PIECE_EVERY_S: Final = 0.03
LOADING_EVERY_S: Final = 0.25
GONE: Final = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Worker:
    """The server around one engine. All its methods run on the event loop; only engine calls run in a thread."""

    def __init__(self, spec: LlamaSpec, *, socket: Path) -> None:
        self._spec = spec
        self._socket = socket
        self._engine: LlamaEngine | None = None
        self._state: Loading | Ready | Failed = Loading(0.0)
        self._settled = anyio.Event()
        self._turn = anyio.Lock()
        self._waiting = 0
        self._connections = 0
        self._lonely_since = time.monotonic()
        self._over = anyio.Event()

    async def run(self) -> None:
        """Serve until it is time to end. Does not return: the process exits."""
        with socket_address(self._socket) as address:
            listener = await anyio.create_unix_listener(address, mode=0o600)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            tasks.start_soon(self._load)
            tasks.start_soon(self._watch_loneliness)
            await self._over.wait()
            self._socket.unlink(missing_ok=True)
            if self._engine is not None:
                self._engine.stop()
            os._exit(0 if isinstance(self._state, Ready) else 1)  # also out of a load or a call that hangs

    async def _load(self) -> None:
        """Load in a thread; whoever holds a connection is told how it goes."""
        before, started = resident_bytes(), time.monotonic()
        path = anyio.Path(self._spec.path)
        size = (await path.stat()).st_size if await path.exists() else 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._estimate_progress, before, size)
            try:
                self._engine = await anyio.to_thread.run_sync(LlamaEngine, self._spec)
            except CorruptModel as error:
                self._state = Failed(fault=Fault.CORRUPT, detail=str(error))
            except ModelError as error:
                self._state = Failed(fault=Fault.ENGINE, detail=str(error))
            else:
                self._state = Ready(
                    pid=os.getpid(),
                    spec=self._spec,
                    load_ms=round((time.monotonic() - started) * 1000),
                    rss_before=before,
                    rss_after=resident_bytes(),
                )
            tasks.cancel_scope.cancel()
        self._settled.set()
        if isinstance(self._state, Failed):
            await anyio.sleep(FAILED_S)
            self._over.set()

    async def _estimate_progress(self, before: int, size: int) -> None:
        """Guess from memory growth how much of the file is read."""
        while True:
            grown = (resident_bytes() - before) / max(1, size)
            self._state = Loading(min(0.99, max(0.0, grown)))
            await anyio.sleep(LOADING_EVERY_S)

    async def _watch_loneliness(self) -> None:
        while True:
            await anyio.sleep(0.5)
            if self._connections == 0 and time.monotonic() - self._lonely_since >= ORPHAN_S:
                self._over.set()

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        """Answer the one request of a connection."""
        self._connections += 1
        try:
            async with stream:
                buffered = BufferedByteReceiveStream(stream)
                request: Request = await receive_frame(buffered, Request)
                async with self._cancelled_when_gone(buffered):
                    await self._answer(request, stream=stream)
        except* (*GONE, msgspec.DecodeError):
            pass  # the client left, or is not one of ours: the connection is closed, nothing else is owed
        finally:
            self._connections -= 1
            self._lonely_since = time.monotonic()

    @asynccontextmanager
    async def _cancelled_when_gone(self, buffered: BufferedByteReceiveStream) -> AsyncIterator[None]:
        """Cancel the body when the client closes its side or says anything more, which can only be `Cancel`."""
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                try:
                    await receive_frame(buffered, Request)
                except (*GONE, msgspec.DecodeError):
                    pass  # gone or confused: the same as a cancel
                tasks.cancel_scope.cancel()

            tasks.start_soon(listen)
            yield
            tasks.cancel_scope.cancel()

    async def _answer(self, request: Request, *, stream: anyio.abc.SocketStream) -> None:
        if isinstance(request, Unload):
            self._over.set()
            await anyio.sleep_forever()
        while isinstance(self._state, Loading):
            if isinstance(request, Hold):
                await self._send(stream, self._state)
            with anyio.move_on_after(LOADING_EVERY_S):
                await self._settled.wait()
        if isinstance(self._state, Failed):
            await self._send(stream, self._state)
            return
        assert self._engine is not None
        match request:
            case Hold():
                await self._send(stream, self._state)
                await anyio.sleep_forever()
            case Count():
                await self._count(request, engine=self._engine, stream=stream)
            case Chat():
                await self._chat(request, engine=self._engine, stream=stream)

    async def _count(self, request: Count, *, engine: LlamaEngine, stream: anyio.abc.SocketStream) -> None:
        """Count beside a running chat: the tokenizer shares nothing with the context."""
        answer: Counted | Failed
        try:
            answer = Counted(len(await anyio.to_thread.run_sync(engine.prompt, request.messages)))
        except ModelError as error:
            answer = Failed(fault=Fault.ENGINE, detail=str(error))
        await self._send(stream, answer)

    async def _chat(self, request: Chat, *, engine: LlamaEngine, stream: anyio.abc.SocketStream) -> None:
        if self._waiting >= QUEUE_MAX:
            await self._send(stream, Failed(fault=Fault.BUSY, detail=f"{QUEUE_MAX} calls are waiting already"))
            return
        self._waiting += 1
        try:
            async with self._turn:
                last = await self._generate(request, engine=engine, stream=stream)
        finally:
            self._waiting -= 1
        await self._send(stream, last)

    async def _generate(
        self, request: Chat, *, engine: LlamaEngine, stream: anyio.abc.SocketStream
    ) -> Finished | Failed:
        """Run the engine in a thread, and pass its text on in pieces. When cancelled, stop it and wait for it."""
        await self._send(stream, Piece("", 0))
        pieces, received = anyio.create_memory_object_stream[Piece](1024)
        result: Finished | Failed | None = None
        engine.arm()

        async def work() -> None:
            nonlocal result
            call = partial(_call_engine, engine, request, pieces=pieces)
            with pieces, anyio.CancelScope(shield=True):
                result = await anyio.to_thread.run_sync(call)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            try:
                with received:
                    async for piece in received:
                        await self._send(stream, piece)
            except BaseException:
                engine.stop()
                raise
        assert result is not None
        return result

    @staticmethod
    async def _send(stream: anyio.abc.SocketStream, frame: Response) -> None:
        """Send to a client that listens; one that does not take it for `SEND_S_MAX` counts as gone."""
        with anyio.move_on_after(SEND_S_MAX) as scope:
            await send_frame(stream, frame)
        if scope.cancelled_caught:
            raise anyio.BrokenResourceError


def _call_engine(engine: LlamaEngine, request: Chat, *, pieces: anyio.abc.ObjectSendStream[Piece]) -> Finished | Failed:
    """Answer in a worker thread. Text is passed to the event loop at most every `PIECE_EVERY_S`."""
    text, last = "", 0.0

    def on_piece(piece: str, tokens: int) -> None:
        nonlocal text, last
        text += piece
        if text and time.monotonic() - last >= PIECE_EVERY_S:
            anyio.from_thread.run(_offer, pieces, Piece(text, tokens))
            text, last = "", time.monotonic()

    try:
        finished = engine.chat(request, on_piece=on_piece)
    except ContextExceeded as error:
        return Failed(fault=Fault.CONTEXT, detail=str(error))
    except Cancelled as error:
        return Failed(fault=Fault.CANCELLED, detail=str(error))
    except ModelError as error:
        return Failed(fault=Fault.ENGINE, detail=str(error))
    if text:
        anyio.from_thread.run(_offer, pieces, Piece(text, finished.generated_tokens))
    return finished


async def _offer(pieces: anyio.abc.ObjectSendStream[Piece], piece: Piece) -> None:
    """Pass a piece on, or drop it when nobody listens any more: the engine is being stopped then."""
    try:
        await pieces.send(piece)
    except anyio.BrokenResourceError:
        return


def main() -> None:
    """Run the worker that the command line describes."""
    socket, spec = Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=LlamaSpec)
    anyio.run(Worker(spec, socket=socket).run)


if __name__ == "__main__":
    main()
