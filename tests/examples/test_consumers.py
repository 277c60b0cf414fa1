"""The two example consumers follow runs on a real server with read-only credentials, and import nothing of Lumina."""

import ast
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.text import TextReceiveStream

from lumina.bus.jetstream import JetStreamLog
from lumina.bus.nats_transport import connect
from lumina.bus.server import EmbeddedServer, create_consumer_credentials, embedded_server
from lumina.events.base import Event
from lumina.events.contract import Form, Language, OutputContract
from lumina.events.record import NO_DIGEST, Draft, Head, Recorded, chain, to_headers
from lumina.events.run import (
    PlannedStep,
    Planner,
    RunCancelRequested,
    RunClosed,
    RunOptions,
    RunPlanned,
    RunStatus,
    RunSubmitted,
)
from lumina.events.step import AttemptStarted, Rung, StepFailed
from lumina.replay.scribe import Scribe

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "consumers"
WAIT_S_MAX = 60.0

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("language", ["python", "node"])]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """Run one server with a consumer's key for all tests of this file."""
    async with embedded_server(tmp_path_factory.mktemp("examples"), sync="default") as running:
        await create_consumer_credentials(running.home, name="reader")
        yield running


@pytest.fixture(scope="module")
async def node_packages() -> None:
    """Install what the Node example needs, from its lock file, unless it is there."""
    if not (FOLDER / "node_modules" / ".package-lock.json").exists():
        npm = shutil.which("npm")
        assert npm, "npm comes with Node"
        await anyio.run_process([npm, "ci", "--ignore-scripts"], cwd=FOLDER)


def command(
    language: str, running: EmbeddedServer, run: str, *, seed: Path | None = None, timeout_s: int = 60
) -> list[str]:
    """Return the command line of a consumer."""
    program = [sys.executable, "follow.py"] if language == "python" else ["node", "follow.mjs"]
    key = seed or running.home / "nats" / "keys" / "consumer-reader.nk"
    return [*program, "--url", running.url, "--seed", str(key), "--timeout-s", str(timeout_s), run]


def story(run: str, status: RunStatus) -> Sequence[Recorded[Event]]:
    """Return a short run, with text that is not ASCII."""
    scribe = Scribe()
    submitted = scribe.root(
        RunSubmitted(request="Grüße, Welt ✓ \U0001f600", options=RunOptions(), specialists=(), models=()),
        stream=run,
        agent="client",
    )
    step = PlannedStep(
        number=1,
        kind="general",
        specialist="general",
        brief="Grüße",
        contract=OutputContract(language=Language.PYTHON, form=Form.SCRIPT),
        rule="größer",
    )
    planned = RunPlanned(steps=(step,), planner=Planner.RULES, reason="ein Schritt: „Grüße“")
    scribe.answer(planned, to=submitted, agent="orchestrator")
    attempt = AttemptStarted(step=1, attempt=1, attempts_max=8, rung=Rung.GREEDY, model="demo", reason="first")
    scribe.answer(attempt, to=submitted, agent="orchestrator")
    cancelled = scribe.root(RunCancelRequested(reason="genug"), stream=run, agent="client")
    failed = StepFailed(step=1, attempts=1, refused=False, reason="cancelled")
    scribe.answer(failed, to=cancelled, agent="orchestrator")
    closed = RunClosed(status=status, reason="genug", results=(), tokens=0, records=5, chains=(), root=NO_DIGEST)
    scribe.answer(closed, to=cancelled, agent="orchestrator")
    return scribe.records


@asynccontextmanager
async def writers(running: EmbeddedServer) -> AsyncIterator[dict[str, JetStreamLog]]:
    """Connect as each agent of the story."""
    async with AsyncExitStack() as stack:
        yield {
            role: JetStreamLog(await stack.enter_async_context(connect(running.endpoint(role))))
            for role in ("client", "orchestrator")
        }


async def tell(logs: dict[str, JetStreamLog], records: Sequence[Recorded[Event]]) -> list[Recorded[Event]]:
    """Append records under the names of their writers."""
    return [
        await logs[each.agent].append(
            Draft(
                event=each.event,
                id=each.id,
                stream=each.stream,
                agent=each.agent,
                time_ms=each.time_ms,
                causation=each.causation,
            )
        )
        for each in records
    ]


async def lines_of(process: anyio.abc.Process) -> AsyncIterator[str]:
    """Yield the lines that a process prints."""
    assert process.stdout is not None
    rest = ""
    async for text in TextReceiveStream(process.stdout):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            yield line


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize(("status", "code"), [(RunStatus.COMPLETED, 0), (RunStatus.CANCELLED, 1)])
async def test_a_run_is_followed_to_its_end(
    server: EmbeddedServer, language: str, status: RunStatus, code: int
) -> None:
    """Old events come first, new ones as they land, one line each, and the program stops when the run has ended."""
    run = f"r-{language}{code}"
    records = story(run, status)
    seen: list[str] = []
    async with writers(server) as logs:
        standing = await tell(logs, records[:2])
        with anyio.fail_after(WAIT_S_MAX):
            async with await anyio.open_process(command(language, server, run), cwd=FOLDER, stderr=None) as process:
                async for line in lines_of(process):
                    seen.append(line)
                    if len(seen) == 2:
                        await tell(logs, story(f"{run}-other", status))
                        standing += await tell(logs, records[2:])
    assert process.returncode == code
    told = [line.split(maxsplit=4) for line in seen]
    assert [(int(seq), agent, kind) for seq, _, agent, kind, *_ in told] == [
        (each.seq, each.agent, each.type) for each in standing
    ]
    assert "„Grüße“" in seen[1]
    assert f"status={status.value}" in seen[-1]


@pytest.mark.usefixtures("node_packages")
async def test_a_run_that_does_not_end_is_given_up(server: EmbeddedServer, language: str) -> None:
    """After its time the program stops with 124 and a sentence."""
    line = command(language, server, "r-nowhere", timeout_s=3)
    with anyio.fail_after(WAIT_S_MAX):
        done = await anyio.run_process(line, cwd=FOLDER, check=False)
    assert done.returncode == 124
    assert b"r-nowhere did not end within 3 s" in done.stderr


@pytest.mark.usefixtures("node_packages")
async def test_a_stranger_is_turned_away(server: EmbeddedServer, language: str, tmp_path: Path) -> None:
    """A key that the server does not know gets one sentence and 2."""
    seed = await create_consumer_credentials(tmp_path / "other", name="stranger")
    with anyio.fail_after(WAIT_S_MAX):
        done = await anyio.run_process(command(language, server, "r-a", seed=seed), cwd=FOLDER, check=False)
    assert done.returncode == 2
    assert b"follow: can't read from" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.usefixtures("node_packages")
async def test_a_changed_record_stops_the_consumer(server: EmbeddedServer, language: str) -> None:
    """A record whose body is not what its digest covers is named, and nothing after it is shown."""
    run = f"r-{language}-damaged"
    first = story(run, RunStatus.COMPLETED)[0]
    draft = Draft(event=first.event, id=first.id, stream=first.stream, agent="client", time_ms=1, causation=None)
    recorded, body = chain(draft, after=Head())
    forged = body.replace(b"Welt", b"Pelt")
    async with connect(server.endpoint("client")) as writer:
        subject = f"lumina.log.run.{run}.client.submitted-v1"
        await writer.request(subject, payload=forged, headers=to_headers(recorded))
    with anyio.fail_after(WAIT_S_MAX):
        done = await anyio.run_process(command(language, server, run), cwd=FOLDER, check=False)
    assert done.returncode == 5
    assert recorded.id.encode() in done.stderr
    assert done.stdout == b""


async def test_the_consumer_stands_alone(language: str) -> None:
    """It imports the standard library and one NATS client, nothing of Lumina."""
    if language == "python":
        nodes = list(ast.walk(ast.parse((FOLDER / "follow.py").read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"nats"}
    else:
        lines = [line for line in (FOLDER / "follow.mjs").read_text().splitlines() if line.startswith("import ")]
        sources = {line.rsplit('"', 2)[1] for line in lines}
        foreign = {name for name in sources if not name.startswith("node:")}
        assert foreign == {"@nats-io/jetstream", "@nats-io/transport-node"}
