"""What readers check: pure, over records that were damaged by hand."""

import msgspec
import pytest

from lumina.bus import checks
from lumina.bus.checks import Continuity, Forgotten, Scope
from lumina.bus.errors import LogDamaged
from lumina.bus.memory import MemoryLog
from lumina.bus.subjects import Filter, subject_matches
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import UnloadRequested
from lumina.events.record import Draft, Head, Recorded, chain
from lumina.events.run import RunCancelRequested
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

ONE, TWO = StreamId("r-1"), StreamId("r-2")


async def history() -> list[Recorded[Event]]:
    """Return ten records of two streams, in turn."""
    log = MemoryLog()
    for number in range(10):
        stream = (ONE, TWO)[number % 2]
        name = root_event_id(stream, name=str(number))
        event = TimerElapsed(timer="t", due=number)
        draft = Draft(event=event, id=name, stream=stream, agent="clock", time_ms=number, causation=None)
        await log.append(draft)
    return list(log.records)


async def damage_in(records: list[Recorded[Event]], *filters: Filter, after: int = 0) -> int | None:
    """Return the sequence that a reader names as damaged, None for a sound log."""
    try:
        _ = [each async for each in MemoryLog(records).read(filters or (Filter(),), after=after)]
    except LogDamaged as error:
        return error.seq
    return None


async def test_a_sound_history_passes() -> None:
    """Nothing is damaged, from the start or from the middle, in whole or in part."""
    records = await history()
    for after in range(11):
        assert await damage_in(records, after=after) is None
        assert await damage_in(records, Filter(stream=ONE), after=after) is None


@pytest.mark.parametrize("missing", range(1, 10))
async def test_a_missing_record_is_named_by_a_full_read(missing: int) -> None:
    """The sequence that is not there is the one in the error."""
    records = await history()
    del records[missing - 1]
    assert await damage_in(records) == missing


async def test_a_missing_record_breaks_the_chain_of_a_partial_read() -> None:
    """Who reads one stream is told at the next record of that stream; the other stream is sound."""
    records = await history()
    del records[4]
    assert await damage_in(records, Filter(stream=ONE)) == 7
    assert await damage_in(records, Filter(stream=ONE), Filter(stream=TWO)) == 5
    assert await damage_in(records, Filter(stream=TWO)) is None


async def test_the_first_record_of_a_chain_is_missed_too() -> None:
    """Reading from the start, a chain begins with its position 1; reading from later, it is taken up where it is."""
    records = await history()
    del records[0]
    assert await damage_in(records, Filter(stream=ONE)) == 3
    assert await damage_in(records, Filter(stream=ONE), after=1) is None


@pytest.mark.parametrize(
    "change",
    [
        {"event": TimerElapsed(timer="t", due=99)},
        {"time_ms": 99},
        {"agent": "governor"},
        {"digest": "0" * 64},
        {"previous": "0" * 64},
        {"position": 9},
    ],
)
async def test_a_changed_record_is_named(change: dict[str, object]) -> None:
    """Any change of a record that keeps its place is found at that place."""
    records = await history()
    records[4] = msgspec.structs.replace(records[4], **change)
    assert await damage_in(records) == 5


async def test_a_changed_record_with_a_fitting_digest_breaks_the_chain() -> None:
    """Who also recomputes the digest is found by the next record of that chain."""
    records = await history()
    changed = MemoryLog()
    for each in records[:4]:
        await changed.append(as_draft(each))
    forged = await changed.append(as_draft(msgspec.structs.replace(records[4], time_ms=99)))
    records[4] = forged
    assert await damage_in(records) == 7


def begun_again(records: list[Recorded[Event]]) -> list[Recorded[Event]]:
    """Return the records, after which a chain that is there begins a second time."""
    again, _ = chain(as_draft(msgspec.structs.replace(records[0], time_ms=99)), after=Head())
    return [*records, msgspec.structs.replace(again, seq=len(records) + 1)]


@pytest.mark.parametrize("room", [1, 8])
@pytest.mark.parametrize("after", [0, 1])
async def test_a_chain_that_begins_again_is_named(room: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader notices, also one that has forgotten the chain, and one that begins later."""
    monkeypatch.setattr(checks, "CHAINS_MAX", room)
    records = await history()
    assert await damage_in(records, after=after) is None
    assert await damage_in(begun_again(records), after=after) == 11


async def test_a_follower_that_forgot_a_chain_looks_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live reader is told, too, and a chain that is really new is nothing to look back for."""
    monkeypatch.setattr(checks, "CHAINS_MAX", 1)
    records = begun_again(await history())
    following = MemoryLog(records).follow()
    assert [(await anext(following)).seq for _ in range(10)] == list(range(1, 11))
    with pytest.raises(LogDamaged, match="position 1 follows 5"):
        await anext(following)


async def test_only_what_may_have_been_forgotten_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains that were never seen are linked without a look at the log, however many were forgotten."""
    monkeypatch.setattr(checks, "CHAINS_MAX", 1)
    records = await history()
    continuity = Continuity(Scope([Filter()]), after=0)
    assert [continuity.check(each) for each in records[:3]] == [True, True, False]
    assert continuity.check(await other_chain())


async def other_chain() -> Recorded[Event]:
    """Return the first record of a third stream."""
    draft = Draft(
        event=TimerElapsed(timer="t", due=1),
        id=root_event_id(StreamId("r-3"), name="t"),
        stream=StreamId("r-3"),
        agent="clock",
        time_ms=1,
        causation=None,
    )
    return chain(draft, after=Head())[0]


def test_what_was_forgotten_is_always_suspected() -> None:
    """Of 20,000 chains none is missed, and of as many others hardly one is taken for one of them."""
    forgotten = Forgotten()
    keys = [(StreamId(f"r-{number}"), "clock") for number in range(40_000)]
    assert not forgotten.may_have(keys[0])
    for key in keys[:20_000]:
        forgotten.add(key)
    assert all(map(forgotten.may_have, keys[:20_000]))
    assert sum(map(forgotten.may_have, keys[20_000:])) < 20


def as_draft(recorded: Recorded[Event]) -> Draft[Event]:
    """Return the draft from which a record was made."""
    return Draft(
        event=recorded.event,
        id=recorded.id,
        stream=recorded.stream,
        agent=recorded.agent,
        time_ms=recorded.time_ms,
        causation=recorded.causation,
    )


async def test_sequences_that_repeat_are_damage() -> None:
    """The order itself is checked."""
    records = await history()
    records.insert(5, records[4])
    assert await damage_in(records) == 5


@pytest.mark.parametrize(
    ("filters", "cover"),
    [
        ([Filter()], Filter()),
        ([Filter(stream=ONE), Filter(stream=TWO)], Filter()),
        ([Filter(stream=ONE, agent="clock"), Filter(stream=ONE)], Filter(stream=ONE)),
        ([Filter(event=TimerElapsed), Filter(event=TimerElapsed)], Filter(event=TimerElapsed)),
        ([Filter(agent="a", event=RunCancelRequested), Filter(agent="a", event=TimerElapsed)], Filter(agent="a")),
    ],
)
def test_several_filters_are_read_through_one(filters: list[Filter], cover: Filter) -> None:
    """The narrowest single filter that covers all of them."""
    assert Scope(filters).cover == cover


@pytest.mark.parametrize(
    ("subject", "pattern", "matches"),
    [
        ("a.b.c", "a.b.c", True),
        ("a.b.c", "a.*.c", True),
        ("a.b.c", "a.>", True),
        ("a.b.c", ">", True),
        ("a.b.c", "a.b", False),
        ("a.b", "a.b.c", False),
        ("a.b", "a.b.>", False),
        ("a.b.c", "a.*", False),
        ("a.bb.c", "a.b.c", False),
    ],
)
def test_subjects_match_as_nats_does(subject: str, pattern: str, matches: bool) -> None:
    """`*` is one token, `>` at least one."""
    assert subject_matches(subject, pattern=pattern) is matches


def test_filters_name_exact_types() -> None:
    """A type of event is one subject token, with its version."""
    assert Filter(event=UnloadRequested).subject() == "lumina.log.node.*.*.unload_requested-v1"
