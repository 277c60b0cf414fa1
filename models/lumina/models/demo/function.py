"""Requests for a small function on lists, texts or numbers, answered in Python."""

# ruff: noqa: E501 - wordings and word lists read better in long lines

from collections.abc import Callable
from random import Random
from typing import Final

from . import words
from .record import Task
from .rules import Call, Rule, body, nothing, number, wording

_VERBS: Final = ("get", "find", "count", "make", "compute", "sum", "filter", "list", "check", "calc")
_NUMBERS: Final[tuple[list[object], ...]] = ([], [1], [3, -2, 8, 8, 15], [40, 7, 7, 120, -31, 0])
_TEXTS: Final = ("", "a", "anna", "Hello World", "one two two  three")
_WORDS: Final[tuple[list[object], ...]] = ([], ["fig"], ["apple", "kiwi", "apple", "Banana", "strawberry"])

_FILTERS: Final = (
    ("even", "{p0} if x % 2 == 0", lambda x, n: x % 2 == 0),
    ("odd", "{p0} if x % 2 != 0", lambda x, n: x % 2 != 0),
    ("positive", "{p0} if x > 0", lambda x, n: x > 0),
    ("negative", "{p0} if x < 0", lambda x, n: x < 0),
)
_COMPARED: Final = (
    ("[greater than|larger than|above|over|bigger than|more than]", "{p0} if x > {n}", lambda x, n: x > n),
    ("[less than|below|smaller than|under]", "{p0} if x < {n}", lambda x, n: x < n),
    ("[divisible by|that are multiples of]", "{p0} if x % {n} == 0", lambda x, n: x % n == 0),
)
_RESULTS: Final[tuple[tuple[str, tuple[str, ...], str, Callable[[list[int]], object]], ...]] = (
    ("sum", ("return! the sum of {f}", "add! up {f}", "sum! {f}"), "sum(x for x in {c})", sum),
    (
        "count",
        ("count! {f}", "return! how many {g} there are", "return! the number of {f}"),
        "sum(1 for x in {c})",
        len,
    ),
    ("list", ("return! {f}", "keep! only {f}", "return! a list of {f}", "filter! {f}"), "[x for x in {c}]", list),
    ("sorted", ("return! {f} sorted", "sort! {f}", "return! {f} in ascending order"), "sorted(x for x in {c})", sorted),
    ("squares", ("return! the squares of {f}", "square! {f}"), "[x * x for x in {c}]", lambda xs: [x * x for x in xs]),
    (
        "largest",
        ("return! the largest of {f} or 0", "find! the maximum of {f}, 0 if there is none"),
        "max((x for x in {c}), default=0)",
        lambda xs: max(xs, default=0),
    ),
)


def _n(rng: Random) -> dict[str, str]:
    return {"n": number(rng, below=30)}


def _filtered() -> list[Rule]:
    rules: list[Rule] = []
    for title, says, code, result in _RESULTS:
        for adjective, condition, test in _FILTERS:
            several = f"[the|all|all the|] {adjective} [numbers|values|numbers|items] [in|of|from] [{{p0}}|a list|the list|{{p0}}]"
            rules.append(
                _list_rule(
                    title + "_" + adjective,
                    says=says,
                    code=code.replace("{c}", condition),
                    several=several,
                    constants=nothing,
                    test=test,
                    result=result,
                )
            )
        for compared, condition, test in _COMPARED:
            several = f"[the|all|all the|] [numbers|values|items] [in|of|from] [{{p0}}|a list|the list|{{p0}}] {compared} {{n}}"
            rules.append(
                _list_rule(
                    title + "_" + {">": "above", "<": "below", "%": "divisible"}[condition[10]],
                    says=says,
                    code=code.replace("{c}", condition),
                    several=several,
                    constants=_n,
                    test=test,
                    result=result,
                )
            )
    return rules


def _list_rule(
    name: str,
    *,
    says: tuple[str, ...],
    code: str,
    several: str,
    constants: Callable[[Random], dict[str, str]],
    test: Callable[[int, int], bool],
    result: Callable[[list[int]], object],
) -> Rule:
    def calls(drawn: dict[str, str]) -> list[Call]:
        n = int(drawn.get("n", "0"))
        lists = [[n - 1, n, n + 1, 2 * n, 3, -5], *([int(str(x)) for x in xs] for xs in _NUMBERS)]
        return [([xs], [], result([x for x in xs if test(x, n)])) for xs in lists]

    does = tuple(say.replace("{f}", several).replace("{g}", several.replace("[the|all|all the|] ", "")) for say in says)
    return Rule(
        name=name, parameters=("numbers",), does=does, body=f"    return {code}", constants=constants, calls=calls
    )


def _simple(
    name: str, parameter: str, *, does: str, code: str, run: Callable[[object, int], object], **more: object
) -> Rule:
    """Return a rule of one parameter whose wordings are parted by `;`."""
    inputs = more.get("inputs", _TEXTS)
    constants = _n if "{n}" in code else nothing
    assert isinstance(inputs, tuple)
    values: tuple[object, ...] = inputs

    def calls(drawn: dict[str, str]) -> list[Call]:
        return [([value], [], run(value, int(drawn.get("n", "0")))) for value in values]

    nouns = tuple(str(more["noun"]).split("; ")) if "noun" in more else ()
    return Rule(
        name=name,
        parameters=(parameter,),
        nouns=nouns,
        does=tuple(does.split("; ")),
        body=code,
        constants=constants,
        calls=calls,
    )


def _factorial(value: object, _: int) -> object:
    result = 1
    for factor in range(2, int(str(value)) + 1):
        result *= factor
    return result


def _fibonacci(value: object, _: int) -> object:
    a, b = 0, 1
    for _index in range(int(str(value))):
        a, b = b, a + b
    return a


def _prime(value: object, _: int) -> object:
    number_ = int(str(value))
    return number_ > 1 and all(number_ % d for d in range(2, number_))


def _listed(value: object) -> list[str]:
    assert isinstance(value, list)
    items: list[object] = value
    return [str(item) for item in items]


_INTEGERS: Final = (0, 1, 2, 5, 9)
_RULES: Final = (
    *_filtered(),
    _simple(
        "is_palindrome",
        "text",
        does="[check!|tell!] whether {p0} is a palindrome; return! true if {p0} [is a palindrome|reads the same backwards]",
        code="    return {p0} == {p0}[::-1]",
        run=lambda v, n: str(v) == str(v)[::-1],
        noun="palindrome [check|test|function|checker]",
    ),
    _simple(
        "reverse_text",
        "text",
        does="reverse! {p0}; return! {p0} reversed; reverse! a [string|text]; return! a [string|text] backwards",
        code="    return {p0}[::-1]",
        run=lambda v, n: str(v)[::-1],
    ),
    _simple(
        "count_vowels",
        "text",
        does="count! the vowels in {p0}; count! how many vowels are in {p0}; return! the number of vowels in [{p0}|a text|a string]; return! how many vowels [{p0} has|are in {p0}]",
        code='    return sum(1 for letter in {p0}.lower() if letter in "aeiou")',
        run=lambda v, n: sum(1 for x in str(v).lower() if x in "aeiou"),
    ),
    _simple(
        "count_words",
        "text",
        does="count! the words in [{p0}|a text|a sentence]; return! the number of words in {p0}; return! how many words {p0} has",
        code="    return len({p0}.split())",
        run=lambda v, n: len(str(v).split()),
    ),
    _simple(
        "shout",
        "text",
        does="return! {p0} in [upper case|capital letters|uppercase]; [turn!|change!|convert!] {p0} to [upper case|uppercase|capitals]",
        code="    return {p0}.upper()",
        run=lambda v, n: str(v).upper(),
    ),
    _simple(
        "reverse_words",
        "text",
        does="reverse! the [order of the|] words in {p0}; return! the words of {p0} in reverse order",
        code='    return " ".join(reversed({p0}.split()))',
        run=lambda v, n: " ".join(reversed(str(v).split())),
    ),
    _simple(
        "shorten",
        "text",
        does="[cut!|shorten!|truncate!] {p0} to {n} [letters|characters]; return! the first {n} [letters|characters] of {p0}",
        code="    return {p0}[:{n}]",
        run=lambda v, n: str(v)[:n],
    ),
    _simple(
        "long_words",
        "words",
        does="[return!|keep!] [only|] [the|] words [longer than|with more than] {n} [letters|characters] [from|in|of] [{p0}|a list]; keep! the {p0} with more than {n} letters",
        code="    return [word for word in {p0} if len(word) > {n}]",
        run=lambda v, n: [w for w in _listed(v) if len(w) > n],
        inputs=_WORDS,
    ),
    _simple(
        "join_words",
        "words",
        does="join! {p0} with [commas|a comma]; return! {p0} joined by commas",
        code='    return ", ".join({p0})',
        run=lambda v, n: ", ".join(_listed(v)),
        inputs=_WORDS,
    ),
    _simple(
        "longest_word",
        "words",
        does="[return!|find!] the longest [word|string] [in|of] {p0} or an empty [text|string]; [return!|find!] the longest of {p0}, empty if there is none",
        code='    return max({p0}, key=len, default="")',
        run=lambda v, n: max(_listed(v), key=len, default=""),
        inputs=_WORDS,
    ),
    _simple(
        "unique",
        "items",
        does="remove! duplicates from {p0} [and keep! the order|keeping the order|]; return! {p0} without duplicates; drop! repeated [values|elements|items] from {p0}",
        code="    return list(dict.fromkeys({p0}))",
        run=lambda v, n: list(dict.fromkeys(_listed(v))),
        inputs=_WORDS,
    ),
    _simple(
        "factorial",
        "n",
        does="[return!|compute!|calculate!] the factorial of {p0}",
        code="    result = 1\n    for factor in range(2, {p0} + 1):\n        result *= factor\n    return result",
        run=_factorial,
        inputs=_INTEGERS,
        noun="factorial of {p0}; factorial function",
    ),
    _simple(
        "fibonacci",
        "n",
        does="[return!|compute!|calculate!] the [{p0}-th|{p0}th] Fibonacci number; return! Fibonacci number {p0}",
        code="    a, b = 0, 1\n    for _ in range({p0}):\n        a, b = b, a + b\n    return a",
        run=_fibonacci,
        inputs=_INTEGERS,
        noun="Fibonacci function",
    ),
    _simple(
        "is_prime",
        "n",
        does="[check!|tell!] whether {p0} is [prime|a prime number]; return! true if {p0} is [prime|a prime]",
        code="    return {p0} > 1 and all({p0} % d for d in range(2, {p0}))",
        run=_prime,
        inputs=_INTEGERS,
    ),
    _simple(
        "digit_sum",
        "n",
        does="[add!|sum!] up the digits of {p0}; return! the [sum of the digits|digit sum] of {p0}",
        code="    return sum(int(digit) for digit in str({p0}))",
        run=lambda v, n: sum(int(d) for d in str(v)),
        inputs=(*_INTEGERS, 407),
    ),
    _simple(
        "average",
        "numbers",
        does="[return!|compute!|calculate!] the [average|mean] of [{p0}|a list|a list of numbers] or 0 [for an empty list|if it is empty]",
        code="    return sum({p0}) / len({p0}) if {p0} else 0",
        run=lambda v, n: sum(map(int, _listed(v))) / len(_listed(v)) if v else 0,
        inputs=_NUMBERS,
    ),
    _simple(
        "largest",
        "numbers",
        does="return! the {n} largest [of {p0}|numbers in {p0}|values of {p0}] [in descending order|, biggest first|, largest first]",
        code="    return sorted({p0}, reverse=True)[:{n}]",
        run=lambda v, n: sorted(map(int, _listed(v)), reverse=True)[:n],
        inputs=_NUMBERS,
    ),
)


def example(rng: Random, *, held: bool = False) -> Task:
    """Return one request for a function; `held` draws from the wordings kept for evaluation."""
    rule = rng.choice(_RULES) if rng.random() < 0.5 else rng.choice(_RULES[-17:])
    constants = rule.constants(rng)
    name = rule.name if rng.random() < 0.25 else words.snake(rng, verbs=_VERBS)
    asked = wording(rng, rule, constants=constants, name=name, language="Python", held=held)
    name = asked.name or rule.name
    lines = body(rule, constants=constants, parameters=asked.parameters)
    code = f"def {name}({', '.join(asked.parameters)}):\n{lines}\n"
    calls = [{"args": arguments, "expected": expected} for arguments, _, expected in rule.calls(constants)]
    return Task(
        kind="function",
        request=asked.request,
        code=code,
        key=f"function/{rule.name}/{words.share(name + str(sorted(constants.values()))):.2f}",
        held_wording=held,
        spec={"name": asked.name, "calls": calls},
        literals=((asked.name,) if asked.name else ()) + tuple(constants.values()),
    )
