"""`docs/events.md` says what the types say."""

from pathlib import Path

import pytest

from lumina.cli import eventdocs
from lumina.events.base import Event
from lumina.events.catalogue import EVENT_TYPES, WRITERS
from lumina.events.execution import ExecutionRequested
from lumina.events.generation import GenerationFinished
from lumina.events.lease import LeaseGranted
from lumina.events.node import NodeAnnounced, UnloadRequested
from lumina.events.run import RunClosed

DOCUMENT = Path(__file__).resolve().parents[2] / eventdocs.PATH


def test_the_document_is_not_stale() -> None:
    """The committed file is what the generator writes now; `make docs` writes it again."""
    assert DOCUMENT.read_text(encoding="utf-8") == eventdocs.render()


def test_every_type_and_field_is_documented() -> None:
    """Each type has a section with its meaning, its writers and all its fields."""
    text = eventdocs.render()
    for tag, kind in EVENT_TYPES.items():
        section = text.split(f"### `{tag}`\n", 1)[1].split("\n### ", 1)[0]
        assert all(f"| `{field}` |" in section for field in kind.__struct_encode_fields__)
        assert all(writer in section.split("Written by: ")[1].split("Read by")[0] for writer in WRITERS[kind])


def test_every_link_has_a_target() -> None:
    """No table points to a value that is not described."""
    text = eventdocs.render()
    targets = {line.removeprefix("### ").lower() for line in text.splitlines() if line.startswith("### ")}
    links = {part.split(")", 1)[0] for part in text.split("](#")[1:]}
    assert links <= targets


@pytest.mark.parametrize(
    ("kind", "readers"),
    [
        (ExecutionRequested, {"sandbox"}),
        (GenerationFinished, {"orchestrator", "governor"}),
        (LeaseGranted, {"orchestrator", "specialist"}),
        (NodeAnnounced, {"governor"}),
        (UnloadRequested, {"specialist"}),
        (RunClosed, {"governor"}),
    ],
)
def test_readers_are_those_who_act(kind: type[Event], readers: set[str]) -> None:
    """Agents are listed by what their filters let through, not by hand."""
    assert {name for name in eventdocs.readers_of(kind) if not name.startswith("projections")} == readers


def test_a_stale_file_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` answers 1 for another text and 0 for the right one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    assert eventdocs.main(["--check"]) == 1
    assert eventdocs.main([]) == 0
    assert eventdocs.main(["--check"]) == 0
