"""What comes from outside the command: specialists as files, schemas and credentials for other programs, completion."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
from tests.system.command import Lumina, sum_request

ROOT = Path(__file__).parents[2]
FUNCTION = ROOT / "agents" / "lumina" / "agents" / "specialists" / "function.toml"


def test_a_file_is_one_more_specialist(up: Lumina) -> None:
    """A TOML file in the folder is used by the very next run; a broken one is named with its fault and left out."""
    folder = up.home / "specialists"
    own = FUNCTION.read_text().replace('name = "function"\nkind = "function"', 'name = "adder"\nkind = "adder"')
    (folder / "adder.toml").write_text(own)
    (folder / "broken.toml").write_text('name = "broken"\nlanguage = "cobol"\n')
    ended = up("run", "--json", "--kind", "adder", "--model", "adds", sum_request("dropped_1"))
    assert ended.code == 0, ended
    planned = next(event for event in ended.events if event["type"] == "run.planned.v1")
    assert [step["kind"] for step in planned["data"]["steps"]] == ["adder"]
    assert "broken.toml is left out" in ended.err
    listed = up("specialists")
    assert listed.code == 1, listed
    assert str(folder / "adder.toml") in listed.out
    assert "broken.toml" in listed.err
    (folder / "broken.toml").unlink()
    assert up("specialists").code == 0


def test_schemas_are_printed(up: Lumina) -> None:
    """`schema` prints the JSON Schema of one event type or of all; an unknown one is a wrong call."""
    one = msgspec.json.decode(up("schema", "run.closed.v1").out)
    assert isinstance(one, dict)
    assert set(msgspec.json.decode(up("schema").out))
    unknown = up("schema", "run.exploded.v1")
    assert unknown.code == 2
    assert "run.closed.v1" in unknown.err


def test_a_program_outside_follows_a_run(up: Lumina) -> None:
    """Read-only credentials, made while the system runs, are all that the example needs to follow a run."""
    given = up("credentials", "consumer", "watcher", "--json")
    assert given.code == 0, given
    known = given.events[0]
    run = up("run", "--detach", "--model", "adds", sum_request("outside_1")).out.strip()
    follow = [sys.executable, str(ROOT / "examples" / "consumers" / "follow.py")]
    done = subprocess.run(
        [*follow, "--url", known["url"], "--seed", known["seed_file"], "--timeout-s", "60", run],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert "run.submitted.v1" in done.stdout
    assert "status=completed" in done.stdout


def test_a_consumer_needs_a_proper_name(up: Lumina) -> None:
    """A name that can't be a consumer's is refused with what it may be."""
    refused = up("credentials", "consumer", "Not This!")
    assert refused.code == 2, refused
    assert "lower-case letters, digits and hyphens" in refused.err


def test_commands_complete_in_a_shell(up: Lumina) -> None:
    """The shell completes commands."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lumina")],
        capture_output=True,
        text=True,
        env={**os.environ, "_LUMINA_COMPLETE": "complete_bash", "COMP_WORDS": "lumina ver", "COMP_CWORD": "1"},
        check=False,
    )
    assert done.returncode == 0, done
    assert "verify" in done.stdout.split(), done


def test_every_command_explains_itself(up: Lumina) -> None:
    """`--help` of every command says what it does, and every option what it is for."""
    for command in ("run", "up", "show", "logs", "verify"):
        shown = up(command, "--help")
        assert shown.code == 0
        assert "Usage: " in shown.out
