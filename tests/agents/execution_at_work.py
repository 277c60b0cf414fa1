"""Requests for the sandbox agent, and their way through the real one."""

from tests.agents.worker_at_work import Blobs, answer, concluded

from lumina.agents.sandbox import Sandbox
from lumina.events.codec import encode
from lumina.events.contract import Case, Form, Language, Limits, OutputContract
from lumina.events.execution import ExecutionFinished, ExecutionRequested
from lumina.events.values import FileRef

PY, JS = Language.PYTHON, Language.JAVASCRIPT


def checked_sandbox() -> Sandbox:
    """Return an agent whose tier passed its self-test; fail with the command that helps otherwise."""
    agent = Sandbox()
    (report,) = agent.check()
    assert report.available, f"{report.reason}; run: {report.command}"
    return agent


def request(
    code: str,
    contract: OutputContract,
    *,
    blobs: Blobs,
    files: tuple[FileRef, ...] = (),
    urls: tuple[str, ...] = (),
    limits: Limits | None = None,
    tier: str = "bubblewrap",
) -> ExecutionRequested:
    """Return a request for one program."""
    return ExecutionRequested(
        step=1,
        attempt=1,
        code=blobs.add(code.encode()),
        contract=contract,
        tier=tier,
        files=files,
        urls=urls,
        limits=limits or Limits(wall_ms=8_000),
    )


async def run(
    sandbox: Sandbox, code: str, contract: OutputContract, *, files: tuple[tuple[str, bytes], ...] = (), **more: object
) -> ExecutionFinished:
    """Run code and return the outcome, after deriving it again from what was recorded."""
    blobs = Blobs()
    refs = tuple(blobs.file(name, content) for name, content in files)
    asked = request(code, contract, blobs=blobs, files=refs, **more)  # type: ignore[arg-type] # tests know the names
    outcome = await answer(sandbox, asked, blobs=blobs)
    again = concluded(Sandbox(tiers={}), outcome.request, outcome.body, blobs=blobs)
    assert again == outcome.conclusion
    assert encode(again.event) == encode(outcome.conclusion.event)
    assert isinstance(again.event, ExecutionFinished)
    return again.event


def function(language: Language, *cases: Case, entry: str = "beats") -> OutputContract:
    """Return a contract for one function."""
    return OutputContract(language=language, form=Form.FUNCTION, entry=entry, cases=cases)


BEATS = (
    Case(arguments='["rock", "scissors"]', one_of=('"win"',)),
    Case(arguments='["rock", "paper"]', one_of=('"lose"', '"draw"'), repeat=3),
)
