"""What every reader checks, so that damage is never read over: contiguity of the log, and the writers' chains.

A JetStream file store skips what it can't read, and after a lost tail gives out the same sequences again. Neither is
reported by the server, so it is looked for here. Pure.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import Final, TypeVar

from lumina.bus.errors import LogDamaged
from lumina.bus.subjects import Filter, any_of
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import NO_DIGEST, Head, Recorded

CHAINS_MAX: Final = 8_192
"""How many chains a reader remembers. A run has half a dozen, and nearly all records belong to runs that are open."""

FORGOTTEN_BITS: Final = 2**23
"""Of what a reader keeps of chains beyond these: 1 MiB, from the first one that it forgets."""

T = TypeVar("T")


class Scope:
    """Which records a reader wants, and the one filter that covers them.

    Several filters are read through the narrowest single filter that covers all, and sorted out here: one pass in the
    one order. Where that filter is the whole log, its contiguity is checked as well.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        assert filters, "a reader wants something"
        self.cover = Filter(
            stream=_common([each.stream for each in filters]),
            agent=_common([each.agent for each in filters]),
            event=_common([each.event for each in filters]),
        )
        self.everything = self.cover == Filter()
        self._whole_chains = tuple(each for each in filters if each.event is None)
        self._every_chain = any(each.stream is None and each.agent is None for each in self._whole_chains)
        self._wanted = any_of([each.subject() for each in filters])
        self._matches_all = any(each == self.cover for each in filters)

    def covers_chain_of(self, recorded: Recorded[Event]) -> bool:
        """Whether everything that its writer wrote in its stream is read."""
        return self._every_chain or any(
            each.stream in {None, recorded.stream} and each.agent in {None, recorded.agent}
            for each in self._whole_chains
        )

    def wants(self, subject: str) -> bool:
        """Whether a record on `subject`, which the cover matches, is one of those asked for."""
        return self._matches_all or self._wanted.fullmatch(subject) is not None


class Continuity:
    """Follows a reader's records in order and says where the log can't be trusted."""

    def __init__(self, scope: Scope, *, after: int) -> None:
        self._scope = scope
        self._seq = after
        self._from_start = after == 0
        self._forgotten = Forgotten()
        self._heads: dict[tuple[StreamId, str], Head] = {}

    def expect(self, seq: int) -> None:
        """Check that a record at `seq`, wanted or not, may be the next one.

        Raises:
            LogDamaged: A record before it is missing, or the order is broken.
        """
        if seq <= self._seq:
            raise LogDamaged(f"it came after record {self._seq}", seq=seq)
        if self._scope.everything and seq != self._seq + 1:
            raise LogDamaged(f"it is missing; the next one is {seq}", seq=self._seq + 1)
        self._seq = seq

    def check(self, recorded: Recorded[Event]) -> bool:
        """Check that a wanted record continues its chain.

        Returns False when the record before it may have been read too long ago to be remembered, also where it says
        that it is the first. Then the reader looks for it: see `check_again`.

        Raises:
            LogDamaged: It does not follow the record of the same writer that was read before it.
        """
        if not self._scope.covers_chain_of(recorded):
            return True
        key = (recorded.stream, recorded.agent)
        head = self._heads.pop(key, None)
        linked = head is not None or not self._forgotten.may_have(key)
        if head is None and linked and self._from_start:
            head = Head()
        if head is not None:
            check_link(recorded, after=head)
        self._heads[key] = Head(seq=recorded.seq, position=recorded.position, digest=recorded.digest)
        if len(self._heads) > CHAINS_MAX:
            quietest = next(iter(self._heads))
            del self._heads[quietest]
            self._forgotten.add(quietest)
        return linked

    def end(self, last_seq: int) -> None:
        """Check that nothing up to `last_seq` is missing at the end.

        Raises:
            LogDamaged: The log says that it has more records than it gave.
        """
        if self._scope.everything and self._seq < last_seq:
            raise LogDamaged(f"the log ends before it, but says that it has {last_seq:,} records", seq=self._seq + 1)


class Forgotten:
    """Which chains a reader may have forgotten, in a fixed amount of memory (a Bloom filter).

    What was added is always found. What was not is found by mistake once in 48 times after a million chains; then a
    chain is read again for nothing.
    """

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, key: tuple[StreamId, str]) -> None:
        """Note a chain."""
        if not self._bits:
            self._bits = bytearray(FORGOTTEN_BITS // 8)
        for place in _places(key):
            self._bits[place // 8] |= 1 << place % 8

    def may_have(self, key: tuple[StreamId, str]) -> bool:
        """Whether a chain may have been noted; False is certain."""
        return bool(self._bits) and all(self._bits[place // 8] & 1 << place % 8 for place in _places(key))


def _places(key: tuple[StreamId, str]) -> tuple[int, ...]:
    content = sha256(f"{key[0]}\n{key[1]}".encode()).digest()
    return tuple(int.from_bytes(content[at : at + 4]) % FORGOTTEN_BITS for at in range(0, 16, 4))


async def check_again(recorded: Recorded[Event], *, earlier: AsyncGenerator[Recorded[Event], None]) -> None:
    """Check that `recorded` is the successor of the last of the `earlier` records of its chain.

    Raises:
        LogDamaged: It is not.
    """
    head = Head()
    async with aclosing(earlier) as records:
        async for each in records:
            head = Head(seq=each.seq, position=each.position, digest=each.digest)
    check_link(recorded, after=head)


def check_link(recorded: Recorded[Event], *, after: Head) -> None:
    """Check that `recorded` is the successor of `after`.

    Raises:
        LogDamaged: It is not.
    """
    if recorded.position == after.position + 1 and recorded.previous == after.digest:
        return
    where = f"chain of {recorded.agent} in {recorded.stream}"
    if recorded.position != after.position + 1:
        reason = f"{where}: position {recorded.position} follows {after.position}"
    elif recorded.position == 1:
        reason = f"{where}: its first record names a predecessor"
        assert after.digest == NO_DIGEST, "an empty chain has no digest"
    else:
        reason = f"{where}: it does not carry the digest of the record before it ({after.seq})"
    raise LogDamaged(reason, seq=recorded.seq, stream=recorded.stream)


def _common(values: list[T | None]) -> T | None:
    return values[0] if len(set(values)) == 1 else None
