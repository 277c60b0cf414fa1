"""Shared by all tests: async tests run on asyncio, since nats-py does."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio only."""
    return "asyncio"
