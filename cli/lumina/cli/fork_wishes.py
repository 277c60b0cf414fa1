"""What the options of `lumina fork` say, read from their texts."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from lumina.cli.errors import UsageProblem
from lumina.events.run import RunOptions

SEQ_DIGITS_MAX: Final = 15


def _truth(text: str) -> bool:
    if text.lower() in {"true", "yes", "1", "on"}:
        return True
    if text.lower() in {"false", "no", "0", "off"}:
        return False
    raise ValueError(text)


OPTIONS: Final[dict[str, tuple[str, Callable[[str], Any], str]]] = {
    "attempts": ("attempts_max", int, "a whole number from 1 to 99"),
    "tokens": ("tokens_max", int, "a whole number from 0 to 10,000,000"),
    "timeout": ("timeout_ms", lambda text: round(float(text) * 1000), "seconds from 0 to 86,400"),
    "seed": ("seed", int, "a whole number from 0 to 2,147,483,647"),
    "hosts": ("hosts", lambda text: [host.strip() for host in text.split(",") if host.strip()], "up to 32 hosts: a,b"),
    "kind": ("kind", lambda text: text or None, "a specialist's kind (see `lumina specialists`), or nothing"),
    "plan": ("plan", _truth, "yes or no"),
    "cloud": ("cloud", _truth, "yes or no"),
}
"""What `--set` knows: the field of the run's options, how its value is read, and what a value is."""


def run_and_seq(text: str) -> tuple[str, int]:
    """Return the parts of RUN@SEQ. Raises UsageProblem."""
    run, at, seq = text.rpartition("@")
    if not at:
        raise UsageProblem(
            f"say after which record: {text}@SEQ; `lumina show {text} --events` lists the records with their SEQ, "
            f"`lumina replay {text}` steps through them"
        )
    if not run or not (seq.isascii() and seq.isdigit()) or len(seq) > SEQ_DIGITS_MAX:
        raise UsageProblem(f"{text!r} is not RUN@SEQ, for instance r-abc@42, where 42 is a record's place in the log")
    return run, int(seq)


def is_pair(text: str) -> bool:
    """Whether a text is KEY=VALUE."""
    key, _, value = text.partition("=")
    return bool(key and value)


def pair_of(text: str, *, option: str, example: str) -> tuple[str, str]:
    """Return the parts of KEY=VALUE. Raises UsageProblem."""
    if not is_pair(text):
        raise UsageProblem(f"{option} {text!r}: write it as KEY=VALUE, for instance {option} {example}")
    key, _, value = text.partition("=")
    return key, value


def options_of(settings: Sequence[str]) -> dict[str, Any]:
    """Return the fields of the run's options that `--set` names. Raises UsageProblem."""
    found: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or key not in OPTIONS:
            raise UsageProblem(f"--set {text!r}: write KEY=VALUE, where KEY is one of {', '.join(OPTIONS)}")
        field, read, what = OPTIONS[key]
        try:
            found[field] = read(value)
            msgspec.convert({field: found[field]}, RunOptions)
        except (ValueError, OverflowError, msgspec.ValidationError) as error:
            raise UsageProblem(f"--set {key}={value}: give {what}") from error
    return found
