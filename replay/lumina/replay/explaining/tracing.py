"""One event explained: the chain of what led to it, back to its root, and the tree of what it led to. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from lumina.events.base import Event
from lumina.events.ids import EventId
from lumina.events.record import Recorded
from lumina.replay.diffing.slots import answered_by
from lumina.replay.explaining.explaining import Link, link
from lumina.replay.explaining.grounds import Grounds
from lumina.replay.explaining.lending import Lending

DEPTH: Final = 8
"""How many generations of what followed are told unless more are asked for."""
CHAIN_LINKS_MAX: Final = 10_000


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A record that followed.

    Attributes:
        generation: 1 for an answer to the event, 2 for an answer to that, and so on.
        indent: How many branchings lie between: what follows a single answer is not indented.
        hidden: How many records that follow from this one are not told.
    """

    link: Link
    generation: int
    indent: int
    hidden: int = 0


class Ground(Link, frozen=True, kw_only=True):
    """A record on the way from an event back to its root.

    Attributes:
        by: How the one before it leads here: `event` for the event itself; `cause`, its recorded cause; `answers`, the
            record that it names as what it speaks of; `rests on`, what set a deadline or where a fork began.
        caused_by: The recorded cause, where the way goes on with another record than that; None elsewhere.
    """

    by: str
    caused_by: Link | None = None


class EventExplained(msgspec.Struct, frozen=True, kw_only=True):
    """An event explained.

    Attributes:
        why: The event, then what it answers or rests on, back to the root.
        cause: The recorded cause of the event; None for a root, and where that is not known here.
        effects: What it led to, in the order of a tree.
        followed: How many records follow from it in all.
        lending: For a lease that was granted or refused.
    """

    event: Link
    why: tuple[Ground, ...]
    effects: tuple[Effect, ...]
    followed: int
    cause: Link | None = None
    lending: Lending | None = None


def explain_event(
    target: Recorded[Event],
    *,
    grounds: Grounds,
    elsewhere: Mapping[EventId, Recorded[Event]],
    depth: int = DEPTH,
    lending: Lending | None = None,
) -> EventExplained:
    """Return what led to an event and what it led to.

    `grounds` holds its run, or the node's records that it stands among; `elsewhere` are causes from other streams.
    """
    why = tuple(_grounds(back(target, grounds=grounds, elsewhere=elsewhere), grounds=grounds, elsewhere=elsewhere))
    children = _children(grounds.records.values())
    effects = tuple(_effects(target.id, children=children, generation=1, indent=0, depth=depth))
    followed = _count(target.id, children=children)
    cause = _known(target.causation, grounds=grounds, elsewhere=elsewhere)
    return EventExplained(
        event=link(target),
        why=why,
        effects=effects,
        followed=followed,
        cause=None if cause is None else link(cause),
        lending=lending,
    )


def back(
    target: Recorded[Event], *, grounds: Grounds, elsewhere: Mapping[EventId, Recorded[Event]]
) -> Iterator[Recorded[Event]]:
    """Yield an event, what it answers, what that answers, and so on to a root. Ends where a cause is not known."""
    seen: set[EventId] = set()
    here: Recorded[Event] | None = target
    while here is not None and here.id not in seen and len(seen) < CHAIN_LINKS_MAX:
        seen.add(here.id)
        yield here
        to = answered_by(here)
        if to is None and here.id in grounds.records:  # a root: of a deadline, what set it; of a fork, where it began
            to = next(iter(grounds.of(here)), None)
        here = _known(to, grounds=grounds, elsewhere=elsewhere)


def _known(
    name: EventId | None, *, grounds: Grounds, elsewhere: Mapping[EventId, Recorded[Event]]
) -> Recorded[Event] | None:
    return None if name is None else grounds.records.get(name) or elsewhere.get(name)


def _grounds(
    chain: Iterable[Recorded[Event]], *, grounds: Grounds, elsewhere: Mapping[EventId, Recorded[Event]]
) -> Iterator[Ground]:
    """Yield the links of a chain, each with how the one before leads there."""
    records = list(chain)
    before: Recorded[Event] | None = None
    for number, recorded in enumerate(records):
        after = records[number + 1] if number + 1 < len(records) else None
        aside = after is not None and recorded.causation is not None and recorded.causation != after.id
        cause = _known(recorded.causation, grounds=grounds, elsewhere=elsewhere) if aside else None
        yield Ground(
            **msgspec.structs.asdict(link(recorded)),
            by="event" if before is None else _by(before, recorded),
            caused_by=None if cause is None else link(cause),
        )
        before = recorded


def _by(before: Recorded[Event], recorded: Recorded[Event]) -> str:
    if before.causation == recorded.id:
        return "cause"
    return "answers" if answered_by(before) == recorded.id else "rests on"


def _children(records: Iterable[Recorded[Event]]) -> dict[EventId, list[Recorded[Event]]]:
    children: dict[EventId, list[Recorded[Event]]] = {}
    for recorded in records:
        to = answered_by(recorded)
        if to is not None and to != recorded.id:
            children.setdefault(to, []).append(recorded)
    return children


def _effects(
    root: EventId, *, children: Mapping[EventId, Sequence[Recorded[Event]]], generation: int, indent: int, depth: int
) -> Iterator[Effect]:
    """Yield what follows from a record, each followed by what follows from it. Depth-first, without recursion."""
    stack = [(one, generation, indent) for one in reversed(children.get(root, ()))]
    seen = {root}
    while stack:
        recorded, here, level = stack.pop()
        if recorded.id in seen:
            continue
        seen.add(recorded.id)
        following = children.get(recorded.id, ())
        hidden = _count(recorded.id, children=children) if here >= depth else 0
        yield Effect(link=link(recorded), generation=here, indent=level, hidden=hidden)
        if here < depth:
            deeper = level + (len(following) > 1)
            stack += [(one, here + 1, deeper) for one in reversed(following)]


def _count(root: EventId, *, children: Mapping[EventId, Sequence[Recorded[Event]]]) -> int:
    """Return how many records follow from one."""
    seen = {root}
    stack = [root]
    while stack:
        for one in children.get(stack.pop(), ()):
            if one.id not in seen:
                seen.add(one.id)
                stack.append(one.id)
    return len(seen) - 1
