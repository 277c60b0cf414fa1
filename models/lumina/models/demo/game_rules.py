"""The rules that `game` knows, each with its wordings, JavaScript and expectations."""

# ruff: noqa: E501 - wordings and word lists read better in long lines

from random import Random
from typing import Final

from . import words
from .rules import Call, Rule, nothing, number

_RPS: Final = """  const choices = ["rock", "paper", "scissors"];
  const computerChoice = choices[Math.floor(Math.random() * choices.length)];
  if ({p0} === computerChoice) {
    return "tie";
  }
  const beats = { rock: "scissors", paper: "rock", scissors: "paper" };
  return beats[{p0}] === computerChoice ? "win" : "lose";"""
_LINE: Final = """  const lines = [
    [0, 1, 2], [3, 4, 5], [6, 7, 8],
    [0, 3, 6], [1, 4, 7], [2, 5, 8],
    [0, 4, 8], [2, 4, 6],
  ];
  return lines.some((line) => line.every((cell) => {p0}[cell] === {p1}));"""
_DICE: Final = """  let total = 0;
  for (let roll = 0; roll < {p0}; roll += 1) {
    total += Math.floor(Math.random() * {n}) + 1;
  }
  return total;"""
_GUESS: Final = """  if ({p0} < {p1}) {
    return "higher";
  }
  return {p0} > {p1} ? "lower" : "correct";"""
_RANK: Final = """  if ({p0} >= {a}) {
    return "gold";
  }
  return {p0} >= {b} ? "silver" : "bronze";"""


def _n(rng: Random) -> dict[str, str]:
    return {"n": number(rng)}


def _sides(rng: Random) -> dict[str, str]:
    return {"n": rng.choice(("6", "6", "6", "4", "8", "10", "12", "20", "100", number(rng)))}


def _items(rng: Random) -> dict[str, str]:
    return {name: words.word(rng) for name in "abc"}


def _chance(rng: Random) -> dict[str, str]:
    return {"c": str(rng.randrange(5, 95, 5)), "n": str(rng.randint(2, 5))}


def _ranks(rng: Random) -> dict[str, str]:
    low = rng.randrange(10, 500, 10)
    return {"b": str(low), "a": str(low + rng.randrange(10, 500, 10))}


def _two(rng: Random) -> dict[str, str]:
    return {"n": number(rng), "m": number(rng)}


def _rps_calls(_: dict[str, str]) -> list[Call]:
    beats = {"rock": "scissors", "paper": "rock", "scissors": "paper"}
    calls: list[Call] = []
    for index, computer in enumerate(beats):
        for player, beaten in beats.items():
            result = "tie" if player == computer else "win" if beaten == computer else "lose"
            calls.append(([player], [index / 3 + 0.1], result))
    return calls


def _line_calls(_: dict[str, str]) -> list[Call]:
    boards = ("XXX      ", "O  O  O  ", "X   X   X", "XOXOXOOXO", "         ")
    return [([list(board), "X"], [], board in (boards[0], boards[2])) for board in boards]


def _level_calls(constants: dict[str, str]) -> list[Call]:
    n = int(constants["n"])
    return [([xp], [], xp // n + 1) for xp in (0, n - 1, n, 3 * n + 1)]


def _cut_calls(constants: dict[str, str]) -> list[Call]:
    n = int(constants["n"])
    return [([a, b], [], min(n, a + b)) for a, b in ((0, 1), (n, 5), (n - 1, 1), (n // 2, 1))]


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="rockPaperScissors",
        parameters=("playerChoice",),
        does=(
            "play! [a round of|a simple game of|] rock-paper-scissors",
            "play! rock paper scissors [against the computer|] and return! 'win', 'lose', or 'tie'",
            "play! rock, paper, scissors and return! [win, lose or tie|'win', 'lose' or 'tie'|\"win\", \"lose\" or \"tie\"]",
            "let! the player play [rock-paper-scissors|rock paper scissors] against [the computer|a random choice]",
            "decide! [a game|a round] of rock-paper-scissors [and return! 'win', 'lose' or 'tie'|]",
            "return! 'win', 'lose', or 'tie' for [a simple|a|] rock-paper-scissors [game|]",
        ),
        body=_RPS,
        nouns=(
            "rock-paper-scissors [game|] function that takes {p0} and returns [win, lose or tie|'win', 'lose', or 'tie'|'win', 'lose' or 'tie'|\"win\", \"lose\" or \"tie\"]",
            "rock-paper-scissors [game|] function that takes {p0} and returns [win, lose, or tie|'win', 'lose', or 'tie'|'win', 'lose' or 'tie']",
            "[rock-paper-scissors|rock paper scissors] [game|function|game function]",
            "[game|round] of [rock-paper-scissors|rock, paper, scissors|rock paper scissors] [returning 'win', 'lose' or 'tie'|]",
        ),
        constants=nothing,
        calls=_rps_calls,
    ),
    Rule(
        name="rollDie",
        parameters=(),
        nouns=("{n}-sided die", "d{n} roll", "[die|dice] roll with {n} sides"),
        does=(
            "roll! a [die|dice] with {n} sides",
            "roll! a {n}-sided [die|dice]",
            "return! a random number [from|between] 1 [to|and] {n}",
            "[throw!|simulate!] a {n}-sided die",
            "roll! a d{n}",
        ),
        body="  return Math.floor(Math.random() * {n}) + 1;",
        constants=_sides,
        calls=lambda c: [([], [draw], int(draw * int(c["n"])) + 1) for draw in (0.0, 0.5, 0.99)],
    ),
    Rule(
        name="rollDice",
        parameters=("count",),
        does=(
            "roll! {p0} dice with {n} sides and return! the [sum|total]",
            "[return!|add! up] the [sum|total] of {p0} {n}-sided dice",
            "throw! {p0} dice with {n} sides each and add! them up",
        ),
        body=_DICE,
        constants=_sides,
        calls=lambda c: [([2], [0.0, 0.5], int(0.5 * int(c["n"])) + 2), ([0], [], 0)],
    ),
    Rule(
        name="flipCoin",
        parameters=(),
        nouns=("coin flip [function|]", "coin toss [that returns 'heads' or 'tails'|]", "heads or tails function"),
        does=(
            "flip! a coin",
            "flip! a coin and return! heads or tails",
            "toss! a coin [and return! 'heads' or 'tails'|]",
            "return! 'heads' or 'tails' at random",
            'return! "heads" or "tails" at random',
        ),
        body='  return Math.random() < 0.5 ? "heads" : "tails";',
        constants=nothing,
        calls=lambda c: [([], [0.1], "heads"), ([], [0.9], "tails")],
    ),
    Rule(
        name="takeDamage",
        parameters=("health", "damage"),
        does=(
            "subtract! {p1} from {p0} [but never below zero|and never go! below 0|, not below zero]",
            "reduce! {p0} by {p1}, [at least|down to|never below] [0|zero]",
            "return! {p0} minus {p1}[, at least 0|, never below zero|, but never less than zero]",
            "take! {p1} off {p0}, never below zero",
            "apply! {p1} to {p0} [without going|and never go!] [below 0|below zero|negative]",
        ),
        body="  return Math.max(0, {p0} - {p1});",
        constants=nothing,
        calls=lambda c: [([10, 3], [], 7), ([3, 10], [], 0), ([4, 4], [], 0)],
    ),
    Rule(
        name="heal",
        parameters=("health", "amount"),
        does=(
            "add! {p1} to {p0}, [at most|up to|never above|no more than] {n}",
            "[heal!|raise!|increase!] {p0} by {p1} [up to|to at most|but never above|with a maximum of] {n}",
            "return! {p0} plus {p1}[, capped at|, limited to|, at most] {n}",
        ),
        body="  return Math.min({n}, {p0} + {p1});",
        constants=_n,
        calls=_cut_calls,
    ),
    Rule(
        name="levelFor",
        parameters=("xp",),
        does=(
            "return! the level for {p0}, [one level per|one level for every|a new level every] {n} [points|xp|], starting at [level|] 1",
            "[compute!|calculate!|return!] the level from {p0}: level 1 at the start and one more [for every|per|every] {n} [points|xp]",
            "turn! {p0} into a level, {n} [points|xp] per level, starting at 1",
            "level! up every {n} {p0}, starting at level 1",
        ),
        body="  return Math.floor({p0} / {n}) + 1;",
        constants=_n,
        calls=_level_calls,
    ),
    Rule(
        name="checkGuess",
        parameters=("guess", "secret"),
        nouns=(
            "guessing game [function|] that takes {p0} and {p1} and returns 'higher', 'lower' or 'correct'",
            "[number guessing|guessing] game [function|] with {p0} and {p1} that [returns|says] higher, lower or correct",
        ),
        does=(
            "compare! {p0} with {p1} and return! 'higher', 'lower' or 'correct'",
            "return! [higher, lower or correct|'higher', 'lower' or 'correct'|\"higher\", \"lower\" or \"correct\"] for a {p0} and a {p1}",
            "tell! whether {p1} is 'higher' or 'lower' than {p0}, or 'correct'",
            "check! {p0} against {p1} and say! higher, lower or correct",
            "handle! a guessing game with {p0} and {p1} and return! 'higher', 'lower' or 'correct'",
        ),
        body=_GUESS,
        constants=nothing,
        calls=lambda c: [([1, 5], [], "higher"), ([7, 5], [], "lower"), ([5, 5], [], "correct")],
    ),
    Rule(
        name="score",
        parameters=("hits",),
        does=(
            "return! the score: {n} points [per|for each|for every] hit in {p0} plus a bonus of {m}",
            "multiply! {p0} by {n} and add! [a bonus of|] {m}",
            "give! {n} points for each of {p0} and {m} [bonus points|points extra|on top]",
        ),
        body="  return {p0} * {n} + {m};",
        constants=_two,
        calls=lambda c: [([k], [], k * int(c["n"]) + int(c["m"])) for k in (0, 1, 7)],
    ),
    Rule(
        name="hasLine",
        parameters=("board", "mark"),
        does=(
            "check! whether {p1} has three in a row on a tic-tac-toe {p0}",
            "tell! if {p1} has won on the tic-tac-toe {p0} of nine cells",
            "return! true if {p1} wins [at|] tic-tac-toe on {p0}",
            "check! a tic-tac-toe {p0} for a [line|winning line] of {p1}",
        ),
        body=_LINE,
        constants=nothing,
        calls=_line_calls,
    ),
    Rule(
        name="isGameOver",
        parameters=("lives",),
        does=(
            "return! true [when|if|once] there are no {p0} left",
            "[tell!|check!|say!] whether the game is over because {p0} [is|are] [zero or less|used up|0]",
            "return! true [when|if|once] {p0} [is|are|drops to|reaches] [zero|0]",
            "check! if no {p0} are left",
        ),
        body="  return {p0} <= 0;",
        constants=nothing,
        calls=lambda c: [([0], [], True), ([1], [], False), ([-1], [], True)],
    ),
    Rule(
        name="hasWon",
        parameters=("score",),
        does=(
            "return! true [if|when|once] {p0} [is at least|reaches|is] {n} [or more|]",
            "[check!|tell!] whether {p0} [has reached|is at least|reaches] {n}",
            "[check!|tell!] if the player has won with {n} [or more|] {p0}",
        ),
        body="  return {p0} >= {n};",
        constants=_n,
        calls=lambda c: [([int(c["n"]) + k], [], k >= 0) for k in (-1, 0, 1)],
    ),
    Rule(
        name="pickLoot",
        parameters=(),
        does=(
            "[pick!|return!|draw!|choose!] [one of|randomly one of|at random one of] {a}, {b} and {c}",
            "return! a random item from {a}, {b}, {c}",
            "[drop!|give!] a random [item|loot]: {a}, {b} or {c}",
            "[return!|pick!] '{a}', '{b}' or '{c}' at random",
        ),
        body='  const items = ["{a}", "{b}", "{c}"];\n  return items[Math.floor(Math.random() * items.length)];',
        constants=_items,
        calls=lambda c: [([], [0.1], c["a"]), ([], [0.5], c["b"]), ([], [0.9], c["c"])],
    ),
    Rule(
        name="criticalHit",
        parameters=("damage",),
        does=(
            "multiply! {p0} by {n} with a {c}% chance",
            "return! {p0} times {n} in {c}% of cases[, otherwise {p0}|]",
            "have! a {c}% chance to multiply {p0} by {n}",
            "[apply!|roll!] a critical hit: {c}% chance of {p0} times {n}",
        ),
        body="  return Math.random() * 100 < {c} ? {p0} * {n} : {p0};",
        constants=_chance,
        calls=lambda c: [([10], [0.01], 10 * int(c["n"])), ([10], [0.99], 10)],
    ),
    Rule(
        name="canAfford",
        parameters=("coins", "price"),
        does=(
            "[check!|tell!] whether {p0} [is|are] enough [for|to pay] {p1}",
            "return! true if {p0} cover! {p1}",
            "[check!|tell!] if {p0} [is|are] at least {p1}",
            "return! true [when|if] the player with {p0} can [afford|pay] {p1}",
        ),
        body="  return {p0} >= {p1};",
        constants=nothing,
        calls=lambda c: [([5, 5], [], True), ([4, 5], [], False), ([9, 5], [], True)],
    ),
    Rule(
        name="isClose",
        parameters=("first", "second"),
        does=(
            "[check!|tell!] whether {p0} and {p1} are [at most|no more than|within] {n} [apart|of each other]",
            "return! true if the distance [between|of] {p0} and {p1} is at most {n}",
            "detect! a collision of {p0} and {p1} [when|if] they are at most {n} apart",
        ),
        body="  return Math.abs({p0} - {p1}) <= {n};",
        constants=_n,
        calls=lambda c: [([0, int(c["n"])], [], True), ([int(c["n"]) + 1, 0], [], False), ([3, 3], [], True)],
    ),
    Rule(
        name="attack",
        parameters=("strength", "defense"),
        does=(
            "return! {p0} minus {p1} but at least {n}",
            "[compute!|calculate!|return!] the damage: {p0} minus {p1}, [at least|never less than|minimum] {n}",
            "subtract! {p1} from {p0} with a minimum of {n}",
        ),
        body="  return Math.max({n}, {p0} - {p1});",
        constants=_n,
        calls=lambda c: [([200, 50], [], max(int(c["n"]), 150)), ([1, 9], [], int(c["n"])), ([400, 1], [], 399)],
    ),
    Rule(
        name="nextPlayer",
        parameters=("player",),
        does=(
            "switch! [the|] {p0} between 'X' and 'O'",
            "return! the next {p0}: 'O' after 'X' and 'X' after 'O'",
            "[return!|give!] 'O' if {p0} is 'X' and 'X' otherwise",
            "[swap!|change!] turns between X and O for {p0}",
        ),
        body='  return {p0} === "X" ? "O" : "X";',
        constants=nothing,
        calls=lambda c: [(["X"], [], "O"), (["O"], [], "X")],
    ),
    Rule(
        name="timeBonus",
        parameters=("seconds",),
        does=(
            "return! a time bonus: {m} points for every second of {p0} below {n}[, at least 0|, never negative]",
            "give! {m} points for each second that {p0} stay! under {n}",
            "[compute!|calculate!] the bonus of {m} points per second left of {n} after {p0}",
        ),
        body="  return Math.max(0, {n} - {p0}) * {m};",
        constants=_two,
        calls=lambda c: [([k], [], max(0, int(c["n"]) - k) * int(c["m"])) for k in (0, 1, 500)],
    ),
    Rule(
        name="rankFor",
        parameters=("score",),
        does=(
            "return! 'gold' from {a}, 'silver' from {b} and 'bronze' below [for {p0}|depending on {p0}]",
            "rank! {p0}: gold [from|at|for] {a}, silver [from|at|for] {b}, else bronze",
            "[give!|return!] gold for at least {a} {p0}, silver for at least {b} and bronze otherwise",
        ),
        body=_RANK,
        constants=_ranks,
        calls=lambda c: [
            ([int(c["a"])], [], "gold"),
            ([int(c["a"]) - 1], [], "silver"),
            ([int(c["b"])], [], "silver"),
            ([int(c["b"]) - 1], [], "bronze"),
        ],
    ),
    Rule(
        name="inBounds",
        parameters=("x", "y"),
        does=(
            "[check!|tell!] whether {p0} and {p1} [are|lie] [inside|on|within] a [board|grid|map] of {n} by {m} [cells|]",
            "return! true if {p0}, {p1} is [inside|on|within] a {n}x{m} [board|grid|map]",
            "check! that the position {p0}, {p1} is on the {n} by {m} [board|grid|map]",
        ),
        body="  return {p0} >= 0 && {p0} < {n} && {p1} >= 0 && {p1} < {m};",
        constants=_two,
        calls=lambda c: [
            ([0, 0], [], True),
            ([int(c["n"]), 0], [], False),
            ([0, int(c["m"])], [], False),
            ([-1, 0], [], False),
            ([int(c["n"]) - 1, int(c["m"]) - 1], [], True),
        ],
    ),
)
