"""A node's configuration: `node.toml`, which the user writes, and what the node offers because of it.

    name = "local"            # optional, as is everything else
    ram = "4GB"               # or "60%" of the memory that is available; default "50%"
    idle_unload_s = 300

    [[models]]                # the user's models come first, in this order; the embedded demo model is always last
    id = "coder"
    path = "~/models/qwen2.5-coder-1.5b-q8_0.gguf"
    context = 8192

    [[models]]
    id = "big"
    url = "http://192.168.1.7:1234/v1"
    model = "qwen2.5-coder-14b"      # its name at the server; default: the id
    api_key = "${BIG_API_KEY}"       # a reference only: secrets stay in the environment
    slots = 4

All that is wrong with a configuration is said at once, each with its path (`models[1].url`).
"""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import psutil
from msgspec import Meta

from lumina.events.codec import encode
from lumina.events.node import Backend, ModelOffer, NodeAnnounced
from lumina.events.values import Name
from lumina.models.errors import BadConfiguration, CorruptModel, UnknownModel
from lumina.models.gguf import Header, read_header
from lumina.models.llama_frames import LlamaSpec
from lumina.models.memory import Serving, context_trained, estimate
from lumina.models.node_words import bytes_of, is_elsewhere, key_problem, url_problem

DEMO_MODEL: Final = "lumina-demo"
DEMO_FILE: Final = Path(__file__).parent / "demo" / "demo.gguf"
CONTEXT_DEFAULT: Final = 4096
UBATCH: Final = 64
"""Tokens per compute graph: with a vocabulary of 152,000, 512 would take 300 MB for logits alone."""
CONFIGURATION_BYTES_MAX: Final = 2**20

_Slots = Annotated[int, Meta(ge=1, le=64)]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One model. Either a file of this machine (`path`) or a server that speaks the OpenAI protocol (`url`).

    Attributes:
        id: Its name in Lumina.
        path: A GGUF file; relative to the folder of `node.toml`.
        url: The base URL, for instance `http://127.0.0.1:8080/v1`.
        model: Its name at the server; the id where not given.
        api_key: `${NAME}` of an environment variable.
        context: Tokens served; for a file at most what it was trained for. Default 4,096.
        gpu_layers: Of a file, put on the GPU; -1 for all.
        threads: Of a file's worker process.
        slots: Calls at once that a server takes. A file's worker process takes one.
        instances_max: Worker processes for a file, as memory allows.
        plans: Good enough to be asked for a plan.
        bare: Takes the plain request, without role line and instructions.
        pinned: Never unloaded.
        cloud: It runs on machines of others, so that it is asked only by runs that permit it. Not given: whether the
            host of `url` lies outside this machine and its own network (`node_words.is_elsewhere`).
    """

    id: Name
    path: Annotated[str, Meta(pattern="^[^\\x00]+$", max_length=4096)] | None = None
    url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    api_key: Annotated[str, Meta(max_length=200)] | None = None
    context: Annotated[int, Meta(ge=256, le=10_000_000)] | None = None
    gpu_layers: Annotated[int, Meta(ge=-1, le=4096)] = 0
    threads: Annotated[int, Meta(ge=1, le=512)] = 1
    slots: _Slots = 1
    instances_max: _Slots = 1
    plans: bool = False
    bare: bool = False
    pinned: bool = False
    cloud: bool | None = None

    @property
    def is_cloud(self) -> bool:
        """Whether it runs on machines of others."""
        return self.cloud if self.cloud is not None else self.url is not None and is_elsewhere(self.url)


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine offers.

    Attributes:
        name: Of the node; the stream in which it is announced.
        ram: Memory for models: an amount (`4GB`, `512MiB`) or a share of what is available (`50%`).
        idle_unload_s: After so long without use a model is unloaded.
        models: The user's, best first, and the demo model.
    """

    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,39}$")] = "local"
    ram: Annotated[str, Meta(max_length=40)] = "50%"
    idle_unload_s: Annotated[int, Meta(ge=0, le=86_400)] = 300
    models: tuple[ModelConfig, ...] = ()

    def find(self, model: str) -> ModelConfig:
        """Return the configuration of a model.

        Raises:
            UnknownModel: There is none of that name.
        """
        for one in self.models:
            if one.id == model:
                return one
        names = ", ".join(one.id for one in self.models)
        raise UnknownModel(f"no model {model} is configured on node {self.name}; its models: {names}")


DEMO: Final = ModelConfig(id=DEMO_MODEL, path=str(DEMO_FILE), context=1024, instances_max=2, plans=True, bare=True)
MODELS_MAX: Final = 199
"""With the demo model as many as an announcement holds."""


def load_config(file: Path, *, environ: Mapping[str, str]) -> NodeConfig:
    """Return the configuration that stands in `file`; without such a file, the demo model and the defaults.

    Raises:
        BadConfiguration: With everything that is wrong with it.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return NodeConfig(models=(DEMO,))
    except OSError as error:
        raise BadConfiguration(file, (f"it can't be read: {error.strerror}",)) from error
    if len(content) > CONFIGURATION_BYTES_MAX:
        raise BadConfiguration(file, (f"it has {len(content):,} bytes; {CONFIGURATION_BYTES_MAX:,} are possible",))
    try:
        raw = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadConfiguration(file, (f"it is no TOML: {error}",)) from error
    return parse_config(raw, file=file, environ=environ)


def parse_config(raw: Mapping[str, Any], *, file: Path, environ: Mapping[str, str]) -> NodeConfig:
    """Return the configuration in `raw`, as TOML's tables; `file` says where paths start and what errors name.

    Raises:
        BadConfiguration: With everything that is wrong with it.
    """
    problems: list[str] = []
    listed = raw.get("models", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        problems.append("models: must be a list of tables, each headed [[models]]")
        listed = []
    if len(listed) > MODELS_MAX:
        problems.append(f"models: {len(listed)} are listed; {MODELS_MAX} are possible")
        listed = []
    models: list[ModelConfig] = []
    for index, table in enumerate(listed):
        where = f"models[{index}]"
        fields = _fields(ModelConfig, table, where=f"{where}.", problems=problems)
        if not fields.keys() >= {"id", "path", "url"} & table.keys() or "id" not in fields:
            continue  # what else is wrong with it depends on these
        model = _absolute(ModelConfig(**fields), folder=file.parent)
        problems += [f"{where}.{problem}" for problem in _model_problems(model, environ=environ)]
        models.append(model)
    problems += _name_problems(listed)
    top = _fields(NodeConfig, {key: raw[key] for key in raw if key != "models"}, where="", problems=problems)
    if bytes_of(top.get("ram", "50%"), available=2**40) is None:
        problems.append(f'ram: {top["ram"]!r} is no amount; write for instance "4GB", "512MiB" or "50%"')
    if problems:
        raise BadConfiguration(file, tuple(problems))
    return NodeConfig(**top, models=(*models, DEMO))


def offer(config: NodeConfig) -> tuple[ModelOffer, ...]:
    """Return what the node offers: the user's models in their order, then the demo model. Reads the headers of files.

    Raises:
        CorruptModel: A model file was changed or removed since the configuration was read.
    """
    return tuple(_offer(model) for model in config.models)


def announcement(config: NodeConfig, *, code: str = "") -> NodeAnnounced:
    """Return the announcement of this machine, with the budget as of now. `code` says which code decides there.

    Raises:
        BadConfiguration: The pinned models together are larger than the budget.
        CorruptModel: A model file can't be used.
    """
    budget = bytes_of(config.ram, available=psutil.virtual_memory().available)
    assert budget is not None, "checked when the configuration was read"
    models = offer(config)
    pinned = sum(one.bytes_estimated for one in models if one.pinned)
    if pinned > budget:
        problem = f"ram: the pinned models need {pinned:,} bytes, the budget is {budget:,}"
        raise BadConfiguration(Path("node.toml"), (problem,))
    return NodeAnnounced(
        node=config.name,
        bytes_max=budget,
        models=models,
        idle_ms=config.idle_unload_s * 1000,
        configuration=digest(config),
        code=code,
    )


def digest(config: NodeConfig) -> str:
    """Return SHA-256 over the configuration and the size and time of change of every model file.

    When it changes, what is resident may be the wrong model. The share of memory that is free is not part of it.

    Raises:
        CorruptModel: A model file was removed since the configuration was read.
    """
    parts = [encode(config)]
    for model in config.models:
        if model.path is not None:
            try:
                found = Path(model.path).stat()
            except OSError as error:
                raise _gone(model.path, error) from error
            parts.append(f"{model.path} {found.st_size} {found.st_mtime_ns}".encode())
    return sha256(b"\n".join(parts)).hexdigest()


def spec_of(model: ModelConfig) -> LlamaSpec:
    """Return how the file of a model is loaded: as its memory was estimated.

    Files are read, not mapped: mapped, 4-bit weights would take up to twice their size (a copy laid out for the CPU).

    Raises:
        CorruptModel: The file was changed or removed since the configuration was read.
    """
    assert model.path is not None, "only for files"
    return LlamaSpec(
        path=model.path,
        context=_context(model, _header(model.path)),
        threads=model.threads,
        gpu_layers=model.gpu_layers,
        ubatch=UBATCH,
        mmap=False,
    )


def api_key(model: ModelConfig, *, environ: Mapping[str, str]) -> str | None:
    """Return the secret that the configuration refers to, None where it refers to none."""
    return None if model.api_key is None else environ[model.api_key[2:-1]]


def _offer(model: ModelConfig) -> ModelOffer:
    if model.path is None:
        return ModelOffer(
            model=model.id,
            backend=Backend.OPENAI,
            bytes_estimated=0,
            context=model.context or CONTEXT_DEFAULT,
            slots=model.slots,
            plans=model.plans,
            bare=model.bare,
            cloud=model.is_cloud,
        )
    header = _header(model.path)
    context = _context(model, header)
    return ModelOffer(
        model=model.id,
        backend=Backend.LLAMA_CPP,
        bytes_estimated=estimate(header, Serving(context=context, ubatch=UBATCH, mmap=False)).total,
        context=context,
        instances_max=model.instances_max,
        plans=model.plans,
        bare=model.bare,
        pinned=model.pinned,
    )


def _header(path: str) -> Header:
    """Return the header of a file that was there when the configuration was read."""
    try:
        return read_header(Path(path))
    except OSError as error:
        raise _gone(path, error) from error


def _gone(path: str, error: OSError) -> CorruptModel:
    return CorruptModel(f"{path} can't be read any more: {error.strerror}; put it back")


def _context(model: ModelConfig, header: Header) -> int:
    trained = context_trained(header)
    return model.context or min(CONTEXT_DEFAULT, trained or CONTEXT_DEFAULT)


def _fields(kind: type[msgspec.Struct], table: Mapping[str, Any], *, where: str, problems: list[str]) -> dict[str, Any]:
    """Return the fields of `kind` that `table` sets, each checked by itself, so that all problems are found."""
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    problems += [f"{where}{key}: unknown; possible are {', '.join(sorted(known))}" for key in table if key not in known]
    found: dict[str, Any] = {}
    for name, field in known.items():
        if name not in table:
            if field.required:
                problems.append(f"{where}{name}: missing")
            continue
        try:
            found[name] = msgspec.convert(table[name], field.type)
        except msgspec.ValidationError as error:
            problems.append(f"{where}{name}: {error}")
    return found


def _absolute(model: ModelConfig, *, folder: Path) -> ModelConfig:
    if model.path is None:
        return model
    path = Path(model.path)
    with suppress(RuntimeError):  # `~nobody`: a path that does not exist, which is said later
        path = path.expanduser()
    return msgspec.structs.replace(model, path=str(folder / path))


def _name_problems(listed: list[dict[str, Any]]) -> list[str]:
    names = [table.get("id") for table in listed]
    problems = [
        f"models[{index}].id: {name!r} is the id of models[{names.index(name)}] too"
        for index, name in enumerate(names)
        if isinstance(name, str) and names.index(name) < index
    ]
    return problems + [
        f"models[{index}].id: {DEMO_MODEL} is the embedded demo model; choose another id"
        for index, name in enumerate(names)
        if name == DEMO_MODEL
    ]


def _model_problems(model: ModelConfig, *, environ: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a model whose fields are well formed, as `field: sentence`."""
    if (model.path is None) == (model.url is None):
        return ["path: give either path, a GGUF file, or url, a server"]
    if model.url is not None:
        problems = [f"{field}: only for a file" for field in _OF_FILES if _given(model, field)]
        found = {"url": url_problem(model.url), "api_key": key_problem(model.api_key, environ=environ)}
        return problems + [f"{field}: {problem}" for field, problem in found.items() if problem]
    problems = [f"{field}: only for a server" for field in _OF_SERVERS if _given(model, field)]
    return problems + _file_problems(model)


def _given(model: ModelConfig, field: str) -> bool:
    return bool(getattr(model, field) != getattr(_PLAIN, field))


_PLAIN: Final = ModelConfig(id="plain")
_OF_FILES: Final = ("gpu_layers", "threads", "instances_max", "pinned")
_OF_SERVERS: Final = ("model", "api_key", "slots", "cloud")


def _file_problems(model: ModelConfig) -> list[str]:
    assert model.path is not None
    path = Path(model.path)
    try:
        header = read_header(path)
        parts = header.values.get("split.count", 1)
        if isinstance(parts, int) and parts > 1:
            return [f"path: {path} is one part of several; merge them with llama-gguf-split --merge"]
        estimate(header, Serving(context=_context(model, header), ubatch=UBATCH, mmap=False))
    except CorruptModel as error:
        return [f"path: {error}"]
    except FileNotFoundError:
        return [f"path: {path} does not exist"]
    except IsADirectoryError:
        return [f"path: {path} is a folder; name the GGUF file in it"]
    except OSError as error:
        return [f"path: {path} can't be read: {error.strerror}"]
    trained = context_trained(header)
    if model.context is not None and trained is not None and model.context > trained:
        return [f"context: {model.context:,} tokens, but the model was trained for {trained:,}"]
    return []
