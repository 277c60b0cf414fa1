"""Decide by execution whether an answer of the demo model does what was asked."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lumina.models.demo.record import PYTHON_KINDS

_HERE: Final = Path(__file__).resolve().parent
_WALL_S: Final = 15


def error_in(code: str, *, kind: str, spec: Mapping[str, Any]) -> str | None:
    """Return what a validator would say about `code`, or None when it is right."""
    if kind in PYTHON_KINDS:
        report = _run([sys.executable, str(_HERE / "harness.py")], {"code": code, "kind": kind, "spec": spec})
        return report["error"]
    report = _run(["node", str(_HERE / "harness.js")], {"code": code, "calls": spec.get("calls")})
    if report.get("error"):
        return str(report["error"])
    return _game(report, spec=spec) if kind == "game" else _timeline(report.get("timeline"), spec=spec)


def _run(command: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command, input=json.dumps(given), capture_output=True, text=True, timeout=_WALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": "Timeout after 10 s"}
    if done.returncode or not done.stdout:
        return {"error": "RuntimeError: " + (done.stderr.strip().splitlines() or ["no output"])[-1]}
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _game(report: Mapping[str, Any], *, spec: Mapping[str, Any]) -> str | None:
    names: list[str] = report["names"]
    if spec["name"] and names != [spec["name"]]:
        return f"Missing from the code: {spec['name']}"
    for call, got in zip(spec["calls"], report["results"], strict=True):
        wanted = call.get("expected_in", [call.get("expected")])
        if not any(got == value and isinstance(got, bool) == isinstance(value, bool) for value in wanted):
            shown = ", ".join(json.dumps(argument) for argument in call["args"])
            return (
                f"Wrong result: {names[0]}({shown[:60]}) returned {json.dumps(got)}, expected {json.dumps(wanted[0])}"
            )
    return None


def _timeline(timeline: Any, *, spec: Mapping[str, Any]) -> str | None:
    """Compare a configuration with what was asked; `at` and defaults as GSAP reads them."""
    if not isinstance(timeline, dict) or not isinstance(timeline.get("steps"), list):
        return "Missing from the code: timeline, steps"
    defaults = timeline.get("defaults") or {}
    for name, value in spec["defaults"].items():
        if (str(defaults.get(name)) != value and name == "ease") or (
            name == "duration" and defaults.get(name) != float(value)
        ):
            return f"Missing from the code: {value}"
    for name in ("repeat", "yoyo", "delay"):
        value = spec["options"].get(name)
        if (value is None and timeline.get(name)) or (value is not None and json.dumps(timeline.get(name)) != value):
            return f"Missing from the code: {name}: {value}"
    if len(timeline["steps"]) != len(spec["steps"]):
        return f"Wrong result: {len(timeline['steps'])} steps, expected {len(spec['steps'])}"
    for index, (step, wanted) in enumerate(zip(timeline["steps"], spec["steps"], strict=True)):
        problem = _step(step, wanted=wanted, defaults=defaults, first=index == 0)
        if problem is not None:
            return problem
    return None


def _step(step: Any, *, wanted: Mapping[str, Any], defaults: Mapping[str, Any], first: bool) -> str | None:
    targets = {part.strip() for part in str(step.get("target")).split(",")}
    for target in wanted["targets"]:
        if target not in targets:
            return f"Missing from the code: {target}"
    values = step.get("vars") or {}
    for name, value in wanted["vars"].items():
        if values.get(name, defaults.get(name)) != value:
            return f"Missing from the code: {name}: {json.dumps(value)}"
    extra = set(values) - set(wanted["vars"]) - {"duration", "ease"}
    if extra or len(targets) != len(wanted["targets"]):
        return f"Wrong result: unexpected {', '.join(sorted(extra)) or 'target'}"
    at, plain = step.get("at"), (None, ">", 0) if first else (None, ">")
    if at not in plain if wanted.get("at") is None else at != wanted["at"]:
        return f"Missing from the code: at: {json.dumps(wanted.get('at'))}"
    return None
