"""What was recorded once is decided again for ever, by every later version; a forged history never is."""

from pathlib import Path

import pytest
from tests.replay.corpus_files import BAD, CORPUS

from lumina.bus.archive import open_archive
from lumina.replay.report import Report, Status
from lumina.replay.verifying.verify import verify_run

pytestmark = pytest.mark.anyio

GOOD = sorted(CORPUS.glob("[!_]*.lumina"))


async def proof_of(path: Path) -> Report:
    """Prove the run that a file is of, from nothing but the file."""
    async with open_archive(path) as archive:
        return await verify_run(archive, archive, archive.manifest.runs[0], invariants=True, code="today")


def test_there_is_a_corpus() -> None:
    """Real runs, forks and repairs of the first version that wrote files are among the histories."""
    names = {path.name for path in GOOD}
    assert {"0.1.0-three-runs.lumina", "0.1.0-forks.lumina", "0.1.0-demo-model.lumina"} <= names


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
async def test_a_recorded_history_verifies(path: Path) -> None:
    """Every decision, effect, outcome and byte of it is derived again, and every law of histories holds."""
    report = await proof_of(path)
    assert report.status is Status.OK, report.lines()
    assert (report.broken, report.pending, report.closed) == ((), 0, 1)
    assert all(
        report.decided[agent] > 0 for agent in ("orchestrator", "governor", "specialist", "validator", "sandbox")
    )


async def test_the_forged_history_diverges() -> None:
    """The one history that was forged is not believed; the report names the record, the field and both versions."""
    report = await proof_of(BAD)
    assert report.status is Status.DIVERGED, report.lines()
    assert report.divergence is not None
    assert (report.divergence.at.type, report.divergence.difference.field) == ("run.planned.v1", "event.reason")
    assert report.divergence.difference.recorded == '"another"'
    assert (report.divergence.recorded_by, report.divergence.decided_by) == ("unknown", "today")
    assert [link.type for link in report.divergence.causes] == ["run.submitted.v1"]
