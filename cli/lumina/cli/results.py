"""What a run came to, gathered from its records: code, output, files, and the evidence for each step."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from lumina.bus.log import Blobs
from lumina.cli.words import finding_line, shorten, size
from lumina.events.base import Event
from lumina.events.contract import Language
from lumina.events.execution import Check, ExecutionFinished
from lumina.events.record import Recorded
from lumina.events.run import PlannedStep, RunClosed, RunForked, RunPlanned, RunStatus, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.validation import Finding, Severity, ValidationFinished
from lumina.events.values import BlobRef, FileRef

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
SUFFIX = {Language.PYTHON: ".py", Language.JAVASCRIPT: ".js"}


class StepOutcome(msgspec.Struct, kw_only=True):
    """One step with its evidence."""

    number: int
    kind: str
    brief: str
    language: Language
    accepted: bool = False
    attempts: int = 0
    model: str = ""
    reason: str = ""
    code: BlobRef | None = None
    stdout: str = ""
    stderr: str = ""
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()
    artifacts: tuple[FileRef, ...] = ()
    tier: str = ""
    wall_ms: int = 0


class RunOutcome(msgspec.Struct, kw_only=True):
    """A run with its steps, as far as it went."""

    run: str
    parent: str = ""
    request: str = ""
    status: RunStatus | None = None
    reason: str = ""
    tokens: int = 0
    records: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    steps: list[StepOutcome] = []


def gather(records: Sequence[Recorded[Event]]) -> RunOutcome:
    """Return the outcome that the records of one run tell; for a fork, those that it shares come first."""
    outcome = RunOutcome(run=records[-1].stream if records else "", steps=[])
    steps: dict[int, StepOutcome] = {}
    for recorded in records:
        match recorded.event:
            case RunSubmitted(request=request):
                outcome.request, outcome.started_ms = request, recorded.time_ms
            case RunPlanned(steps=planned):
                steps = {step.number: _planned(step) for step in planned}
                outcome.steps = list(steps.values())
            case RunForked() as forked:
                _take_over(outcome, forked, steps=steps)
                outcome.started_ms, outcome.parent = recorded.time_ms, forked.parent
            case RunClosed() as closed:
                for result in closed.results:
                    if not result.accepted and result.number in steps and steps[result.number].accepted:
                        _take_back(steps[result.number])
                outcome.status, outcome.reason = closed.status, closed.reason
                outcome.tokens, outcome.records, outcome.ended_ms = closed.tokens, closed.records, recorded.time_ms
            case event:
                _gather_step(event, steps=steps)
    return outcome


def _planned(step: PlannedStep) -> StepOutcome:
    return StepOutcome(number=step.number, kind=step.kind, brief=step.brief, language=step.contract.language)


def _take_over(outcome: RunOutcome, forked: RunForked, *, steps: dict[int, StepOutcome]) -> None:
    """Make the outcome of a parent, up to a place, that of its fork."""
    outcome.request = forked.request or outcome.request
    outcome.status, outcome.reason = None, ""
    for step in forked.steps:
        if step.number in steps:
            _take_back(steps[step.number])
            steps[step.number].brief = step.brief


def _take_back(step: StepOutcome) -> None:
    """Forget how a step ended: it is begun anew."""
    step.accepted, step.code, step.artifacts, step.reason = False, None, (), ""


def _gather_step(event: Event, *, steps: dict[int, StepOutcome]) -> None:
    step = steps.get(getattr(event, "step", 0))
    if step is None:
        return
    match event:
        case AttemptStarted():
            _take_back(step)
            step.attempts, step.model = event.attempt, event.model
        case ValidationFinished():
            step.findings = event.findings
        case ExecutionFinished():
            step.stdout, step.stderr, step.checks = event.stdout, event.stderr, event.checks
            step.tier, step.wall_ms = event.tier, event.wall_ms
        case StepAccepted():
            step.accepted, step.code, step.artifacts = True, event.code, event.artifacts
        case StepFailed():
            step.reason = event.reason
        case _:
            return


async def write_files(outcome: RunOutcome, *, blobs: Blobs, folder: Path) -> list[Path]:
    """Write the code and the artifacts of all accepted steps into `folder`, and return the paths.

    An artifact with the name of its program does not take the place of the code that was validated.
    """
    written: list[Path] = []
    many = len(outcome.steps) > 1
    for step in outcome.steps:
        if step.code is None:
            continue
        where = folder / f"step-{step.number}" if many else folder
        where.mkdir(parents=True, exist_ok=True)
        program = where / f"{_UNSAFE.sub('-', step.kind)}{SUFFIX[step.language]}"
        program.write_bytes(await blobs.get(step.code.digest))
        written.append(program)
        for artifact in step.artifacts:
            clash = artifact.name.casefold() == program.name.casefold()
            path = where / (f"file-{artifact.name}" if clash else artifact.name)
            path.write_bytes(await blobs.get(artifact.blob.digest))
            written.append(path)
    return written


async def show_result(outcome: RunOutcome, *, blobs: Blobs, console: Console, written: Sequence[Path] = ()) -> None:
    """Print code, output and evidence of every step, then how the run ended."""
    for step in outcome.steps:
        await _show_step(step, blobs=blobs, console=console)
    for path in written:
        console.print(Text(f"wrote {path}", style="dim"), soft_wrap=True)
    if outcome.status is None:
        console.print(
            Text.assemble(("running", "bold cyan"), (f"  `lumina watch {outcome.run}` attaches to it", "dim"))
        )
        return
    status = outcome.status.value
    style = "bold green" if outcome.status is RunStatus.COMPLETED else "bold yellow"
    seconds = max(0, outcome.ended_ms - outcome.started_ms) / 1000
    shared = f" with those shared from {outcome.parent}" if outcome.parent else ""
    console.print(
        Text.assemble(
            (status, style),
            f"  {outcome.reason}  ",
            (f"{seconds:.1f} s, {outcome.tokens} tokens{shared}, {outcome.records} records, {outcome.run}", "dim"),
        ),
        soft_wrap=True,
    )


async def _show_step(step: StepOutcome, *, blobs: Blobs, console: Console) -> None:
    head = f"step {step.number} · {step.kind} · {step.attempts} attempt(s) · {step.model}"
    console.print(Text(head, style="bold"))
    if step.code is not None:
        code = (await blobs.get(step.code.digest)).decode()
        if console.is_terminal:
            console.print(Syntax(code.rstrip("\n"), step.language.value, background_color="default", word_wrap=True))
        else:
            console.print(code.rstrip("\n"), markup=False, highlight=False, soft_wrap=True)
    if step.stdout.strip():
        console.print(Text("output:", style="dim"))
        console.print(step.stdout.rstrip("\n"), markup=False, highlight=False, soft_wrap=True)
    if step.accepted:
        _show_evidence(step, console=console)
        return
    if not step.reason:
        console.print(Text("not finished", style="dim"))
        return
    console.print(Text(f"not accepted: {step.reason}", style="yellow"), soft_wrap=True)
    for check in [check for check in step.checks if not check.passed][:3]:
        console.print(Text(f"  ✗ {check.name}: {shorten(check.detail, limit=200)}", style="red"), soft_wrap=True)
    for finding in [finding for finding in step.findings if finding.severity is Severity.ERROR][:3]:
        console.print(f"  {finding_line(finding)}", markup=False, highlight=False, soft_wrap=True)
    for line in step.stderr.strip().splitlines()[-5:]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _show_evidence(step: StepOutcome, *, console: Console) -> None:
    assert step.code is not None
    remarks = f", {len(step.findings)} remark(s)" if step.findings else ""
    console.print(Text(f"evidence: code {step.code.digest[:12]} validated{remarks}, ran in {step.tier}", style="green"))
    for check in step.checks:
        mark = "✓" if check.passed else "✗"
        detail = f": {shorten(check.detail, limit=100)}" if check.detail else ""
        console.print(Text(f"  {mark} {check.name}{detail}", style="green" if check.passed else "red"), soft_wrap=True)
    for artifact in step.artifacts:
        console.print(Text(f"  ✓ file {artifact.name}, {size(artifact.blob.size)}", style="green"))
