"""The governor's process on a log of another node: it refuses to start before it writes anything."""

from pathlib import Path

import pytest

from lumina.bus.memory import MemoryBlobs, MemoryLive, MemoryLog
from lumina.cli.errors import UsageProblem
from lumina.cli.home import Home
from lumina.cli.roles import ROLES, Surroundings
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import NodeAnnounced
from lumina.events.record import NO_DIGEST, Draft

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("names", [("desk",), ("desk", "local"), ("desk", "local", "local")])
async def test_the_first_node_owns_the_log(tmp_path: Path, names: tuple[str, ...]) -> None:
    """The node `local` may not go on in the log of `desk`, even if it was there once, after it."""
    log = MemoryLog()
    for number, name in enumerate(names):
        node = StreamId(name)
        event = NodeAnnounced(node=name, bytes_max=1, models=(), idle_ms=1, configuration=NO_DIGEST)
        slot = root_event_id(node, name=str(number))
        await log.append(Draft(event=event, id=slot, stream=node, agent="node", time_ms=1, causation=None))
    given = Surroundings(
        events=log, blobs=MemoryBlobs(), live=MemoryLive(), home=Home(root=tmp_path), node_file=tmp_path / "node.toml"
    )
    with pytest.raises(UsageProblem, match=r"this log belongs to the node 'desk': set `name` in .*node.toml back"):
        await ROLES["governor"](given)
    assert len(log.records) == len(names)
