"""Shared by all tests: async tests run on asyncio, since nats-py does; a skipped test fails CI."""

import os

import pytest

_skipped: list[str] = []


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio only."""
    return "asyncio"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped; `-ra` prints it with its reason."""
    if report.skipped:
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run in which anything was skipped: there, everything that tests need is to be had."""
    if os.environ.get("CI") and _skipped and session.exitstatus == 0:
        session.exitstatus = 1
