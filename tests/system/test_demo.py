"""The demo with the embedded model: real inference, five real requests, real files, and every run proved."""

import io
import re
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from tests.system.command import Lumina

from lumina.agents.planning import plan
from lumina.agents.specialist_files import to_ref
from lumina.agents.specialist_folders import load_folders
from lumina.cli.demo_stage import HEADLINES, draw_layers
from lumina.cli.tasks import hosts_typed
from lumina.events.run import ModelChoice, RunOptions, RunPlanned, RunSubmitted
from lumina.events.values import BlobRef

REQUESTS = 5
PLACES = {"green_tunic.png": (32, 62), "leather_boots.png": (46, 138), "surprised_face.png": (53, 28)}


def _expected_character() -> Image.Image:
    """Return what the four layers look like on each other, made here and not by a model."""
    layers = {name: Image.open(io.BytesIO(content)).convert("RGBA") for name, content in draw_layers().items()}
    character = layers.pop("base_character.png")
    for name, layer in layers.items():
        character.alpha_composite(layer, PLACES[name])
    return character


@pytest.mark.timeout(280)
def test_the_demo_does_five_requests_and_proves_them(lumina: Lumina) -> None:
    """`lumina demo` ends with 0; each run is completed and verified; the files are what was asked for."""
    ended = lumina("demo", "--output", "out")
    assert ended.code == 0, ended.out + ended.err
    assert len(re.findall(r"^completed ", ended.out, re.MULTILINE)) == REQUESTS, ended.out
    assert len(re.findall(r"^verify: r-[a-z2-7]+: ok", ended.out, re.MULTILINE)) == REQUESTS, ended.out
    out = lumina.home.parent / "out"
    drawn = Image.open(out / "5" / "generated_character.png").convert("RGBA")
    assert drawn.tobytes() == _expected_character().tobytes()
    places = [ended.out.index(headline) for headline in HEADLINES[:5]]
    assert all(before < after for before, after in pairwise(places)), "the first five headlines, in order"
    assert HEADLINES[5] not in ended.out
    assert {path.suffix for path in _programs(out)} == {".py", ".js"}


def _programs(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.suffix in {".py", ".js"}]


def test_examples_are_requests_that_the_planner_understands(lumina: Lumina) -> None:
    """The planner gives every example of `lumina examples`, as it stands, to the kind that is named beside it."""
    ended = lumina("examples", "--json")
    assert ended.code == 0
    nowhere = BlobRef(digest="0" * 64, size=0, media_type="application/toml")
    specialists = tuple(to_ref(file.definition, blob=nowhere) for file in load_folders() if file.definition)
    model = ModelChoice(model="lumina-demo", context=1024, plans=True, bare=True)
    for example in ended.events:
        submitted = RunSubmitted(
            request=str(example["request"]),
            options=RunOptions(hosts=hosts_typed(str(example["request"]))),
            specialists=specialists,
            models=(model,),
        )
        planned = plan(submitted)
        assert isinstance(planned, RunPlanned), planned
        assert [step.kind for step in planned.steps] == [example["kind"]], example
