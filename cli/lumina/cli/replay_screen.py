"""The stepper: a run on the full screen, walked along by keys. Loaded by `lumina replay --step` only.

Left the records, right one pane about the record that is chosen: it, why, what changed, each agent, each projection.
"""

import os
from collections.abc import Sequence
from typing import ClassVar, Final

import anyio.lowlevel
from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from lumina.bus.errors import BusError
from lumina.cli.replay_panes import (
    NOTHING_RUNS,
    changed_lines,
    line,
    outline,
    owner,
    record_lines,
    table_lines,
    why_lines,
)
from lumina.events.record import rfc3339
from lumina.replay.errors import BadBreakpoint, ReplayError
from lumina.replay.stepping.breakpoints import Breakpoint
from lumina.replay.stepping.moments import DIFFERS, NO_STATES, NOT_DERIVED, Walk
from lumina.replay.words import say

RECORD, WHY, CHANGED = "record", "why", "changed"
LIST_COLUMNS: Final = 33
SIGNS: Final = {DIFFERS: "!", NOT_DERIVED: "?", "after the end": "+", "late": "~", "shared": "="}
KEYS: Final = "j/k step · g/G ends · b/B break · / find · a agent · tab pane · ? help · q quit"
HELP: Final = """\
j ↓ →   one record forward          k ↑ ←   one record back
g Home  the first record            G End   the last record
b       on to the next record at which the breakpoint holds
B       back to the one before      e       another breakpoint
/       find a record in words      n N     the next, the last one
a       choose a pane: agents, projections
tab     the next pane               shift+tab  the one before
d u     scroll the pane             ? q     this help, quit

A breakpoint is a type such as step.accepted, or a question in
JMESPath:  agent=='sandbox' && event.verdict!='passed'

! differs from what is decided now  ~ late: it landed after a
+ came after the end of the run       later input of its keeper
= shared with the run that this one is a fork of
? could not be derived here, for instance since a blob is not there
"""


class Words(ModalScreen[None]):
    """A page of help; any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter,space", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        """Show it."""
        yield Static(Text(HELP), id="help")


class Choice(ModalScreen[str | None]):
    """A list of panes to choose from."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,a", "none", "close"),
        Binding("j", "app.move(1)", show=False),
        Binding("k", "app.move(-1)", show=False),
    ]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = tuple(names)

    def compose(self) -> ComposeResult:
        """Show them."""
        yield OptionList(*(Option(Text(name), id=name) for name in self._names), id="choice")

    def action_none(self) -> None:
        """Choose nothing."""
        self.dismiss(None)

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Hand back the name."""
        event.stop()
        self.dismiss(event.option_id)


class Stepper(App[None]):
    """One run, seen at one record at a time."""

    ENABLE_COMMAND_PALETTE = False
    CSS = f"""
    #top, #keys, #says {{ height: 1; }}
    #top {{ text-style: bold; }}
    #list {{ width: {LIST_COLUMNS}; border: none; padding: 0; scrollbar-size-vertical: 1; }}
    #side {{ width: 1fr; border-left: solid gray; }}
    #panes {{ height: auto; }}
    #scroll {{ height: 1fr; scrollbar-size-vertical: 1; }}
    #pane {{ height: auto; }}
    #ask {{ display: none; height: 1; border: none; padding: 0; }}
    OptionList > .option-list--option-highlighted {{ text-style: reverse; }}
    Words, Choice {{ align: center middle; }}
    #help {{ width: 68; height: auto; border: solid gray; padding: 0 1; }}
    #choice {{ width: 30; height: auto; max-height: 20; border: solid gray; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,right", "move(1)", show=False),
        Binding("k,left", "move(-1)", show=False),
        Binding("g", "ends(0)", show=False),
        Binding("G", "ends(-1)", show=False),
        Binding("b", "run(1)", show=False),
        Binding("B", "run(-1)", show=False),
        Binding("e", "ask('break')", show=False),
        Binding("slash", "ask('find')", show=False),
        Binding("n", "find(1)", show=False),
        Binding("N", "find(-1)", show=False),
        Binding("a", "choose", show=False),
        Binding("tab", "pane(1)", show=False, priority=True),
        Binding("shift+tab", "pane(-1)", show=False, priority=True),
        Binding("d", "scroll_pane(1)", show=False),
        Binding("u", "scroll_pane(-1)", show=False),
        Binding("escape", "leave", show=False),
        Binding("question_mark", "help", show=False),
        Binding("q", "quit", show=False),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(self, walk: Walk, *, start: int = 0, stop: Breakpoint | None = None, pane: str | None = None) -> None:
        """Begin at a moment, with a breakpoint and a pane, if they are given."""
        super().__init__(ansi_color=bool(os.environ.get("NO_COLOR")))
        self._walk = walk
        self._start = start
        self._stop = stop
        self._words = ""
        self._asked = ""
        self.panes = (RECORD, WHY, CHANGED, *walk.agents, *walk.projections)
        self.pane = pane or RECORD

    @property
    def moment(self) -> int:
        """Where it stands."""
        return self.query_one("#list", OptionList).highlighted or 0

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(id="top")
        with Horizontal():
            yield OptionList(
                *(self._label(at, self._walk.timeline.marks(at)) for at in range(len(self._walk.timeline))), id="list"
            )
            with Vertical(id="side"):
                yield Static(id="panes")
                with VerticalScroll(id="scroll", can_focus=False):
                    yield Static(id="pane")
        yield Static(id="says")
        yield Input(id="ask", select_on_focus=False)
        yield Static(line((KEYS, "dim")), id="keys")

    def on_mount(self) -> None:
        """Go to the first moment, and derive the workers' part meanwhile."""
        records = self.query_one("#list", OptionList)
        records.focus()
        records.highlighted = self._start
        self.run_worker(self._compare(), group="compare")

    def _label(self, moment: int, marks: Sequence[str]) -> Text:
        recorded = self._walk.timeline.stops[moment].recorded
        signs = "".join(sign for mark, sign in SIGNS.items() if mark in marks) or " "
        kind = recorded.type.rpartition(".")[0]
        label = line((f"{signs:<2}", "bold red" if "!" in signs else "bold yellow"), f"{recorded.seq:>5} {kind}")
        label.no_wrap, label.overflow = True, "ellipsis"
        return label

    async def _compare(self) -> None:
        """Derive every worker's record again, and mark those that differ, or that can't be derived."""
        records = self.query_one("#list", OptionList)
        found = {DIFFERS: 0, NOT_DERIVED: 0}
        for moment in range(len(self._walk.timeline)):
            await anyio.lowlevel.checkpoint()  # keys come first
            try:
                marks = await self._walk.marks(moment)
            except (BusError, ReplayError) as error:
                self._tell(str(error), style="red")
                return
            if {*marks} & {*found}:
                records.replace_option_prompt_at_index(moment, self._label(moment, marks))
            for mark in found:
                found[mark] += mark in marks
        if found[DIFFERS]:
            self._tell(f"{found[DIFFERS]} record(s) differ from what is decided now: see !", style="bold red")
        elif found[NOT_DERIVED]:
            self._tell(f"{found[NOT_DERIVED]} record(s) by workers could not be derived here: see ?", style="yellow")
        else:
            self._tell("every decision was made again and is equal", style="green")

    def _tell(self, words: str, *, style: str = "") -> None:
        self.query_one("#says", Static).update(line((" ".join(words.split()), style)))

    @on(OptionList.OptionHighlighted, "#list")
    def show(self) -> None:
        """Show the moment that the list stands at."""
        timeline, moment = self._walk.timeline, self.moment
        recorded = timeline.stops[moment].recorded
        clock = rfc3339(recorded.time_ms)[11:23]
        self.query_one("#top", Static).update(
            line(f"{timeline.run} {moment + 1}/{len(timeline)} {clock} ", (NOTHING_RUNS, "dim"))
        )
        names = [line((f" {name} ", "reverse bold" if name == self.pane else "dim")) for name in self.panes]
        self.query_one("#panes", Static).update(Text("").join(names))
        self.run_worker(self._fill(self.pane, moment), group="pane", exclusive=True)

    async def _fill(self, pane: str, moment: int) -> None:
        """Fill the pane. A later call takes this one's place."""
        try:
            lines = await self._lines(pane, moment)
        except (BusError, ReplayError) as error:
            lines = [line((str(error), "red"))]
        self.query_one("#pane", Static).update(Text("\n").join(lines))
        self.query_one("#scroll", VerticalScroll).scroll_home(animate=False)

    async def _lines(self, pane: str, moment: int) -> list[Text]:
        walk = self._walk
        if pane in walk.agents:
            changed = [each for each in await walk.changed(moment) if owner(each) == pane]
            heads = [*changed_lines(changed), Text("")] if changed else []
            return [*heads, *outline(await walk.state(pane, moment))]
        if pane in walk.projections:
            return list(table_lines(walk.timeline.tables[pane].tables(moment)))
        shown = await walk.moment(moment, scope=NO_STATES)
        match pane:
            case "why":
                return list(why_lines(shown))
            case "changed":
                return list(changed_lines(shown.changed))
            case _:
                return list(record_lines(shown))

    def action_move(self, steps: int) -> None:
        """Step forward or back, in the records or in a list of choices."""
        for records in self.screen.query(OptionList):
            last = records.option_count - 1
            records.highlighted = max(0, min(last, (records.highlighted or 0) + steps))

    def action_ends(self, end: int) -> None:
        """Go to the first record (0), or the last one (-1)."""
        self._go(0 if end == 0 else len(self._walk.timeline) - 1)

    def _go(self, moment: int) -> None:
        self.query_one("#list", OptionList).highlighted = moment

    def action_pane(self, steps: int) -> None:
        """Show the next pane, or the one before."""
        if len(self.screen_stack) == 1:
            self._show_pane(self.panes[(self.panes.index(self.pane) + steps) % len(self.panes)])

    def _show_pane(self, name: str) -> None:
        self.pane = name
        self.show()

    def action_choose(self) -> None:
        """Choose a pane from a list."""
        self.push_screen(Choice(self.panes), lambda name: None if name is None else self._show_pane(name))

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Words())

    def action_scroll_pane(self, pages: int) -> None:
        """Scroll the pane by half of its height."""
        scroll = self.query_one("#scroll", VerticalScroll)
        scroll.scroll_relative(y=pages * max(1, scroll.size.height // 2), animate=False)

    def action_ask(self, what: str) -> None:
        """Open the line in which a breakpoint or words to find are written."""
        self._asked = what
        ask = self.query_one("#ask", Input)
        ask.placeholder = "words to find" if what == "find" else "breakpoint: a type, or JMESPath"
        ask.value = self._words if what == "find" else ("" if self._stop is None else self._stop.expression)
        ask.cursor_position = len(ask.value)
        ask.display = True
        ask.focus()

    def action_leave(self) -> None:
        """Close the line without an answer."""
        self.query_one("#ask", Input).display = False
        self.query_one("#list", OptionList).focus()

    @on(Input.Submitted, "#ask")
    def answered(self, event: Input.Submitted) -> None:
        """Take the words to find, or the breakpoint, and go on from here."""
        self.action_leave()
        if self._asked == "find":
            self._words = event.value
            self.action_find(1)
            return
        try:
            self._stop = Breakpoint(event.value)
        except BadBreakpoint as error:
            self._tell(str(error), style="red")
            return
        self.action_run(1)

    def action_run(self, steps: int) -> None:
        """Go to the next record at which the breakpoint holds, or to the one before."""
        if self._stop is None:
            self.action_ask("break")
            return
        stops, problem, moment = self._walk.timeline.stops, "", self.moment + steps
        while 0 <= moment < len(stops):
            verdict = self._stop.look(stops[moment].recorded)
            if verdict.holds:
                self._go(moment)
                self._tell(f"{self._stop.expression} holds here")
                return
            problem, moment = verdict.problem or problem, moment + steps
        way = "further on" if steps > 0 else "before"
        self._tell(f"{self._stop.expression} holds at no record {way} {problem}", style="yellow")

    def action_find(self, steps: int) -> None:
        """Go to the next record that has all the words, or to the one before."""
        wanted = self._words.casefold().split()
        if not wanted:
            self.action_ask("find")
            return
        stops, moment = self._walk.timeline.stops, self.moment + steps
        while 0 <= moment < len(stops):
            recorded = stops[moment].recorded
            text = f"{recorded.seq} {recorded.agent} {recorded.type} {say(recorded)}".casefold()
            if all(word in text for word in wanted):
                self._go(moment)
                self._tell(f"found: {say(recorded)}")
                return
            moment += steps
        self._tell(f"not found {'further on' if steps > 0 else 'before'}: {self._words}", style="yellow")
