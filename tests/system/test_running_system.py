"""What a user does with a running system: submit, watch, look, cancel, and meet models that misbehave."""

import signal
import time

import pytest
from tests.system.command import Lumina, finished, sum_request, until


def _detached(up: Lumina, *, model: str, name: str) -> str:
    """Submit a run with `--detach` and return its id."""
    submitted = up("run", "--detach", "--model", model, sum_request(name))
    assert submitted.code == 0, submitted
    return submitted.out.strip()


@pytest.fixture(scope="module")
def done(up: Lumina) -> str:
    """Return the id of a run that completed."""
    ended = up("run", "--model", "adds", "--json", sum_request("done_1"))
    assert ended.code == 0, ended
    return str(ended.events[0]["subject"])


@pytest.fixture(scope="module")
def slow(up: Lumina) -> str:
    """Return the id of a run that goes on for as long as the tests do."""
    return _detached(up, model="slow", name="slow_1")


def test_json_is_one_event_per_line(up: Lumina) -> None:
    """`run --json` prints every event of the run, one valid JSON object a line, from submission to close."""
    ended = up("run", "--model", "adds", "--json", "--output", "json-out", sum_request("json_1"))
    assert ended.code == 0, ended
    assert (ended.types[0], ended.types[-1]) == ("run.submitted.v1", "run.closed.v1")
    assert len({event["subject"] for event in ended.events}) == 1
    assert [event["seq"] for event in ended.events] == sorted(event["seq"] for event in ended.events)
    assert "def json_1" in (up.home.parent / "json-out" / "function.py").read_text()


def test_a_detached_run_is_watched_to_its_end(up: Lumina) -> None:
    """`run --detach` returns the id at once; `watch` attaches by a prefix, shows the result and has its exit code."""
    name = _detached(up, model="adds", name="watched_1")
    watched = up("watch", name[:12])
    assert watched.code == 0, watched
    assert "def watched_1(a, b):" in watched.out
    assert "completed" in watched.out
    again = up("watch", name, "--json")
    assert again.types[-1] == "run.closed.v1"


def test_runs_are_listed(up: Lumina, done: str, slow: str) -> None:
    """`runs` has a line for each run, whole ids too where the output is no terminal; with `--json` one object each."""
    listed = up("runs")
    assert listed.code == 0
    assert done in listed.out
    assert next(line for line in listed.out.splitlines() if slow in line).split()[1] == "running"
    rows = up("runs", "--json").events
    assert {row["run"]: row["phase"] for row in rows}[done] == "completed"


def test_a_run_is_shown_by_a_prefix(up: Lumina, done: str) -> None:
    """`show` prints code, output and evidence of a run; `--events` every record; `--json` all of it for programs."""
    shown = up("show", done[:10])
    assert shown.code == 0, shown
    assert "def done_1(a, b):" in shown.out
    assert "returned 5" in shown.out
    assert "execution.finished.v1" in up("show", done, "--events").out
    outcome = up("show", done, "--json").events[0]
    assert (outcome["run"], outcome["status"], outcome["steps"][0]["accepted"]) == (done, "completed", True)


def test_a_run_that_goes_on_is_shown(up: Lumina, slow: str) -> None:
    """`show` of a run that is not closed says so, and its step is not called failed."""
    until(lambda: "step.attempt_started.v1" in up("logs", slow).out, within_s=10)
    shown = up("show", slow)
    assert shown.code == 0, shown
    assert "running" in shown.out
    assert "not accepted" not in shown.out
    assert up("show", slow, "--json").events[0]["status"] is None


def test_the_log_is_printed_and_followed(up: Lumina, done: str) -> None:
    """`logs RUN` prints the run's records and ends; `logs -f` goes on until Ctrl-C, which ends it without a trace."""
    printed = up("logs", done)
    assert printed.code == 0
    assert len(printed.out.splitlines()) == len(up("logs", done, "--json").events)
    assert "run.closed.v1" in printed.out
    follower = up.start("logs", "-f", "--json")
    assert follower.stdout is not None
    assert "node.announced.v1" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    ended = finished(follower, timeout_s=15)
    assert ended.code == 130, ended
    assert not ended.err


def test_a_run_is_cancelled(up: Lumina) -> None:
    """`cancel` ends a run that waits for a slow model; who watches it sees that."""
    name = _detached(up, model="slow", name="cancelled_1")
    watcher = up.start("watch", name)
    assert up("cancel", name, "--reason", "changed my mind").code == 0
    watched = finished(watcher, timeout_s=30)
    assert watched.code == 130, watched
    assert "cancelled" in watched.out
    assert "changed my mind" in up("show", name, "--events").out


def test_cancelling_what_has_ended_changes_nothing(up: Lumina, done: str) -> None:
    """A run that is closed stays as it is, and the command says so."""
    cancelled = up("cancel", done)
    assert cancelled.code == 0, cancelled
    assert "has ended already" in cancelled.out
    assert up("show", done, "--json").events[0]["status"] == "completed"


def test_part_of_a_request_succeeds(up: Lumina) -> None:
    """Of two steps one can't be done: exit code 3, and the code of the other one is delivered."""
    request = f"1. {sum_request('good_1')}\n2. {sum_request('bad_1')}"
    ended = up("run", "--model", "adds", "--attempts", "2", "--output", "partial", request)
    assert ended.code == 3, ended
    assert "def good_1" in (up.home.parent / "partial" / "step-1" / "function.py").read_text()
    assert "not accepted" in ended.out


def test_an_unknown_host_is_refused(up: Lumina) -> None:
    """A scraper's page on a host that nobody allowed is not fetched: exit code 4, and the sentence says how to."""
    request = (
        "Write a Python script that scrapes the titles and URLs of the first five articles from "
        "http://127.0.0.1:9/news. Each article is in article.story, the title in h2 and the link in a."
    )
    ended = up("run", "--model", "adds", request)
    assert ended.code == 4, ended
    assert "--allow-host 127.0.0.1:9" in ended.out


def test_time_runs_out(up: Lumina) -> None:
    """A run whose model is slower than the run's time ends as timed out, with exit code 124."""
    started = time.monotonic()
    ended = up("run", "--model", "slow", "--timeout", "1.5", sum_request("late_1"))
    assert ended.code == 124, ended
    assert time.monotonic() - started < 30


def test_a_task_file_says_it_all(up: Lumina) -> None:
    """A task file brings request, tests, files and limits; its tests judge the code."""
    folder = up.home.parent / "task"
    folder.mkdir()
    (folder / "notes.txt").write_text("beside the program\n")
    task = (
        'request = "Write a Python function called filed_1 that takes a and b and returns their sum."\n'
        'kind = "function"\nmodels = ["adds"]\nfiles = ["notes.txt"]\nattempts_max = 2\ntimeout_s = 60\nseed = 7\n'
        "plan = false\n\n[[tests]]\narguments = [2, 3]\nexpect = 5\n\n[[tests]]\narguments = [2, 2]\nexpect = {}\n"
    )
    (folder / "good.toml").write_text(task.format("4"))
    (folder / "wrong.toml").write_text(task.format("5"))
    good = up("run", "--file", "task/good.toml", "--json")
    assert good.code == 0, good
    submitted = good.events[0]["data"]
    assert [file["name"] for file in submitted["files"]] == ["notes.txt"]
    assert (submitted["options"]["seed"], submitted["options"]["timeout_ms"]) == (7, 60_000)
    wrong = up("run", "--file", "task/wrong.toml")
    assert wrong.code == 1, wrong
    assert "filed_1(2, 2)" in wrong.out


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nobody", "nobody answers at http://127.0.0.1:9/v1; start the model server there or correct the URL"),
        ("html", "Welcome to the router"),
        ("broken", "choices"),
        ("hollow", "choices"),
        ("mute", "empty"),
        ("loops", "cut off by the token limit"),
        ("teapot", "418"),
    ],
)
def test_a_model_that_misbehaves_is_described(up: Lumina, model: str, sentence: str) -> None:
    """Whatever a model server says instead of an answer, the run fails in time and says in one sentence what it was."""
    ended = up("run", "--model", model, "--attempts", "1", "--timeout", "40", sum_request("any_1"))
    assert ended.code == 1, ended
    reason = next(line for line in ended.out.splitlines() if line.startswith("not accepted"))
    assert sentence in reason, ended


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "--kind", "poem", "Write a poem."), "no specialist answers the kind 'poem'; these do: animation"),
        (("run", "--model", "nosuch", "Do it."), "model 'nosuch' is not offered here; these are: adds"),
        (("run", "--model-url", "http://127.0.0.1:9/v1", "Do it."), "add it to node.toml and restart `lumina up`"),
        (("show", "r-nosuch"), "no run is called 'r-nosuch'; `lumina runs` lists them"),
        (("watch", "r-nosuch"), "no run is called 'r-nosuch'"),
        (("cancel", "r-nosuch"), "no run is called 'r-nosuch'"),
        (("verify", "r-nosuch"), "no run is called 'r-nosuch'"),
        (("logs", "r-nosuch"), "no run is called 'r-nosuch'"),
    ],
)
def test_a_wrong_call_on_a_running_system(up: Lumina, arguments: tuple[str, ...], sentence: str) -> None:
    """What is not there is named, and how to see what is; exit code 2."""
    ended = up(*arguments)
    assert ended.code == 2, ended
    assert sentence in ended.err
    assert ended.err.count("\n") == 1


def test_a_second_up_is_refused(up: Lumina) -> None:
    """Two systems never share a data folder; the running one is named and goes on."""
    for arguments in (("up",), ("up", "--detach")):
        second = up(*arguments)
        assert second.code == 1, second
        assert "use it, or stop it with `lumina down`" in second.err
    system = up.ps()
    assert system is not None
    assert all(child["state"] == "running" for child in system["children"])


def test_ctrl_c_while_watching_leaves_the_run(up: Lumina, slow: str) -> None:
    """Who detaches from a run by Ctrl-C does not stop it."""
    watcher = up.start("watch", slow, "--json")
    assert watcher.stdout is not None
    assert "run.submitted.v1" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    assert finished(watcher, timeout_s=15).code == 130
    assert up("show", slow, "--json").events[0]["status"] is None


def test_a_reader_that_goes_away(up: Lumina, done: str) -> None:
    """`lumina logs | head -1` ends quietly."""
    follower = up.start("logs", "--json")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.stdout.close()
    assert follower.stderr is not None
    with follower.stderr as errors:
        said = errors.read()
    assert follower.wait(timeout=20) in {0, 141, 1}
    assert "Traceback" not in said
