"""What a simulation is to play: the machine, the requests, and every fault with its place. Can be written down.

Places are named, not timed, where that is possible: the n-th operation of a process, the n-th call of a model. All
times are milliseconds of virtual time since the simulation began.
"""

from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

Moment = Annotated[int, Meta(ge=0, le=10 * 86_400_000)]
Place = Annotated[int, Meta(ge=1)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="fault"):
    """Something that goes wrong."""


class Crash(Fault, frozen=True, kw_only=True, tag="crash"):
    """A process dies in its n-th operation on the bus, before it had its effect or right after (`landed`)."""

    process: str
    op: Place
    landed: bool = False
    down_ms: Moment = 300


class Kill(Fault, frozen=True, kw_only=True, tag="kill"):
    """A process dies at a moment, whatever it does then."""

    process: str
    at_ms: Moment
    down_ms: Moment = 300


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """A process stands still for a while (SIGSTOP, swapping, a sleeping laptop) and does not know it."""

    process: str
    at_ms: Moment
    for_ms: Moment


class Outage(Fault, frozen=True, kw_only=True, tag="outage"):
    """The bus can't be reached, by one process or by all (empty)."""

    at_ms: Moment
    for_ms: Moment
    process: str = ""


class Store(Enum):
    """What may be full."""

    LOG = "log"
    BLOBS = "blobs"


class Full(Fault, frozen=True, kw_only=True, tag="full"):
    """Nothing can be stored for a while."""

    store: Store
    at_ms: Moment
    for_ms: Moment


class Loss(Enum):
    """What becomes of one operation.

    ACK: it had its effect, and the caller is told that the log is unavailable. REQUEST: it had none, and the caller is
    told the same. CHECKPOINT: it had its effect, and the caller is told that its checkpoint failed.
    """

    ACK = "ack"
    REQUEST = "request"
    CHECKPOINT = "checkpoint"


class Lost(Fault, frozen=True, kw_only=True, tag="lost"):
    """The n-th operation of a process fails."""

    process: str
    op: Place
    loss: Loss


class Slow(Fault, frozen=True, kw_only=True, tag="slow"):
    """The n-th operation of a process takes long; for what it follows, delivery is delayed.

    With `still` the whole process stands still for so long, heartbeats and all.
    """

    process: str
    op: Place
    for_ms: Moment
    still: bool = False


class Redelivered(Fault, frozen=True, kw_only=True, tag="redelivered"):
    """The n-th request that a worker role is handed is handed out once more while somebody works on it."""

    role: str
    request: Place


class Twin(Fault, frozen=True, kw_only=True, tag="twin"):
    """A second keeper of the same name lives for a while beside the first."""

    keeper: str
    at_ms: Moment
    for_ms: Moment


class Jump(Fault, frozen=True, kw_only=True, tag="jump"):
    """The wall clock of the machine is put forward, or back."""

    at_ms: Moment
    by_ms: Annotated[int, Meta(ge=-86_400_000, le=86_400_000)]


class ModelTrouble(Enum):
    """How a model call goes wrong. SILLY: an answer with counts and texts that no server should send."""

    SLOW = "slow"
    HANGS = "hangs"
    GARBAGE = "garbage"
    GONE = "gone"
    DIES = "dies"
    SILLY = "silly"


class Model(Fault, frozen=True, kw_only=True, tag="model"):
    """The n-th call of any model goes wrong."""

    call: Place
    trouble: ModelTrouble


class LoadTrouble(Enum):
    """How a load goes wrong."""

    NO_MEMORY = "no_memory"
    SLOW = "slow"
    HANGS = "hangs"


class Load(Fault, frozen=True, kw_only=True, tag="load"):
    """The n-th load of any model goes wrong."""

    load: Place
    trouble: LoadTrouble


class Unload(Fault, frozen=True, kw_only=True, tag="unload"):
    """The n-th unload does not work for the first `tries`."""

    unload: Place
    tries: Place = 1


class ToolTrouble(Enum):
    """How the tools of a validator or sandbox go wrong. LACKS: this machine lacks something for now (OSError)."""

    BROKEN = "broken"
    SLOW = "slow"
    LACKS = "lacks"
    MISSING = "missing"


class Tool(Fault, frozen=True, kw_only=True, tag="tool"):
    """The n-th piece of work of a role goes wrong."""

    role: str
    work: Place
    trouble: ToolTrouble


class Reconfigured(Fault, frozen=True, kw_only=True, tag="reconfigured"):
    """The governor is stopped and started with another budget."""

    at_ms: Moment
    bytes_max: Annotated[int, Meta(ge=0)]


class Damage(Fault, frozen=True, kw_only=True, tag="damage"):
    """One bit of a stored record changes; which one is `place` of all that stand at that moment, and of its bits."""

    at_ms: Moment
    place: int


AnyFault = (
    Crash
    | Kill
    | Pause
    | Outage
    | Full
    | Lost
    | Slow
    | Redelivered
    | Twin
    | Jump
    | Model
    | Load
    | Unload
    | Tool
    | Reconfigured
    | Damage
)


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The node: its budget, its models by name with their size, and how many workers of each role there are."""

    bytes_max: int
    models: dict[str, int]
    idle_ms: int = 120_000
    pinned: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    slots: int = 1
    specialists: Annotated[int, Meta(ge=1, le=8)] = 1
    validators: Annotated[int, Meta(ge=1, le=8)] = 1
    sandboxes: Annotated[int, Meta(ge=1, le=8)] = 1


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run that a client submits, and perhaps cancels.

    With `fork_of` it is a fork of that run, at the record `fork_place` of those that stand when it is made. With
    `without`, that record and all that descends from it is left out instead.

    `padding` is the size of cases that nobody looks at: of the request's, or of a step that the fork replaces.
    """

    run: str
    at_ms: Moment
    request: str
    models: tuple[str, ...]
    seed: int = 0
    timeout_ms: int = 60_000
    attempts_max: int = 4
    plan: bool = False
    padding: int = 0
    tokens_max: int = 100_000
    cancel_ms: Moment | None = None
    fork_of: str = ""
    fork_place: Annotated[int, Meta(ge=0)] = 0
    without: bool = False


class Script(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One simulation. With `calm`, nothing takes time that need not."""

    seed: int
    scenario: str
    machine: Machine
    jobs: tuple[Job, ...]
    faults: tuple[AnyFault, ...] = ()
    calm: bool = False


def to_json(script: Script) -> bytes:
    """Return a script as indented JSON; defaults are left out."""
    return msgspec.json.format(msgspec.json.encode(script), indent=2)


def from_json(text: bytes) -> Script:
    """Return the script that `text` holds. Raises msgspec.ValidationError or DecodeError."""
    return msgspec.json.decode(text, type=Script)


def from_toml(text: bytes) -> Script:
    """Return the script in a TOML text. Raises msgspec.ValidationError or DecodeError."""
    return msgspec.toml.decode(text, type=Script)


FAULTS: dict[str, type[Fault]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        Crash,
        Kill,
        Pause,
        Outage,
        Full,
        Lost,
        Slow,
        Redelivered,
        Twin,
        Jump,
        Model,
        Load,
        Unload,
        Tool,
        Reconfigured,
        Damage,
    )
}
"""By the names that `--faults` takes."""
