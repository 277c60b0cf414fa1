"""What a model's text is good for: a program, a plan, or nothing. Raw text never counts as success by itself.

Code, in this order: thinking is cut off; the fenced block of the right language (with the wanted name in it, else the
longest); a fenced block without a language; the whole text if it reads like code. A plan: the text, a fenced block or
the outermost JSON in it must be an array of the right shape with known kinds. Which of these held is said in `how`.
"""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from lumina.events.contract import Language, OutputContract
from lumina.events.generation import PlanItem
from lumina.models.backend import Finish

PLAN_ITEMS_MAX: Final = 8

_FENCE: Final = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<body>.*?)"
    r"(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|(?P<open>\Z))",
    re.DOTALL | re.MULTILINE,
)
_THOUGHT: Final = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_THOUGHT_END: Final = re.compile(r"\A.*?</(?:think|thinking|reasoning)>", re.DOTALL)
_THOUGHT_START: Final = re.compile(r"<(?:think|thinking|reasoning)>.*\Z", re.DOTALL)

_NAMES: Final = {
    Language.PYTHON: ("python", "python3", "py"),
    Language.JAVASCRIPT: ("javascript", "js", "node", "nodejs", "cjs", "mjs", "jsx"),
}
_CODE_LINE: Final = {
    Language.PYTHON: re.compile(
        r"^\s*(?:(?:async )?def \w+\(|class \w+.*:\s*$|import [\w.]+|from [\w.]+ import |@\w|"
        r"(?:for|while|if|with|try|else|elif|except)\b.*:\s*$|[\w.\[\], ]+ ?[-+*/|&]?= ?\S|[\w.]+\(.*\)\s*$|return\b)"
    ),
    Language.JAVASCRIPT: re.compile(
        r"^\s*(?:(?:async )?function\b|(?:const|let|var|class) \w|module\.exports|import .* from |"
        r"[\w.\[\]]+ ?[-+*/]?= ?\S|[\w.]+\(.*\);?\s*$|return\b.*;\s*$|[}\])]+[;,]?\s*$)"
    ),
}


_BEGINNING: Final = {
    Language.PYTHON: re.compile(r"^\s*(?:(?:async )?def \w+\(.*:\s*$|class \w+(?:\(.*\))?:\s*$)"),
    Language.JAVASCRIPT: re.compile(r"^\s*(?:(?:async )?function\*? ?\w*\(|(?:const|let|var) \w+ = )"),
}
"""Lines that begin a program and are never prose."""


class Code(msgspec.Struct, frozen=True):
    """A program, ending in one line feed. `how` is empty when the whole answer was one block or plain code."""

    text: str
    how: str = ""


class Plan(msgspec.Struct, frozen=True):
    """A plan of the right shape; whether its steps make sense is for the orchestrator to say."""

    items: tuple[PlanItem, ...]
    how: str = ""


class Cut(msgspec.Struct, frozen=True):
    """The token limit came before a complete answer."""

    reason: str


class Unusable(msgspec.Struct, frozen=True):
    """Text, but not what was asked for; `reason` says what was found instead."""

    reason: str


def read_code(text: str, *, contract: OutputContract, finish: Finish) -> Code | Cut | Unusable:
    """Return the program in an answer."""
    text = without_thoughts(text)
    found = list(_FENCE.finditer(text))
    blocks = [block for block in found if block["open"] is None or finish is Finish.STOP]
    if blocks:
        return _from_blocks(blocks, contract=contract, alone=_is_alone(text, blocks), finish=finish)
    if finish is Finish.LENGTH:
        return Cut("the answer was cut off by the token limit before its program was complete")
    return _from_plain_text(text, language=contract.language)


def read_plan(text: str, *, kinds: Sequence[str], finish: Finish) -> Plan | Cut | Unusable:
    """Return the plan in an answer. An unknown kind or an entry without a brief makes it unusable."""
    if finish is Finish.LENGTH:
        return Cut("the plan was cut off by the token limit")
    text = without_thoughts(text)
    problem = "it holds no JSON array"
    for candidate, how in _plan_candidates(text):
        try:
            entries = msgspec.convert(_unwrapped(json.loads(candidate, strict=False)), _Entries)
        except (ValueError, RecursionError):  # no JSON, another shape, or a number of thousands of digits
            problem = "its JSON is no array of steps, each with a kind and a brief"  # a library's words may change
            continue
        unknown = next((entry.kind for entry in entries if entry.kind not in kinds), None)
        if unknown is not None:
            return Unusable(f"the plan has the kind {_short(unknown)!r}; known: {_short(', '.join(kinds))}")
        blank = next((number for number, entry in enumerate(entries, 1) if not entry.brief.strip()), None)
        if blank is not None:
            return Unusable(f"entry {blank} of the plan has an empty brief")
        return Plan(tuple(PlanItem(kind=entry.kind, brief=_sound(entry.brief)) for entry in entries), how)
    return Unusable(f"the answer is no plan: {problem}")


def plan_schema(kinds: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a plan, for constrained decoding.

    It limits no lengths: llama.cpp refuses grammars with long repetitions. The token limit and `read_plan` do.
    """
    brief = {"type": "string", "minLength": 1}
    entry = {
        "type": "object",
        "properties": {"kind": {"enum": list(kinds)}, "brief": brief},
        "required": ["kind", "brief"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": entry, "minItems": 1, "maxItems": PLAN_ITEMS_MAX}


def without_thoughts(text: str) -> str:
    """Return an answer without what a model thought aloud before it, also where a mark of it is missing."""
    text = _THOUGHT.sub("", text)
    text = _THOUGHT_END.sub("", text)
    return _THOUGHT_START.sub("", text)


class _Entry(msgspec.Struct):
    kind: Annotated[str, Meta(min_length=1, max_length=120)]
    brief: Annotated[str, Meta(min_length=1, max_length=20_000)]


_Entries = Annotated[list[_Entry], Meta(min_length=1, max_length=PLAN_ITEMS_MAX)]


def _from_blocks(
    blocks: Sequence[re.Match[str]], *, contract: OutputContract, alone: bool, finish: Finish
) -> Code | Unusable:
    names = _NAMES[contract.language]
    fitting = [block for block in blocks if block["language"].lower() in names]
    how = "" if alone else f"the {contract.language.value} block of an answer with other text"
    if not fitting:
        fitting = [block for block in blocks if not block["language"]]
        how = "a block without a language"
    if not fitting:
        others = ", ".join(dict.fromkeys(block["language"] for block in blocks))
        return Unusable(f"the answer has code of {_short(others)}, but none of {contract.language.value}")
    if contract.entry is not None:
        name = re.compile(rf"(?<![\w$]){re.escape(contract.entry)}(?![\w$])")
        fitting = [block for block in fitting if name.search(block["body"])] or fitting
    if len(fitting) > 1:
        how = f"the longest of {len(fitting)} blocks"
    body = max(fitting, key=lambda block: len(block["body"]))["body"]
    if not body.strip():
        return Unusable("the answer's code block is empty")
    if finish is Finish.LENGTH:
        how = "a complete block before the token limit cut the text after it"
    return Code(_tidy(_dedent(body)), how)


def _from_plain_text(text: str, *, language: Language) -> Code | Unusable:
    lines = text.strip("\n").splitlines()
    if not any(line.strip() for line in lines):
        return Unusable("the answer is empty")
    is_code = _CODE_LINE[language]
    if not any(is_code.match(line) for line in lines):
        for other, begins in _BEGINNING.items():
            if other is not language and any(begins.match(line) for line in lines):
                said = f"the answer is code of {other.value}, but {language.value} was asked for"
                return Unusable(f"{said}: {_short(text.strip())!r}")
        return Unusable(f"the answer is prose without code: {_short(text.strip())!r}")
    first = next(line for line in lines if line.strip())
    if first.rstrip().endswith(":") and not is_code.match(first) and " " in first.strip():
        return Code(_tidy("\n".join(lines[lines.index(first) + 1 :])), "plain code after an introduction")
    return Code(_tidy("\n".join(lines)))


def _plan_candidates(text: str) -> list[tuple[str, str]]:
    """Return the texts that may be the plan's JSON, the plainest first."""
    candidates = [(text.strip(), "")]
    candidates += [(block["body"], "a fenced block") for block in _FENCE.finditer(text)]
    start, end = text.find("["), text.rfind("]")
    if 0 <= start < end:
        candidates.append((text[start : end + 1], "the JSON inside other text"))
    return candidates


def _sound(brief: str) -> str:
    """Return a brief without the halves of characters that JSON escapes can write and UTF-8 can't."""
    return brief.strip().encode("utf-8", "replace").decode()


def _unwrapped(value: object) -> object:
    """Return the list inside an object that has nothing but that list, as some models wrap it."""
    if isinstance(value, dict) and len(value) == 1:
        inner = next(iter(value.values()))
        return inner if isinstance(inner, list) else value
    return value


def _is_alone(text: str, blocks: Sequence[re.Match[str]]) -> bool:
    return len(blocks) == 1 and blocks[0].group().strip() == text.strip()


def _dedent(body: str) -> str:
    """Remove the indentation that a whole block shares, as blocks in lists have it."""
    lines = body.splitlines()
    margins = [len(line) - len(line.lstrip(" ")) for line in lines if line.strip()]
    margin = min(margins, default=0)
    return "\n".join(line[margin:] for line in lines)


def _tidy(code: str) -> str:
    """Return code with line feeds only, no spaces at the ends of its first and last lines, one line feed at the end."""
    return code.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip() + "\n"


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
