"""Words, names, quotes and numbers for the demo corpus.

About two fifths of all words are made up, so that copying is the only way to
get a name right.
"""

# ruff: noqa: SIM905 - wordings and word lists read better in long lines

import hashlib
from random import Random
from typing import Final

WORDS: Final = tuple(
    """
    able account acid actor agent alert amber anchor angel apple arena armor arrow atlas autumn
    axis badge baker ball bamboo banner barrel basket battle beacon bear beard bell belt berry
    bird blade blanket blaze blossom blue board boat body bolt bonus book boot bottle bounty bow
    box branch brave bread bridge bright bronze brush bubble bucket button cabin cactus camp candle
    canvas cape captain card cargo carpet castle cave chain chair chapter chest chief circle city
    claw cliff cloak clock cloud clover coal coast coin color comet copper coral corner cottage
    crab craft crate creek crown crystal cup curtain dagger dance dawn deck deer desert diamond dice
    dock dragon dream drum duck dust eagle earth echo ember engine evening fabric falcon farm
    feather fence fern field fire fish flag flame flute forest fork fortune fountain fox frame frost
    fruit galaxy garden gate gem ghost giant glass globe glove goat gold grain grass green guard
    guest guide guild hammer harbor hat hawk heart helmet herb hero hill hollow home honey hood
    horn horse hunter island ivory jacket jade jewel jungle junior kettle key king kitchen kite
    knight ladder lake lamp lantern leaf leather legend lemon letter light lily lion lock lotus lunar
    magic map maple marble market mask master meadow melon metal mill mirror mist moon morning moss
    mountain mouse museum music myth needle nest night noble north oak oasis ocean olive onion opal
    orange orbit orchid otter owl paint palace panda panel paper parrot path peach pearl pebble
    pepper pilot pine pirate planet plaza plum pocket poem pond portal potion prairie prince prize
    purple queen quiet rabbit rain ranger raven red ribbon ring river robot rocket roof room rose
    ruby sail salt sand scarf school scroll sea secret seed shade shadow shark sheep shell shield
    ship shirt silent silk silver sky sleeve smoke snake snow soldier song south spark spear spell
    spider spring square stable star statue steel stone storm story stream sugar summer sun swamp
    sword table tail tavern temple tent thief thunder tiger timber torch tower town trail tree tribe
    trophy tunnel turtle valley velvet village violet violin wagon wall warrior water wave west
    whale wheat wheel white wild willow wind window wing winter wizard wolf wood wool yellow young
    """.split()
)

TALK: Final = tuple(
    """
    a the my your our this that no some any I you we they he she it is are was will can may must
    have has had not never always only just here there now today tomorrow soon again with without
    for from to of in on at by near under over and or but so very too more less one two three ten
    good bad old new small big dark deep cold warm safe lost welcome come go leave stay find take
    give buy sell see hear know need want think tell ask help fight run walk wait rest sleep eat
    drink work back away far down up what who where when how why thank sorry friend stranger
    traveler sir lady nothing something everything everyone nobody day night year time place way
    house road inn shop price silver coins quest quests job danger luck peace war news rumor bread
    """.split()
)

_ONSETS: Final = tuple("b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl sh sk st th tr".split())
_VOWELS: Final = tuple("a e i o u ai ea oo".split())
_CODAS: Final = ("", "", "", "n", "r", "l", "s", "m", "k", "t", "x", "nd", "sh", "rk")

_SMALL: Final = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty".split()
)


def share(text: str, *, salt: str = "lumina") -> float:
    """Return a number in [0, 1) that depends on nothing but `text` and `salt`."""
    digest = hashlib.sha256(f"{salt}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def pseudo(rng: Random) -> str:
    """Return a made-up word of one to three syllables."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)]
    return "".join(parts) + rng.choice(_CODAS)


def word(rng: Random, *, made_up: float = 0.4) -> str:
    """Return a lower-case word; with probability `made_up` one that does not exist."""
    return pseudo(rng) if rng.random() < made_up else rng.choice(WORDS)


def snake(rng: Random, *, verbs: tuple[str, ...] = ()) -> str:
    """Return a snake_case name of one to three words."""
    parts = [word(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
    if verbs and rng.random() < 0.5:
        parts[0:1] = [rng.choice(verbs)] if len(parts) > 1 else [rng.choice(verbs), parts[0]]
    return "_".join(parts)


def camel(rng: Random, *, verbs: tuple[str, ...] = ()) -> str:
    """Return a camelCase name of one to three words."""
    first, *rest = snake(rng, verbs=verbs).split("_")
    return first + "".join(part.capitalize() for part in rest)


def element(rng: Random) -> str:
    """Return the id of something on a page: words joined by hyphens, underscores or humps."""
    parts = [word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    joined = rng.choice(("-", "-", "_", "_", "camel"))
    if joined == "camel":
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    name = joined.join(parts)
    return f"{name}{rng.choice(('', joined))}{rng.randint(1, 12)}" if rng.random() < 0.1 else name


def quote(text: str, *, mark: str) -> str:
    """Return `text` between two `mark`s; an empty mark leaves it bare."""
    return f"{mark}{text}{mark}"


def mark(rng: Random, *, bare: bool = False) -> str:
    """Return the quotation mark of one request."""
    return rng.choice(("'", "'", '"', "`", "", "") if bare else ("'", "'", "'", '"', '"', "`"))


def number_text(rng: Random, *, number: int) -> str:
    """Return `number` in digits, or as a word where that is common."""
    if 0 <= number < len(_SMALL) and rng.random() < 0.4:
        return _SMALL[number]
    return str(number)


def decimal(value: float) -> str:
    """Return `value` the way people and code write it: 1, 0.5, -2.25."""
    return str(int(value)) if value == int(value) else repr(round(value, 3))


def sentence(rng: Random, *, words_max: int = 10) -> str:
    """Return something a character might say: capitalised, with or without an end mark."""
    count = min(words_max, rng.choice((1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10)))
    parts = [rng.choice(TALK) if rng.random() < 0.55 else word(rng, made_up=0.25) for _ in range(count)]
    if count > 2 and rng.random() < 0.3:
        at = rng.randrange(count - 1)
        parts[at] += ","
    text = " ".join(parts)
    if rng.random() < 0.92:
        text = text[0].upper() + text[1:]
    return text + rng.choice((".", ".", ".", "!", "!", "?", "", "", "..."))
