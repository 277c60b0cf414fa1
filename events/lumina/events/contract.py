"""What the code of a step has to be: language, shape, names, cases that it must satisfy, and what it may use."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from lumina.events.values import Bytes, DurationMs, FileName, Identifier, Sentence, Text, Value


class Language(Enum):
    """The languages that Lumina can validate and execute."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"


class Form(Enum):
    """How a program is run and what counts as its result.

    FUNCTION: it defines `entry`; a driver calls it with each case. ROWS: a script that prints one JSON array of
    objects. FILE: a script that writes `artifact`. TIMELINE: a CommonJS module that exports `timeline`, a GSAP
    configuration, which a driver plays. SCRIPT: it exits with 0.
    """

    FUNCTION = "function"
    ROWS = "rows"
    FILE = "file"
    TIMELINE = "timeline"
    SCRIPT = "script"


class Case(Value, frozen=True, kw_only=True):
    """One call and what it must return. Only the arguments enter the sandbox.

    Attributes:
        arguments: JSON array of the positional arguments.
        one_of: JSON texts of the permitted results; empty when any result that is valid JSON will do.
        repeat: How often the call is made, for functions that draw lots.
    """

    arguments: Text
    one_of: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    repeat: Annotated[int, Meta(ge=1, le=100)] = 1


class OutputContract(Value, frozen=True, kw_only=True):
    """What an answer must be to count. All of it is checked outside the program under test.

    Attributes:
        language: Of the code.
        form: How it is run.
        entry: The function's name, for FUNCTION.
        parameters: Names of its parameters; empty when the request did not say.
        must_contain: Texts that must stand in the code, taken literally from the request.
        cases: Calls with permitted results, for FUNCTION.
        fields: Keys that every row has, for ROWS; empty when the request did not say.
        rows_max: The limit that the request named, for ROWS; 0 for none.
        artifact: The file that must exist afterwards, for FILE.
    """

    language: Language
    form: Form
    entry: Identifier | None = None
    parameters: Annotated[tuple[Identifier, ...], Meta(max_length=16)] = ()
    must_contain: Annotated[tuple[Sentence, ...], Meta(max_length=32)] = ()
    cases: Annotated[tuple[Case, ...], Meta(max_length=64)] = ()
    fields: Annotated[tuple[Sentence, ...], Meta(max_length=16)] = ()
    rows_max: Annotated[int, Meta(ge=0, le=10_000)] = 0
    artifact: FileName | None = None


class Limits(Value, frozen=True, kw_only=True):
    """What a program may use. Each has a test that reaches it."""

    wall_ms: DurationMs = 10_000
    memory_bytes_max: Bytes = 512 * 2**20
    output_bytes_max: Bytes = 2**20
    file_bytes_max: Bytes = 16 * 2**20
    files_max: Annotated[int, Meta(ge=0, le=256)] = 32
    processes_max: Annotated[int, Meta(ge=1, le=256)] = 64
