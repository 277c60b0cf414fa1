"""What a step's program is given: files, pages, and what earlier steps made; or why it can't be given that."""

from typing import Final

import msgspec

from lumina.agents import literals
from lumina.agents.orchestrator_state import Done, StepState
from lumina.events.contract import Form
from lumina.events.run import PlannedStep, RunSubmitted
from lumina.events.values import FileRef

FILES_MAX: Final = 64
PAGES_MAX: Final = 16
ADDRESS_CHARACTERS_MAX: Final = 500


class StepInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside the program, and which pages are fetched for it."""

    files: tuple[FileRef, ...]
    urls: tuple[str, ...]


def inputs_for(planned: PlannedStep, *, submitted: RunSubmitted, steps: tuple[StepState, ...]) -> StepInputs:
    """Return the inputs of a step: the run's files, artifacts of earlier steps that its brief names, allowed pages."""
    files = {file.name: file for file in submitted.files}
    for step in steps:
        if isinstance(step.stage, Done) and feeds(step.planned, planned):
            files |= {file.name: file for file in step.stage.result.artifacts if file.name in planned.brief}
    allowed = [page for page in pages(planned) if _is_allowed(page, submitted=submitted)]
    return StepInputs(files=tuple(files.values())[:FILES_MAX], urls=tuple(allowed[:PAGES_MAX]))


def obstacle(planned: PlannedStep, *, submitted: RunSubmitted, steps: tuple[StepState, ...]) -> str | None:
    """Return why a step can't be begun: an earlier step that it needs failed, or its page may not be fetched."""
    for step in steps:
        ended = step.stage.result if isinstance(step.stage, Done) else None
        if ended is not None and not ended.accepted and feeds(step.planned, planned):
            return f"it needs {step.planned.contract.artifact!r}, which step {step.planned.number} did not make"
    wanted = pages(planned)
    if planned.contract.form is not Form.ROWS or (not wanted and submitted.files):
        return None
    if not wanted:
        return "the request names no page to scrape; give its full address, for instance http://127.0.0.1:8000/news"
    longest = max(map(len, wanted), default=0)
    if longest > ADDRESS_CHARACTERS_MAX:
        return f"an address of {longest:,} characters is too long; at most {ADDRESS_CHARACTERS_MAX} are fetched"
    forbidden = [page for page in wanted if not _is_allowed(page, submitted=submitted)]
    if not forbidden or (not literals.addresses(planned.brief) and len(forbidden) < len(wanted)):
        return None
    host = literals.host_of(forbidden[0])
    return f"fetching pages from {host} is not allowed; allow it with --allow-host {host}"


def pages(planned: PlannedStep) -> tuple[str, ...]:
    """Return the pages that a scraping step reads: full addresses in its brief, else those that it implies."""
    if planned.contract.form is not Form.ROWS:
        return ()
    return literals.addresses(planned.brief) or literals.implied_addresses(planned.brief)


def _is_allowed(page: str, *, submitted: RunSubmitted) -> bool:
    host = literals.host_of(page)
    allowed = {entry.lower() for entry in submitted.options.hosts}
    return bool(host) and (host in allowed or host.rpartition(":")[0] in allowed)


def feeds(earlier: PlannedStep, later: PlannedStep) -> bool:
    """Return whether `later` reads the file that `earlier` is to write."""
    artifact = earlier.contract.artifact
    return (
        artifact is not None
        and earlier.number < later.number
        and artifact != later.contract.artifact
        and artifact in later.brief
    )
