"""`lumina diff`: where two runs part and why, and how the code changed from attempt to attempt."""

import re
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from lumina.cli.app import HomeOption, JsonOption, app, out, print_json, work
from lumina.cli.errors import UsageProblem
from lumina.cli.exits import Exit
from lumina.cli.home import Home
from lumina.cli.telling import Whole, whole
from lumina.replay.diffing.attempts import Attempt
from lumina.replay.diffing.codediffs import CodeDiff, between, between_attempts, between_runs
from lumina.replay.diffing.diffing import Comparison, Named, Side, SlotDifference, compare
from lumina.replay.diffing.facts import FieldDifference
from lumina.replay.words import shorten

FIELDS_MAX: Final = 12
"""Fields shown per slot; --json has them all."""
_ATTEMPT: Final = re.compile(r"^(?P<run>.+)@(?P<step>\d{1,2})\.(?P<attempt>\d{1,2})$")
_DIGEST: Final = re.compile(r"\b[0-9a-f]{64}\b")
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}


class _Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `--json` prints."""

    comparison: Comparison | None = None
    codes: tuple[CodeDiff, ...] = ()


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="Run id (or its beginning), or RUN@STEP.ATTEMPT.")],
    run_b: Annotated[
        str | None, typer.Argument(metavar="[RUN_B]", help="The other one; none: RUN_A's attempts.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that differs, not only the first.")] = False,
    json_lines: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show where two runs first differ in what matters, on both sides, with the causes, and how their code differs.

    With one run, show how the code changed from attempt to attempt. With two attempts (RUN@STEP.ATTEMPT), only theirs.
    Not compared: ids, times, durations, measured memory and speed, which instance was lent.

    Exit codes: 0 nothing that matters differs, 1 something does, 2 the call is wrong.
    """

    async def job(found: Home) -> Exit:
        one, two = _ATTEMPT.match(run_a), None if run_b is None else _ATTEMPT.match(run_b)
        if run_b is None and one is None:
            return await _one_run(found, run=run_a, json_lines=json_lines)
        if run_b is None or (one is None) != (two is None):
            raise UsageProblem("give two attempts, or two runs: lumina diff RUN@1.1 RUN@1.2 | lumina diff RUN_A RUN_B")
        if one is not None and two is not None:
            return await _two_attempts(found, one, two, json_lines=json_lines)
        return await _two_runs(found, run_a, run_b, everything=everything, json_lines=json_lines)

    raise typer.Exit(work(job, home=home))


async def _two_runs(home: Home, run_a: str, run_b: str, *, everything: bool, json_lines: bool) -> Exit:
    a = await whole(home, name=run_a)
    b = await whole(home, name=run_b)
    comparison = compare(a.told, b.told)
    codes = between_runs(a.ladders, b.ladders, blobs={**a.blobs, **b.blobs})
    if json_lines:
        shown = comparison if everything else msgspec.structs.replace(comparison, differing=())
        print_json(msgspec.json.encode(_Result(comparison=shown, codes=codes)))
    else:
        _print_comparison(comparison, everything=everything)
        for code in codes if everything else codes[:1]:
            _print_code(code, console=out())
        if len(codes) > 1 and not everything:
            more = _plural(len(codes) - 1, "more attempt differs", "more attempts differ")
            out().print(Text(f"{more} in code: --all shows the rest", style="dim"))
    return Exit.FAILED if comparison.differs else Exit.OK


async def _one_run(home: Home, *, run: str, json_lines: bool) -> Exit:
    read = await whole(home, name=run)
    codes = between_attempts(read.ladders, blobs=read.blobs)
    if json_lines:
        print_json(msgspec.json.encode(_Result(codes=codes)))
    elif not codes:
        out().print(f"{read.told.run}: no step has two attempts with code, so there is nothing to compare")
    else:
        for code in codes:
            _print_code(code, console=out())
    return Exit.FAILED if any(code.code_a != code.code_b for code in codes) else Exit.OK


async def _two_attempts(home: Home, one: re.Match[str], two: re.Match[str], *, json_lines: bool) -> Exit:
    a = await whole(home, name=one["run"])
    b = a if two["run"] == one["run"] else await whole(home, name=two["run"])
    first, second = _attempt(a, one), _attempt(b, two)
    code = between(int(one["step"]), first, second, blobs={**a.blobs, **b.blobs})
    if json_lines:
        print_json(msgspec.json.encode(_Result(codes=(code,))))
    else:
        _print_code(code, console=out())
    return Exit.FAILED if code.code_a != code.code_b else Exit.OK


def _attempt(read: Whole, named: re.Match[str]) -> Attempt:
    step, number = int(named["step"]), int(named["attempt"])
    story = read.ladders.steps.get(step)
    if story is None:
        raise UsageProblem(f"{read.told.run} has no step {step}; it has {_listed(list(read.ladders.steps))}")
    attempt = story.attempts.get(number)
    if attempt is None:
        raise UsageProblem(
            f"step {step} of {read.told.run} has no attempt {number}; it has {_listed(list(story.attempts))}"
        )
    if attempt.code is None:
        raise UsageProblem(f"attempt {number} of step {step} of {read.told.run} brought no code")
    return attempt


def _plural(count: int, one: str, many: str) -> str:
    """Return a number with its words."""
    return f"{count:,} {one if count == 1 else many}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers)) or "none"


def _print_comparison(comparison: Comparison, *, everything: bool) -> None:
    console = out()
    _print_run("A", comparison.a, console=console)
    _print_run("B", comparison.b, console=console)
    if comparison.asked:
        console.print(Text("asked differently:", style="bold"))
        _print_fields(comparison.asked, console=console, limit=None if everything else FIELDS_MAX)
    if not comparison.differing:
        console.print(Text("nothing else that matters differs" if comparison.asked else "nothing that matters differs"))
    elif everything:
        for number, each in enumerate(comparison.differing, start=1):
            _print_slot(each, title=f"difference {number}", console=console, causes=None if number == 1 else 1)
    else:
        assert comparison.first is not None
        _print_slot(comparison.first, title="first difference", console=console)
        if comparison.result is not None:
            _print_slot(comparison.result, title="first different result", console=console, causes=1)
    counts = (
        f"{_plural(comparison.different, 'record differs', 'records differ')}, {comparison.equal} equal in what matters"
    )
    if comparison.pending:
        counts += f", {comparison.pending} may still come in the open run"
    console.print(Text(counts, style="dim"), soft_wrap=True)


def _print_run(side: str, named: Named, *, console: Console) -> None:
    status = "open" if named.status is None else f"{named.status}: {shorten(named.reason, limit=160)}"
    console.print(Text(f"{side}  {named.run}  {status}", style="bold"), soft_wrap=True)
    console.print(Text(f"   {shorten(named.request, limit=160)}"), soft_wrap=True)
    if named.forks:
        console.print(Text(f"   forks {shorten(named.forks, limit=300)}"), soft_wrap=True)


def _print_slot(each: SlotDifference, *, title: str, console: Console, causes: int | None = None) -> None:
    """Print a slot that differs; of what led to it only the nearest `causes`, None for all."""
    where = (
        "" if each.step is None else f", {'the plan' if each.step == 0 else f'step {each.step} attempt {each.attempt}'}"
    )
    console.print(Text(f"{title}: {each.label}{where}", style="bold yellow"), soft_wrap=True)
    for name, side in (("A", each.a), ("B", each.b)):
        _print_side(name, side, instead=each.instead, console=console, causes=causes)
    _print_fields(each.fields, console=console, limit=FIELDS_MAX)


def _print_side(name: str, side: Side | None, *, instead: str, console: Console, causes: int | None) -> None:
    if side is None:
        there = f"nothing there; it has {instead}" if instead else "nothing there"
        console.print(Text(f"  {name} {shorten(there, limit=300)}"), soft_wrap=True)
        return
    console.print(Text(f"  {name} record {side.seq}: {shorten(side.words, limit=300)}"), soft_wrap=True)
    for cause in side.because[:causes]:
        common = " (in both)" if cause.common else ""
        words = f"because of record {cause.seq}, {cause.agent}: {shorten(cause.words, limit=200)}{common}"
        console.print(Text(f"      {words}", style="dim"), soft_wrap=True)


def _print_fields(fields: tuple[FieldDifference, ...], *, console: Console, limit: int | None) -> None:
    shown = fields if limit is None else fields[:limit]
    for each in shown:
        console.print(Text(f"    {each.field}"), soft_wrap=True)
        console.print(Text(f"      A {_DIGEST.sub(_short, each.a)}", style="red"), soft_wrap=True)
        console.print(Text(f"      B {_DIGEST.sub(_short, each.b)}", style="green"), soft_wrap=True)
    if len(fields) > len(shown):
        more = _plural(len(fields) - len(shown), "more field", "more fields")
        console.print(Text(f"    … {more}: --json has all", style="dim"))


def _short(digest: re.Match[str]) -> str:
    return f"{digest[0][:12]}…"


def _print_code(code: CodeDiff, *, console: Console) -> None:
    if code.between:
        console.print(Text(f"step {code.step}, {code.between}", style="bold"), soft_wrap=True)
        for piece in code.evidence:
            for line in piece.text.splitlines():
                console.print(Text(f"    {line}", style="yellow"), soft_wrap=True)
    title = f"step {code.step}: code of attempt {code.attempt_a} against attempt {code.attempt_b}"
    console.print(Text(title if code.lines else f"{title}: the same", style="bold"))
    for line in code.lines:
        console.print(Text(f"  {line}", style=_COLOURS.get(line[:1], "")), soft_wrap=True)
