"""Runs one Python answer of the demo model for the evaluation: JSON in, JSON out.

Started as a process of its own with limits on memory and time. That keeps
accidents small and is no security boundary.
"""

# ruff: noqa: S102, S311, PLC0415, PTH110, BLE001, E501

import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import traceback
import types
from collections.abc import Callable
from typing import Any

Spec = dict[str, Any]


def element(selector: str, *, inside: str, attribute: str | None = None) -> str:
    """Return HTML that `selector`, of tags and classes parted by spaces, finds."""
    html = inside
    for depth, part in enumerate(reversed(selector.split(" "))):
        tag, _, label = part.partition(".")
        extra = f' {attribute}="{inside}"' if attribute and depth == 0 else ""
        label = f' class="{label}"' if label else ""
        html = f"<{tag or 'div'}{label}{extra}>{html}</{tag or 'div'}>"
    return html


def page(spec: Spec) -> str:
    """Return a page of 120 items with decoys outside of them and noise inside."""
    rng = random.Random(7)
    parts = ["<html><body><h1>Page</h1>"]
    parts += [
        element(selector, inside=f"decoy-{key}", attribute=attribute)
        for key, (selector, attribute) in spec["fields"].items()
    ]
    for number in range(120):
        fields = list(spec["fields"].items())
        rng.shuffle(fields)
        inside = "".join(
            element(selector, inside=f" {key}-{number % 50} ", attribute=attribute)
            for key, (selector, attribute) in fields
        )
        parts.append(element(spec["item"], inside=inside + "<i>noise</i>"))
    return "".join(parts) + "</body></html>"


def scraper(code: str, spec: Spec) -> str | None:
    """Run a scraper against a page made from its specification."""
    from bs4 import BeautifulSoup

    html = page(spec)
    seen: list[tuple[str, Any, bool]] = []

    class Response:
        text, content, status_code = html, html.encode(), 200

        def raise_for_status(self) -> None:
            seen[-1] = (*seen[-1][:2], True)

    def get(url: str, timeout: float | None = None, **_: object) -> Response:
        seen.append((url, timeout, False))
        return Response()

    fake = types.ModuleType("requests")
    fake.get = get  # type: ignore[attr-defined]  # a module made at run time
    sys.modules["requests"] = fake
    wanted = []
    for item in BeautifulSoup(html, "html.parser").select(spec["item"])[: spec["limit"]]:
        found = {key: (item.select_one(selector), attribute) for key, (selector, attribute) in spec["fields"].items()}
        wanted.append(
            {
                key: tag[attribute] if attribute else tag.get_text(strip=True)
                for key, (tag, attribute) in found.items()
                if tag
            }
        )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "answer.py", "exec"), {"__name__": "__main__"})
    if len(seen) != 1 or seen[0][0].rstrip("/") != spec["url"].rstrip("/"):
        return f"Missing from the code: {spec['url']}"
    if seen[0][1] is None or not seen[0][2]:
        return "Missing from the code: timeout=10, raise_for_status"
    rows = json.loads(out.getvalue())
    if rows != wanted:
        missing = [key for key in spec["fields"] if f'"{key}"' not in code]
        if missing:
            return "Missing from the code: " + ", ".join(missing)
        return f"Wrong result: {len(rows)} rows, first {str(rows[:1])[:60]}, expected {len(wanted)}, first {str(wanted[:1])[:60]}"
    return None


def defined(code: str, name: str | None) -> Callable[..., Any] | str:
    """Return the function of that name, or the last one defined; a text when there is none."""
    scope: dict[str, Any] = {}
    exec(compile(code, "answer.py", "exec"), scope)
    functions = {key: value for key, value in scope.items() if isinstance(value, types.FunctionType)}
    if name is not None and name not in functions:
        return f"Missing from the code: {name}"
    return functions[name] if name else list(functions.values())[-1]


def dialogue(code: str, spec: Spec) -> str | None:
    """Say everything the specification names, and something else."""
    function = defined(code, spec["name"])
    if isinstance(function, str):
        return function
    for say, reply in spec["pairs"]:
        for text in (say, f" {say.upper()} "):
            got = function(text)
            if got != reply:
                return f"Wrong result: {function.__name__}({text!r}) returned {got!r}, expected {reply!r}"
    other = function("zzz unknown zzz")
    if not isinstance(other, str) or (spec["default"] and other != spec["default"]):
        return f"Wrong result: {function.__name__}('zzz') returned {other!r}, expected {spec['default']!r}"
    return None


def function(code: str, spec: Spec) -> str | None:
    """Call the function with every listed argument."""
    made = defined(code, spec["name"])
    if isinstance(made, str):
        return made
    for call in spec["calls"]:
        got = made(*call["args"])
        if got != call["expected"] or isinstance(got, bool) != isinstance(call["expected"], bool):
            shown = ", ".join(map(repr, call["args"]))
            return (
                f"Wrong result: {made.__name__}({shown[:60]}) returned {got!r:.60}, expected {call['expected']!r:.60}"
            )
    return None


def layers(code: str, spec: Spec) -> str | None:
    """Composite noise and compare pixels with our own composition."""
    from PIL import Image

    pictures = {}
    for index, (name, *_) in enumerate(spec["files"]):
        size = (460, 440) if index == 0 else (48 + index, 40 + index)
        pictures[name] = Image.frombytes("RGBA", size, random.Random(index).randbytes(size[0] * size[1] * 4))
        pictures[name].save(name)
    base = pictures[spec["files"][0][0]].copy()
    for name, x, y, *more in spec["files"][1:]:
        opacity, size = (*more, None, None)[:2]
        layer = pictures[name].copy()
        if size:
            layer = layer.resize(tuple(size))
        if opacity is not None:
            layer.putalpha(layer.getchannel("A").point([int(value * opacity + 1e-9) for value in range(256)]))
        base.alpha_composite(layer, (x, y))
    exec(compile(code, "answer.py", "exec"), {"__name__": "__main__"})
    if not os.path.exists(spec["save"]):
        return f"Missing from the code: {spec['save']}"
    made = Image.open(spec["save"])
    if made.mode != "RGBA" or made.size != base.size:
        return f"Wrong result: {made.mode} {made.size}, expected RGBA {base.size}"
    worst = max(abs(a - b) for a, b in zip(made.tobytes(), base.tobytes(), strict=True))
    return None if worst <= 3 else f"Wrong result: pixels differ by up to {worst}"


def main() -> None:
    """Read one answer, run it, and print what is wrong with it, or null."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (8, 8))
    given = json.load(sys.stdin)
    runners = {"scraper": scraper, "dialogue": dialogue, "function": function, "layers": layers}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            error = runners[given["kind"]](given["code"], given["spec"])
        except SyntaxError as problem:
            error = f"SyntaxError: {problem.msg} (line {problem.lineno})"
        except BaseException as problem:  # whatever the answer does is its failure
            last = traceback.format_exception_only(problem)[-1].strip()
            error = last
        os.chdir("/")
    print(json.dumps({"error": error}))


if __name__ == "__main__":
    main()
