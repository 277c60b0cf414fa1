"""Late records are marked for whoever reads along: in words and as JSON."""

import anyio
import msgspec
import pytest
from tests.replay.law_scene import RUN, Story

from lumina.bus.memory import MemoryLog
from lumina.cli.lateness import ENDS_KEPT_MAX, Lateness
from lumina.cli.lines import event_line
from lumina.cli.look import print_words
from lumina.events.ids import StreamId


@pytest.fixture
def story() -> Story:
    """Return a run that ended while a model was asked; its answer came afterwards."""
    told = Story()
    told.started()
    lease = told.granted(told.requested())
    told.closed()
    told.generated(lease)
    return told


def test_what_follows_the_end_is_marked_as_it_is_read(story: Story) -> None:
    """The outcome behind the end is late; the end itself and what stands before it are not."""
    lateness = Lateness()
    assert [one.type for one in story.records if lateness.of(one)] == ["generation.finished.v1"]


def test_what_stands_before_the_end_needs_the_end_first(story: Story) -> None:
    """A record that landed between the decision and `run.closed` is marked where the end is known beforehand."""
    *before, end, late = story.records
    crossed = [*before, msgspec.structs.replace(late, seq=end.seq), msgspec.structs.replace(end, seq=late.seq)]
    assert not any(map(Lateness().of, crossed))
    assert [one.type for one in crossed if Lateness(crossed).of(one)] == ["generation.finished.v1"]

    async def known() -> Lateness:
        return await Lateness.known(MemoryLog(crossed), run=StreamId(RUN))

    assert anyio.run(known).of(crossed[-2])


def test_the_ends_that_are_remembered_are_bounded(story: Story) -> None:
    """After very many other runs an old end is forgotten, and nothing is marked by mistake."""
    *_, end, late = story.records
    lateness = Lateness()
    lateness.of(end)
    for number in range(ENDS_KEPT_MAX):
        lateness.of(msgspec.structs.replace(end, stream=StreamId(f"r-{number}")))
    assert not lateness.of(late)


def test_words_and_lines_say_it(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    """`late` stands in the JSON line of a late record only, and the words end with it."""
    late = story.records[-1]
    assert b'"late":true' in event_line(late, late=True)
    assert b"late" not in event_line(late)
    print_words(late, late=True)
    assert "(late: its run had ended)" in capsys.readouterr().out
