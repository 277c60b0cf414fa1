"""What a model is told: from an ask and a specialist's texts to the messages of a call, and what goes when it is long.

A question is prepared as a ladder of prompts, from the complete one to the shortest that still makes sense. The first
that fits the served context is sent; what it lacks is named in the outcome. Examples go first, the last one first, so
that what is left is a prefix of what was; then the faulty answer and what was wrong with it. The brief never goes.
Constant texts stand first and are byte-identical for every request of a specialist, so that a server reuses its work.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from lumina.events.contract import Case, Form, Language, OutputContract
from lumina.events.generation import Ask, Purpose
from lumina.events.values import Canonical
from lumina.models.backend import Message

CASES_SHOWN_MAX: Final = 3
BARE_FEEDBACK_CHARACTERS_MAX: Final = 160
"""What the demo model saw of an error text when it was trained."""
BARE_PLAN: Final = "plan"
BARE_FIX: Final = "Fix the code."

_CONTROL: Final = re.compile(
    r"<\|[^\s|<>]{1,40}\|>|</?start_of_turn>|<end_of_turn>|\[/?INST\]|<</?SYS>>|<\uff5c[^<>\uff5c]{1,40}\uff5c>"
)

PLAN_ROLE: Final = """\
You split a request for programs into the smallest number of independent steps, one program each.
Answer with a JSON array and nothing else: [{"kind": KIND, "brief": TEXT}, ...], with one to eight entries.
"brief" repeats the words of the request that belong to that step; leave no name, number, address or file name out.
A request for one program is one step.
The kinds are: """


class Prompt(Canonical, frozen=True, kw_only=True):
    """The messages of a call, and the names of the parts that they lack, in the order in which those went."""

    messages: tuple[Message, ...]
    trimmed: tuple[str, ...] = ()


class SpecialistTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What a specialist's definition gives to a prompt.

    Attributes:
        role: The system message.
        examples: How many examples there are.
        render: The user message with that many examples and that feedback.
    """

    role: str
    examples: int
    render: Callable[[int, tuple[str, ...]], str]


def prompts(
    ask: Ask,
    *,
    texts: SpecialistTexts | None,
    previous: str | None,
    earlier: tuple[Message, ...] = (),
    words: str | None = None,
) -> tuple[Prompt, ...]:
    """Return the ladder of prompts for an ask; `texts` may be None for a bare model and for a plan.

    `earlier` is the conversation that the ask continues. It stands before the new words as it was, so that a server
    reuses all its work on it; when the context is short, the oldest of it goes first. `words` are what is said now, if
    the ask brings them.
    """
    if earlier:
        new = _new_words(ask, texts=texts, previous=previous) if words is None else Message("user", words)
        return _continued(earlier, new)
    if ask.purpose is Purpose.PLAN:
        role = BARE_PLAN if ask.bare else PLAN_ROLE + ", ".join(ask.kinds) + "."
        return (Prompt(messages=_clean(Message("system", role), Message("user", ask.brief))),)
    if ask.bare:
        return _bare(ask, previous=previous)
    assert texts is not None, "a model that is not bare is asked in a specialist's words"
    return _instructed(ask, texts=texts, previous=previous)


def _new_words(ask: Ask, *, texts: SpecialistTexts | None, previous: str | None) -> Message:
    """Return what is said now; the role line, the examples and the faulty answer have been said before."""
    if ask.purpose is Purpose.REPAIR and previous is not None and not ask.bare:
        return _repair_turns(ask, previous=previous)[-1]
    if texts is None or ask.bare:
        return Message("user", ask.brief)
    return Message("user", texts.render(0, ask.feedback))


def _continued(earlier: tuple[Message, ...], new: Message) -> tuple[Prompt, ...]:
    """Return the conversation with the new words, and shorter ones that lack its oldest quarters, half, all.

    The system message stays. What goes is named by its numbers, counted from the first message after that.
    """
    kept = sum(message.role == "system" for message in earlier[:1])
    lasting, talk = earlier[:kept], earlier[kept:]
    cuts = dict.fromkeys(_at_question(talk, len(talk) * quarter // 4) for quarter in range(5))
    return tuple(
        Prompt(messages=_clean(*lasting, *talk[cut:], new), trimmed=(f"turns-1-{cut}",) if cut else ()) for cut in cuts
    )


def _at_question(talk: tuple[Message, ...], cut: int) -> int:
    """Return the next place from `cut` on at which a question stands: models expect no answer first."""
    return next((place for place in range(cut, len(talk)) if talk[place].role == "user"), len(talk) if cut else 0)


def fit(counts: tuple[int, ...], *, context: int, tokens_max: int) -> int | None:
    """Return which prompt is sent, the first whose count leaves room for the answer; None when none does.

    `counts` are those of the first prompts of a ladder, as far as they were counted.
    """
    room = context - reserve(tokens_max, context=context)
    return next((index for index, count in enumerate(counts) if count <= room), None)


def reserve(tokens_max: int, *, context: int) -> int:
    """Return how many tokens are kept free for the answer: `tokens_max`, but never more than half of the context."""
    return min(tokens_max, context // 2)


def without_control(text: str) -> str:
    """Return `text` without strings that chat templates use as control tokens, however nested.

    A server that tokenizes whole prompts would obey them. Our own worker also removes its model's exact ones.
    """
    while (stripped := _CONTROL.sub("", text)) != text:
        text = stripped
    return text


def contract_words(contract: OutputContract) -> str:
    """Return what an answer must be, in words for a model, one demand a line."""
    javascript = contract.language is Language.JAVASCRIPT
    demands = [f"- It is one complete {'JavaScript program for Node' if javascript else 'Python program'}."]
    match contract.form:
        case Form.FUNCTION:
            name = contract.entry or "the function"
            signature = f"{name}({', '.join(contract.parameters)})" if contract.parameters else name
            demands.append(f"- It defines {signature} and calls nothing at the top level.")
            if javascript and contract.entry:
                demands.append(f"- It ends with: module.exports = {{ {contract.entry} }};")
        case Form.ROWS:
            keys = f" with exactly the keys {', '.join(contract.fields)}" if contract.fields else ""
            demands.append(f"- It prints one JSON array of objects{keys}, and nothing else.")
            if contract.rows_max:
                demands.append(f"- The array has at most {contract.rows_max} objects.")
        case Form.FILE:
            demands.append(f"- It writes the file {contract.artifact or 'that the request names'}.")
        case Form.TIMELINE:
            demands.append(
                "- It ends with module.exports = { timeline }; where timeline is { defaults?, steps: [{ target, vars,"
                " at? }], repeat?, yoyo?, delay? } of GSAP values, and it calls nothing."
            )
        case Form.SCRIPT:
            demands.append("- It runs to its end without an error.")
    if contract.must_contain:
        demands.append("- These texts stand in it exactly: " + ", ".join(map(_quoted, contract.must_contain)))
    demands += [_case_words(contract.entry or "it", case) for case in contract.cases[:CASES_SHOWN_MAX] if case.one_of]
    return "\n".join(demands)


def _case_words(name: str, case: Case) -> str:
    arguments = case.arguments.strip().removeprefix("[").removesuffix("]")
    return f"- {name}({arguments}) returns {' or '.join(case.one_of)}."


def _quoted(text: str) -> str:
    return f'"{text}"'


def _bare(ask: Ask, *, previous: str | None) -> tuple[Prompt, ...]:
    brief = Message("user", ask.brief)
    plain = Prompt(messages=_clean(brief))
    if previous is None:
        return (plain,)
    complaint = "\n".join(ask.feedback)[:BARE_FEEDBACK_CHARACTERS_MAX] + "\n" + BARE_FIX
    repair = _clean(brief, Message("assistant", previous), Message("user", complaint))
    return (Prompt(messages=repair), Prompt(messages=plain.messages, trimmed=("previous", "feedback")))


def _instructed(ask: Ask, *, texts: SpecialistTexts, previous: str | None) -> tuple[Prompt, ...]:
    ladder: list[Prompt] = []
    system = Message("system", texts.role.strip())
    trimmed: tuple[str, ...] = ()
    later = () if previous is None else _repair_turns(ask, previous=previous)
    feedback = ask.feedback if previous is None else ()
    for examples in range(texts.examples, -1, -1):
        if examples < texts.examples:
            trimmed = (*trimmed, f"example-{examples + 1}")
        user = Message("user", texts.render(examples, feedback))
        ladder.append(Prompt(messages=_clean(system, user, *later), trimmed=trimmed))
    if previous is not None:
        trimmed = (*trimmed, "previous")
        user = Message("user", texts.render(0, ask.feedback))
        ladder.append(Prompt(messages=_clean(system, user), trimmed=trimmed))
    if ask.feedback:
        user = Message("user", texts.render(0, ()))
        ladder.append(Prompt(messages=_clean(system, user), trimmed=(*trimmed, "feedback")))
    return tuple(ladder)


def _repair_turns(ask: Ask, *, previous: str) -> tuple[Message, ...]:
    """Return the turns after the request: the faulty answer, and what was wrong with it.

    The request before them stays as it was in the first attempt, so that its part of the prompt is reused.
    """
    assert ask.contract is not None, "code is asked for with a contract"
    fenced = f"```{ask.contract.language.value}\n{previous.rstrip()}\n```"
    wrong = "\n".join(f"- {line}" for line in ask.feedback)
    complaint = f"That answer does not count:\n{wrong}\nAnswer again with the whole corrected program."
    return (Message("assistant", fenced), Message("user", complaint))


def _clean(*messages: Message) -> tuple[Message, ...]:
    return tuple(Message(message.role, without_control(message.text)) for message in messages)
