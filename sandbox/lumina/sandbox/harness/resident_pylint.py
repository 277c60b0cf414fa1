"""Runs inside a sandbox and stays: reads programs with Pylint, one after the other, without starting it each time.

Standard input has one line of JSON per program, `{"code": "..."}`; the answer is a line with `exit_code`, `stdout` and
`stderr` on the descriptor that `LUMINA_RESULTS` names. Each program is read in a process of its own, a copy of this
one with all modules and common packages loaded, so that nothing of one reading is left for the next.
Arguments: those of Pylint.
"""

import contextlib
import ctypes
import io
import json
import os
import signal
import sys

PR_SET_DUMPABLE = 4
WARM = """import json

import requests
from bs4 import BeautifulSoup
from PIL import Image

soup = BeautifulSoup(requests.get("http://x", timeout=1).text, "html.parser")
print(json.dumps([item.select_one("a")["href"] for item in soup.select("p")]))
Image.open("a").convert("RGBA").save("b")
"""
"""Read once, so that what programs usually import has been parsed."""


def lint(code: str) -> dict[str, object]:
    """Return what Pylint says about a program and its exit code."""
    from pylint.lint import Run  # noqa: PLC0415 - loaded by the first call, kept for the others

    out, err = io.StringIO(), io.StringIO()
    exit_code: object = 0
    sys.stdin = io.TextIOWrapper(io.BytesIO(code.encode()), encoding="utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            Run(sys.argv[1:])
        except SystemExit as end:
            exit_code = end.code
    return {"exit_code": exit_code, "stdout": out.getvalue(), "stderr": err.getvalue()}


def lint_apart(code: str) -> dict[str, object]:
    """Return the same from a copy of this process; its death by a signal is an exit code of 128 and more."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as answer:
            json.dump(lint(code), answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"exit_code": 128 + os.WTERMSIG(status), "stdout": "", "stderr": ""}
    found: dict[str, object] = json.loads(text) if text else {"exit_code": 32, "stdout": "", "stderr": "no answer"}
    return found


def main() -> None:
    """Warm up, then answer until the input ends."""
    results = int(os.environ.pop("LUMINA_RESULTS"))
    os.set_inheritable(results, False)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    given = sys.stdin.buffer
    lint(WARM)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # a copy can't look into this process
    for line in given:
        answer = json.dumps(lint_apart(json.loads(line)["code"])).encode() + b"\n"
        while answer:
            answer = answer[os.write(results, answer) :]


if __name__ == "__main__":
    main()
