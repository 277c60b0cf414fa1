"""From a seed to a script: which machine, which requests, and what goes wrong. Pure."""

from collections.abc import Callable, Collection
from typing import Final

from msgspec.structs import replace

from lumina.replay.simulation.draws import Draws
from lumina.replay.simulation.script import (
    FAULTS,
    AnyFault,
    Crash,
    Damage,
    Full,
    Job,
    Jump,
    Kill,
    Load,
    LoadTrouble,
    Loss,
    Lost,
    Machine,
    Model,
    ModelTrouble,
    Outage,
    Pause,
    Reconfigured,
    Redelivered,
    Script,
    Slow,
    Store,
    Tool,
    ToolTrouble,
    Twin,
    Unload,
)

GB: Final = 10**9
MODELS: Final = {"small": 2 * GB, "middle": 5 * GB, "large": 7 * GB}
ONE: Final = "Write a Python function twice(n) that returns n times two. twice(2) returns 4."
TWO: Final = (
    "Write a Python function twice(n) that returns n times two. twice(2) returns 4.\n"
    "Write a Python function again(n) that returns n times two. again(3) returns 6."
)
KEEPERS: Final = ("orchestrator", "governor")
FIRST_MS: Final = 200
BUSY_MS: Final = 12_000
"""Most runs are over by then; faults with a moment strike before."""

SCENARIOS: Final = {
    "standard": "one to three runs on a small machine, up to four faults of any kind",
    "calm": "the same runs, and nothing goes wrong",
    "storm": "the same runs with up to fourteen faults",
    "swap": "three models that do not fit side by side, and runs that climb from one to the next",
    "crowd": "five to eight runs at once",
    "twins": "two keepers of one name, pauses and crashes",
    "zombies": "workers stand still in the middle of their work, and go on when others have taken over",
    "clock": "the wall clock jumps forwards and backwards",
    "fork": "runs are forked from any record, while they go on or after their end, and records are invalidated",
    "damage": "a bit of a stored record changes, and processes are started again",
    "cancel": "runs are cancelled at any moment",
    "large": "requests with cases as large as a record may be",
}


def script_of(seed: int, *, scenario: str = "standard", kinds: Collection[str] | None = None) -> Script:
    """Return the script of a seed. With `kinds`, only faults of these names are drawn.

    Raises:
        KeyError: There is no such scenario.
    """
    draws = Draws(seed)
    assert scenario in SCENARIOS, scenario
    machine = _machine(draws, scenario=scenario)
    jobs = _jobs(draws, scenario=scenario)
    names = [name for name in _kinds(scenario) if kinds is None or name in kinds]
    count = _count(draws, scenario=scenario)
    faults = tuple(
        _fault(draws, number=number, kind=draws.pick("kind", number, of=names), machine=machine)
        for number in range(count if names else 0)
    )
    if scenario == "zombies" and (kinds is None or "slow" in kinds):
        faults = _sleepers(draws, machine=machine)
    if scenario == "damage" and (kinds is None or "damage" in kinds):
        faults = _damages(draws)
    return Script(seed=seed, scenario=scenario, machine=machine, jobs=jobs, faults=faults)


def processes(machine: Machine) -> tuple[str, ...]:
    """Return the names of all processes of a machine."""
    return (
        *KEEPERS,
        *(f"specialist-{number}" for number in range(1, machine.specialists + 1)),
        *(f"validator-{number}" for number in range(1, machine.validators + 1)),
        *(f"sandbox-{number}" for number in range(1, machine.sandboxes + 1)),
    )


def role_of(process: str) -> str:
    """Return `specialist` for `specialist-2`, and `governor` for `governor-twin-1`."""
    return process.split("-", 1)[0]


def _machine(draws: Draws, *, scenario: str) -> Machine:
    zombies = scenario == "zombies"
    tight = scenario == "swap" or zombies or draws.chance("tight", percent=50)
    return Machine(
        bytes_max=8 * GB if tight else 20 * GB,
        models=MODELS,
        idle_ms=3_000 if zombies else draws.pick("idle", of=(3_000, 30_000, 300_000)),
        pinned=("small",) if not tight and draws.chance("pinned", percent=25) else (),
        plans=("small", "middle") if draws.chance("plans", percent=30) else (),
        slots=draws.pick("slots", of=(1, 1, 2)),
        specialists=3 if zombies else draws.pick("specialists", of=(1, 1, 2, 3)),
        validators=draws.pick("validators", of=(1, 1, 2)),
        sandboxes=draws.pick("sandboxes", of=(1, 1, 2)),
    )


def _jobs(draws: Draws, *, scenario: str) -> tuple[Job, ...]:
    low, high = {"crowd": (5, 8), "swap": (2, 4), "zombies": (2, 5), "large": (1, 2)}.get(scenario, (1, 3))
    jobs = tuple(
        _job(draws, number=number, scenario=scenario) for number in range(draws.between("runs", low=low, high=high))
    )
    forks = draws.between("forks", low=1, high=3) if scenario == "fork" else 0
    return jobs + tuple(_fork(draws, number=len(jobs) + number, before=len(jobs) + number) for number in range(forks))


def _fork(draws: Draws, *, number: int, before: int) -> Job:
    run = f"r-{number + 1}"
    return replace(
        _job(draws, number=number, scenario="fork"),
        at_ms=FIRST_MS + draws.between(run, "at", low=1_000, high=25_000),
        fork_of=f"r-{draws.between(run, 'parent', low=1, high=before)}",
        fork_place=draws.between(run, "place", low=0, high=1_000),
        without=draws.chance(run, "without", percent=30),
        cancel_ms=None,
        padding=draws.between(run, "padding", low=1_042_000, high=1_046_500)
        if draws.chance(run, "padded", percent=20)
        else 0,
    )


def _job(draws: Draws, *, number: int, scenario: str) -> Job:
    run = f"r-{number + 1}"
    ladders = (("small",), ("small", "middle"), ("middle",), ("small", "middle", "large"), ("large", "small"))
    cancelled = draws.chance(run, "cancelled", percent=90 if scenario == "cancel" else 8)
    at_ms = FIRST_MS + draws.between(run, "at", low=0, high=4_000)
    return Job(
        run=run,
        at_ms=at_ms,
        request=ONE if scenario == "large" else draws.pick(run, "request", of=(ONE, ONE, ONE, TWO)),
        models=draws.pick(run, "models", of=ladders[1:] if scenario in {"swap", "zombies"} else ladders),
        seed=draws.between(run, "seed", low=0, high=2**31 - 1),
        timeout_ms=draws.pick(run, "timeout", of=(20_000, 60_000, 60_000, 300_000)),
        attempts_max=draws.pick(run, "attempts", of=(1, 3, 4, 6)),
        plan=draws.chance(run, "plan", percent=50),
        tokens_max=draws.pick(run, "tokens", of=(100_000, 100_000, 100_000, 120, 40)),
        padding=draws.between(run, "padding", low=1_043_900, high=1_045_300) if scenario == "large" else 0,
        cancel_ms=at_ms + draws.between(run, "cancel", low=1, high=9_000) if cancelled else None,
    )


def _kinds(scenario: str) -> tuple[str, ...]:
    match scenario:
        case "calm":
            return ()
        case "twins":
            return ("twin", "pause", "crash", "slow", "lost")
        case "clock":
            return ("jump", "crash", "twin", "tool", "model")
        case _:
            return tuple(name for name in FAULTS if name != "damage")


def _count(draws: Draws, *, scenario: str) -> int:
    low, high = {"storm": (6, 14), "calm": (0, 0), "twins": (2, 6), "clock": (1, 5)}.get(scenario, (0, 4))
    return draws.between("faults", low=low, high=high)


def _damages(draws: Draws) -> tuple[AnyFault, ...]:
    """Return one damaged record, and starts of processes that have to read past it."""
    at_ms = FIRST_MS + draws.between("damage", "at", low=500, high=6_000)
    kills = tuple(
        Kill(process=keeper, at_ms=at_ms + draws.between("damage", keeper, low=1, high=3_000)) for keeper in KEEPERS
    )
    return (Damage(at_ms=at_ms, place=draws.between("damage", "place", low=0, high=2**40)), *kills)


def _sleepers(draws: Draws, *, machine: Machine) -> tuple[AnyFault, ...]:
    """Return operations of workers that take longer than the ack wait, so that others take over."""
    workers = processes(machine)[len(KEEPERS) :]
    return tuple(
        Slow(
            process=draws.pick("sleeper", number, of=workers),
            op=draws.between("sleeper", number, "op", low=1, high=30),
            for_ms=draws.between("sleeper", number, "for", low=6_500, high=40_000),
            still=True,
        )
        for number in range(draws.between("sleepers", low=2, high=6))
    )


def _fault(draws: Draws, *, number: int, kind: str, machine: Machine) -> AnyFault:
    return _MAKERS[kind](_Place(draws, number=number, machine=machine))


class _Place:
    """Where and when the `number`-th fault of a script strikes."""

    def __init__(self, draws: Draws, *, number: int, machine: Machine) -> None:
        self._draws = draws
        self._number = number
        self.names = processes(machine)

    def pick(self, *key: str, of: tuple[str, ...]) -> str:
        return self._draws.pick("fault", self._number, *key, of=of)

    def number(self, *key: str, low: int, high: int) -> int:
        return self._draws.between("fault", self._number, *key, low=low, high=high)

    @property
    def process(self) -> str:
        return self.pick("process", of=self.names)

    @property
    def op(self) -> int:
        return (
            1 + self._draws.long_tail("fault", self._number, "op", low=0, high=160) + self.number("op", low=0, high=24)
        )

    @property
    def at_ms(self) -> int:
        return self.number("at", low=0, high=BUSY_MS)

    @property
    def for_ms(self) -> int:
        return self._draws.long_tail("fault", self._number, "for", low=200, high=90_000)

    @property
    def down_ms(self) -> int:
        return self._draws.long_tail("fault", self._number, "down", low=100, high=30_000)


_Maker = Callable[[_Place], AnyFault]
_ROLES: Final = ("validator", "sandbox")
_MAKERS: Final[dict[str, _Maker]] = {
    "crash": lambda p: Crash(
        process=p.process, op=p.op, landed=p.number("landed", low=0, high=1) == 1, down_ms=p.down_ms
    ),
    "kill": lambda p: Kill(process=p.process, at_ms=p.at_ms, down_ms=p.down_ms),
    "pause": lambda p: Pause(process=p.process, at_ms=p.at_ms, for_ms=p.for_ms),
    "outage": lambda p: Outage(at_ms=p.at_ms, for_ms=p.for_ms, process=p.pick("whom", of=("", "", *p.names))),
    "full": lambda p: Full(store=Store(p.pick("store", of=("log", "blobs"))), at_ms=p.at_ms, for_ms=p.for_ms),
    "lost": lambda p: Lost(
        process=p.process, op=p.op, loss=Loss(p.pick("loss", of=("ack", "ack", "request", "checkpoint")))
    ),
    "slow": lambda p: Slow(process=p.process, op=p.op, for_ms=p.for_ms, still=p.number("still", low=0, high=1) == 1),
    "redelivered": lambda p: Redelivered(
        role=p.pick("role", of=("specialist", *_ROLES)), request=p.number("request", low=1, high=6)
    ),
    "twin": lambda p: Twin(keeper=p.pick("keeper", of=KEEPERS), at_ms=p.at_ms, for_ms=p.for_ms),
    "jump": lambda p: Jump(
        at_ms=p.at_ms, by_ms=p.number("by", low=1, high=600_000) * (1 if p.number("way", low=0, high=1) else -1)
    ),
    "model": lambda p: Model(
        call=p.number("call", low=1, high=8),
        trouble=ModelTrouble(p.pick("trouble", of=tuple(each.value for each in ModelTrouble))),
    ),
    "load": lambda p: Load(
        load=p.number("load", low=1, high=4),
        trouble=LoadTrouble(p.pick("trouble", of=tuple(each.value for each in LoadTrouble))),
    ),
    "unload": lambda p: Unload(unload=p.number("unload", low=1, high=3), tries=p.number("tries", low=1, high=6)),
    "tool": lambda p: Tool(
        role=p.pick("role", of=_ROLES),
        work=p.number("work", low=1, high=5),
        trouble=ToolTrouble(p.pick("trouble", of=tuple(each.value for each in ToolTrouble))),
    ),
    "reconfigured": lambda p: Reconfigured(at_ms=p.at_ms, bytes_max=p.number("bytes", low=1, high=12) * GB),
    "damage": lambda p: Damage(at_ms=p.at_ms, place=p.number("place", low=0, high=2**40)),
}
