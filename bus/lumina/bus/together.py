"""Several questions to the bus at once: what takes a round trip each takes one together."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from lumina.bus.errors import BusError

A = TypeVar("A")
B = TypeVar("B")


async def both(one: Callable[[], Awaitable[A]], other: Callable[[], Awaitable[B]]) -> tuple[A, B]:
    """Return both answers; see `together`."""
    ones: list[A] = []
    others: list[B] = []

    async def ask_one() -> None:
        ones.append(await one())

    async def ask_other() -> None:
        others.append(await other())

    await together(ask_one, ask_other)
    return ones[0], others[0]


async def together(*questions: Callable[[], Awaitable[A]]) -> list[A]:
    """Return the answers in the order of the questions, which are asked at the same time.

    Raises the first BusError as it is, not in a group; the other questions are cancelled then.
    """
    answers: dict[int, A] = {}
    failures: list[BusError] = []

    async def ask(number: int, question: Callable[[], Awaitable[A]]) -> None:
        try:
            answers[number] = await question()
        except BusError as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for number, question in enumerate(questions):
            tasks.start_soon(ask, number, question)
    if failures:
        raise failures[0]
    return [answers[number] for number in range(len(questions))]
