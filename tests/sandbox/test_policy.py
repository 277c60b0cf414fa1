"""Limits and layout in, arguments out; names and texts of foreign programs, made harmless."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumina.events.contract import Language, Limits
from lumina.sandbox import policy
from lumina.sandbox.artifacts import Entry, Kind, select
from lumina.sandbox.linters import TOOLS, lint_job
from lumina.sandbox.policy import Descriptors, Layout
from lumina.sandbox.port import File
from lumina.sandbox.rendering import escape, last_lines, render, sentence
from lumina.sandbox.watch import Usage, transgression

LAYOUT = Layout(
    binds=(("/usr", "/usr"),), links=(("usr/bin", "/bin"),), path=("/opt/bin", "/usr/bin"), packages="/opt/packages"
)
LIMITS = Limits(wall_ms=3_000, memory_bytes_max=64 * 2**20, file_bytes_max=2**20)


def arguments() -> list[str]:
    """Return the arguments for one small job."""
    return policy.arguments(
        LAYOUT,
        limits=LIMITS,
        descriptors=Descriptors(seccomp=7, status=8, placed=((9, "/code/main.py"),)),
        environment={"A": "b"},
        given_bytes=4096,
    )


@pytest.mark.parametrize(
    "word",
    [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--disable-userns"),
        *("--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "--seccomp"),
    ],
)
def test_every_wall_is_asked_for(word: str) -> None:
    """Each of bubblewrap's walls is among the arguments."""
    assert word in arguments()


def test_writable_folders_have_a_size() -> None:
    """`--size` stands before every `--tmpfs`, since it binds to the next one; everything else is read-only."""
    words = arguments()
    for at, word in enumerate(words):
        if word == "--tmpfs":
            assert words[at - 4] == "--size"
            assert int(words[at - 3]) > 0
    assert "--bind" not in words
    remounted = [words[at + 1] for at, word in enumerate(words) if word == "--remount-ro"]
    assert remounted == ["/dev", "/proc", "/"]


def test_room_for_files_is_what_is_given_and_what_may_be_left() -> None:
    """`/code` holds the given files, the permitted artifacts and a little more."""
    assert policy.code_bytes_max(LIMITS, given_bytes=5 * 4096) == 2**20 + 5 * 4096 + 2**20
    assert policy.placed_bytes((File(name="a", content=b"x"), File(name="b", content=b"x" * 4097))) == 3 * 4096


def test_the_start_script_sets_all_limits() -> None:
    """Core files, locked memory, descriptors, stack, CPU time, file size and memory, in the shell's units."""
    script = policy.start_script(LIMITS, language=Language.PYTHON)
    assert "ulimit -c 0; ulimit -l 0; ulimit -n 256; ulimit -s 8192; ulimit -t 8" in script
    assert "ulimit -f 2048; ulimit -d 1114112" in script
    assert script.index("ulimit -d") < script.index("ready") < script.index("read -r") < script.index("exec")


def test_the_environment_is_a_short_list() -> None:
    """Nothing of the host's environment is passed on, and Node gets a heap that fits."""
    python = policy.environment(LAYOUT, language=Language.PYTHON, limits=LIMITS)
    assert set(python) == {"PATH", "HOME", "LANG", "TMPDIR"} | {name for name in python if name.startswith("PYTHON")}
    node = policy.environment(LAYOUT, language=Language.JAVASCRIPT, limits=LIMITS)
    assert node["NODE_OPTIONS"] == "--max-old-space-size=48"


@pytest.mark.parametrize(
    ("usage", "ended"),
    [
        (Usage(tasks=64, memory_bytes=64 * 2**20, inodes=4096), None),
        (Usage(tasks=65, memory_bytes=0, inodes=0), "processes"),
        (Usage(tasks=1, memory_bytes=64 * 2**20 + 1, inodes=0), "memory"),
        (Usage(tasks=1, memory_bytes=0, inodes=4097), "files"),
    ],
)
def test_limits_are_reached_and_then_broken(usage: Usage, ended: str | None) -> None:
    """At the limit is permitted, over it is not."""
    found = transgression(usage, limits=LIMITS)
    assert (found.value if found else None) == ended


def entry(name: str, *, kind: Kind = Kind.FILE, size: int = 1, links: int = 1) -> Entry:
    """Return an entry of a folder."""
    return Entry(name=name, kind=kind, size=size, links=links)


def test_only_plain_names_of_plain_files_are_taken() -> None:
    """Everything else is refused with its reason; what Lumina put there is left out silently."""
    entries = (
        entry("good.png"),
        entry("main.py"),
        entry("../up"),
        entry(".hidden"),
        entry("-rf"),
        entry("dot."),
        entry("new\nline"),
        entry("x" * 121),
        entry("GOOD.PNG"),
        entry("link", kind=Kind.LINK),
        entry("folder", kind=Kind.FOLDER),
        entry("pipe", kind=Kind.SPECIAL),
        entry("twice", links=2),
    )
    chosen = select(entries, given=frozenset({"main.py"}), limits=LIMITS)
    assert chosen.taken == ("GOOD.PNG",)
    assert len(chosen.refused) == 11
    assert all(refused.isprintable() for refused in chosen.refused)


def test_a_link_in_the_place_of_a_given_file_is_noticed() -> None:
    """A given name is only left out while it is a file."""
    chosen = select((entry("main.py", kind=Kind.LINK),), given=frozenset({"main.py"}), limits=LIMITS)
    assert chosen.refused == ("'main.py': a link",)


def test_counts_and_sizes_have_ends() -> None:
    """Files beyond the number and the bytes in all are refused."""
    entries = tuple(entry(f"f{number:02}", size=300_000) for number in range(40))
    chosen = select(entries, given=frozenset(), limits=LIMITS)
    assert chosen.taken == ("f00", "f01", "f02")
    many = select(tuple(entry(f"f{n:02}") for n in range(40)), given=frozenset(), limits=LIMITS)
    assert len(many.taken) == LIMITS.files_max


@given(st.binary(max_size=300))
def test_rendered_text_is_plain_text(raw: bytes) -> None:
    """Whatever bytes a program prints, what is shown has no control character but line feeds and tabs."""
    assert all(character in "\n\t" or character.isprintable() for character in render(raw))


def test_terminals_and_readers_are_not_driven() -> None:
    """Escape sequences, reversed text, NUL and invisible characters are shown as what they are."""
    assert escape("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert escape("\u202egnp.exe\u200b\ufeff\x00") == "\\u202egnp.exe\\u200b\\ufeff\\x00"
    assert escape("Grüße, 世界 🙂\n") == "Grüße, 世界 🙂\n"
    assert render(b"\xff\xfe") == "\ufffd\ufffd"


def test_long_output_keeps_head_and_tail() -> None:
    """Cut in the middle, within the limit, and the cut is marked."""
    text = render(b"first\n" + b"x" * 100_000 + b"\nlast")
    assert len(text) <= 4_000
    assert text.startswith("first\n")
    assert text.endswith("\nlast")
    assert "characters cut" in text


def test_paths_in_tracebacks_are_the_same_everywhere() -> None:
    """No machine's path stays in what a model is told."""
    raw = b'File "/code/main.py", line 1\nFile "/opt/python/lib/python3.11/json/x.py"\nFile "/opt/packages/bs4/a.py"'
    assert render(raw) == 'File "main.py", line 1\nFile "python/json/x.py"\nFile "packages/bs4/a.py"'
    assert last_lines("\n".join("abcdef"), count=2) == "e\nf"
    assert sentence("a\n  b\x00") == "a b\\x00"


def test_no_tool_reads_a_configuration_of_the_code() -> None:
    """Ruff, Pylint and ESLint are isolated from files and comments that the code could bring."""
    commands = {tool: lint_job(tool, code="x", timeout_ms=1000).command for tool in TOOLS}
    assert {"--isolated", "--ignore-noqa", "--no-cache"} <= set(commands["ruff"])
    assert "--rcfile=/dev/null" in commands["pylint"]
    assert {"--no-config-lookup", "--no-inline-config", "--stdin"} <= set(commands["eslint"])
    for tool in TOOLS:
        assert lint_job(tool, code="x", timeout_ms=1000).stdin in {"main.py", "main.js"}
