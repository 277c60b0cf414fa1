"""The plan of a repair: which source's record belongs where. Pure; the real thing is in `tests/faults`."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from lumina.bus.repair_plan import Plan, Planner
from lumina.bus.s2 import decompressed
from lumina.bus.stored import Stored
from lumina.bus.subjects import subject_of
from lumina.events.base import Event
from lumina.events.codec import encode
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft, Head, Recorded, chain, to_headers
from lumina.events.timer import TimerElapsed

RUNS = (StreamId("r-1"), StreamId("r-2"))


def history(count: int, *, name: str = "t", like: Sequence[Recorded[Event]] = ()) -> list[Recorded[Event]]:
    """Return so many records of two runs in turn, after those of `like`."""
    records = list(like)
    heads = {each.stream: Head(seq=each.seq, position=each.position, digest=each.digest) for each in records}
    for seq in range(len(records) + 1, count + 1):
        stream = RUNS[seq % 2]
        draft = Draft[Event](
            event=TimerElapsed(timer=name, due=seq),
            id=root_event_id(stream, name=f"{name}{seq}"),
            stream=stream,
            agent="clock",
            time_ms=seq,
            causation=None,
        )
        written, _ = chain(draft, after=heads.get(stream, Head()))
        records.append(msgspec.structs.replace(written, seq=seq))
        heads[stream] = Head(seq=seq, position=written.position, digest=written.digest)
    return records


def stored(records: Sequence[Recorded[Event]], *, without: Sequence[int] = ()) -> list[Stored]:
    """Return records as a source gives them, but for some."""
    return [
        Stored(each.seq, subject_of(each.event, stream=each.stream, agent=each.agent), to_headers(each), body)
        for each in records
        if each.seq not in without
        for body in (encode(each.event),)
    ]


def planned(own: list[Stored], mirror: list[Stored], *, seen: dict[int, str] | None = None) -> tuple[Plan, list[int]]:
    """Return the plan, and the sequences that it can restore."""
    planner = Planner({"own": own, "mirror": mirror}, checkpoints=seen or {})
    return planner.plan, [each.seq for each in planner.records()]


def test_two_sources_make_one_log() -> None:
    """Each gives what the other lacks; the first is preferred."""
    records = history(8)
    plan, seqs = planned(stored(records, without=(3, 4)), stored(records, without=(7,)))
    assert (plan.complete, seqs, plan.by_source) == (True, list(range(1, 9)), {"own": 6, "mirror": 2})


def test_the_headers_are_those_of_the_append() -> None:
    """The server checks once more that each record stands where it stood: behind its chain's last one."""
    planner = Planner({"own": stored(history(4))}, checkpoints={})
    expected = [each.headers["Nats-Expected-Last-Subject-Sequence"] for each in planner.records()]
    assert expected == ["0", "0", "1", "2"]


def test_what_nobody_has_is_named() -> None:
    """A gap, and the run of which a later record shows that one is missing."""
    records = history(8)
    plan, _ = planned(stored(records, without=(4,)), stored(records, without=(4, 6)))
    assert [str(gap) for gap in plan.gaps] == ["record 4: nobody has it any more"]
    assert plan.runs == {"r-1"}


def test_a_checkpoint_knows_of_an_end_that_is_gone() -> None:
    """The log reaches at least as far as somebody has seen."""
    plan, _ = planned(stored(history(5)), [], seen={9: "0" * 64})
    assert [(gap.first, gap.last) for gap in plan.gaps] == [(6, 9)]


def test_two_sound_histories_are_no_choice() -> None:
    """Where the log was written on after it had lost its end, both sides are sound: nothing is chosen."""
    common = history(4)
    plan, seqs = planned(stored(history(6, name="other", like=common)), stored(history(6, like=common)))
    assert seqs == [1, 2, 3, 4]
    assert plan.gaps[0].reason == "own and mirror have different ones"


def test_a_checkpoint_decides_between_two() -> None:
    """What a process has seen is what belongs there, and the rest follows from the chains."""
    common = history(4)
    true = history(6, like=common)
    seen = {each.seq: each.digest for each in true[4:]}
    plan, seqs = planned(stored(history(6, name="other", like=common)), stored(true), seen=seen)
    assert (plan.complete, seqs, plan.by_source["mirror"]) == (True, [1, 2, 3, 4, 5, 6], 2)


def test_a_record_in_a_wrong_place_is_not_taken() -> None:
    """A sound record that does not continue its chain there is as good as none."""
    records = history(4)
    sound = stored(records)
    elsewhere = replace(sound[3], seq=2)
    plan, seqs = planned([sound[0], elsewhere, *sound[2:]], [])
    assert seqs == [1, 3, 4]
    assert [str(gap) for gap in plan.gaps] == ["record 2: what own has does not belong there"]


@pytest.mark.parametrize(
    ("block", "plain"),
    [
        (b"\x08\x1cabcdefgh", b"abcdefgh"),
        (b"\x0a\x04ab\x11\x02", b"ababababab"),
        (b"\x0c\x04ab\x0d\x02\x01\x00", b"abababababab"),
        (b"\x06\x08abc\x09\x00\xff", b"abc"),
        (b"\x05\xf0", b""),
    ],
)
def test_what_can_be_decompressed(block: bytes, plain: bytes) -> None:
    """Literals, copies that overlap with themselves, repeated offsets, and an end within an instruction."""
    chunk = b"\x00" + (len(block) + 4).to_bytes(3, "little") + b"\0\0\0\0" + block
    assert decompressed(chunk) == plain
