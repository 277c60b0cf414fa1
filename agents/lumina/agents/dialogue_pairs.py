"""What a character says to what: the pairs that a request for a dialogue states between quotation marks.

Pairs count only when every quoted text of the request has its place in one; otherwise nothing is claimed.
"""

import json
import re
from typing import Final

import msgspec

from lumina.agents import literals
from lumina.agents.literals import Quote
from lumina.events.contract import Case
from lumina.events.values import TEXT_CHARACTERS_MAX

UNKNOWN_WORDS: Final = "zqx unheard of"
"""Said to a character when the request names a reply to everything else."""

_REPLY_VERB: Final = r"(?:responds?|repl(?:y|ies)|answers?|says?|say|goes|utters|shouts?|whispers?)"
_FORWARD: Final = re.compile(
    rf"^[^.!?;\n]{{0,60}}?(?:->|=>|→|^\s*:|\b{_REPLY_VERB}\b(?: back)?(?:\s+with)?\s*[:,]?|"
    r"\b(?:gives|gets|leads to|means|should give|returns|is answered (?:by|with)|triggers|the comeback is))\s*$",
    re.IGNORECASE,
)
_SAID: Final = (
    r"(?:(?:the )?(?:player|someone|somebody|user)|you|I|they|one)\s+(?:says?|asks?|types?|enters?|utters?|said)|"
    r"\basked|\btold|\bhearing"
)
_ASKED: Final = re.compile(rf"(?:{_SAID})\s*[:,]?\s*$", re.IGNORECASE)
_REVERSED: Final = re.compile(rf"^\s*,?\s*(?:to|on|(?:(?:when|if|on|upon)\s+)?(?:{_SAID}))\s*[:,]?\s*$", re.IGNORECASE)
_REVERSED_BEFORE: Final = re.compile(rf"\b{_REPLY_VERB}(?:\s+with)?\s*[:,]?\s*$", re.IGNORECASE)
_DEFAULT_BEFORE: Final = re.compile(
    r"\b(?:otherwise|anything else|everything else|default|fallback|if nothing matches|all other cases|failing that|"
    r"when confused|unknown|to anything)\b[^'\"`]{0,60}$",
    re.IGNORECASE,
)
_DEFAULT_AFTER: Final = re.compile(
    r"^\s*(?:as (?:the )?(?:default|fallback)|by default|otherwise|for (?:everything|anything) else|"
    r"for unknown words|if nothing matches)",
    re.IGNORECASE,
)
_IS_A_NAME: Final = re.compile(r"\b(?:called|named|function|name:|name|call it|tree|dialogue)\s*$", re.IGNORECASE)
_IDENTIFIER: Final = re.compile(r"[a-z]\w*_\w+(?:\([\w, ]*\))?")
_WORD: Final = re.compile(r"\w+(?:\([\w, ]*\))?")
_SPEAKER: Final = re.compile(
    r"^\s*,?\s*(?:he|she|it|they|(?:the )?npc|the \w+|reply|answer|say|respond)?\s*[:,]?\s*$", re.IGNORECASE
)
_AWKWARD: Final = re.compile(r"[\"'\\]|[^\x20-\x7e]")


class Dialogue(msgspec.Struct, frozen=True, kw_only=True):
    """What is said and what is answered, and the reply to everything else, if the request names one."""

    pairs: tuple[tuple[str, str], ...]
    default: str | None


def dialogue(brief: str) -> Dialogue:
    """Return the pairs of a request; none when its quoted texts do not fall into pairs without a doubt."""
    nothing = Dialogue(pairs=(), default=None)
    default, spoken = _parts(brief)
    if not spoken or len(spoken) % 2:
        return nothing
    pairs: dict[str, str] = {}
    directions: set[bool] = set()
    for first, second in zip(spoken[::2], spoken[1::2], strict=True):
        forward = _is_forward(brief, first=first, second=second)
        if forward is None:
            return nothing
        directions.add(forward)
        said, reply = (first, second) if forward else (second, first)
        if pairs.setdefault(said.text, reply.text) != reply.text:
            return nothing
    return Dialogue(pairs=tuple(pairs.items()), default=default) if len(directions) == 1 else nothing


def dialogue_cases(brief: str) -> tuple[Case, ...]:
    """Return one call per pair, and one with unknown words when the request names a reply to those."""
    found = dialogue(brief)
    pairs = [*found.pairs]
    if found.default is not None and pairs:
        pairs.append((UNKNOWN_WORDS, found.default))
    texts = [(json.dumps([said], ensure_ascii=False), json.dumps(reply, ensure_ascii=False)) for said, reply in pairs]
    return tuple(
        Case(arguments=arguments, one_of=(result,))
        for arguments, result in texts
        if max(len(arguments), len(result)) <= TEXT_CHARACTERS_MAX
    )


def dialogue_replies(brief: str) -> tuple[str, ...]:
    """Return the replies that stand in right code exactly as in the request: those that need no escapes."""
    return tuple(reply for _, reply in dialogue(brief).pairs if not _AWKWARD.search(reply))


def _parts(brief: str) -> tuple[str | None, list[Quote]]:
    """Return the default reply and the other quoted texts, names of functions left out."""
    default: str | None = None
    spoken: list[Quote] = []
    end = 0
    for quote in literals.quotes(brief):
        before, after = brief[end : quote.start], brief[quote.end :]
        end = quote.end
        if _IDENTIFIER.fullmatch(quote.text) or (_WORD.fullmatch(quote.text) and _IS_A_NAME.search(before)):
            continue
        if _DEFAULT_BEFORE.search(before) or _DEFAULT_AFTER.match(after):
            default = quote.text
        else:
            spoken.append(quote)
    return default, spoken


def _is_forward(brief: str, *, first: Quote, second: Quote) -> bool | None:
    """Return whether `first` is said and `second` answered, False for the other way round, None if unclear."""
    between = brief[first.end : second.start]
    if _REVERSED.match(between) and _REVERSED_BEFORE.search(brief[: first.start]):
        return False
    if _FORWARD.search(between) and not _ASKED.search(between):
        return True
    asked = _ASKED.search(brief[: first.start]) is not None
    return True if asked and _SPEAKER.match(between) else None
