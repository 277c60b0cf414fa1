"""The sandbox agent's pure core: what to run, and what a run came to. `sandbox.py` does it."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec

from lumina.agents.ports import Conclusion, Raw, Recording
from lumina.events.base import Event
from lumina.events.contract import Limits
from lumina.events.execution import ExecutionFinished, ExecutionRequested, ExecutionVerdict
from lumina.events.record import Recorded
from lumina.events.values import BlobRef, Canonical, FileRef
from lumina.sandbox.judge import judge, permitted_values_are_json, verdict
from lumina.sandbox.port import Ended, File, RunResult
from lumina.sandbox.programs import Call, Page, Program
from lumina.sandbox.rendering import render, sentence
from lumina.sandbox.reports import refused_attempts

_MEDIA_TYPES: Final = {
    "csv": "text/csv",
    "gif": "image/gif",
    "html": "text/html",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "md": "text/markdown",
    "png": "image/png",
    "py": "text/x-python",
    "svg": "image/svg+xml",
    "txt": "text/plain",
    "webp": "image/webp",
}
_CHECKS_MAX: Final = 128


class ExecutionEffect(Canonical, frozen=True, kw_only=True):
    """What is to be run. Nothing of what it should answer is in here.

    Attributes:
        program: The program and what lies beside it.
        tier: The sandbox that it needs.
        urls: Pages to fetch before it starts.
        objection: Why it can't be run at all, empty when it can.
    """

    program: Program
    tier: str
    urls: tuple[str, ...]
    objection: str = ""


class ExecutionRaw(Raw, frozen=True, kw_only=True):
    """What happened.

    Attributes:
        refusal: Why nothing was run, empty when something was.
        runs: In order: the program's, then for a timeline the one that played it.
        pages: What was fetched for it.
    """

    refusal: str = ""
    runs: tuple[RunResult, ...] = ()
    pages: tuple[Page, ...] = ()


def request_of(recorded: Recorded[Event]) -> ExecutionRequested:
    """Return the request in a record."""
    assert isinstance(recorded.event, ExecutionRequested), recorded.type
    return recorded.event


def needs(request: ExecutionRequested) -> tuple[str, ...]:
    """Return the digests of the program and of the files beside it."""
    return tuple(dict.fromkeys((request.code.digest, *(file.blob.digest for file in request.files))))


def prepare(request: ExecutionRequested, *, blobs: Mapping[str, bytes]) -> ExecutionEffect:
    """Return what is to be run."""
    contract = request.contract
    program = Program(
        code=blobs[request.code.digest].decode("utf-8", "replace"),
        language=contract.language,
        form=contract.form,
        limits=request.limits,
        entry=contract.entry,
        calls=tuple(Call(arguments=case.arguments, repeat=case.repeat) for case in contract.cases),
        files=tuple(File(name=file.name, content=blobs[file.blob.digest]) for file in request.files),
    )
    objection = permitted_values_are_json(contract) or ""
    return ExecutionEffect(program=program, tier=request.tier, urls=request.urls, objection=objection)


def conclude(request: Recorded[Event], recording: Recording[ExecutionRaw]) -> Conclusion:
    """Return the outcome and its artifacts."""
    raw = recording.raw
    asked = request_of(request)
    if raw.refusal:
        return Conclusion(event=_outcome(request, recording, verdict=ExecutionVerdict.REFUSED, detail=raw.refusal))
    if not raw.runs:
        problems = "; ".join(page.problem for page in raw.pages if page.problem)
        return Conclusion(event=_outcome(request, recording, verdict=ExecutionVerdict.UNAVAILABLE, detail=problems))
    ran = all(run.ended is Ended.EXITED for run in raw.runs)
    checks = judge(asked.contract, raw.runs)[:_CHECKS_MAX] if ran else ()
    result, reason = verdict(raw.runs, checks=checks)
    remarks = [reason, *(f"Refused: {attempt}" for attempt in refused_attempts(raw.runs[0].results))]
    remarks += [f"Not taken: {refused}" for refused in raw.runs[0].refused]
    event = _outcome(request, recording, verdict=result, detail=" ".join(filter(None, remarks)))
    first = raw.runs[0]
    event = msgspec.structs.replace(
        event,
        exit_code=first.exit_code,
        stdout=render(first.stdout),
        stderr=render(b"".join(run.stderr for run in raw.runs)),
        checks=checks,
        artifacts=tuple(_file_ref(file) for file in first.artifacts),
        wall_ms=sum(run.wall_ms for run in raw.runs),
    )
    return Conclusion(event=event, blobs=tuple(file.content for file in first.artifacts))


def _outcome(
    request: Recorded[Event], recording: Recording[ExecutionRaw], *, verdict: ExecutionVerdict, detail: str
) -> ExecutionFinished:
    asked = request_of(request)
    return ExecutionFinished(
        request=request.id,
        step=asked.step,
        attempt=asked.attempt,
        code=asked.code.digest,
        verdict=verdict,
        tier=asked.tier,
        exit_code=None,
        stdout="",
        stderr="",
        checks=(),
        artifacts=(),
        wall_ms=0,
        effect=recording.effect,
        raw=recording.ref,
        detail=sentence(detail),
    )


def _file_ref(file: File) -> FileRef:
    media_type = _MEDIA_TYPES.get(file.name.rpartition(".")[2].lower(), "application/octet-stream")
    digest = sha256(file.content).hexdigest()
    return FileRef(name=file.name, blob=BlobRef(digest=digest, size=len(file.content), media_type=media_type))


def time_max_ms(limits: Limits) -> int:
    """Return how long a whole execution may take at most: two runs, their start, and the pages."""
    return 2 * limits.wall_ms + 60_000
