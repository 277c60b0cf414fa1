"""How each validation tool is started. Pure. The code comes to it on standard input and can't configure its judge.

Ruff ignores `noqa` comments and every configuration file, Pylint runs without a configuration, ESLint with ours alone
and without inline configuration. `agents/linting.py` reads what they print.
"""

from typing import Final

from lumina.events.contract import Language, Limits
from lumina.sandbox.port import DRIVERS, TALK, File, Job

TOOLS: Final = {
    "compile": Language.PYTHON,
    "ruff": Language.PYTHON,
    "pylint": Language.PYTHON,
    "eslint": Language.JAVASCRIPT,
}
"""The tools that there are, and the language that each reads."""

RUFF_RULES: Final = "E9,F,B006,B023,E711,E712,E722,PLE,PLW0127,ASYNC,S307,S113,S105"
PYLINT_CHECKS: Final = "E,F,unreachable"
PYLINT_DISABLED: Final = "all"
_MEMORY_BYTES_MAX: Final = 1536 * 2**20
_RESIDENT_MS: Final = 3_600_000
"""Bounds the processor time of a resident; each program has a timeout of its own."""
_OUTPUT_BYTES_MAX: Final = 512 * 1024


def lint_job(tool: str, *, code: str, timeout_ms: int) -> Job:
    """Return the job of one of `TOOLS` on one program."""
    language = TOOLS[tool]
    name = "main.py" if language is Language.PYTHON else "main.js"
    limits = Limits(wall_ms=timeout_ms, memory_bytes_max=_MEMORY_BYTES_MAX, output_bytes_max=_OUTPUT_BYTES_MAX)
    return Job(
        command=_COMMANDS[tool],
        language=language,
        files=(File(name=name, content=code.encode()),),
        limits=limits,
        stdin=name,
    )


def resident_job(tool: str) -> Job:
    """Return the job that keeps one of `RESIDENT` ready: programs come on its input, see `resident.py`."""
    limits = Limits(wall_ms=_RESIDENT_MS, memory_bytes_max=_MEMORY_BYTES_MAX, output_bytes_max=_OUTPUT_BYTES_MAX)
    return Job(command=RESIDENT[tool], language=TOOLS[tool], files=(), limits=limits, stdin=TALK, reports=True)


_PYLINT_ARGUMENTS: Final = (
    *("--rcfile=/dev/null", "--persistent=n", "-j1", "-f", "json2", "--score=n", f"--disable={PYLINT_DISABLED}"),
    *(f"--enable={PYLINT_CHECKS},suppressed-message,file-ignored", "--from-stdin", "main.py"),
)
RESIDENT: Final[dict[str, tuple[str, ...]]] = {
    "pylint": ("python", f"{DRIVERS}/harness/resident_pylint.py", *_PYLINT_ARGUMENTS),
    "eslint": ("node", f"{DRIVERS}/harness/resident_eslint.mjs"),
}
"""Tools that take long to start."""

_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "compile": ("python", "-I", "-S", f"{DRIVERS}/harness/compile_python.py"),
    "ruff": (
        *("ruff", "check", "--isolated", "--ignore-noqa", "--no-cache", "--quiet", "--output-format", "json"),
        *("--target-version", "py311", "--select", RUFF_RULES, "--stdin-filename", "main.py", "-"),
    ),
    "pylint": ("python", "-m", "pylint", *_PYLINT_ARGUMENTS),
    "eslint": (
        *("node", f"{DRIVERS}/node_modules/eslint/bin/eslint.js", "--no-config-lookup"),
        *("-c", f"{DRIVERS}/eslint.config.mjs", "--no-inline-config", "--format", "json"),
        *("--stdin", "--stdin-filename", "main.js"),
    ),
}
