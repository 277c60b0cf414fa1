"""How people ask for steps of a timeline; `animation` turns the same steps into code."""

# ruff: noqa: E501 - a table of wordings reads better with one group a line

from collections.abc import Mapping
from typing import Final

EASES: Final = (
    *tuple(
        f"{name}.{end}"
        for name in ("power1", "power2", "power3", "power4", "back", "bounce", "elastic", "sine", "expo", "circ")
        for end in ("in", "out", "inOut")
    ),
    "none",
)

# An operation: the properties it sets, then ways to say it. `!` marks a verb that
# takes the s of the third person; {t} is the target in the imperative forms.
FADE_OUT: Final = ("fade out {t}", "fade {t} out", "hide {t}", "make {t} invisible", "set the opacity of {t} to 0")
FADE_IN: Final = ("fade in {t}", "fade {t} in", "show {t}", "make {t} visible", "set the opacity of {t} to 1")
OPERATIONS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "fade_out": (FADE_OUT, ("fade! out", "disappear!", "vanish!", "fade! to opacity 0")),
    "fade_in": (FADE_IN, ("fade! in", "appear!", "fade! to opacity 1")),
    "fade": (("fade {t} to [opacity|] {v}", "set the opacity of {t} to {v}"), ("fade! to [opacity|] {v}",)),
    "right": (
        (
            "[move|slide|push|shift] {t} {v}[px| px| pixels|] [to the right|right|rightwards]",
            "[move|slide|push|shift] {t} to the right by {v}[px| px| pixels|]",
        ),
        (
            "[move!|slide!|shift!|go!] {v}[px| px| pixels|] [to the right|right]",
            "[move!|slide!] right by {v}[px| pixels|]",
        ),
    ),
    "left": (
        (
            "[move|slide|push|shift] {t} {v}[px| px| pixels|] [to the left|left|leftwards]",
            "[move|slide|push|shift] {t} to the left by {v}[px| px| pixels|]",
        ),
        (
            "[move!|slide!|shift!|go!] {v}[px| px| pixels|] [to the left|left]",
            "[move!|slide!] left by {v}[px| pixels|]",
        ),
    ),
    "down": (
        (
            "[move|slide|push|shift|drop|lower] {t} down by {v}[px| px| pixels|]",
            "[drop|lower] {t} by {v}[px| px| pixels|]",
            "[move|slide|push|shift] {t} {v}[px| px| pixels|] [down|downwards]",
            "[move|slide] {t} down {v}[px| pixels|]",
        ),
        ("[move!|slide!|drop!|fall!|go!] [down|down by] {v}[px| px| pixels|]", "[move!|slide!] {v}[px| pixels|] down"),
    ),
    "up": (
        (
            "[raise|lift] {t} by {v}[px| px| pixels|]",
            "[move|slide|push|shift] {t} {v}[px| px| pixels|] [up|upwards]",
            "[move|slide|push|shift] {t} up [by|] {v}[px| pixels|]",
        ),
        ("[move!|slide!|rise!|go!|jump!] [up|up by] {v}[px| px| pixels|]", "[move!|slide!] {v}[px| pixels|] up"),
    ),
    "rotate": (
        (
            "[rotate|turn|spin|tilt] {t} [by|to|] {v}[ degrees|deg|°]",
            "[rotate|turn|spin|tilt] {t} {v}[ degrees| degrees|deg|°]",
        ),
        ("[rotate!|turn!|spin!|tilt!] [by|to|] {v}[ degrees|deg|°]", "[rotate!|turn!|spin!|tilt!] {v} degrees"),
    ),
    "scale": (
        (
            "[scale|grow|shrink|resize] {t} to {v}",
            "[scale|grow|shrink] {t} to a scale of {v}",
            "set the scale of {t} to {v}",
        ),
        ("[scale!|grow!|shrink!] to [a scale of|] {v}",),
    ),
    "scaleY": (
        (
            "[close|squash|open|stretch|blink|widen] {t} (scaleY: {v})",
            "[set|change|bring] [the|] scaleY of {t} to {v}",
            "[scale|squash|stretch] {t} vertically to {v}",
            "[squash|stretch|squeeze|close|open] {t} to scaleY {v}",
        ),
        (
            "[close!|open!|open! back|squash!|stretch!|blink!] (scaleY: {v})",
            "[go!|change!|come!|squash!|stretch!] to scaleY {v}",
        ),
    ),
    "scaleX": (
        (
            "[widen|stretch|squeeze|narrow] {t} (scaleX: {v})",
            "[set|change|bring] [the|] scaleX of {t} to {v}",
            "[scale|squeeze|stretch] {t} horizontally to {v}",
            "[widen|stretch|squeeze] {t} to scaleX {v}",
        ),
        ("[widen!|stretch!|squeeze!|smile!] (scaleX: {v})", "[go!|change!|stretch!] to scaleX {v}"),
    ),
    "src": (
        (
            "[change|switch|set] [the|] {q}src{q} [attribute|] of {t} to {s}",
            "[swap|change|switch] the image of {t} to {s}",
            "set {t} src to {s}",
        ),
        (
            "change! its {q}src{q} [attribute|] to {s}",
            "switch! its [image|src] to {s}",
            "[show!|become!] the image {s}",
        ),
    ),
    "pair": (
        ("animate {t} to {p}", "tween {t} to {p}", "[animate|set|bring|move|change] {t} ({p})"),
        ("[go!|animate!|change!|move!] to {p}", "[animate!|change!|move!] ({p})"),
    ),
}
HELD_OPERATION: Final = "the tween on {t} sets {p}"
THINGS: Final = (
    "[a GSAP timeline|a GSAP timeline|a timeline|an animation|a GSAP animation] [configuration object|config|configuration|config object|] [for [a 2D character|the avatar|Lumina|the character|a banner|my page]|] [in JavaScript|]",
    "[a JavaScript|a JS] [GSAP|] [timeline|animation] [object|config|configuration|]",
    "[a GSAP animation|an animation|a GSAP timeline]",
)
LINKS: Final = (
    ". The animation should [first|] ",
    " that [first|] ",
    ": [first|] ",
    ". [First|] ",
    " where we [first|] ",
    " to [first|] ",
    ". It should [first|] ",
)
LINKS_SUBJECT: Final = (" where [first|] ", ": [first|] ", ". [First|First,|] ", " in which [first|] ", ". In it, ")
THEN: Final = (
    ", then ",
    ", then ",
    ", and then ",
    " and then ",
    "; then ",
    ". Then ",
    ". After that, ",
    ", afterwards ",
    ", next ",
    ", followed by this: ",
    " -> ",
    ", finally ",
)
MEANWHILE: Final = (
    " and at the same time ",
    ", at the same time ",
    ", while at the same time ",
    ". At the same time, ",
    " and simultaneously ",
    ", together with that ",
    ". Meanwhile, ",
    " and in parallel ",
)
PAUSE: Final = (
    ". After a {g}[s| s| second|-second] pause, ",
    ", then after {g}[s| s| seconds] ",
    ", wait {g}[s| s| seconds], ",
    ". Wait {g} seconds, then ",
    ", and {g}[s| seconds] later ",
    ", pause [for|] {g}[s| seconds], then ",
)
AT: Final = (", and at {g}[s| seconds] ", ". At {g}[s| s| seconds], ", ", at second {g} ", ", then at {g} seconds ")
DURATION: Final = (
    " over {d} seconds",
    " over {d}s",
    " in {d} seconds",
    " in {d}s",
    " for {d} seconds",
    " ({d}s)",
    " within {d} seconds",
    " over {d} s",
    ", taking {d} seconds,",
    " with duration {d}",
)
