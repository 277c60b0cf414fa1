"""The stepper by its keys, and what `lumina replay` prints, on a run that took place in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from rich.text import Text
from tests.replay.conftest import History, live_through
from tests.replay.test_verify import but, rewritten
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static
from typer.testing import CliRunner

from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.cli.app import app
from lumina.cli.main import register
from lumina.cli.replay_panes import changed_lines, outline, short
from lumina.cli.replay_screen import KEYS, Stepper
from lumina.events.base import Event
from lumina.events.ids import StreamId
from lumina.events.record import Recorded
from lumina.replay.cast import whole_cast
from lumina.replay.stepping.breakpoints import Breakpoint
from lumina.replay.stepping.moments import Walk
from lumina.replay.stepping.plain import Change
from lumina.replay.stepping.timeline_reading import read_timeline

RUN = StreamId("r-bbb")

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def lived() -> History:
    """Return a log of three finished runs and its blobs."""
    log, blobs = MemoryLog(), MemoryBlobs()
    anyio.run(lambda: live_through(("r-aaa", "r-bbb", "r-ccc"), log=log, blobs=blobs))
    return log, blobs


class Stepping:
    """A stepper under a test's fingers."""

    def __init__(self, app: Stepper, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until all that they lead to is shown."""
        await self._pilot.press(*keys)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all is shown."""
        await self._pilot.pause()
        await self.app.workers.wait_for_complete()
        await self._pilot.pause()

    @property
    def lines(self) -> list[str]:
        """What the screen shows."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip).rstrip() for strip in strips]

    @property
    def text(self) -> str:
        """What the screen shows, as one text."""
        return "\n".join(self.lines)

    def pane(self) -> str:
        """Return the whole pane, also what has to be scrolled to."""
        return str(self.app.query_one("#pane", Static).content)

    def says(self) -> str:
        """Return the line above the keys."""
        return str(self.app.query_one("#says", Static).content)


@asynccontextmanager
async def stepping(history: History, **wishes: Any) -> AsyncIterator[Stepping]:
    """Have the stepper open on a terminal of 80 x 24."""
    log, blobs = history
    app = Stepper(Walk(await read_timeline(log, RUN), blobs=blobs, cast=whole_cast()), **wishes)
    async with app.run_test(size=(80, 24)) as pilot:
        shown = Stepping(app, pilot)
        await shown.settle()
        yield shown


async def test_a_run_is_walked_along_by_keys(lived: History) -> None:
    """Forward and back, to both ends; the same place shows the same screen however one came there."""
    async with stepping(lived) as step:
        begin = step.lines
        assert "r-bbb 1/22" in begin[0]
        assert "no model is called" in begin[0]
        assert any("asked: Write a Python script" in each for each in begin)
        assert begin[-1] == KEYS
        for keys, place in (
            (("j",), 2), (("down", "right"), 4), (("k",), 3), (("up", "left"), 1), (("k",), 1), (("G",), 22),
            (("j",), 22), (("home",), 1), (("end",), 22), (("g",), 1),
        ):  # fmt: skip
            await step.press(*keys)
            assert f"r-bbb {place}/22" in step.lines[0], keys
        assert step.lines == [*begin[:-2], *step.lines[-2:]]


async def test_every_agent_and_projection_has_a_pane(lived: History) -> None:
    """Tab goes round all of them and back; each shows what is known at this record."""
    async with stepping(lived, start=10) as step:
        shown = {}
        for _ in step.app.panes:
            shown[step.app.pane] = step.pane()
            await step.press("tab")
        assert step.app.pane == "record"
        await step.press("shift+tab")
        assert step.app.pane == "throughput"
        assert "event:" in shown["record"]
        assert "verdict: failed" in shown["record"]
        assert "rule    concluded from what the run returned (failed)" in shown["why"]
        assert "orchestrator step.attempt_started: step 1 attempt 2/8: repair" in shown["why"]
        assert "client run.submitted: asked: Write" in shown["why"]
        assert "orchestrator.steps[0].stage.is  Executing → Resting" in shown["changed"]
        assert "sandbox.stage  asked → concluded" in shown["changed"]
        assert "stage: concluded" in shown["sandbox"]
        assert "print(one)" in shown["sandbox"]
        assert "instances:" in shown["governor"]
        assert "phase: running" in shown["runs"]
        assert "stage: executed" in shown["attempts"]


async def test_a_pane_is_chosen_from_a_list(lived: History) -> None:
    """`a` lists the panes, Enter takes one, Escape none; the keys of the list move in the list alone."""
    async with stepping(lived) as step:
        await step.press("a", "j", "j", "j", "enter")
        assert step.app.pane == "orchestrator"
        assert "r-bbb 1/22" in step.lines[0]
        assert "is: PlanOpen" in step.pane()
        await step.press("a", "j", "escape")
        assert step.app.pane == "orchestrator"
        await step.press("question_mark")
        assert "another breakpoint" in step.text
        await step.press("escape", "j")
        assert "r-bbb 2/22" in step.lines[0]


async def test_breakpoints_by_keys(lived: History) -> None:
    """The first `b` asks for one; then b and B go from place to place, and say when there is none further on."""
    async with stepping(lived) as step:
        await step.press("b")
        assert step.app.query_one("#ask", Input).display
        await step.press(*"execution.finished", "enter")
        assert "r-bbb 11/22" in step.lines[0]
        assert "holds here" in step.says()
        await step.press("b")
        assert "r-bbb 20/22" in step.lines[0]
        await step.press("b")
        assert "holds at no record further on" in step.says()
        await step.press("B")
        assert "r-bbb 11/22" in step.lines[0]
        await step.press("e", *" ==", "enter")
        assert "column" in step.says()
        await step.press("e", "escape", "j")
        assert "r-bbb 12/22" in step.lines[0]
    async with stepping(lived, stop=Breakpoint("step.accepted")) as step:
        await step.press("b")
        assert "r-bbb 21/22" in step.lines[0]


async def test_words_are_found(lived: History) -> None:
    """`/` finds the next record with all words; n and N go on from there."""
    async with stepping(lived) as step:
        await step.press("slash", *"ASKS demo", "enter")
        assert "r-bbb 4/22" in step.lines[0]
        await step.press("n")
        assert "r-bbb 13/22" in step.lines[0]
        await step.press("n")
        assert "not found further on" in step.says()
        await step.press("N")
        assert "r-bbb 4/22" in step.lines[0]


async def test_late_and_different_records_are_marked(lived: History) -> None:
    """A late record has its sign in the list; what differs from today's decision gets one, workers' parts included."""
    log, blobs = lived
    forged = {each.id for each in log.records if each.stream == RUN and each.type == "execution.finished.v1"}
    change: Callable[[Recorded[Event]], dict[str, Any]] = lambda each: (  # noqa: E731 - a table of changes
        {"event": but(each.event, stdout="1\n\n")} if each.id in forged else {}
    )
    async with stepping((rewritten(log.records, change), blobs)) as step:
        assert "3 record(s) differ" in step.says()  # run.closed names the chains, of which one is another now
        labels = [str(each.prompt) for each in step.app.query_one("#list", OptionList).options]
        assert [number for number, label in enumerate(labels) if label.startswith("!")] == [10, 19, 21]
        assert any(label.startswith("~") for label in labels)
        await step.press("b", *"execution.finished", "enter")
        assert "differs in event.stdout" in step.pane()
    async with stepping(lived) as step:
        assert step.says() == "every decision was made again and is equal"


async def test_what_can_not_be_derived_is_not_called_equal(lived: History) -> None:
    """Without the blobs the workers' records get a sign of their own, and the record says which blob is missing."""
    async with stepping((lived[0], MemoryBlobs())) as step:
        assert "6 record(s) by workers could not be derived here" in step.says()
        labels = [str(each.prompt) for each in step.app.query_one("#list", OptionList).options]
        assert sum(label.startswith("?") for label in labels) == 6
        await step.press("b", *"execution.finished", "enter")
        assert "not derived here: BlobLost" in step.pane()


async def test_what_a_record_says_is_only_text(lived: History) -> None:
    """Markup, escape sequences and the like from a run stand on the screen as they are; they drive nothing."""
    log, blobs = lived
    evil = "[bold red]boo[/] \x1b[2J [link=x]\u202e"
    forged = next(each for each in log.records if each.stream == RUN and each.type == "run.submitted.v1")
    change: Callable[[Recorded[Event]], dict[str, Any]] = lambda each: (  # noqa: E731 - a table of changes
        {"event": but(each.event, request=evil)} if each.id == forged.id else {}
    )
    async with stepping((rewritten(log.records, change), blobs)) as step:
        assert "[bold red]boo[/] \\x1b[2J [link=x]\\u202e" in step.pane()
        assert not {"\x1b", "\u202e"} & set(step.text)
        await step.press("slash", *"[bold", "enter")
        await step.press("tab")
        assert "[link=x]" in step.pane()


async def test_q_leaves(lived: History) -> None:
    """`q` ends it; nothing is returned, nothing was changed."""
    async with stepping(lived) as step:
        await step.press("q")
        assert not step.app.is_running


async def test_no_colour_when_none_is_wanted(lived: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR no cell has a colour of ours, and the record that is chosen is still told by reversal."""
    monkeypatch.setenv("NO_COLOR", "1")
    async with stepping(lived) as step:
        strips = step.app.screen._compositor.render_strips()
        assert any(segment.style is not None and segment.style.reverse for strip in strips for segment in strip)


def test_values_are_shown_for_people() -> None:
    """Digests by their beginning, large parts closed, programs line by line, an absent side as such."""
    shown = [
        str(each) for each in outline({"code": "a\nb\n", "digest": "ab" * 32, "submitted": list(range(50)), "e": []})
    ]
    assert shown == ["code: |", "  a", "  b", "digest: abababababab…", "submitted: … 50 values", "e: []"]
    assert [str(each) for each in changed_lines((Change(path="a.b", after=1),))] == ["a.b  ∅ → 1"]
    assert [str(each) for each in changed_lines((Change(path="a.b", after=1),), of=("c",))] == ["nothing"]
    assert short("x" * 500).endswith("…")
    assert short(msgspec.UNSET) == "∅"
    assert isinstance(next(outline([1])), Text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--break", "type=="), "column 7"),
        (("--break", "validation.failed"), "validation.finished"),
        (("--speed", "fast"), "--speed fast is no speed"),
        (("--speed", "0"), "--speed 0 is no speed"),
        (("--speed", "nan"), "is no speed"),
        (("--at", "1", "--until", "2"), "--at and --until don't go together"),
        (("--step", "--json"), "--step and --json don't go together"),
        (("--files", "there", "--break", "step.accepted"), "--files and --break don't go together"),
        (("--step",), "--step needs a terminal; without one: lumina replay RUN"),
    ],
)
async def test_what_can_not_be_meant_is_refused(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """Before anything is started: one sentence with the fix, exit code 2."""
    register("replay")
    asked = ["replay", "r-any", *arguments, "--home", str(tmp_path / "home")]
    ended = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(app, asked))
    assert ended.exit_code == 2, ended
    assert words in " ".join(ended.stderr.split())
    assert not (tmp_path / "home").exists()
