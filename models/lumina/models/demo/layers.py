"""Requests for stacking image layers, answered by a Python script with Pillow."""

# ruff: noqa: E501, SIM905 - wordings and word lists read better in long lines

from dataclasses import dataclass
from random import Random
from typing import Final

from . import phrasing, words
from .record import Task

_KNOWN: Final = tuple(
    """base_character green_tunic leather_boots surprised_face generated_character body hair shirt hat
    cloak face glasses background base skin eyes mouth sword shield helmet logo photo frame shadow
    sky castle flag tree badge border avatar pants shoes cape crown beard""".split()
)
_OUTPUTS: Final = tuple("output result avatar hero final character scene out combined merged portrait sprite".split())

_THINGS: Final = (
    "[a|] [Python|] [Pillow|PIL|] script [using Pillow|with Pillow|in Python|]",
    "[a|] Python [code|script|program]",
    "[a|] script [using PIL|with Pillow|]",
    "[Pillow|Python] code",
)
_LAYER: Final = (
    "[layer|composite|combine|stack|merge|put together|overlay|blend|assemble] {all}",
    "[layer|composite|combine|stack|merge|overlay] {all} [in that order|in this order|on top of each other|]",
    "[open|load|take|start with|start from|use] {first} [as the base|as the background|as the canvas|] and [put|paste|add|place|layer|overlay] {rest} [on top|on top of it|on it|over it|]",
    "[open|load|take|start with|start from|begin with] {first}, [then|and then|] [add|paste|put|place|layer|overlay|draw] {rest}",
    "[put|paste|place|overlay|add|composite|lay|draw] {rest} [on top of|on|onto|over] {first}",
)
_HELD_LAYER: Final = ("[mount|superimpose] {rest} [upon|above] {first}", "[flatten|fuse] {all}")
_DOES: Final = (" that [should|will|can] ", " to ", " [to|which should|that must] ", ": ")
_SAVES: Final = (
    ". Save [the output|the result|it|the image|the final image|] [as|to|under|in] {out}.",
    " and save [the output|the result|it|the image|] [as|to] {out}.",
    ", save [the output|the result|it|] [as|to] {out}.",
    ", then save [it|the result|everything] [as|to] {out}.",
    " and write [the result|it] to {out}.",
    ". [Output|Result|Output file|Save as|The output is|The output file is|Write the result to|Export it as|Store the result as]: {out}.",
    ". [The result goes to|Write the output to|Export to|Store it as|The output should be|The output is called] {out}.",
    " into {out}.",
    ", output {out}.",
)
_EXTRAS: Final = (
    ". Ensure all layers are transparent PNGs and composite them correctly",
    ". All [layers|files|images] are transparent PNGs",
    ". Keep the transparency",
    ". Respect the alpha channel",
    ". Make sure [transparency|alpha] is [kept|respected|handled correctly]",
    ". Use alpha compositing",
)
_AT: Final = (
    "[{file} (at coordinates {x},{y})|{file} (at {x},{y})|{file} (at {x}, {y})]",
    "[{file} at {x},{y}|{file} at {x}, {y}|{file} at ({x}, {y})|{file} at ({x},{y})|{file} at position {x}, {y}|{file} at coordinates {x},{y}|{file} at position ({x}, {y})]",
    "[{file} at x={x}, y={y}|{file} at x {x} and y {y}|{file} at x={x} y={y}|{file} at x {x} y {y}|{file} (x={x}, y={y})]",
    "[{file} ({x}, {y})|{file} ({x},{y})|{file} @ {x},{y}]",
)
_OPACITY: Final = (
    " with {o} opacity",
    " at {o} opacity",
    " with opacity {o}",
    " (opacity {o})",
    " and opacity {o}",
    ", {o} opaque",
)
_RESIZE: Final = (
    " resized to {w}x{h}",
    " scaled to {w}x{h}",
    " (resized to {w}x{h})",
    " with size {w}x{h}",
    " resized to {w} by {h}",
    " resized to {w} x {h} pixels",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    file: str
    x: int
    y: int
    placed: bool
    opacity: str | None
    size: tuple[int, int] | None


def example(rng: Random, *, held: bool = False) -> Task:
    """Return one request for a stack; `held` draws from the wordings kept for evaluation."""
    layers = _layers(rng)
    output = _file(rng, names=_OUTPUTS)
    while output in {layer.file for layer in layers}:
        output = _file(rng, names=_OUTPUTS)
    mark = words.mark(rng, bare=True)
    said = _said(rng, layers=layers, mark=mark)
    slots = {
        "all": phrasing.listed(rng, said),
        "first": said[0],
        "rest": _rest(rng, said[1:]),
        "out": words.quote(output, mark=mark),
    }
    request = phrasing.fill(phrasing.roughen(rng, _body(rng, held=held)), slots)
    marks = "".join(f"{layer.placed:d}{layer.opacity is not None:d}{layer.size is not None:d}" for layer in layers[1:])
    return Task(
        kind="layers",
        request=request,
        code=code(layers=layers, output=output),
        key=f"layers/{len(layers)}/{marks}/{words.share(output):.1f}",
        held_wording=held,
        spec={
            "files": [
                [layer.file, layer.x, layer.y, _fraction(layer.opacity), list(layer.size) if layer.size else None]
                for layer in layers
            ],
            "save": output,
        },
        literals=(*(layer.file for layer in layers), output),
    )


def code(*, layers: list[_Layer], output: str) -> str:
    """Return the script: open the base, composite each layer, save."""
    lines = ["from PIL import Image", "", f'base = Image.open("{layers[0].file}").convert("RGBA")']
    for layer in layers[1:]:
        lines.append(f'layer = Image.open("{layer.file}").convert("RGBA")')
        if layer.size is not None:
            lines.append(f"layer = layer.resize(({layer.size[0]}, {layer.size[1]}))")
        if layer.opacity is not None:
            factor = f"{layer.opacity[:-1]} // 100" if layer.opacity.endswith("%") else layer.opacity
            lines.append(f'layer.putalpha(layer.getchannel("A").point(lambda value: int(value * {factor})))')
        lines.append(f"base.alpha_composite(layer, ({layer.x}, {layer.y}))")
    lines.append(f'base.save("{output}")')
    return "\n".join(lines) + "\n"


def _fraction(opacity: str | None) -> float | None:
    if opacity is None:
        return None
    return int(opacity[:-1]) / 100 if opacity.endswith("%") else float(opacity)


def _file(rng: Random, *, names: tuple[str, ...]) -> str:
    stem = rng.choice(names) if rng.random() < 0.3 else words.snake(rng).replace("_", rng.choice(("_", "_", "-")))
    return f"{stem}.png"


def _layers(rng: Random) -> list[_Layer]:
    names: list[str] = []
    count = rng.choice((2, 2, 2, 3, 3, 3, 4, 4, 5))
    while len(names) < count:
        name = _file(rng, names=_KNOWN)
        if name not in names:
            names.append(name)
    placed = rng.random() < 0.7
    changed = 0.0 if rng.random() < 0.55 else 0.45
    layers = [_Layer(file=names[0], x=0, y=0, placed=False, opacity=None, size=None)]
    for name in names[1:]:
        at = placed and rng.random() < 0.9
        side = rng.choice((60, 100, 300))
        percent = f"{rng.randrange(5, 100, 5)}%"
        opacity = rng.choice((percent, percent, words.decimal(rng.randint(1, 19) / 20)))
        edge = rng.randint(8, 256)
        layers.append(
            _Layer(
                file=name,
                x=rng.randint(0, side) if at else 0,
                y=rng.randint(0, side) if at else 0,
                placed=at,
                opacity=opacity if rng.random() < changed else None,
                size=rng.choice(((edge, edge), (edge, rng.randint(8, 256)))) if rng.random() < changed * 0.7 else None,
            )
        )
    return layers


def _said(rng: Random, *, layers: list[_Layer], mark: str) -> list[str]:
    frame = rng.choice(_AT)
    opacity, resize = rng.choice(_OPACITY), rng.choice(_RESIZE)
    said: list[str] = []
    for layer in layers:
        text = phrasing.expand(rng, frame) if layer.placed else "{file}"
        if layer.size is not None:
            text += resize.replace("{w}", str(layer.size[0])).replace("{h}", str(layer.size[1]))
        if layer.opacity is not None:
            text += opacity.replace("{o}", layer.opacity)
        slots = {"file": words.quote(layer.file, mark=mark), "x": str(layer.x), "y": str(layer.y)}
        said.append(phrasing.fill(text, slots))
    return said


def _rest(rng: Random, said: list[str]) -> str:
    if len(said) > 1 and rng.random() < 0.4:
        return rng.choice((", then ", " and then ", ", and then ")).join(said)
    return phrasing.listed(rng, said)


def _body(rng: Random, *, held: bool) -> str:
    action = phrasing.pick(rng, _HELD_LAYER if held else _LAYER)
    save = phrasing.pick(rng, _SAVES)
    draw = rng.random()
    if draw < 0.5:
        body = phrasing.ask(rng, rng.choice(_THINGS), held=held).strip() + phrasing.pick(rng, _DOES) + action
    elif draw < 0.75:
        body = (
            phrasing.pick(
                rng,
                (
                    "[Using Pillow|With Pillow|In Python|With PIL|Using PIL], ",
                    "[Pillow|PIL|Python]: ",
                    "[Please|Could you|Can you|I need you to|I want you to] ",
                    "Build my [avatar|character|picture]: ",
                ),
            )
            + action
        )
    else:
        body = action
    if rng.random() < 0.2:
        body += phrasing.pick(rng, _EXTRAS)
        save = (
            save
            if save.startswith(". ")
            else ". Save [as|to] {out}.".replace("[as|to]", rng.choice(("as", "to", "it as")))
        )
    return body + save
