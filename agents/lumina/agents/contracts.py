"""What an answer must be, as far as the request says it literally, and no further.

A contract that demands too much makes right code fail, so every rule here leaves out what it is not sure of.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

from lumina.agents import literals
from lumina.agents.dialogue_pairs import dialogue_cases, dialogue_replies
from lumina.events.contract import Case, Form, OutputContract
from lumina.events.run import SpecialistRef
from lumina.events.values import TEXT_CHARACTERS_MAX

MUST_CONTAIN_MAX: Final = 32
FIELDS_MAX: Final = 16
CASES_MAX: Final = 64
RESULTS_MAX: Final = 16
NAME_CHARACTERS_MAX: Final = 80
PARAMETERS_MAX: Final = 16
DRAWS: Final = 20
"""How often a function that draws lots is called with each choice."""

_IDENTIFIER: Final = r"[A-Za-z_$][A-Za-z0-9_$]*"
_MARK: Final = r"['\"`‘“]?"
_CALL: Final = re.compile(rf"(?<![\w.$]){_MARK}({_IDENTIFIER})\(\s*((?:{_IDENTIFIER}(?:\s*,\s*{_IDENTIFIER})*)?)\s*\)")
_NAMED: Final = (
    re.compile(rf"\bfunction\s+(?:called|named)\s+{_MARK}({_IDENTIFIER})"),
    re.compile(
        rf"\b(?:function|method)(?:'s name)?\s+(?:is|should be|must be)\s+(?:called|named)\s+{_MARK}({_IDENTIFIER})"
    ),
    re.compile(rf"\b(?:call|name)\s+(?:it|the function|this function)\s+{_MARK}({_IDENTIFIER})", re.IGNORECASE),
    re.compile(rf"\b(?:with|under)\s+the\s+name\s+{_MARK}({_IDENTIFIER})"),
    re.compile(rf"\b(?:dialogue|dialog|tree|conversation|script|code)\s+(?:called|named)\s+{_MARK}({_IDENTIFIER})"),
    re.compile(rf"(?<![\w'])[Nn]ame:\s*{_MARK}({_IDENTIFIER})"),
    re.compile(rf"\bfunction\s+['\"`‘“]({_IDENTIFIER})\W"),
    re.compile(rf"\bfunction\s+({_IDENTIFIER})\s+(?:that|which|to|in\s+(?:Python|JavaScript|JS))\b", re.IGNORECASE),
    re.compile(rf"\b(?:called|named)\s+{_MARK}({_IDENTIFIER}_{_IDENTIFIER})"),
)
# fmt: off
_NO_NAMES: Final = frozenset({
    "that", "wanted", "needed", "please", "which", "to", "in", "for", "with", "and", "or", "of", "the", "a", "an",
    "is", "are", "it", "called", "named", "taking", "returning", "using", "should", "must", "can", "will", "where",
    "when", "if", "from", "as", "by", "on", "code", "tree", "script", "object", "config", "configuration", "print",
    "python", "javascript", "js", "node", "return", "returns",
})
# fmt: on
_VERBS: Final = (
    r"(?:returns?|gives?|tells?|checks?|computes?|calculates?|says?|picks?|adds?|subtracts?|reduces?|multiplies|counts?|"
    r"finds?|turns?|makes?|sorts?|removes?|keeps?|prints?|rolls?|throws?|compares?|decides?|converts?|joins?|sums?|takes?)"
)
_TAKES: Final = re.compile(
    rf"\b(?:that\s+)?(?:takes|gets|accepts|is given|taking|receives)\s+(?:(?:a|an|the)\s+)?(?:parameters?\s+)?"
    rf"{_MARK}({_IDENTIFIER}){_MARK}((?:\s*(?:,|and|,\s*and)\s*{_MARK}{_IDENTIFIER}{_MARK})*)\s+and\s+(?={_VERBS}\s+\S)"
)
_PARAMETERS: Final = re.compile(
    rf"\b(?:[Pp]arameters?(?::|\s+(?:is|are))|[Ii]t takes|input is)\s+{_MARK}({_IDENTIFIER}){_MARK}"
    rf"((?:\s*(?:,|and|,\s*and)\s*{_MARK}{_IDENTIFIER}{_MARK})*)\s*(?:\.|$|;)"
)
_RETURNS: Final = re.compile(r"\breturn(?:s|ing)?\b(?: either| one of)?[:\s]*(?=['\"`‘“])")
_SPEECH: Final = re.compile(r"\b(?:npc|dialog(?:ue)?)\b", re.IGNORECASE)
_GAP: Final = re.compile(r"^\s*(?:,|or|and|,\s*or|,\s*and|/)\s*$")
_MOVES: Final = ("rock", "paper", "scissors")
_MOVES_SAID: Final = re.compile(r"\brock\W+paper\W+(?:and\W+|or\W+)?scissors\b", re.IGNORECASE)
_FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("title", r"titles?"),
    ("url", r"urls?"),
    ("link", r"links?"),
    ("price", r"prices?"),
    ("author", r"authors?"),
    ("headline", r"headlines?"),
    ("rating", r"ratings?"),
    ("summary", r"summar(?:y|ies)"),
    ("name", r"names"),
    ("date", r"dates"),
    ("image", r"images"),
)
_NOT_A_FIELD: Final = re.compile(
    r"^\s*(?:(?:is|:|=|at)?\s*['\"`]?https?:|selectors?\b|attributes?\b|tags?\b|elements?\b|pages?\b|text\b)"
)
_NOT_A_FIELD_BEFORE: Final = re.compile(
    r"\b(?:(?:from|at|on) (?:the|this|that)|this|following|page|by|no)\s+$", re.IGNORECASE
)
_ELEMENT_AFTER: Final = re.compile(r"^[^.;'\"`]{0,4}(?:and|,)?[^.;]{0,40}?\b(?:elements?|layers?)\b", re.IGNORECASE)
_ELEMENT_NAME: Final = re.compile(r"^[A-Za-z][\w-]*$")
_PLAIN_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")


def contract_for(brief: str, *, specialist: SpecialistRef, cases: Sequence[Case] = ()) -> OutputContract:
    """Return what an answer to `brief` by `specialist` must be. `cases` of the user replace those of the request."""
    language, form = specialist.language, specialist.form
    match form:
        case Form.FUNCTION:
            return _function_contract(brief, specialist=specialist, cases=cases)
        case Form.ROWS:
            return OutputContract(
                language=language,
                form=form,
                must_contain=_cut(literals.addresses(brief)),
                fields=fields(brief),
                rows_max=literals.limit(brief),
            )
        case Form.FILE:
            return OutputContract(
                language=language,
                form=form,
                must_contain=_cut(literals.files(brief)),
                artifact=_file_name(literals.saved_file(brief)),
            )
        case Form.TIMELINE:
            wanted = (*literals.selectors(brief), *_element_names(brief), *literals.files(brief))
            return OutputContract(language=language, form=form, must_contain=_cut(wanted))
        case Form.SCRIPT:
            return OutputContract(language=language, form=form)


def _function_contract(brief: str, *, specialist: SpecialistRef, cases: Sequence[Case]) -> OutputContract:
    name = function_name(brief)
    speech = _is_speech(brief, specialist)
    replies = dialogue_replies(brief) if speech else ()
    return OutputContract(
        language=specialist.language,
        form=Form.FUNCTION,
        entry=name,
        parameters=parameters(brief, name=name),
        must_contain=_cut((*_result_words(brief), *replies)),
        cases=tuple(cases) or _cases(brief, name=name, speech=speech),
    )


def _is_speech(brief: str, specialist: SpecialistRef) -> bool:
    """Return whether quoted texts are what somebody says, rather than values."""
    return specialist.kind == "dialogue" or _SPEECH.search(literals.without_quotes(brief)) is not None


def function_name(brief: str) -> str | None:
    """Return the name that the function must have, None when the request does not say."""
    for found in _CALL.finditer(brief):
        if _is_name(found.group(1)):
            return found.group(1)
    for pattern in _NAMED:
        if (said := pattern.search(brief)) is not None and _is_name(said.group(1)):
            return said.group(1)
    return None


def _is_name(text: str) -> bool:
    return text.lower() not in _NO_NAMES and len(text) <= NAME_CHARACTERS_MAX


def parameters(brief: str, *, name: str | None) -> tuple[str, ...]:
    """Return the names of the function's parameters; empty when the request does not say."""
    for found in _CALL.finditer(brief):
        if found.group(1) == name and found.group(2):
            return _parameter_names([part.strip() for part in found.group(2).split(",")])
    for pattern in (_TAKES, _PARAMETERS):
        if (said := pattern.search(brief)) is not None:
            first, rest = said.group(1), said.group(2)
            others = [part for part in re.findall(_IDENTIFIER, rest) if part != "and"]
            names = (first, *others)
            plain = first.lower() in {"a", "an", "the", "two", "three", "one", "no", "list", "string", "number"}
            return () if plain or len(set(names)) < len(names) else _parameter_names(names)
    return ()


def _parameter_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return all names, or none where a contract can't hold them: some of them would be a wrong demand."""
    fit = len(names) <= PARAMETERS_MAX and all(len(name) <= NAME_CHARACTERS_MAX for name in names)
    return tuple(names) if fit else ()


def _file_name(name: str | None) -> str | None:
    """Return a name that a contract and a sandbox can hold: plain letters, no folders; else None."""
    return name if name is not None and _PLAIN_FILE_NAME.fullmatch(name) else None


def fields(brief: str) -> tuple[str, ...]:
    """Return the keys that every row must have: the well-known things that the request asks for, in the singular."""
    clean = literals.without_quotes(brief)
    clean = re.sub(r"\([^)]*\)", lambda found: " " * len(found.group()), clean)
    places: list[tuple[int, str]] = []
    for key, pattern in _FIELDS:
        for found in re.finditer(rf"(?<![\w./#:-]){pattern}(?![\w./-]*[\w/])", clean, re.IGNORECASE):
            before, after = clean[: found.start()], brief[found.end() :]
            if not _NOT_A_FIELD.match(after) and not _NOT_A_FIELD_BEFORE.search(before):
                places.append((found.start(), key))
                break
    return tuple(key for _, key in sorted(places))[:FIELDS_MAX]


def _cases(brief: str, *, name: str | None, speech: bool) -> tuple[Case, ...]:
    """Return the calls whose results the request states."""
    found = (*_stated_calls(brief, name=name), *(dialogue_cases(brief) if speech else ()))
    if not found and _MOVES_SAID.search(brief):
        words = tuple(json.dumps(word) for word in _result_words(brief))
        if not _can_hold(words):
            words = ()
        found = tuple(Case(arguments=json.dumps([move]), one_of=words, repeat=DRAWS) for move in _MOVES)
    return found[:CASES_MAX]


def _stated_calls(brief: str, *, name: str | None) -> tuple[Case, ...]:
    """Return cases from texts like `add(1, 2) returns 3` or `add(1, 2) == 3`."""
    if name is None:
        return ()
    value = r"(?:\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"|-?\d+(?:\.\d+)?|[Tt]rue|[Ff]alse|None|null)"
    links = r"(?:->|=>|→|===?|=|is|gives|returns|should return|must return|should be|should give|yields)"
    pattern = re.compile(
        rf"(?<![\w.$]){re.escape(name)}\(([^()]*)\)['\"`]?\s*{links}\s*`?({value}(?:(?:,| or|, or) {value})*)`?"
        r"(?!\s*(?:,\s*)?(?:if|when|for|at(?! random)|unless|otherwise|where|per|times|or)\b"
        r"|\s*,\s*['\"]|\s*[-+*/%]|\w|\.\d)"
    )
    cases: list[Case] = []
    for found in pattern.finditer(brief):
        arguments = literals.as_json(f"[{found.group(1)}]")
        results = [literals.as_json(part) for part in re.findall(value, found.group(2))]
        permitted = [result for result in results if result is not None]
        if arguments is not None and len(permitted) == len(results) and _can_hold((arguments, *permitted)):
            cases.append(Case(arguments=arguments, one_of=tuple(permitted), repeat=DRAWS if len(results) > 1 else 1))
    return tuple(cases)


def _can_hold(texts: Sequence[str]) -> bool:
    """Return whether a case can hold these arguments and results."""
    return len(texts) <= RESULTS_MAX and all(len(text) <= TEXT_CHARACTERS_MAX for text in texts)


def _result_words(brief: str) -> tuple[str, ...]:
    """Return the quoted words after `returns`, for instance win, lose and tie; empty unless there are several."""
    for start in _RETURNS.finditer(brief):
        words: list[str] = []
        end = start.end()
        for quote in literals.quotes(brief):
            if quote.start < start.end() or (words and not _GAP.match(brief[end : quote.start])):
                continue
            if not words and quote.start != start.end():
                break
            words.append(quote.text)
            end = quote.end
        if len(words) > 1:
            return tuple(dict.fromkeys(word for word in words if word))
    return ()


def _element_names(brief: str) -> tuple[str, ...]:
    """Return the quoted names that are surely names of elements on the page."""
    found: list[str] = []
    for quote in literals.quotes(brief):
        text = quote.text
        compound = "_" in text or "-" in text or re.search(r"[a-z][A-Z]", text) is not None
        followed = _ELEMENT_AFTER.match(brief[quote.end :]) is not None
        if _ELEMENT_NAME.match(text) and (compound or followed):
            found.append(text)
    return tuple(dict.fromkeys(found))


def _cut(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts once each, as many as a contract holds; empty and overlong ones left out."""
    return tuple(dict.fromkeys(text for text in texts if 0 < len(text) <= 500))[:MUST_CONTAIN_MAX]
