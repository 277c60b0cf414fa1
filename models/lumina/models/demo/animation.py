"""Requests for a GSAP timeline configuration, answered by a JavaScript object."""

# ruff: noqa: E501 - wordings and word lists read better in long lines

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from . import phrasing, words
from .animation_words import (
    AT,
    DURATION,
    EASES,
    HELD_OPERATION,
    LINKS,
    LINKS_SUBJECT,
    MEANWHILE,
    OPERATIONS,
    PAUSE,
    THEN,
    THINGS,
)
from .record import Task
from .rules import third_person


@dataclass(kw_only=True, slots=True)
class _Step:
    targets: list[str]
    values: dict[str, str] = field(default_factory=dict[str, str])
    operation: str = ""
    duration: str | None = None
    at: str | None = None


def example(rng: Random, *, held: bool = False) -> Task:
    """Return one request for a timeline; `held` draws from the wordings kept for evaluation."""
    steps = _steps(rng, held=held)
    options = _options(rng, steps)
    slots: dict[str, str] = {}
    body = _body(rng, steps=steps, slots=slots, held=held)
    body += _tail(rng, options)
    request = phrasing.fill(phrasing.roughen(rng, body), slots)
    operations = "+".join(step.operation for step in steps)
    places = "+".join((step.at or "")[:1] for step in steps)
    return Task(
        kind="animation",
        request=request,
        code=code(steps=[(selector(step), variables(step), step.at) for step in steps], options=options),
        key=f"animation/{operations}/{places}/{'+'.join(sorted(options))}",
        held_wording=held,
        spec={
            "steps": [_step_spec(step) for step in steps],
            "defaults": {name: options[name] for name in ("duration", "ease") if name in options},
            "options": {name: options[name] for name in ("repeat", "yoyo", "delay") if name in options},
        },
        literals=tuple(target for step in steps for target in step.targets),
    )


def code(*, steps: list[tuple[str, str, str | None]], options: Mapping[str, str]) -> str:
    """Return the module text for (selector, vars, at) steps and timeline options."""
    duration = options.get("duration", "0.5")
    ease = options.get("ease", "power1.inOut")
    lines = ["const timeline = {", f'  defaults: {{ duration: {duration}, ease: "{ease}" }},']
    lines += [f"  {name}: {options[name]}," for name in ("repeat", "yoyo", "delay") if name in options]
    lines.append("  steps: [")
    for target, values, at in steps:
        end = "" if at is None else f", at: {at}"
        lines.append(f'    {{ target: "{target}", vars: {{ {values} }}{end} }},')
    lines += ["  ],", "};", "module.exports = { timeline };"]
    return "\n".join(lines) + "\n"


def selector(step: _Step) -> str:
    """Return the CSS selector of a step; bare names are ids."""
    return ", ".join(name if name[0] in "#." else f"#{name}" for name in step.targets)


def variables(step: _Step) -> str:
    """Return the inside of a step's `vars`."""
    values = dict(step.values)
    if step.duration is not None:
        values["duration"] = step.duration
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _step_spec(step: _Step) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in step.values.items():
        values[name] = {"src": value.split('"')[1]} if name == "attr" else float(value)
    if step.duration is not None:
        values["duration"] = float(step.duration)
    spec: dict[str, object] = {"targets": selector(step).split(", "), "vars": values}
    if step.at is not None:
        spec["at"] = step.at.strip('"') if '"' in step.at else float(step.at)
    return spec


def _target(rng: Random) -> str:
    return rng.choice(("", "", "", "#", "#", ".")) + words.element(rng)


def _steps(rng: Random, *, held: bool) -> list[_Step]:
    steps: list[_Step] = []
    timed = rng.random() < 0.55
    for index in range(rng.choice((1, 2, 2, 2, 3, 3, 4))):
        if steps and rng.random() < 0.3:
            targets = steps[-1].targets
        else:
            targets = [_target(rng)]
            if rng.random() < 0.2:
                targets.append(targets[0][: len(targets[0]) - len(targets[0].lstrip("#."))] + words.element(rng))
        step = _Step(targets=targets)
        step.operation = "pair" if held else rng.choice(tuple(OPERATIONS))
        step.values = _values(rng, step.operation)
        if timed and rng.random() < 0.85:
            step.duration = rng.choice(
                ("0.1", "0.15", "0.2", "0.25", "0.3", "0.4", "0.5", "0.6", "0.75", "0.8", "1", "1.2", "1.5", "2", "3")
            )
        draw = rng.random()
        if index and draw < 0.15:
            step.at = '"<"'
        elif index and draw < 0.3:
            step.at = f'"+={words.decimal(rng.randint(1, 20) / 10)}"'
        elif index and draw < 0.36:
            step.at = words.decimal(rng.randint(1, 12) / 4)
        steps.append(step)
    return steps


def _values(rng: Random, operation: str) -> dict[str, str]:
    """Return the properties an operation sets, as JavaScript literals."""
    small = words.decimal(
        rng.choice((0, 0, 0.1, 0.2, 0.25, 0.5, 0.6, 0.75, 0.8, 0.9, 1, 1, 1.1, 1.2, 1.3, 1.5, 1.8, 2, 3))
    )
    pixels = rng.choice((rng.randint(1, 99), rng.randrange(10, 400, 10)))
    match operation:
        case "fade_out":
            return {"opacity": "0"}
        case "fade_in":
            return {"opacity": "1"}
        case "fade":
            return {"opacity": words.decimal(rng.randint(1, 19) / 20)}
        case "right" | "left":
            return {"x": str(pixels if operation == "right" else -pixels)}
        case "down" | "up":
            return {"y": str(pixels if operation == "down" else -pixels)}
        case "rotate":
            return {"rotation": str(rng.choice((rng.randrange(5, 365, 5), 90, 180, 360, 0, -rng.randrange(5, 95, 5))))}
        case "scale" | "scaleX" | "scaleY":
            return {operation: small}
        case "src":
            return {"attr": f'{{ src: "{words.snake(rng)}.{rng.choice(("png", "png", "png", "jpg", "svg"))}" }}'}
        case _:
            names = rng.sample(("x", "y", "rotation", "scaleX", "scaleY", "scale", "opacity"), 2)
            return {
                name: str(rng.randint(-90, 90))
                if name in ("x", "y", "rotation")
                else words.decimal(rng.randint(0, 20) / 10)
                for name in names
            }


def _options(rng: Random, steps: list[_Step]) -> dict[str, str]:
    options: dict[str, str] = {}
    if all(step.duration is None for step in steps) and rng.random() < 0.5:
        options["duration"] = rng.choice(("0.2", "0.3", "0.4", "0.6", "0.75", "0.8", "1", "1.5", "2"))
    if rng.random() < 0.4:
        options["ease"] = rng.choice(EASES)
    if rng.random() < 0.25:
        options["repeat"] = rng.choice(("-1", "-1", "1", "2", "3", "4", "5"))
        if rng.random() < 0.5:
            options["yoyo"] = "true"
    if rng.random() < 0.12:
        options["delay"] = words.decimal(rng.randint(1, 12) / 4)
    return options


def _tail(rng: Random, options: Mapping[str, str]) -> str:
    """Return the sentences about the whole timeline."""
    parts: list[str] = []
    if "duration" in options:
        parts.append(
            "[Each step takes {d} seconds.|Each one takes {d}s.|Use {d}s for each step.|{d}s each.|All steps last {d} seconds.|The default duration is {d} seconds.|Everything takes {d} seconds.|Use a duration of {d}.|Duration {d}.]".replace(
                "{d}", options["duration"]
            )
        )
    if "ease" in options:
        parts.append(
            "[Use {e} as the ease.|Ease: {e}.|Use the ease {e}.|Ease with {e}.|The ease is {e}.|With {e}.|Use {e} easing.|Easing {e}.]".replace(
                "{e}", options["ease"]
            )
        )
    if "repeat" in options:
        times = options["repeat"]
        if times == "-1":
            parts.append(
                "[Repeat forever|Loop forever|Repeat it endlessly|Loop it endlessly|Repeat indefinitely|It loops forever|Repeat infinitely]"
            )
        else:
            parts.append(
                f"[Repeat {times} times|Repeat it {times} times|It repeats {times} times|Loop {times} times|Repeat: {times}]"
            )
        parts[-1] += "[ with yoyo.| and yoyo.| going back and forth.|, yoyo.]" if "yoyo" in options else "."
    if "delay" in options:
        parts.append(
            "[Delay the start by {d} seconds.|Start after {d} seconds.|Start delay {d}s.|Delay: {d}.|Delay it by {d}s.]".replace(
                "{d}", options["delay"]
            )
        )
    rng.shuffle(parts)
    return "".join(" " + phrasing.expand(rng, part) for part in parts)


def _body(rng: Random, *, steps: list[_Step], slots: dict[str, str], held: bool) -> str:
    """Return the sentence about the steps; adds the values of its slots to `slots`."""
    mark = words.mark(rng, bare=True)
    slots["q"] = mark
    subject = rng.random() < 0.35
    text = ""
    for index, step in enumerate(steps):
        clause = _clause(rng, step=step, before=steps[index - 1] if index else None, subject=subject, held=held)
        slots[f"t{index}"] = _noun(rng, step=step, mark=mark)
        slots[f"s{index}"] = words.quote(step.values.get("attr", '""').split('"')[1], mark=mark)
        number = next(iter(step.values.values()))
        slots[f"v{index}"] = number.removeprefix("-") if step.operation in ("left", "up") else number
        separator = rng.choice((": ", ": ", " "))
        slots[f"p{index}"] = rng.choice((", ", " and ")).join(
            name + separator + value for name, value in step.values.items()
        )
        for slot in "tsvp":
            clause = clause.replace(f"{{{slot}}}", f"{{{slot}{index}}}")
        link = "" if index == 0 else _link(rng, step)
        text += link + (clause[0].upper() + clause[1:] if link.endswith(". ") else clause)
    return _open(rng, text, subject=subject, held=held) + "."


def _open(rng: Random, text: str, *, subject: bool, held: bool) -> str:
    if rng.random() < 0.22:
        return (
            rng.choice(("", "", "GSAP: ", "GSAP timeline: ", "JavaScript animation: ", "Animation: ", "In GSAP, "))
            + text
        )
    opened = phrasing.ask(rng, rng.choice(THINGS), held=held).strip()
    link = phrasing.pick(rng, LINKS_SUBJECT if subject else LINKS)
    if link.endswith(". "):
        text = text[0].upper() + text[1:]
    return opened + link + text


def _link(rng: Random, step: _Step) -> str:
    if step.at is None:
        return rng.choice(THEN)
    if step.at == '"<"':
        return rng.choice(MEANWHILE)
    links = PAUSE if "+=" in step.at else AT
    return phrasing.pick(rng, links).replace("{g}", step.at.strip('"').removeprefix("+="))


def _noun(rng: Random, *, step: _Step, mark: str) -> str:
    quoted = phrasing.listed(rng, [words.quote(target, mark=mark) for target in step.targets])
    if step.targets[0][0] in "#." or rng.random() < 0.5:
        return quoted
    if len(step.targets) > 1:
        return f"the {quoted} {rng.choice(('elements', 'layers'))}"
    return rng.choice((f"the {quoted} element", f"the {quoted} layer", f"the {quoted}", f"the element {quoted}"))


def _clause(rng: Random, *, step: _Step, before: _Step | None, subject: bool, held: bool) -> str:
    """Return one step as a clause, imperative or with the target as its subject."""
    imperative, intransitive = OPERATIONS[step.operation]
    same = before is not None and before.targets == step.targets and step.at is None
    many = len(step.targets) > 1
    if held:
        clause = HELD_OPERATION
    elif subject:
        verb = phrasing.pick(rng, intransitive)
        form = rng.choice(("{t} should ", "{t} ", "make {t} ", "{t} "))
        who = ("they" if many else "it") if same and rng.random() < 0.6 else "{t}"
        if form.startswith("make"):
            who = who.replace("they", "them")
        inflected = third_person(verb) if form == "{t} " and not many else verb.replace("!", "")
        clause = form.replace("{t}", who) + inflected
        if same and rng.random() < 0.25:
            clause = verb.replace("!", "")
    else:
        clause = phrasing.pick(rng, imperative)
        draw = rng.random()
        if draw < 0.15:
            clause = "make {t} " + phrasing.pick(rng, intransitive).replace("!", "")
        elif before is not None and draw < 0.35:
            clause = "{t} should " + phrasing.pick(rng, intransitive).replace("!", "")
        elif same and draw < 0.5:
            clause = phrasing.pick(rng, intransitive).replace("!", "")
        if same and "should" not in clause and rng.random() < 0.5:
            clause = clause.replace("{t}", "them" if many else "it")
    if step.duration is not None:
        clause += rng.choice(DURATION).replace("{d}", step.duration).removesuffix(",")
    return clause
