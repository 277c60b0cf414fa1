"""`lumina run` on a machine where nothing runs: it brings up all it needs and leaves nothing behind."""

import os
import signal
import subprocess
from pathlib import Path

from tests.system.command import Lumina, finished, sum_request, until

GONE_S_MAX = 20.0


def _wait_for(process: subprocess.Popen[str], event_type: str) -> str:
    """Read JSON lines until an event of that type, and return the run's id."""
    assert process.stdout is not None
    for line in process.stdout:
        if f'"type":"{event_type}"' in line:
            return line.split('"subject":"')[1].split('"')[0]
    raise AssertionError(f"no {event_type}")


def test_a_run_brings_up_all_it_needs(lumina: Lumina, zoo: str) -> None:
    """Exit code 0, code and evidence on standard output, progress on standard error, files in the folder asked for."""
    ended = lumina("run", "--model-url", f"{zoo}/adds/v1", "--output", "out", sum_request("alone_1"))
    assert ended.code == 0, ended
    assert "def alone_1(a, b):" in ended.out
    assert "evidence: code " in ended.out
    assert "returned 5" in ended.out
    assert "attempt 1/8" in ended.err
    assert (lumina.home.parent / "out" / "function.py").read_text() == "def alone_1(a, b):\n    return a + b\n"
    assert lumina.gone(within_s=5), lumina.processes()
    assert not list(lumina.home.glob("session-*.toml"))
    verified = lumina("verify", "--all", "--invariants")
    assert verified.code == 0, verified


def test_the_demo_model_needs_nothing_at_all(lumina: Lumina) -> None:
    """With no option and no configuration the embedded model answers one of its own examples, and no process stays."""
    request = next(example["request"] for example in lumina("examples", "--json").events if example["kind"] == "game")
    ended = lumina("run", "--json", str(request))
    assert ended.types[-1] == "run.closed.v1"
    assert "generation.finished.v1" in ended.types
    assert ended.code in {0, 1}, ended
    assert lumina.gone(within_s=5), lumina.processes()


def test_ctrl_c_cancels_the_run(lumina: Lumina, zoo: str) -> None:
    """Ctrl-C is a fact on the log: the run is closed as cancelled, exit code 130, and no process stays."""
    process = lumina.start("run", "--json", "--model-url", f"{zoo}/slow/v1", sum_request("stopped_1"))
    run = _wait_for(process, "lease.granted.v1")
    family = lumina.family()
    process.send_signal(signal.SIGINT)
    ended = finished(process, timeout_s=30)
    assert ended.code == 130, ended
    assert "run.cancel_requested.v1" in ended.types
    assert lumina.gone(within_s=5, family=family), lumina.family()
    assert lumina("show", run, "--json").events[0]["status"] == "cancelled"


def test_ctrl_c_before_anything_was_submitted(lumina: Lumina, zoo: str) -> None:
    """Ctrl-C while the system starts ends it without a trace."""
    process = lumina.start("run", "--model-url", f"{zoo}/adds/v1", sum_request("early_1"))
    assert until((lumina.home / "nats" / "lock").exists, within_s=30)
    process.send_signal(signal.SIGINT)
    ended = finished(process, timeout_s=30)
    assert ended.code == 130, ended
    assert lumina.gone(within_s=5), lumina.processes()


def test_kill_9_leaves_no_process(lumina: Lumina) -> None:
    """When the command itself is killed, agents, server and model processes end, and the next command goes on."""
    request = next(example["request"] for example in lumina("examples", "--json").events if example["kind"] == "game")
    process = lumina.start("run", "--json", str(request))
    run = _wait_for(process, "generation.finished.v1")
    family = lumina.family()
    assert any("llama_worker" in " ".join(one.cmdline()) for one in family)
    process.kill()
    process.communicate()
    assert lumina.gone(within_s=GONE_S_MAX, family=family), lumina.family()
    shown = lumina("show", run)
    assert shown.code == 0, shown


def test_without_a_sandbox_it_is_refused(lumina: Lumina, zoo: str, tmp_path: Path) -> None:
    """No bubblewrap: the code is not run bare, the run is refused (4), and the sentence says what to install."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            if program.name != "bwrap" and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    lumina.environ["PATH"] = str(folder)
    ended = lumina("run", "--model-url", f"{zoo}/adds/v1", sum_request("bare_1"))
    assert ended.code == 4, ended
    assert "bubblewrap" in ended.out
    assert "apt-get install -y bubblewrap" in ended.out


def test_two_runs_at_once_share_one_system(lumina: Lumina, zoo: str) -> None:
    """A second `lumina run` joins the first one's system, and the first one waits for it before it takes that down."""
    (lumina.home).mkdir()
    (lumina.home / "node.toml").write_text(f'[[models]]\nid = "adds"\nurl = "{zoo}/adds/v1"\n')
    first, second = (lumina.start("run", "--json", sum_request(f"both_{number}")) for number in (1, 2))
    ends = [finished(process) for process in (first, second)]
    assert [ended.code for ended in ends] == [0, 0], ends
    assert lumina.gone(within_s=5), lumina.processes()
    assert {row["phase"] for row in lumina("runs", "--json").events} == {"completed"}


def test_the_server_dies_in_the_middle(lumina: Lumina, zoo: str) -> None:
    """The NATS server is killed while a model works: it is started again, and the run completes."""
    (lumina.home).mkdir()
    (lumina.home / "node.toml").write_text(f'[[models]]\nid = "late"\nurl = "{zoo}/late/v1"\n')
    process = lumina.start("run", "--json", sum_request("survives_1"))
    _wait_for(process, "lease.granted.v1")
    server = next(one for one in lumina.processes() if one.name() == "nats-server")
    server.kill()
    ended = finished(process)
    assert ended.code == 0, ended
    assert lumina("verify", "--all", "--invariants").code == 0


def test_sigterm_cancels_the_run(lumina: Lumina, zoo: str) -> None:
    """SIGTERM is no worse than Ctrl-C."""
    process = lumina.start("run", "--json", "--model-url", f"{zoo}/slow/v1", sum_request("ended_1"))
    _wait_for(process, "lease.granted.v1")
    process.terminate()
    ended = finished(process, timeout_s=30)
    assert ended.code == 130, ended
    assert ended.types[-1] == "run.closed.v1"
    assert lumina.gone(within_s=5), lumina.family()


def test_the_terminal_is_closed(lumina: Lumina, zoo: str) -> None:
    """A closed terminal leaves no process behind; the run waits in the log, and `watch` says for what."""
    process = lumina.start("run", "--json", "--model-url", f"{zoo}/slow/v1", sum_request("left_1"))
    run = _wait_for(process, "lease.granted.v1")
    family = lumina.family()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert lumina.gone(within_s=GONE_S_MAX, family=family), lumina.family()
    watched = lumina("watch", run)
    assert (watched.code, watched.out) == (1, ""), watched
    assert f"{run} is not finished, and no agents run: start them with `lumina up`" in watched.err
