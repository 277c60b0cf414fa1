"""The rules of style that a machine can check. Each failure names the file and the line."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("agents", "bus", "cli", "events", "models", "projections", "replay", "sandbox")
MADE_HERE = {".venv", ".cache", ".git", ".hypothesis", "node_modules", "__pycache__", "dist", "build"}
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

IMPURE = frozenset(
    {"anyio", "asyncio", "datetime", "docker", "httpx", "nats", "os", "random", "secrets", "socket", "structlog"}
    | {"subprocess", "threading", "time", "uuid"}
)
"""What would let a decision depend on anything but the records."""

PURE = (
    "agents/lumina/agents/*.py",
    "bus/lumina/bus/checks.py",
    "bus/lumina/bus/permissions.py",
    "bus/lumina/bus/repair_plan.py",
    "bus/lumina/bus/s2.py",
    "bus/lumina/bus/salvage.py",
    "bus/lumina/bus/subjects.py",
    "bus/lumina/bus/workers.py",
    "events/lumina/events/*.py",
    "models/lumina/models/answers.py",
    "models/lumina/models/prompting.py",
    "models/lumina/models/turns.py",
    "projections/lumina/projections/*.py",
    "replay/lumina/replay/*.py",
    "replay/lumina/replay/*/*.py",
    "sandbox/lumina/sandbox/artifacts.py",
    "sandbox/lumina/sandbox/judge.py",
    "sandbox/lumina/sandbox/linters.py",
    "sandbox/lumina/sandbox/policy.py",
    "sandbox/lumina/sandbox/programs.py",
    "sandbox/lumina/sandbox/rendering.py",
    "sandbox/lumina/sandbox/reports.py",
    "sandbox/lumina/sandbox/seccomp.py",
)
"""All that decides, folds or proves: whole folders by rule, and in the others the files on which decisions rest."""

EDGES = {
    "agents/lumina/agents/keeping.py": {"anyio": "runs keepers", "structlog": "tells the operator"},
    "agents/lumina/agents/working.py": {"anyio": "runs workers", "structlog": "the same", "time": "stamps chatter"},
    "agents/lumina/agents/specialist_calls.py": {"anyio": "the effect", "structlog": "the same", "time": "measures it"},
    "agents/lumina/agents/validator.py": {"anyio": "the effect", "threading": "a flag to stop it", "time": "its end"},
    "agents/lumina/agents/sandbox.py": {"anyio": "the effect", "threading": "a flag to stop it", "time": "its end"},
    "agents/lumina/agents/stoppable.py": {"anyio": "runs effects in threads", "threading": "a flag to stop them"},
    "events/lumina/events/record.py": {"datetime": "RFC 3339 text of a given time; it reads no clock"},
    "replay/lumina/replay/frozen.py": {"anyio": "runs the proof for a test that is no coroutine"},
    "replay/lumina/replay/simulation/casting.py": {"anyio": "puts processes together"},
    "replay/lumina/replay/simulation/clients.py": {"anyio": "waits in virtual time"},
    "replay/lumina/replay/simulation/loop.py": {
        "anyio": "its scopes are put in order",
        "asyncio": "the loop with the virtual clock; it reads no other",
        "structlog": "silences operators' logs",
    },
    "replay/lumina/replay/simulation/models.py": {"anyio": "waits in virtual time"},
    "replay/lumina/replay/simulation/running.py": {"anyio": "runs a simulation"},
    "replay/lumina/replay/simulation/tools.py": {"anyio": "waits in virtual time"},
    "replay/lumina/replay/simulation/view.py": {"anyio": "waits in virtual time"},
    "replay/lumina/replay/simulation/world.py": {"anyio": "starts processes and ends them"},
    "projections/lumina/projections/store.py": {"structlog": "tells that a store was rebuilt; it is the fold's edge"},
}
"""Files under `PURE` that may import something impure, and why."""

SUBJECTS = re.compile(r"lumina\.(log|live|tail)\.(?![a-z_]+ import)|lumina\.(log|live|tail)$")
PATHS_OF_A_MACHINE = re.compile(r"(?<![\w.-])/(work|home|root|Users|mnt)/[\w.-]+")
REGISTRIES = re.compile(r"registry\.npmjs\.org|pypi\.org/simple|files\.pythonhosted\.org|proxy\.golang\.org")
WAIVER = re.compile(
    r"#\s*(?:type: ignore|pyright: ignore|noqa|pragma: no cover)"
    r"(?P<rule>\[[\w, -]+\]|: ?[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?(?P<reason>.*)"
)
FORBIDDEN_WORDS = re.compile(r"(^|_)(utils?|helpers?|managers?|handlers?|processors?|context|data|info)(_|$)")


@cache
def tracked(*patterns: str) -> tuple[Path, ...]:
    """Return the files that git knows or would add, of these patterns; without git, all but what is made here."""
    if not (ROOT / ".git").exists():
        every = (path for pattern in patterns or ("*",) for path in ROOT.rglob(pattern.rpartition("/")[2]))
        kept = (path for path in every if path.is_file() and not MADE_HERE & set(path.relative_to(ROOT).parts))
        return tuple(sorted(path for path in kept if _in_folder(path, patterns)))
    ours = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--"]
    listed = subprocess.run([*ours, *patterns], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return tuple(sorted(path for name in set(listed.split("\0")) - {""} if (path := ROOT / name).is_file()))


def _in_folder(path: Path, patterns: tuple[str, ...]) -> bool:
    folders = [ROOT / pattern.rpartition("/")[0] for pattern in patterns or ("*",)]
    return any(path.is_relative_to(folder) for folder in folders)


def python_files() -> tuple[Path, ...]:
    """Return all Python files of the project."""
    return tracked("*.py")


def shipped_files() -> tuple[Path, ...]:
    """Return the Python files of the source roots."""
    return tracked(*(f"{root}/*.py" for root in SOURCE_ROOTS))


def name_of(path: Path) -> str:
    """Return a path as it is written in the repository."""
    return path.relative_to(ROOT).as_posix()


def report(faults: Iterable[str]) -> None:
    """Fail with all faults, one a line."""
    found = sorted(set(faults))
    assert not found, "\n" + "\n".join(found)


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the top-level packages that a file imports, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0], node.lineno
            case _:
                pass


def impure_imports(paths: Iterable[Path]) -> Iterator[str]:
    """Yield what pure files may not import."""
    for path in paths:
        allowed = EDGES.get(name_of(path), {}) if path.is_relative_to(ROOT) else {}
        for package, line in imports_of(parsed(path)):
            if package in IMPURE and package not in allowed:
                yield f"{path}:{line}: pure files don't import {package}"


def test_what_decides_imports_nothing_that_changes() -> None:
    """Pure files import no clock, no chance, no network, no process: replay depends on it."""
    paths = [path for pattern in PURE for path in ROOT.glob(pattern)]
    assert len(paths) > 20
    report(impure_imports(paths))


def test_every_exception_to_purity_is_needed() -> None:
    """An exception that no file needs any more is struck out."""
    for name, packages in EDGES.items():
        imported = {package for package, _ in imports_of(parsed(ROOT / name))}
        assert set(packages) <= imported, name


def test_files_fit_a_sitting() -> None:
    """No Python file has more than 400 lines."""
    report(
        f"{name_of(path)}: {count} lines"
        for path in python_files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    )


def long_functions(path: Path) -> Iterator[str]:
    """Yield the functions that don't fit a screen."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{name_of(path)}:{node.lineno}: {node.name} has {lines} lines"


def test_functions_fit_a_screen() -> None:
    """No function has more than 60 lines."""
    report(fault for path in python_files() for fault in long_functions(path))


def test_every_module_says_what_it_is_for() -> None:
    """Each Python file that holds anything opens with a docstring."""
    report(
        f"{name_of(path)}: no docstring"
        for path in python_files()
        if (tree := parsed(path)).body and not ast.get_docstring(tree)
    )


def test_every_test_says_what_it_specifies() -> None:
    """Each test has a docstring, so that the suite reads as a specification."""
    report(
        f"{name_of(path)}:{node.lineno}: {node.name} has no docstring"
        for path in tracked("tests/*.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    )


def test_no_folder_claims_the_namespace() -> None:
    """An `__init__.py` directly under `lumina/` would hide every other folder, and mypy would not notice."""
    report(name_of(path) for path in ROOT.glob("*/lumina/__init__.py"))


def test_every_part_ships_its_types() -> None:
    """Each part of the namespace has a `py.typed`."""
    report(f"{root}: no py.typed" for root in SOURCE_ROOTS if not (ROOT / root / "lumina" / root / "py.typed").exists())


def subject_literals(path: Path) -> Iterator[str]:
    """Yield the texts that look like a NATS subject of ours, docstrings left out."""
    tree = parsed(path)
    documents = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documents:
            continue
        if SUBJECTS.search(node.value):
            yield f"{name_of(path)}:{node.lineno}: {node.value!r}"


def test_subjects_are_built_in_one_place() -> None:
    """Outside `bus/` nobody writes a subject down."""
    report(
        fault for path in shipped_files() if not path.is_relative_to(ROOT / "bus") for fault in subject_literals(path)
    )


def bare_waivers(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments that silence a checker without naming the rule and the reason."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and (found := WAIVER.search(token.string)):
            reason = found.group("reason").strip(" -#:")
            if not found.group("rule") or len(reason) < len("a reason"):
                yield token.start[0], token.string


def test_checkers_are_silenced_only_with_a_reason() -> None:
    """`type: ignore[rule]` and `noqa: RULE` are followed by words that say why."""
    report(
        f"{name_of(path)}:{line}: {comment}"
        for path in python_files()
        for line, comment in bare_waivers(path.read_text(encoding="utf-8"))
    )


def text_files() -> Iterator[tuple[Path, str]]:
    """Yield the committed files that are text."""
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content and path != Path(__file__):
            yield path, content.decode("utf-8", errors="replace")


def test_nothing_of_one_machine_is_committed() -> None:
    """No absolute path of a developer's machine and no registry's address stands in a file."""
    report(
        f"{name_of(path)}:{number}: {line.strip()[:120]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if PATHS_OF_A_MACHINE.search(line) or REGISTRIES.search(line)
    )


def test_files_are_not_named_by_words_that_say_nothing() -> None:
    """No module is called helper, utils, manager, handler, processor, context, data or info."""
    report(name_of(path) for path in python_files() if FORBIDDEN_WORDS.search(path.stem))


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("import time\n", 1),
        ("from os.path import join\n", 1),
        ("import msgspec\nfrom lumina.events import run\n", 0),
        ("def late():\n    import random\n", 1),
    ],
)
def test_the_check_of_purity_sees_imports(tmp_path: Path, source: str, faults: int) -> None:
    """Plain, dotted and nested imports of impure packages are found, others are not."""
    path = tmp_path / "core.py"
    path.write_text(source)
    assert len(list(impure_imports([path]))) == faults


@pytest.mark.parametrize(
    ("comment", "bare"),
    [
        ("# noqa", True),
        ("# noqa: S608", True),
        ("# noqa: S608 - the names come from the row types", False),
        ("# type: ignore", True),
        ("# type: ignore[misc]", True),
        ("# type: ignore[misc]  # the mistake under test", False),
        ("# an ordinary remark", False),
    ],
)
def test_the_check_of_waivers_wants_rule_and_reason(comment: str, bare: bool) -> None:
    """A bare waiver and one without a reason are found, a reasoned one is not."""
    assert bool(list(bare_waivers(f"x = 1  {comment}\n"))) == bare


@pytest.mark.parametrize(
    ("text", "subject"),
    [("lumina.log.run.>", True), ("lumina.live", True), ("lumina.logging", False), ("lumina.tail.>", True)],
)
def test_the_check_of_subjects_knows_one(text: str, subject: bool) -> None:
    """Our subject prefixes are recognised, other dotted names are not."""
    assert bool(SUBJECTS.search(text)) == subject


@pytest.mark.parametrize(
    ("line", "fault"),
    [("see /home/me/lumina", True), ("/usr/bin/bwrap", False), ("GET /news/work/7", False), ("/tmp/x", False)],
)
def test_the_check_of_paths_knows_a_machine(line: str, fault: bool) -> None:
    """A home folder is found, system paths and URLs are not."""
    assert bool(PATHS_OF_A_MACHINE.search(line)) == fault
