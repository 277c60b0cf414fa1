"""The prompt of a specialist: a Jinja2 template with known slots, rendered in a sandbox, checked by a linter.

Slots of a template: `language`, `libraries`, `output` (constant per specialist), `examples` (each with `request` and
`code`), `brief` (what to do), `contract` (what the answer must be, in words), `files` (names), `feedback` (what was
wrong with an earlier answer). Constant parts should stand first, so that a server can reuse their work.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, Protocol

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

SLOTS: Final = ("language", "libraries", "output", "examples", "brief", "contract", "files", "feedback")
SLOTS_REQUIRED: Final[Mapping[str, str]] = {
    "brief": "what to do",
    "language": "the language",
    "libraries": "which libraries to use or avoid",
    "output": "the output format",
    "contract": "the signature and what else the answer must be",
}
"""Without these a prompt leaves a model to guess (requirements G3)."""


class ExampleLike(Protocol):
    """A request and code that answers it."""

    @property
    def request(self) -> str: ...  # noqa: D102 -- said above

    @property
    def code(self) -> str: ...  # noqa: D102 -- said above


class PromptSource(Protocol):
    """What a specialist's definition gives to its prompt."""

    @property
    def prompt(self) -> str: ...  # noqa: D102 -- see SpecialistDefinition

    @property
    def libraries(self) -> str: ...  # noqa: D102 -- see SpecialistDefinition

    @property
    def output(self) -> str: ...  # noqa: D102 -- see SpecialistDefinition


def template_problems(template: str) -> tuple[str, ...]:
    """Return why a template is refused: bad syntax, unknown slots, or a demand of a good prompt left out."""
    try:
        used = meta.find_undeclared_variables(_environment().parse(template))
    except TemplateSyntaxError as error:
        return (f"line {error.lineno}: {error.message}",)
    unknown = [f"unknown slot {slot!r}; known: {', '.join(SLOTS)}" for slot in sorted(used - set(SLOTS))]
    lacking = [f"lacks {{{{ {slot} }}}}: {why}" for slot, why in SLOTS_REQUIRED.items() if slot not in used]
    return (*unknown, *lacking)


def render_prompt(
    source: PromptSource,
    *,
    language: str,
    brief: str,
    contract: str,
    examples: Sequence[ExampleLike] = (),
    files: Sequence[str] = (),
    feedback: Sequence[str] = (),
) -> str:
    """Return the user message for one request. Pass fewer `examples` when the context is tight."""
    return (
        _compiled(source.prompt)
        .render(
            language=language,
            libraries=source.libraries.strip(),
            output=source.output.strip(),
            examples=tuple(examples),
            brief=brief,
            contract=contract,
            files=tuple(files),
            feedback=tuple(feedback),
        )
        .strip()
    )


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Return an environment whose output depends on nothing but the slots."""
    environment = ImmutableSandboxedEnvironment(
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.pop("random")
    environment.globals.pop("lipsum")
    return environment


@cache
def _compiled(template: str) -> Template:
    return _environment().from_string(template)
