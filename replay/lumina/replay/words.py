"""Says each event in one line of plain words, for progress, `logs`, `show`, `diff` and `explain`. Pure."""

from typing import assert_never

from lumina.events.base import Event
from lumina.events.catalogue import AnyEvent
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.generation import GenerationFinished, GenerationOutcome, GenerationRequested, Purpose, Usage
from lumina.events.lease import LeaseExpired, LeaseGranted, LeaseRefused, LeaseReleased
from lumina.events.node import ModelUnloaded, NodeAnnounced, UnloadRequested
from lumina.events.record import Recorded
from lumina.events.run import RunCancelRequested, RunClosed, RunForked, RunPlanned, RunSubmitted
from lumina.events.step import AttemptStarted, StepAccepted, StepFailed
from lumina.events.timer import TimerElapsed
from lumina.events.validation import Finding, Severity, ValidationFinished, ValidationRequested, ValidationVerdict

BRIEF_CHARACTERS_MAX = 90


def shorten(text: str, *, limit: int = BRIEF_CHARACTERS_MAX) -> str:
    """Return the first line of `text`, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def size(count: int) -> str:
    """Return a number of bytes for people, in binary units."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def say(recorded: Recorded[Event]) -> str:
    """Return what a record means, in words."""
    event = recorded.event
    assert isinstance(event, AnyEvent)
    return _say(event)


def _say(event: AnyEvent) -> str:  # noqa: C901, PLR0912 - one branch per event type
    match event:
        case RunSubmitted():
            return f"asked: {shorten(event.request)}"
        case RunPlanned():
            steps = ", ".join(f"{step.number} {step.kind}" for step in event.steps)
            return f"planned by {event.planner.value}: {steps} ({event.reason})"
        case RunForked():
            return f"forks {event.parent}: {event.reason or 'as it was'}"
        case RunCancelRequested():
            return f"asked to stop: {event.reason}"
        case RunClosed():
            return f"run {event.status.value}: {event.reason}"
        case AttemptStarted():
            return (
                f"step {event.step} attempt {event.attempt}/{event.attempts_max}: {event.rung.value.replace('_', ' ')}"
                f" with {event.model} ({event.reason})"
            )
        case StepAccepted():
            return f"step {event.step} accepted after {event.attempt} attempt(s), code {event.code.digest[:12]}"
        case StepFailed():
            return f"step {event.step} {'refused' if event.refused else 'failed'}: {event.reason}"
        case GenerationRequested():
            purpose = "a plan" if event.ask.purpose is Purpose.PLAN else event.ask.purpose.value
            return f"asks {event.ask.model} for {purpose}"
        case GenerationFinished():
            return _generation(event)
        case LeaseGranted():
            load = f", loading {size(event.bytes_reserved)}" if event.load else ""
            return f"may use {event.instance}{load}"
        case LeaseRefused():
            return f"refused: {event.detail}"
        case LeaseReleased():
            return "lease given back"
        case LeaseExpired():
            return "lease ran out"
        case ValidationRequested():
            return f"asks {', '.join(event.tools)}"
        case ValidationFinished():
            return _validation(event)
        case ExecutionRequested():
            return f"asks the {event.tier} sandbox"
        case ExecutionFinished():
            return _execution(event)
        case NodeAnnounced():
            models = ", ".join(offer.model for offer in event.models) or "no model"
            return f"node {event.node} offers {models} within {size(event.bytes_max)}"
        case UnloadRequested():
            return f"{event.instance} must go ({event.reason.value})"
        case ModelUnloaded():
            return f"{event.instance} {'unloaded' if event.was_loaded else 'was not loaded'}"
        case TimerElapsed():
            return f"time is up: {event.timer}"
        case _:
            assert_never(event)


def speed(usage: Usage) -> str:
    """Return for instance `212 tokens, 853 tok/s`."""
    if not usage.generate_ms:
        return f"{usage.generated_tokens} tokens"
    return f"{usage.generated_tokens} tokens, {usage.generated_tokens / usage.generate_ms * 1000:,.0f} tok/s"


def _generation(event: GenerationFinished) -> str:
    trimmed = f"; left out to fit: {', '.join(event.usage.trimmed)}" if event.usage.trimmed else ""
    load = f"; loaded in {event.load.load_ms} ms" if event.load else ""
    if event.outcome is GenerationOutcome.ANSWERED:
        return f"answered ({speed(event.usage)}{load}{trimmed})"
    return f"no usable answer ({event.outcome.value}): {event.detail}{trimmed}"


def finding_line(finding: Finding) -> str:
    """Return for instance ``line 3: F821 Undefined name `x` (ruff)``."""
    place = f"line {finding.line}: " if finding.line else ""
    return f"{place}{finding.rule} {finding.message} ({finding.tool})"


def _validation(event: ValidationFinished) -> str:
    errors = [finding for finding in event.findings if finding.severity is Severity.ERROR]
    match event.verdict:
        case ValidationVerdict.PASSED:
            return f"passed, {len(event.findings)} remark(s)"
        case ValidationVerdict.FAILED:
            return f"failed: {shorten(finding_line(errors[0]), limit=160) if errors else event.detail}"
        case ValidationVerdict.ERROR:
            return f"the validator itself failed: {event.detail}"
        case _:
            assert_never(event.verdict)


def _execution(event: ExecutionFinished) -> str:
    if event.verdict is ExecutionVerdict.PASSED:
        return f"ran in {event.tier}, {len(event.checks)} check(s) passed, {event.wall_ms} ms"
    failed = next((check for check in event.checks if not check.passed), None)
    if failed is not None:
        return f"{event.verdict.value}: {failed.name}: {shorten(failed.detail, limit=160)}"
    last = event.stderr.strip().splitlines()[-1:] or [event.detail]
    return f"{event.verdict.value}: {shorten(event.detail or last[0], limit=160)}"
