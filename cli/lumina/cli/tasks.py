"""What a user asks for, checked: the request, its options, files and cases, from the command line or a task file."""

import json
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from lumina.cli.errors import UsageProblem
from lumina.events.contract import Case
from lumina.events.values import FILE_BYTES_MAX, REQUEST_CHARACTERS_MAX

FILES_MAX = 64


class TaskCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[tests]]` of a task file: `arguments = [1, 2]`, `expect = 3` or `one_of = ["a", "b"]`, `repeat = 5`."""

    arguments: list[object]
    expect: object | msgspec.UnsetType = msgspec.UNSET
    one_of: list[object] = []
    repeat: Annotated[int, Meta(ge=1, le=100)] = 1


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--file task.toml` may hold; every option of `lumina run` that shapes the run has its key here.

    Attributes:
        request: What to do.
        kind: Insist on a kind of specialist.
        models: Model ids in order of preference; empty for all that the node offers.
        files: Paths, relative to the task file, put beside the program.
        allow_hosts: `host` or `host:port` whose pages may be fetched.
        allow_cloud: Whether models that run on machines of others may be asked.
        tests: Calls that the result must satisfy.
        timeout_s: For the whole run.
        attempts_max: Per step.
        tokens_max: Generated tokens for the whole run.
        seed: For all sampling.
        plan: Whether a model may be asked for a plan.
    """

    request: str
    kind: str | None = None
    models: list[str] = []
    files: list[str] = []
    allow_hosts: list[str] = []
    allow_cloud: bool = False
    tests: list[TaskCase] = []
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    attempts_max: Annotated[int, Meta(ge=1, le=99)] = 8
    tokens_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    plan: bool = True


def read_task(path: Path) -> Task:
    """Return the task of a TOML file.

    Raises:
        UsageProblem: The file is not there, is not TOML, or a key is wrong; the message names it.
    """
    try:
        fields = tomllib.loads(path.read_text())
        return msgspec.convert(fields, Task)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path}: can't be read: {error}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageProblem(f"{path}: {error}") from error


def check_request(request: str) -> str:
    """Return the request without surrounding white space.

    Raises:
        UsageProblem: It is empty or too long.
    """
    request = request.strip()
    if not request:
        raise UsageProblem(
            'the request is empty; say what to do, for instance: lumina run "..."; see `lumina examples`'
        )
    if len(request) > REQUEST_CHARACTERS_MAX:
        raise UsageProblem(
            f"the request has {len(request):,} characters, {REQUEST_CHARACTERS_MAX:,} are allowed; "
            "put long material into files with --with FILE"
        )
    return request


def cases_of(task: Task) -> tuple[Case, ...]:
    """Return the cases of a task as the contract wants them: JSON texts."""
    return tuple(
        Case(
            arguments=json.dumps(test.arguments),
            one_of=tuple(
                json.dumps(value)
                for value in (test.one_of if test.expect is msgspec.UNSET else [test.expect, *test.one_of])
            ),
            repeat=test.repeat,
        )
        for test in task.tests
    )


def read_files(names: list[str], *, base: Path) -> dict[str, bytes]:
    """Return the files to put beside the program, by name.

    Raises:
        UsageProblem: A file is not there, too large, or two have one name.
    """
    if len(names) > FILES_MAX:
        raise UsageProblem(f"{len(names)} files are too many; {FILES_MAX} are allowed")
    found: dict[str, bytes] = {}
    for name in names:
        path = base / name
        if path.name in found:
            raise UsageProblem(f"{path}: a second file is called {path.name}; files lie side by side, rename one")
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise UsageProblem(f"{path}: larger than {FILE_BYTES_MAX // 2**20} MiB")
            found[path.name] = path.read_bytes()
        except OSError as error:
            raise UsageProblem(f"{path}: can't be read: {error.strerror}") from error
    return found


def hosts_typed(request: str) -> tuple[str, ...]:
    """Return the public hosts of the URLs that the user typed; naming a page is the permission to fetch it.

    Names without a dot and address literals (this machine, its network, cloud metadata) need `--allow-host`.
    """
    hosts: list[str] = []
    for word in request.split():
        start = word.find("http")
        if start < 0 or "://" not in word:
            continue
        try:
            parts = urlsplit(word[start:].rstrip("'\"`.,;:!?)]}>"))
            host, port = parts.hostname, parts.port
        except ValueError:
            continue  # not a URL after all; the planner says so if it needs one
        if host is None or "." not in host or ":" in host or host.replace(".", "").isdigit() or host.endswith(".local"):
            continue
        hosts.append(f"{host}:{port}" if port else host)
    return tuple(dict.fromkeys(hosts))
