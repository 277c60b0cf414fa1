"""What a generator of the demo corpus hands over: one request with its answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KINDS: Final = ("animation", "scraper", "game", "dialogue", "layers", "function")
"""The kinds of task that the demo model knows; also the names of its plan steps."""

PYTHON_KINDS: Final = ("scraper", "dialogue", "layers", "function")
"""The kinds answered in Python; the others are answered in JavaScript."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One request, the code that answers it, and how to check other answers.

    Attributes:
        kind: One of `KINDS`.
        request: What a user might write; at most about 600 characters.
        code: The reference answer, ending in exactly one newline.
        key: The combination of options behind it; keys are held out whole.
        held_wording: Whether the wording belongs to a family kept for evaluation.
        spec: What the answer must do, as JSON-like values; see `evaluate.py`.
        literals: Texts that every right answer contains.
    """

    kind: str
    request: str
    code: str
    key: str
    held_wording: bool
    spec: Mapping[str, object]
    literals: tuple[str, ...]
