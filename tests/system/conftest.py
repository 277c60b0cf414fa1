"""Shared by the tests of the command: model servers with every habit, and a running system per module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.command import Lumina, running
from tests.system.model_zoo import model_zoo, node_toml


@pytest.fixture(scope="session")
def zoo() -> Iterator[str]:
    """Return the root of the model servers."""
    with model_zoo() as root:
        yield root


@pytest.fixture
def lumina(tmp_path: Path) -> Iterator[Lumina]:
    """Return the command with a data folder of its own, where nothing runs."""
    command = Lumina(home=tmp_path / "home")
    yield command
    command.end()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[Lumina]:
    """Return the command with a running system that offers every model of the zoo; one per module."""
    command = Lumina(home=tmp_path_factory.mktemp("up") / "home")
    command.home.mkdir()
    (command.home / "node.toml").write_text(node_toml(zoo))
    with running(command, "--specialists", "3"):  # one is busy with the run that goes on for ever
        yield command
