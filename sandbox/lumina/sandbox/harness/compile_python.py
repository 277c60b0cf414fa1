"""Runs inside a sandbox: compiles the Python program on standard input and prints what is wrong with it, if anything.

Exit code 0: it compiles. 1: one line of JSON with `line`, `column` (from 1), `message` and `text`. Anything else means
that reading the program brought the compiler down. Standard library only.
"""

import json
import sys
import warnings


def main() -> None:
    """Compile and report."""
    warnings.simplefilter("ignore")
    source = sys.stdin.buffer.read()
    try:
        compile(source, "main.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        found = {
            "line": error.lineno or 0,
            "column": error.offset or 0,
            "message": f"{type(error).__name__}: {error.msg}",
            "text": (error.text or "").strip()[:200],
        }
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        found = {"line": 0, "column": 0, "message": f"{type(error).__name__}: {error}", "text": ""}
    else:
        return
    sys.stdout.write(json.dumps(found) + "\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
