"""`lumina up`, `ps`, `down` and `agent`: the system as processes that can be killed, added and given up."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.system.command import Lumina, finished, running, sum_request, until
from tests.system.model_zoo import node_toml

AGENTS = {"orchestrator", "governor", "specialist-1", "specialist-2", "validator", "sandbox"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, zoo: str) -> Iterator[Lumina]:
    """Return the command with a running system of two specialists."""
    command = Lumina(home=tmp_path_factory.mktemp("pair") / "home")
    command.home.mkdir()
    (command.home / "node.toml").write_text(node_toml(zoo))
    with running(command, "--specialists", "2"):
        yield command


def test_ps_shows_all_agents(pair: Lumina) -> None:
    """`ps` has a line per process, `ps --json` the same for programs; `up --detach` keeps its options."""
    shown = pair("ps")
    assert shown.code == 0
    rows = [line.split() for line in shown.out.splitlines()[1:]]
    assert {row[0] for row in rows} == AGENTS
    assert {row[1] for row in rows} == {"running"}
    system = pair("ps", "--json").events[0]
    assert {child["name"] for child in system["children"]} == AGENTS
    assert all(psutil.pid_exists(child["pid"]) for child in system["children"])


def test_a_killed_agent_is_started_again(pair: Lumina) -> None:
    """`kill -9` of an agent: the supervisor starts another one, `ps` shows the restart, and work goes on."""
    before = pair.child("validator")
    os.kill(before["pid"], signal.SIGKILL)
    assert until(
        lambda: pair.child("validator")["restarts"] == 1 and pair.child("validator")["state"] == "running", within_s=15
    )
    assert pair.child("validator")["pid"] != before["pid"]
    assert next(line for line in pair("ps").out.splitlines() if line.startswith("validator")).split()[3] == "1"
    assert pair("run", "--model", "adds", sum_request("after_1")).code == 0


def test_an_agent_joins_and_shares_the_work(pair: Lumina) -> None:
    """`lumina agent specialist` is one more specialist; while one is kept busy, the others answer, each its part."""
    joined = pair.start("agent", "specialist", "--name", "guest", merged=True)
    assert joined.stdout is not None
    assert any("worker.ready" in line for line in joined.stdout)
    busy = [pair("run", "--detach", "--model", "slow", sum_request(f"slow_{number}")).out.strip() for number in (1, 2)]
    ended = pair("run", "--model", "adds", sum_request("shared_1"))
    assert ended.code == 0, ended
    for run in busy:
        assert pair("cancel", run).code == 0
    joined.send_signal(signal.SIGINT)
    said = finished(joined, timeout_s=20)
    assert said.code == 0, said
    answered = [
        name
        for name, log in (
            ("guest", said.out),
            *((name, (pair.home / "logs" / f"{name}.log").read_text()) for name in ("specialist-1", "specialist-2")),
        )
        if "worker.answered" in log or "worker.stopped" in log
    ]
    assert len(answered) == 3, answered


def test_down_ends_everything(lumina: Lumina) -> None:
    """`up` without --detach says where it is; `down` ends it, exit code 0 on both sides, and no process stays."""
    up = lumina.start("up")
    assert until(lambda: bool((lumina.ps() or {}).get("ready")), within_s=60)
    down = lumina("down")
    assert (down.code, down.out) == (0, "down\n")
    ended = finished(up, timeout_s=20)
    assert ended.code == 0, ended
    assert "stop with Ctrl-C or `lumina down`" in ended.err
    assert lumina.gone(within_s=5), lumina.processes()
    assert lumina("ps").out.startswith("nothing runs")
    assert lumina("down").out == "nothing runs\n"


def test_an_agent_that_cannot_start_is_given_up(lumina: Lumina, zoo: str) -> None:
    """An agent that ends at once is restarted a few times and then left down, with the reason in `ps`."""
    lumina.home.mkdir()
    (lumina.home / "node.toml").write_text(node_toml(zoo))
    with running(lumina):
        key = lumina.home / "nats" / "keys" / "validator.nk"
        assert key.exists()
        key.write_text("not a key\n")
        os.kill(lumina.child("validator")["pid"], signal.SIGKILL)
        assert until(lambda: lumina.child("validator")["state"] == "failed", within_s=60)
        line = next(line for line in lumina("ps").out.splitlines() if line.startswith("validator"))
        assert str(key) in line
        assert "failed" in line


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_bad_node_file_is_refused_before_anything_starts(lumina: Lumina, detach: tuple[str, ...]) -> None:
    """All that is wrong with node.toml is said at once, exit code 2, and nothing is started."""
    lumina.home.mkdir()
    (lumina.home / "node.toml").write_text('ram = "much"\n[[models]]\nid = "x"\nurl = "nowhere"\n')
    ended = lumina("up", *detach)
    assert ended.code == 2, ended
    assert "ram: " in ended.err
    assert "models[0].url: " in ended.err
    assert not lumina.processes()


def test_an_agent_alone_needs_a_server(lumina: Lumina) -> None:
    """Without a running server an agent says how to get one; an unknown role is named with those that there are."""
    alone = lumina("agent", "specialist")
    assert alone.code == 1, alone
    assert "start `lumina up`, or give --nats-url" in alone.err
    unknown = lumina("agent", "poet")
    assert unknown.code == 2, unknown
    assert "there are: orchestrator, governor, specialist, validator, sandbox" in unknown.err


def test_a_reader_does_not_lock_others_out(lumina: Lumina, zoo: str, tmp_path: Path) -> None:
    """While `lumina logs -f` keeps the server for itself, a run starts its agents on that server and completes."""
    follower = lumina.start("logs", "-f", "--json")
    assert until((lumina.home / "nats" / "address.json").exists, within_s=30)
    assert lumina("runs").code == 0
    ended = lumina("run", "--model-url", f"{zoo}/adds/v1", "--output", str(tmp_path / "out"), sum_request("beside_1"))
    assert ended.code == 0, ended
    follower.send_signal(signal.SIGINT)
    assert "run.closed.v1" in finished(follower, timeout_s=20).types
    assert lumina.gone(within_s=5)
