"""Requests for the lines of a character in a game, answered by a Python function."""

# ruff: noqa: E501, SIM905 - wordings and word lists read better in long lines

from random import Random
from typing import Final

from . import phrasing, words
from .record import Task

_DEFAULT: Final = "..."
_ROLES: Final = tuple(
    """guard merchant innkeeper blacksmith wizard farmer king queen thief sailor miller hunter healer
    knight baker priest witch captain elder child shopkeeper bard monk""".split()
)
_VERBS: Final = ("talk", "reply", "answer", "greet", "ask", "speak", "respond", "say")
_SAYINGS: Final = tuple(
    saying.strip()
    for saying in """hello|hi|hey|quest|bye|goodbye|trade|help|good morning|who are you|name|buy|sell|yes|no|thanks
    |where am i|what do you sell|tell me a story|rumors|work|how are you|open the door|room|ale|fight
    |any news|sword|king|who is the king|what is this place|i need a room|leave|thank you|job""".split("|")
)

_PAIRS: Final = (
    "if [the|] player says {say}, [the NPC|NPC|the {role}|he|she|it] [responds|replies|answers|says] [with|] {reply}",
    "if [the|] player says {say}, [the NPC|NPC|the {role}] [responds|replies|answers|says] {reply}",
    "when [the player|someone|you|I|the user] say[s|] {say} [the NPC|he|she|it|the {role}] [responds|replies|answers|says] {reply}",
    "[to|on|for|at] {say} [the NPC|he|she|it|the {role}|the reply is|the answer is] [replies|answers|says|responds] {reply}",
    "{say} -> {reply}",
    "{say} => {reply}",
    "{say}: {reply}",
    "{say} [gives|gets|leads to|means|should give|returns|is answered by|is answered with] {reply}",
    "[asked|if asked|when asked] {say}, [he|she|it|the NPC|reply|answer|say] [says|answers|replies|] {reply}",
    "[reply|answer|say|respond] [with|] {reply} [to|when the player says|if the player says|when told|if somebody says|on] {say}",
    "[says|answers|replies] {reply} [when you say|if you say|to|when the player says|on hearing] {say}",
)
_HELD_PAIRS: Final = (
    "upon {say} the [character|NPC] [utters|goes] {reply}",
    "the line {say} triggers {reply}",
    "should the player utter {say}, the comeback is {reply}",
)
_DEFAULTS: Final = (
    "[Otherwise|Otherwise,|In all other cases|For anything else,|If nothing matches,|To anything else] [he|she|it|the NPC|the {role}] [says|answers|replies|responds|should say] {default}.",
    "[Anything else|Everything else|Default|Default reply|Fallback|Default answer|The default reply is|The default is|Otherwise]: {default}.",
    "[Anything else gets|Everything else gets|The default reply is|The default is|Otherwise say|Otherwise reply|Otherwise answer|By default say] {default}.",
    "[Use|Return|With] {default} [as the default|by default|otherwise|for everything else|for unknown words|as the fallback|if nothing matches].",
)
_HELD_DEFAULTS: Final = ("[Failing that|When confused], {default}.",)
_THINGS: Final = (
    "[Python code for|a Python function for|a Python script for] an NPC dialogue [tree|] [{named}|]",
    "[a|some] [NPC|] dialogue [tree|function|] [in Python|] [for a {role}|for an NPC|] [{named}|]",
    "[a Python function|a function|Python code] {named} for [a {role}|an NPC|the {role}]",
    "[a|the] {role} [NPC|] [in Python|] [{named}|]",
    "a [small|simple|] [conversation|chat|talk] with [a {role}|an NPC] [in Python|as a Python function|] [{named}|]",
    "the [answers|replies|lines] of [a {role}|an NPC] [in Python|] [{named}|]",
)
_NAMED: Final = ("called {name}", "named {name}", "{name}", "{name}(text)", "`{name}`", "with the name {name}")


def example(rng: Random, *, held: bool = False) -> Task:
    """Return one request for a dialogue; `held` draws from the wordings kept for evaluation."""
    pairs = _pairs(rng)
    default = words.sentence(rng, words_max=7) if rng.random() < 0.5 else None
    mark = words.mark(rng)
    slots = {"role": rng.choice(_ROLES)}
    body, kept = _body(rng, pairs=pairs, default=default, held=held)
    for index, (say, reply) in enumerate(pairs):
        slots[f"say{index}"] = words.quote(say, mark=mark)
        slots[f"reply{index}"] = words.quote(reply, mark=mark)
    slots["default"] = words.quote(default or "", mark=mark)
    name = _name(rng)
    named = "{name}" in body
    slots["name"] = name
    if not named:
        name = "npc_dialogue"
    request = phrasing.fill(phrasing.roughen(rng, body), slots)
    return Task(
        kind="dialogue",
        request=request,
        code=code(name=name, pairs=pairs, default=default or _DEFAULT),
        key=f"dialogue/{len(pairs)}/{default is not None}/{words.share(kept):.2f}/{words.share(name):.1f}",
        held_wording=held,
        spec={
            "name": name if named else None,
            "pairs": [list(pair) for pair in pairs],
            "default": default,
        },
        literals=tuple(text for pair in pairs for text in pair) + ((name,) if named else ()),
    )


def code(*, name: str, pairs: list[tuple[str, str]], default: str) -> str:
    """Return the function: a dictionary of replies and a default."""
    lines = [f"def {name}(text):", "    replies = {"]
    lines += [f'        "{say}": "{reply}",' for say, reply in pairs]
    lines += ["    }", f'    return replies.get(text.strip().lower(), "{default}")']
    return "\n".join(lines) + "\n"


def _pairs(rng: Random) -> list[tuple[str, str]]:
    count = rng.choice((1, 2, 2, 2, 3, 3, 4, 5))
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        if rng.random() < 0.35:
            say = rng.choice(_SAYINGS)
        else:
            say = " ".join(words.word(rng) for _ in range(rng.choice((1, 1, 2, 3))))
        pairs[say] = words.sentence(rng, words_max=12 if count < 4 else 7)
    return list(pairs.items())


def _name(rng: Random) -> str:
    if rng.random() < 0.25:
        return rng.choice(_ROLES) + rng.choice(("", "_reply", "_talk", "_dialogue", "_says"))
    return words.snake(rng, verbs=_VERBS)


def _body(rng: Random, *, pairs: list[tuple[str, str]], default: str | None, held: bool) -> tuple[str, str]:
    """Return the request as a template and a text that stands for its combination."""
    frame = rng.choice(_HELD_PAIRS if held else _PAIRS)
    thing = phrasing.pick(rng, _THINGS).replace("{named}", rng.choice(_NAMED))
    clauses: list[str] = []
    for index in range(len(pairs)):
        clause = phrasing.expand(rng, frame)
        clauses.append(clause.replace("{say}", f"{{say{index}}}").replace("{reply}", f"{{reply{index}}}"))
    joined = _join(rng, clauses)
    opened = phrasing.ask(rng, thing, held=held)
    arrow = frame.startswith("{say}")
    if arrow:
        link = rng.choice((": ", ": ", ". ", " with these lines: ", " - ", " with: "))
    else:
        link = rng.choice((" where ", " where ", ". ", ". ", ": ", " that works like this: ", " in which "))
    if frame.startswith("[says"):
        link = rng.choice((" that ", " who ", " which "))
    if link == ". ":
        joined = joined[0].upper() + joined[1:]
    body = f"{opened.strip()}{link}{joined}."
    if default is not None:
        last = phrasing.pick(rng, _HELD_DEFAULTS if held else _DEFAULTS)
        body += " " + last
    body = body.replace(".'.", ".'") if rng.random() < 0.5 else body
    if rng.random() < 0.1 and "{name}" not in body:
        body += rng.choice(
            (" Call it {name}.", " The function is called {name}.", " Name: {name}.", " Name the function {name}.")
        )
    return body, "|".join(say for say, _ in pairs)


def _join(rng: Random, clauses: list[str]) -> str:
    style = rng.randrange(4)
    if len(clauses) == 1:
        return clauses[0]
    if style == 0:
        return ", and ".join(clauses)
    if style == 1:
        return "; ".join(clauses)
    if style == 2:
        return ", ".join(clauses[:-1]) + rng.choice((" and ", ", and ", ", ")) + clauses[-1]
    return ". ".join(part[0].upper() + part[1:] for part in clauses)
