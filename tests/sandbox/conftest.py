"""A real bubblewrap tier and short ways to run programs in it. Nothing here is a stand-in."""

from collections.abc import Iterator
from threading import Event as Flag

import pytest
from msgspec import structs
from tests.sandbox import small_site
from tests.sandbox.at_work import RunProgram

from lumina.events.contract import Language, Limits
from lumina.sandbox.bubblewrap import Bubblewrap
from lumina.sandbox.port import File, Job, RunResult
from lumina.sandbox.programs import main_file


@pytest.fixture(scope="session")
def tier() -> Bubblewrap:
    """Return a tier that has passed its self-test; without one these tests fail and say what to install."""
    bubblewrap = Bubblewrap()
    report = bubblewrap.check()
    assert report.available, f"{report.reason}; run: {report.command}"
    return bubblewrap


@pytest.fixture(scope="session")
def execute(tier: Bubblewrap) -> RunProgram:
    """Return a function that runs code as a script, with limits as keywords."""

    def run(
        code: str, *, language: Language = Language.PYTHON, files: tuple[File, ...] = (), **limits: int
    ) -> RunResult:
        name = main_file(language)
        return tier.run(
            Job(
                command=("python" if language is Language.PYTHON else "node", name),
                language=language,
                files=(*files, File(name=name, content=code.encode())),
                limits=structs.replace(Limits(wall_ms=8_000, memory_bytes_max=256 * 2**20), **limits),
                collects=True,
            ),
            stop=Flag(),
        )

    return run


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Serve a small web site on loopback and return its address without a final slash."""
    with small_site.served() as address:
        yield address
