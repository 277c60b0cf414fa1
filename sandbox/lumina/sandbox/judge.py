"""Says whether a run met its contract. Pure, and outside: what is expected never enters the sandbox.

Everything that a program controls (exit code, output, reported lines) is evidence to be compared, never a verdict.
"""

import re
import struct
from typing import Final, assert_never

import msgspec
from msgspec import UNSET

from lumina.events.contract import Case, Form, OutputContract
from lumina.events.execution import Check, ExecutionVerdict
from lumina.sandbox.port import Ended, File, RunResult
from lumina.sandbox.rendering import render, sentence
from lumina.sandbox.reports import ResultLine, export_line, parsed, result_lines, same, timeline_evidence

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
PIXELS_SIDE_MAX: Final = 20_000
OUT_OF_MEMORY_MARKS: Final = (b"MemoryError", b"JavaScript heap out of memory")
_SHOWN: Final = 160
_NAMES_AN_ERROR: Final = re.compile(r"(?:Uncaught )?[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)\b")


def verdict(runs: tuple[RunResult, ...], *, checks: tuple[Check, ...]) -> tuple[ExecutionVerdict, str]:
    """Return what the runs of one program came to, and why when it did not pass."""
    for run in runs:
        stopped = _stopped(run)
        if stopped is not None:
            return stopped
    failed = next((check for check in checks if not check.passed), None)
    if failed is None:
        return ExecutionVerdict.PASSED, ""
    if any(_is_memory_error(run) for run in runs):
        return ExecutionVerdict.OUT_OF_MEMORY, "It asked for more memory than it may use."
    return ExecutionVerdict.FAILED, sentence(f"{failed.name}: {failed.detail}")


def _stopped(run: RunResult) -> tuple[ExecutionVerdict, str] | None:
    """Return the verdict on a run that did not end by itself."""
    match run.ended:
        case Ended.EXITED:
            return None
        case Ended.WALL:
            return ExecutionVerdict.TIMED_OUT, f"It was still running after {run.wall_ms / 1000:.1f} s."
        case Ended.MEMORY:
            return ExecutionVerdict.OUT_OF_MEMORY, "It used more memory than it may."
        case Ended.OUTPUT:
            return ExecutionVerdict.OUTPUT_LIMIT, "It printed more than it may."
        case Ended.PROCESSES:
            return ExecutionVerdict.FAILED, "It started more processes than it may."
        case Ended.FILES:
            return ExecutionVerdict.FAILED, "It made more files than it may."
        case Ended.STOPPED:
            return ExecutionVerdict.UNAVAILABLE, "It was stopped from outside."
        case Ended.BROKEN:
            return ExecutionVerdict.UNAVAILABLE, sentence(run.detail)
        case _:
            assert_never(run.ended)


def _is_memory_error(run: RunResult) -> bool:
    last = run.stderr.rstrip().rsplit(b"\n", 1)[-1]
    return run.exit_code != 0 and (last.startswith(OUT_OF_MEMORY_MARKS[0]) or OUT_OF_MEMORY_MARKS[1] in run.stderr)


def judge(contract: OutputContract, runs: tuple[RunResult, ...]) -> tuple[Check, ...]:
    """Return one check per demand of the contract. `runs` are those that `programs` asked for, in order."""
    first = runs[0]
    match contract.form:
        case Form.FUNCTION:
            return _function(contract, first)
        case Form.ROWS:
            return _exit(first), *_rows(contract, first)
        case Form.FILE:
            return _exit(first), *_file(contract, first)
        case Form.TIMELINE:
            return _timeline(contract, runs)
        case Form.SCRIPT:
            return (_exit(first),)
        case _:
            assert_never(contract.form)


def _exit(run: RunResult) -> Check:
    if run.exit_code == 0:
        return Check(name="exit code", passed=True, detail="0")
    last = _last_words(render(run.stderr))
    detail = f"{run.exit_code}: {last}" if last else str(run.exit_code)
    return Check(name="exit code", passed=False, detail=sentence(detail))


def _last_words(stderr: str) -> str:
    """Return the last line that names an error, else the last line: messages may have several."""
    lines = stderr.rstrip().split("\n")
    return next((line for line in reversed(lines) if _NAMES_AN_ERROR.match(line)), lines[-1])


def _function(contract: OutputContract, run: RunResult) -> tuple[Check, ...]:
    """Compare each turn of each case. Missing, additional, malformed and misplaced lines fail."""
    lines = result_lines(run.results)
    if lines is None:
        return (Check(name="results", passed=False, detail="what the program reported is not what the driver writes"),)
    if lines and lines[0].call == -1:
        return (Check(name="loads", passed=False, detail=sentence(str(lines[0].error))),)
    wanted = [(number, turn) for number, case in enumerate(contract.cases) for turn in range(case.repeat)]
    got = [(line.call, line.turn) for line in lines]
    if got != wanted:
        detail = f"{len(got)} results for {len(wanted)} calls; the program ended or interfered before the end"
        return (Check(name="results", passed=False, detail=detail),)
    by_case: dict[int, list[ResultLine]] = {number: [] for number in range(len(contract.cases))}
    for line in lines:
        by_case[line.call].append(line)
    checks = [_case(contract, number=number, lines=of) for number, of in by_case.items()]
    ended_well = run.exit_code == 0 or not all(check.passed for check in checks)
    return Check(name="loads", passed=ended_well, detail=f"exit code {run.exit_code}"), *checks


def _case(contract: OutputContract, *, number: int, lines: list[ResultLine]) -> Check:
    case = contract.cases[number]
    name = sentence(f"{contract.entry or 'the function'}({_inside(case.arguments)})", limit=_SHOWN)
    shown = ""
    for line in lines:
        if line.error is not UNSET:
            return Check(name=name, passed=False, detail=sentence(str(line.error)))
        if line.value is UNSET:
            return Check(name=name, passed=False, detail="no value was reported")
        text = bytes(line.value).decode("utf-8", "replace")
        shown = sentence(text, limit=_SHOWN)
        if not _permitted(text, case=case):
            wanted = sentence(" or ".join(case.one_of) or "a JSON value", limit=_SHOWN)
            return Check(name=name, passed=False, detail=f"returned {shown}, wanted {wanted}")
    return Check(name=name, passed=True, detail=f"returned {shown}")


def _permitted(text: str, *, case: Case) -> bool:
    try:
        value = parsed(text)
        return not case.one_of or any(same(value, parsed(wanted)) for wanted in case.one_of)
    except (ValueError, RecursionError):
        return False


def _inside(arguments: str) -> str:
    """Return `1, "a"` for `[1, "a"]`."""
    return arguments.strip().removeprefix("[").removesuffix("]")


def _rows(contract: OutputContract, run: RunResult) -> tuple[Check, ...]:
    """Read the last line of the output as the rows."""
    printed = run.stdout.decode("utf-8", "replace").strip()
    last = printed.rsplit("\n", 1)[-1]
    try:
        rows = parsed(last)
    except ValueError:
        detail = f"the last line of the output is not JSON: {last[:_SHOWN]!r}" if last else "it printed nothing"
        return (Check(name="rows", passed=False, detail=sentence(detail)),)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return (Check(name="rows", passed=False, detail="the last line is JSON, but not an array of objects"),)
    count = len(rows)
    fits = count >= 1 and (contract.rows_max == 0 or count <= contract.rows_max)
    wanted = f"1 to {contract.rows_max}" if contract.rows_max else "at least 1"
    checks = [Check(name="rows", passed=fits, detail=f"{count} rows, {wanted} wanted")]
    for field in contract.fields:
        without = sum(1 for row in rows if row.get(field) is None or row[field] == "")
        detail = f"missing or empty in {without} of {count} rows" if without else f"in all {count} rows"
        checks.append(Check(name=sentence(f"field {field}"), passed=without == 0, detail=detail))
    return tuple(checks)


def _file(contract: OutputContract, run: RunResult) -> tuple[Check, ...]:
    """Look for the artifact, and into it when its name says that it is a PNG."""
    if contract.artifact is None:
        detail = f"{len(run.artifacts)} files"
        return (Check(name="a file is written", passed=bool(run.artifacts), detail=detail),)
    found = next((file for file in run.artifacts if file.name == contract.artifact), None)
    name = f"{contract.artifact} is written"
    if found is None:
        others = ", ".join(file.name for file in run.artifacts) or "no file"
        reasons = "; ".join(run.refused[:3])
        detail = sentence(f"it wrote {others}" + (f"; not taken: {reasons}" if reasons else ""))
        return (Check(name=name, passed=False, detail=detail),)
    written = Check(name=name, passed=len(found.content) > 0, detail=f"{len(found.content):,} bytes")
    return (written, _png(found)) if contract.artifact.lower().endswith(".png") else (written,)


def _png(file: File) -> Check:
    size = png_size(file.content)
    name = f"{file.name} is a PNG"
    if size is None:
        return Check(name=name, passed=False, detail="it does not start with the header of a PNG, or is cut off")
    return Check(name=name, passed=True, detail=f"{size[0]} x {size[1]} pixels")


def png_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels of a whole PNG file, None for anything else (W3C PNG, 5.2 and 11.2.2)."""
    if not content.startswith(PNG_MAGIC) or content[8:16] != b"\x00\x00\x00\rIHDR" or b"IDAT" not in content:
        return None
    if content[-8:-4] != b"IEND":
        return None
    width, height = struct.unpack(">II", content[16:24])
    if not (0 < width <= PIXELS_SIDE_MAX and 0 < height <= PIXELS_SIDE_MAX):
        return None
    return width, height


def _timeline(contract: OutputContract, runs: tuple[RunResult, ...]) -> tuple[Check, ...]:
    """Judge the export of the program and what was seen when it was played elsewhere."""
    export = export_line(runs[0].results)
    if export is None or export.timeline is UNSET:
        said = "the program ended before it exported a timeline" if export is None else str(export.error)
        return (Check(name="exports a timeline", passed=False, detail=sentence(said)),)
    exported = Check(name="exports a timeline", passed=True, detail="plain data")
    seen = timeline_evidence(runs[1].results) if len(runs) > 1 else None
    if seen is None:
        said = "GSAP ended before the end of the timeline"
        return exported, Check(name="plays", passed=False, detail=said)
    wrong = (*seen.problems, *seen.warnings)
    if wrong:
        return exported, Check(name="plays", passed=False, detail=sentence("; ".join(wrong)))
    plays = Check(
        name="plays",
        passed=seen.tweens > 0 and seen.seconds > 0,
        detail=f"GSAP {seen.gsap}: {seen.steps} steps, {seen.tweens} tweens, {seen.seconds:g} s"
        + (", repeated for ever" if seen.endless else ""),
    )
    moves = (
        Check(
            name=sentence(f"{target.target} moves"),
            passed=bool(target.moved),
            detail=sentence(", ".join(target.moved) or "no property took a second value"),
        )
        for target in seen.targets[:100]
    )
    known = selectors_named(contract)
    strangers = (
        Check(
            name=sentence(f"{target.target} is named in the request"),
            passed=False,
            detail=sentence(f"the request names {', '.join(known)}"),
        )
        for target in seen.targets[:100]
        if is_stranger(target.target, contract=contract)
    )
    return exported, plays, *moves, *strangers


def selectors_named(contract: OutputContract) -> tuple[str, ...]:
    """Return the texts of the request that are selectors of elements: `#id` and `.class`."""
    return tuple(literal for literal in contract.must_contain if literal[:1] in {"#", "."})


def is_stranger(target: str, *, contract: OutputContract) -> bool:
    """Return whether a timeline moves something else than a request that names its elements as selectors names."""
    if not selectors_named(contract):
        return False
    known = {literal.lstrip("#.") for literal in contract.must_contain}
    return any(part.strip().lstrip("#.") not in known for part in target.split(","))


def missing_literals(code: str, *, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts of the request that do not stand in the code."""
    return tuple(literal for literal in wanted if literal not in code)


def permitted_values_are_json(contract: OutputContract) -> str | None:
    """Return which case of a contract can't be used since it is not JSON, or None."""
    for case in contract.cases:
        for text in (case.arguments, *case.one_of):
            try:
                value = parsed(text)
            except ValueError:
                return sentence(f"{text[:_SHOWN]!r} is not JSON")
            if text is case.arguments and not isinstance(value, list):
                return sentence(f"arguments {text[:_SHOWN]!r} are not a JSON array")
    return None


def as_json(value: object) -> str:
    """Return the JSON text of a value, as cases hold it."""
    return msgspec.json.encode(value).decode()
