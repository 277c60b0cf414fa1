"""`lumina simulate`: plays many seeds of the simulation, and makes a failing one small."""

import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.text import Text

from lumina.cli.app import JsonOption, app, err, out, print_json
from lumina.cli.errors import UsageProblem
from lumina.cli.exits import Exit
from lumina.replay.simulation.running import Outcome, simulate
from lumina.replay.simulation.scenarios import SCENARIOS, script_of
from lumina.replay.simulation.script import FAULTS, Script, from_json, from_toml, to_json
from lumina.replay.simulation.shrinking import shrink
from lumina.replay.simulation.world import Failure

DEFAULT_SEEDS: Final = 100
SHOWN_MAX: Final = 5
PROGRESS_S: Final = 1.0
SEED_MAX: Final = 2**53


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """One seed and what came of it. `script` is the smallest that fails in the same way; None when all is well."""

    seed: int
    outcome: Outcome
    script: Script | None = None
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a worker process is told about its seeds."""

    scenario: str
    kinds: tuple[str, ...] | None


@dataclass(kw_only=True)
class Tally:
    """What was found so far, of `asked` seeds."""

    asked: int
    seeds: int = 0
    interrupted: bool = False
    records: int = 0
    virtual_ms: int = 0
    restarts: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failed: list[Played] = field(default_factory=list)

    def add(self, played: Played) -> None:
        """Count one seed."""
        self.seeds += 1
        self.records += played.outcome.records
        self.virtual_ms += played.outcome.virtual_ms
        self.restarts += played.outcome.restarts
        self.statuses.update(played.outcome.statuses.values())
        if played.outcome.failures:
            self.failed.append(played)


@app.command(name="simulate")
def simulate_command(
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, max=10_000_000, help="How many seeds to play (100).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=SEED_MAX, help="The first seed; alone it is the only one.")
    ] = None,
    faults: Annotated[
        str, typer.Option("--faults", metavar="LIST|none|all", help=f"Kinds of faults: {', '.join(FAULTS)}.")
    ] = "all",
    scenario: Annotated[
        str, typer.Option("--scenario", help="; ".join(f"{name}: {words}" for name, words in SCENARIOS.items()))
    ] = "standard",
    script: Annotated[Path | None, typer.Option("--script", help="Play this script (.json or .toml) instead.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes that play.")] = 2,
    json_lines: JsonOption = False,
) -> None:
    """Play production agents and runners against faults on a virtual clock; find what breaks, and make it small.

    The same seed gives the same history on every machine. Exit codes: 0 all is well, 1 a seed failed, 130 interrupted.
    """
    try:
        orders = Orders(scenario=_known_scenario(scenario), kinds=_kinds(faults))
        if script is not None:
            played = iter([_play_script(_read(script), command=f"lumina simulate --script {script}")])
            count = 1
        else:
            count = seeds if seeds is not None else DEFAULT_SEEDS if seed is None else 1
            first = 1 if seed is None else seed
            played = _play_many(range(first, first + count), orders=orders, workers=min(workers, count))
        tally = _tallied(played, quiet=json_lines, total=count)
    except UsageProblem as error:
        err().print(f"lumina: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(error.code) from error
    raise typer.Exit(_report(tally, json_lines=json_lines))


def _known_scenario(name: str) -> str:
    if name not in SCENARIOS:
        raise UsageProblem(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return name


def _kinds(text: str) -> tuple[str, ...] | None:
    if text == "all":
        return None
    if text == "none":
        return ()
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise UsageProblem(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}, none and all")
    return names


def _read(path: Path) -> Script:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from error
    try:
        return from_toml(content) if path.suffix == ".toml" else from_json(content)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageProblem(f"{path} is no script of a simulation: {error}") from error


def _play_many(numbers: range, *, orders: Orders, workers: int) -> Iterator[Played]:
    """Yield what comes of the seeds, in whatever order they are done."""
    if workers == 1:
        for number in numbers:
            yield _play((number, orders))
        return
    spawned = multiprocessing.get_context("spawn")  # a fork would inherit threads and signal dispositions
    with _interrupts_ignored():  # the processes inherit it: Ctrl-C is for this one, which ends them
        pool = spawned.Pool(workers)
    with pool:
        yield from _results(pool, numbers, orders)


def _results(pool: Pool, numbers: range, orders: Orders) -> Iterator[Played]:
    chunk = max(1, min(10, len(numbers) // 8))
    yield from pool.imap_unordered(_play, ((number, orders) for number in numbers), chunksize=chunk)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _play(task: tuple[int, Orders]) -> Played:
    number, orders = task
    script = script_of(number, scenario=orders.scenario, kinds=orders.kinds)
    command = f"lumina simulate --seed {number}"
    command += "" if orders.scenario == "standard" else f" --scenario {orders.scenario}"
    if orders.kinds is not None:
        command += f" --faults {','.join(orders.kinds) or 'none'}"
    return _play_script(script, command=command)


def _play_script(script: Script, *, command: str) -> Played:
    outcome = simulate(script)
    if not outcome.failures:
        return Played(seed=script.seed, outcome=outcome)
    kind = outcome.failures[0].kind
    small = shrink(script, fails=lambda each: kind in {failure.kind for failure in simulate(each).failures})
    return Played(seed=script.seed, outcome=outcome, script=small, command=command)


def _tallied(played: Iterator[Played], *, quiet: bool, total: int) -> Tally:
    """Count as they come, with a line of progress on standard error. Ctrl-C keeps what was found so far."""
    tally = Tally(asked=total)
    began = told = time.monotonic()
    try:
        for each in played:
            tally.add(each)
            now = time.monotonic()
            if not quiet and now - told >= PROGRESS_S and sys.stderr.isatty():
                told = now
                rate = tally.seeds / (now - began)
                sys.stderr.write(f"\r{tally.seeds} of {total} seeds, {len(tally.failed)} failed, {rate:.1f} seeds/s ")
                sys.stderr.flush()
    except KeyboardInterrupt:
        tally.interrupted = True
    if not quiet:
        took_s = max(time.monotonic() - began, 0.001)
        sys.stderr.write(f"\r{tally.seeds} of {total} seeds in {took_s:.1f} s: {tally.seeds / took_s:.1f} seeds/s\n")
    return tally


def _report(tally: Tally, *, json_lines: bool) -> Exit:
    if json_lines:
        print_json(
            msgspec.json.encode(
                {
                    "asked": tally.asked,
                    "interrupted": tally.interrupted,
                    "seeds": tally.seeds,
                    "records": tally.records,
                    "virtual_ms": tally.virtual_ms,
                    "restarts": tally.restarts,
                    "statuses": dict(sorted(tally.statuses.items())),
                    "failed": sorted(tally.failed, key=lambda each: each.seed),
                }
            )
        )
        return _code(tally)
    ends = ", ".join(f"{name} {count}" for name, count in sorted(tally.statuses.items()))
    hours = tally.virtual_ms / 3_600_000
    counts = f"{tally.seeds} seed{'s' * (tally.seeds != 1)}, {tally.records} records"
    summary = f"{counts}, {hours:.1f} hours of virtual time, {tally.restarts} restarts"
    out().print(Text(f"simulate: {summary}; runs: {ends or 'none'}"), soft_wrap=True)
    for played in sorted(tally.failed, key=lambda each: each.seed)[:SHOWN_MAX]:
        _show(played)
    if tally.failed:
        out().print(
            Text(f"simulate: {len(tally.failed)} of {tally.seeds} seed{'s' * (tally.seeds != 1)} failed", style="red")
        )
    elif tally.seeds:
        histories = f"each of the {tally.seeds} histories" if tally.interrupted else "every history"
        out().print(Text(f"simulate: {histories} kept every law", style="green"))
    if tally.interrupted:
        said = f"simulate: interrupted: {tally.seeds} of {tally.asked} seeds were played"
        out().print(Text(said, style="yellow"), soft_wrap=True)
    return _code(tally)


def _code(tally: Tally) -> Exit:
    if tally.interrupted:
        return Exit.INTERRUPTED
    return Exit.FAILED if tally.failed else Exit.OK


def _show(played: Played) -> None:
    """Print what broke, the one command that shows it again, and the smallest script that does."""
    out().print(Text(f"seed {played.seed} fails", style="red"))
    for failure in played.outcome.failures[:SHOWN_MAX]:
        out().print(Text(f"  {_words(failure)}"), soft_wrap=True)
    out().print(Text(f"  again:  {played.command}"), soft_wrap=True)
    if played.script is not None:
        out().print(Text("  the smallest script that fails in this way (save it, and play it with --script):"))
        out().print(Text(to_json(played.script).decode()), soft_wrap=True)


def _words(failure: Failure) -> str:
    return f"at {failure.at_ms / 1000:.3f} s, after record {failure.seq}: {failure.kind}: {failure.reason}"
