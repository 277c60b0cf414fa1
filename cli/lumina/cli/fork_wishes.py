"""What the options of `lumina fork` say, read from their texts."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from lumina.cli.errors import UsageProblem

SEQ_DIGITS_MAX: Final = 15


def _truth(text: str) -> bool:
    if text.lower() in {"true", "yes", "1", "on"}:
        return True
    if text.lower() in {"false", "no", "0", "off"}:
        return False
    raise ValueError(text)


OPTIONS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "attempts": ("attempts_max", int),
    "tokens": ("tokens_max", int),
    "timeout": ("timeout_ms", lambda text: round(float(text) * 1000)),
    "seed": ("seed", int),
    "hosts": ("hosts", lambda text: [host.strip() for host in text.split(",") if host.strip()]),
    "kind": ("kind", lambda text: text or None),
    "plan": ("plan", _truth),
    "cloud": ("cloud", _truth),
}
"""What `--set` knows: the field of the run's options, and how its value is read."""


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


def pair_of(text: str, *, option: str, example: str) -> tuple[str, str]:
    """Return the parts of KEY=VALUE. Raises UsageProblem."""
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UsageProblem(f"{option} {text!r}: write it as {example}")
    return key, value


def options_of(settings: Sequence[str]) -> dict[str, Any]:
    """Return the fields of the run's options that `--set` names. Raises UsageProblem."""
    found: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or key not in OPTIONS:
            raise UsageProblem(f"--set {text!r}: write KEY=VALUE, where KEY is one of {', '.join(OPTIONS)}")
        field, read = OPTIONS[key]
        try:
            found[field] = read(value)
        except (ValueError, OverflowError) as error:
            raise UsageProblem(f"--set {key}: {value!r} is not a value of it") from error
    return found
