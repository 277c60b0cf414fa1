"""Specialists are data: one TOML file says what one of them writes, how it is asked and who checks it.

This file reads such a file's bytes; `specialist_folders.py` finds the files, `prompt_templates.py` fills the prompt.
All that is wrong with a file is said at once, each with the exact path of the field.
"""

import tomllib
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from lumina.agents.errors import SpecialistInvalid
from lumina.agents.prompt_templates import template_problems
from lumina.events.contract import Form, Language, Limits
from lumina.events.run import SpecialistRef
from lumina.events.values import BlobRef, Name, Sentence, Value

FILE_BYTES_MAX: Final = 200_000
EXAMPLES_MAX: Final = 8
DEFINITIONS_KEPT_MAX: Final = 64
"""Parsed files are remembered: parsing one takes longer than all else that `verify` does for a model call."""
MEDIA_TYPE: Final = "application/toml"

VALIDATORS: Final[dict[Language, tuple[str, ...]]] = {
    Language.PYTHON: ("compile", "ruff", "pylint"),
    Language.JAVASCRIPT: ("eslint",),
}
"""The tools that can read each language."""

Instructions = Annotated[str, Meta(min_length=20, max_length=4_000)]


class Risk(Enum):
    """What code of this kind could do if it were not boxed in. Decides which tier is the least allowed.

    COMPUTE: it calculates. FILES: it reads and writes pictures and the like. NETWORK: it reads pages of strangers.
    """

    COMPUTE = "compute"
    FILES = "files"
    NETWORK = "network"


class Example(Value, frozen=True, kw_only=True):
    """A request and code that answers it, shown to the model before the real request."""

    request: Annotated[str, Meta(min_length=1, max_length=2_000)]
    code: Annotated[str, Meta(min_length=1, max_length=8_000)]


class SpecialistDefinition(Value, frozen=True, kw_only=True):
    """The content of one specialist's file.

    Attributes:
        name: Unique among the specialists; the stem of the file's name.
        kind: The kind of step that it answers.
        title: What it does, in one line for people.
        language: Of the code that it writes.
        form: How that code is run and what counts as its result.
        role: The role line: the system message, the same for every request.
        libraries: Which libraries to use and which to avoid.
        output: The exact form of the answer.
        prompt: Jinja2 template of the user message; see `prompt_templates.py` for its slots.
        examples: Shown in this order; left out first when the context is tight.
        tools: Validators that read its code.
        tier: The sandbox that its risk class requires.
        risk: The class.
        keywords: Words of a request that speak for it; `gsap^5` counts five times as much as `gsap`.
        models: Preferred models, best first.
        limits: What its programs may use.
    """

    name: Name
    kind: Name
    title: Annotated[str, Meta(min_length=1, max_length=120)]
    language: Language
    form: Form
    role: Instructions
    libraries: Instructions
    output: Instructions
    prompt: Annotated[str, Meta(min_length=20, max_length=20_000)]
    tools: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=16)]
    tier: Name
    risk: Risk
    keywords: Annotated[tuple[Sentence, ...], Meta(min_length=1, max_length=100)]
    examples: Annotated[tuple[Example, ...], Meta(max_length=EXAMPLES_MAX)] = ()
    models: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    limits: Limits = Limits()


@lru_cache(maxsize=DEFINITIONS_KEPT_MAX)
def parse_definition(text: bytes, *, name: str) -> SpecialistDefinition:
    """Return the specialist that `text`, the TOML file `name`.toml, describes.

    Raises:
        SpecialistInvalid: With everything that is wrong, each problem with its path.
    """
    if len(text) > FILE_BYTES_MAX:
        raise SpecialistInvalid(name, problems=(f"the file has {len(text):,} bytes, at most {FILE_BYTES_MAX:,} fit",))
    try:
        fields = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecialistInvalid(name, problems=(f"this is not TOML: {error}",)) from error
    problems = _struct_problems(fields, kind=SpecialistDefinition, path="")
    problems += _agreement_problems(fields, name=name)
    if isinstance(template := fields.get("prompt"), str):
        problems += tuple(f"prompt: {problem}" for problem in template_problems(template))
    if problems:
        raise SpecialistInvalid(name, problems=problems)
    return msgspec.convert(fields, SpecialistDefinition)


def to_ref(definition: SpecialistDefinition, *, blob: BlobRef) -> SpecialistRef:
    """Return what a run remembers of a specialist; `blob` is where the file's bytes are kept."""
    return SpecialistRef(
        name=definition.name,
        kind=definition.kind,
        definition=blob,
        language=definition.language,
        form=definition.form,
        tier=definition.tier,
        keywords=definition.keywords,
        tools=definition.tools,
        models=definition.models,
        limits=definition.limits,
    )


def _agreement_problems(fields: dict[str, Any], *, name: str) -> tuple[str, ...]:
    """Return what is wrong between fields that are right each for itself."""
    problems: list[str] = []
    if isinstance(said := fields.get("name"), str) and said != name:
        problems.append(f"name: {said!r} differs from the name of the file, {name!r}")
    language = fields.get("language")
    known = next((tools for key, tools in VALIDATORS.items() if key.value == language), None)
    tools = fields.get("tools")
    if known is not None and isinstance(tools, list):
        problems += [
            f"tools[{index}]: {tool!r} does not read {language}; known: {', '.join(known)}"
            for index, tool in enumerate(tools)
            if tool not in known
        ]
    return tuple(problems)


def _struct_problems(fields: object, *, kind: type[msgspec.Struct], path: str) -> tuple[str, ...]:
    """Return every problem of a table, not only the first as `msgspec.convert` would."""
    if not isinstance(fields, dict):
        return (f"{path}: expected a table, got {type(fields).__name__}",)
    hints = get_type_hints(kind, include_extras=True)
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    here = f"{path}." if path else ""
    problems = [
        f"{here}{key}: unknown field; known: {', '.join(sorted(known))}" for key in sorted(fields.keys() - known.keys())
    ]
    for key, field in known.items():
        if key in fields:
            problems += _value_problems(fields[key], kind=hints[key], path=here + key)
        elif field.required:
            problems.append(f"{here}{key}: missing")
    return tuple(problems)


def _value_problems(value: object, *, kind: Any, path: str) -> tuple[str, ...]:
    """Return every problem of one value; structs and lists of structs are looked into."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_problems(value, kind=kind, path=path)
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    inner = get_args(bare)[0] if get_origin(bare) is tuple else None
    problems: tuple[str, ...] = ()
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, list):
        for index, item in enumerate(value):
            problems += _struct_problems(item, kind=inner, path=f"{path}[{index}]")
    if problems:
        return problems
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        return (f"{path}{at.removesuffix('`')}: {message}",)
    return ()
