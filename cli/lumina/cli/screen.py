"""What a person sees while a run goes on: one line per agent, and one lasting line per decision.

The state is a fold of records and live progress; `rich` draws it. Nothing here decides anything.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lumina.cli.place import AGENTS
from lumina.cli.words import say, shorten
from lumina.events.base import Event
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, GenerationRequested
from lumina.events.lease import LeaseGranted, LeaseRefused
from lumina.events.record import Recorded
from lumina.events.run import RunClosed, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.validation import ValidationFinished, ValidationRequested, ValidationVerdict

LASTING: Final = (RunForked, RunPlanned, AttemptStarted, StepAccepted, StepFailed, LeaseRefused, RunClosed)


class Chatter(msgspec.Struct, frozen=True):
    """A line of live progress, as `working.LiveProgress` says it."""

    phase: str
    time_ms: int
    tokens: float = 0
    tokens_per_s: float = 0
    percent: float = 0
    reason: str = ""


@dataclass
class Line:
    """What one agent does now. `busy` gives it a spinner."""

    words: str = "waiting"
    busy: bool = False
    since: float = field(default_factory=time.monotonic)


class Screen:
    """The view of one run."""

    def __init__(self, *, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.lines = {agent: Line() for agent in AGENTS}
        self.request = ""
        self.attempt = ""
        self._quiet = quiet
        self._started = time.monotonic()
        self._live: Live | None = None
        self._spinner = Spinner("dots", style="cyan")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep it on the terminal for the time of the block, or until `hide`; elsewhere only lasting lines appear."""
        if self._quiet or not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=12, transient=True) as self._live:
            yield

    def hide(self) -> None:
        """Take it off the terminal before the result is printed."""
        if self._live is not None:
            self._live.stop()

    def starting(self, words: str) -> None:
        """Show what is going on before the first record."""
        self._set("orchestrator", words, busy=True)

    def record(self, recorded: Recorded[Event]) -> None:
        """Fold one record, and print its line when it is one of those that last."""
        event = recorded.event
        self._fold(event)
        if isinstance(event, RunSubmitted):
            self.request = event.request
        failed = (
            (isinstance(event, ValidationFinished) and event.verdict is not ValidationVerdict.PASSED)
            or (isinstance(event, ExecutionFinished) and event.verdict is not ExecutionVerdict.PASSED)
            or (isinstance(event, GenerationFinished) and event.outcome is not GenerationOutcome.ANSWERED)
        )
        if not self._quiet and (failed or isinstance(event, LASTING)):
            style = "green" if isinstance(event, StepAccepted) else "yellow" if failed else "default"
            self.console.print(Text(f"  {recorded.agent:<12} {say(recorded)}", style=style), soft_wrap=True)

    def _fold(self, event: Event) -> None:
        match event:
            case GenerationRequested():
                self._set("orchestrator", f"waits for {event.ask.purpose.value}")
                self._set("governor", f"queued: {event.ask.model}", busy=True)
            case LeaseGranted():
                self._set("governor", f"granted {event.instance}")
                self._set("specialist", f"{'loading' if event.load else 'prompt'} · {event.instance}", busy=True)
            case GenerationFinished() | ValidationFinished() | ExecutionFinished():
                agent = {GenerationFinished: "specialist", ValidationFinished: "validator"}.get(type(event), "sandbox")
                words = {"specialist": "answered", "validator": "has read it", "sandbox": "has run it"}[agent]
                self._set(agent, words)
            case ValidationRequested():
                self._set("validator", f"validating · {', '.join(event.tools)}", busy=True)
            case ExecutionRequested():
                self._set("sandbox", f"executing · {event.tier}", busy=True)
            case AttemptStarted():
                self.attempt = f"step {event.step} · attempt {event.attempt}/{event.attempts_max} · {event.rung.value}"
            case RunClosed():
                for agent in AGENTS:
                    self._set(agent, "done")
            case _:
                return

    def chatter(self, agent: str, *, payload: bytes) -> None:
        """Fold one line of live progress; anything that is not one is ignored, as nothing depends on it."""
        try:
            said = msgspec.json.decode(payload, type=Chatter)
        except msgspec.MsgspecError:
            return
        if agent not in self.lines:
            return
        figures = [said.phase]
        if said.percent:
            figures.append(f"{said.percent:.0f} %")
        if said.tokens:
            figures.append(f"{said.tokens:.0f} tokens")
        if said.tokens_per_s:
            figures.append(f"{said.tokens_per_s:,.0f} tok/s")
        if said.reason:
            figures.append(said.reason)
        self._set(agent, " · ".join(figures), busy=True)

    def _set(self, agent: str, words: str, *, busy: bool = False) -> None:
        self.lines[agent] = Line(words=words, busy=busy)

    def __rich__(self) -> RenderableType:
        """Draw it: a header, then a line per agent."""
        now = time.monotonic()
        header = Text.assemble(
            (f"{now - self._started:5.1f} s  ", "dim"), (shorten(self.request, limit=70), "bold"), f"  {self.attempt}"
        )
        table = Table.grid(padding=(0, 1))
        for agent, line in self.lines.items():
            mark: Any = self._spinner if line.busy else Text("·", style="dim")
            busy_s = f"{now - line.since:4.1f} s" if line.busy else ""
            table.add_row(mark, Text(agent, style="cyan" if line.busy else "dim"), Text(line.words), busy_s)
        return Group(header, table)
