"""`lumina watch --invariants`: the laws of histories on a log that grows, and the cloud that is not asked."""

import signal
import subprocess
from collections.abc import Iterator

import anyio
import msgspec
import pytest
from tests.system.command import Lumina, finished, sum_request, until

from lumina.bus.address import find_running
from lumina.cli.home import Home
from lumina.cli.place import Place, bus
from lumina.events.ids import StreamId, root_event_id
from lumina.events.record import Draft
from lumina.events.step import StepFailed


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[tuple[Lumina, str]]:
    """Return a data folder with one completed run, where nothing runs, and the run's id."""
    command = Lumina(home=tmp_path_factory.mktemp("watch") / "home")
    ended = command("run", "--json", "--model-url", f"{zoo}/adds/v1", sum_request("watched_9"))
    assert ended.code == 0, ended
    yield command, str(ended.events[0]["subject"])
    command.end()


def interrupted(watcher: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Return exit code and output of a watch that is ended by Ctrl-C."""
    watcher.send_signal(signal.SIGINT)
    ended = finished(watcher, timeout_s=30)
    return ended.code, ended.out, ended.err


def read_up_to_now(watcher: "subprocess.Popen[str]") -> None:
    """Wait until a watch has read what was recorded before."""
    assert watcher.stderr is not None
    line = watcher.stderr.readline()
    assert "now as they land" in line, line


def test_a_good_run_breaks_nothing(recorded: tuple[Lumina, str]) -> None:
    """The watch of a run that has ended reads it, says that all holds, and ends with 0."""
    lumina, run = recorded
    ended = lumina("watch", run[:9], "--invariants")
    assert ended.code == 0, ended
    assert not ended.out
    assert "every invariant holds" in ended.err
    assert "open: 0 run(s), 0 lease(s)" in ended.err


def test_watch_wants_a_run_or_the_laws(recorded: tuple[Lumina, str]) -> None:
    """Without a run there is nothing to attach to; with --invariants there is the whole log."""
    lumina, _ = recorded
    ended = lumina("watch")
    assert ended.code == 2, ended
    assert "--invariants" in ended.err


def test_the_whole_log_is_watched_until_ctrl_c(recorded: tuple[Lumina, str]) -> None:
    """Ctrl-C is how it ends: 0 when nothing was broken, with a summary on standard error."""
    lumina, _ = recorded
    watcher = lumina.start("watch", "--invariants")
    read_up_to_now(watcher)
    code, out, err = interrupted(watcher)
    assert (code, out) == (0, ""), err
    assert "every invariant holds" in err
    assert lumina.gone(within_s=10)


def test_a_broken_law_is_told_at_once(recorded: tuple[Lumina, str]) -> None:
    """Somebody with the orchestrator's credentials speaks in a run that has ended: the watch tells, exit 1."""
    lumina, run = recorded
    watcher = lumina.start("watch", "--invariants", "--json")
    read_up_to_now(watcher)
    server = find_running(lumina.home)
    assert server is not None
    stream = StreamId(run)

    async def forge() -> None:
        place = Place(home=Home(root=lumina.home), url=server.url)
        event = StepFailed(step=1, attempts=1, refused=False, reason="forged")
        async with bus(place, role="orchestrator", name="forger") as connected:
            slot = root_event_id(stream, name="forged")
            time_ms = 1_800_000_000_000
            await connected.events.append(
                Draft(event=event, id=slot, stream=stream, agent="orchestrator", time_ms=time_ms, causation=None)
            )

    anyio.run(forge)
    assert watcher.stdout is not None
    told = msgspec.json.decode(watcher.stdout.readline())
    assert told["invariant"].startswith("nothing follows the end of a run")
    assert (told["at"]["type"], told["at"]["stream"]) == ("step.failed.v1", run)
    code, _, err = interrupted(watcher)
    assert code == 1
    assert "1 broken" in err
    again = lumina("watch", run, "--invariants")
    assert again.code == 1, again
    assert "step.failed.v1 by orchestrator" in again.out
    assert until(lambda: not lumina.processes(), within_s=10)


def test_no_request_leaves_without_permission(lumina: Lumina) -> None:
    """A server on a public address is refused with the option that permits it, and nobody connects to it."""
    ended = lumina("run", "--model-url", "https://models.example.com/v1", sum_request("away_1"))
    assert ended.code == 4, ended
    assert "models.example.com" in ended.err
    assert "--allow-cloud" in ended.err
    assert "run.submitted.v1" not in lumina("logs").out


def test_the_cloud_is_left_out_and_named(lumina: Lumina, zoo: str) -> None:
    """With a model of one's own beside it, the run goes on without the cloud, and says so; permitted, it is asked."""
    lumina.home.mkdir()
    own = f'[[models]]\nid = "adds"\nurl = "{zoo}/adds/v1"\n'
    cloud = f'[[models]]\nid = "away"\nurl = "{zoo}/adds/v1"\ncloud = true\n'
    (lumina.home / "node.toml").write_text(own + cloud)
    ended = lumina("run", "--json", sum_request("home_1"))
    assert ended.code == 0, ended
    assert "left out, since they run on machines of others: away" in ended.err
    assert [model["model"] for model in ended.events[0]["data"]["models"]] == ["adds"]
    permitted = lumina("run", "--json", "--allow-cloud", "--model", "away", sum_request("away_2"))
    assert permitted.code == 0, permitted
    asked = [event["data"]["ask"] for event in permitted.events if event["type"] == "lease.granted.v1"]
    assert [ask["cloud"] for ask in asked] == ["permitted by --allow-cloud; the only model"]
    assert lumina("verify", "--all", "--invariants").code == 0
