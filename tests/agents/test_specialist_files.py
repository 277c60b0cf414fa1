"""Specialists as data files: the built-in ones, files of the user, and everything that can be wrong with one."""

from pathlib import Path

import pytest
from tests.agents.run_scene import blob

from lumina.agents.errors import SpecialistInvalid
from lumina.agents.prompt_templates import render_prompt, template_problems
from lumina.agents.specialist_files import FILE_BYTES_MAX, Example, parse_definition, to_ref
from lumina.agents.specialist_folders import BUILT_IN, built_in_folder, load_folders
from lumina.events.contract import Form, Language

KINDS = ["animation", "dialogue", "function", "game", "general", "layers", "scraper"]


def source(name: str = "function") -> str:
    """Return the text of a built-in file."""
    return built_in_folder().joinpath(f"{name}.toml").read_text()


def problems(text: str, *, name: str = "function") -> tuple[str, ...]:
    """Return what is wrong with a file, as said in the error."""
    with pytest.raises(SpecialistInvalid) as caught:
        parse_definition(text.encode(), name=name)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def test_the_built_in_specialists_are_whole() -> None:
    """Every one has a role, examples, validators of its language, and a prompt that says all it must."""
    files = load_folders()
    assert [file.name for file in files] == KINDS
    for file in files:
        assert (file.origin, file.problems) == (BUILT_IN, ())
        assert file.definition is not None
        assert len(file.definition.examples) == 2
        assert file.definition.tier == "bubblewrap"


@pytest.mark.parametrize("name", KINDS)
def test_examples_are_code_that_follows_the_conventions(name: str) -> None:
    """Python compiles; JavaScript ends with the export; each ends with one line feed."""
    definition = parse_definition(source(name).encode(), name=name)
    for example in definition.examples:
        assert example.code.endswith("\n")
        assert not example.code.endswith("\n\n")
        if definition.language is Language.PYTHON:
            compile(example.code, name, "exec")
        else:
            assert example.code.rstrip().splitlines()[-1].startswith("module.exports = { ")
        if definition.form is Form.ROWS:
            assert "json.dumps" in example.code


def test_a_ref_is_what_a_run_remembers() -> None:
    """With the definition as a blob, so that the run can be decided again without the file."""
    definition = parse_definition(source().encode(), name="function")
    ref = to_ref(definition, blob=blob(source()))
    assert (ref.name, ref.kind, ref.form, ref.tools) == ("function", "function", Form.FUNCTION, definition.tools)
    assert ref.definition.digest == blob(source()).digest
    assert ref.keywords == definition.keywords


def test_all_problems_are_said_at_once_with_their_paths() -> None:
    """A missing field, an unknown one, wrong values deep inside, and a tool of another language."""
    text = (
        source()
        .replace('form = "function"', 'form = "poem"\ncolour = "red"')
        .replace('title = "', 'titel = "')
        .replace('"pylint"]', '"eslint"]')
        .replace("[[examples]]", "[limits]\nwall_ms = -1\n\n[[examples]]\nanswer = 1", 1)
    )
    found = problems(text)
    starts = [problem.partition(": ")[0] for problem in found]
    assert sorted(starts) == ["colour", "examples[0].answer", "form", "limits.wall_ms", "titel", "title", "tools[2]"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "this is not TOML"),
        ('name = "function"', "prompt: missing"),
        ("x" * (FILE_BYTES_MAX + 1), "at most 200,000 fit"),
    ],
)
def test_what_is_no_specialist_is_refused(text: str, said: str) -> None:
    """Broken TOML, an empty file, and one that is too large."""
    assert any(said in problem for problem in problems(text))


def test_a_file_is_named_like_its_specialist() -> None:
    """Otherwise two files could claim one name."""
    assert problems(source(), name="other") == ("name: 'function' differs from the name of the file, 'other'",)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ language }} {{ libraries }} {{ output }} {{ contract }}", "lacks {{ brief }}"),
        ("{{ language }} {{ libraries }} {{ brief }} {{ contract }}", "lacks {{ output }}"),
        ("{{ language }} {{ libraries }} {{ output }} {{ brief }}", "lacks {{ contract }}"),
        ("{{ language }} {{ libraries }} {{ output }} {{ brief }} {{ contract }} {{ mood }}", "unknown slot 'mood'"),
        ("{{ brief", "line 1"),
    ],
)
def test_the_template_linter_refuses_prompts_that_leave_models_to_guess(template: str, said: str) -> None:
    """Task, language, libraries, output format and signature have to be there (requirements G3)."""
    assert any(said in problem for problem in template_problems(template))


def test_a_prompt_shows_all_slots_and_examples_can_go() -> None:
    """The brief is put in as it is: not escaped, not evaluated."""
    definition = parse_definition(source().encode(), name="function")
    brief = "Return '<b>' & {{ 7 * 7 }}"
    full = render_prompt(
        definition,
        language="python",
        brief=brief,
        contract="- It is called f.",
        examples=definition.examples,
        files=("a.png",),
        feedback=("line 1: wrong",),
    )
    assert all(part in full for part in (brief, "- It is called f.", "a.png", "line 1: wrong", definition.output))
    assert definition.examples[0].request in full
    short = render_prompt(definition, language="python", brief=brief, contract="- It is called f.")
    assert definition.examples[0].request not in short
    assert short.index("Libraries:") < short.index(brief), "what is constant stands first"


def test_a_template_can_reach_nothing_but_its_slots() -> None:
    """It comes from a file that somebody dropped into a folder."""
    definition = parse_definition(source().encode(), name="function")
    from jinja2.exceptions import SecurityError

    evil = type(definition)(
        **{
            **{field: getattr(definition, field) for field in definition.__struct_fields__},
            "prompt": "{{ brief.__class__.__mro__ }} and some more text",
        }
    )
    with pytest.raises(SecurityError):
        render_prompt(evil, language="python", brief="x", contract="y")


def test_a_users_file_replaces_and_a_broken_one_takes_nobody_down(tmp_path: Path) -> None:
    """The broken file is reported by name; the built-in specialist that it was to replace stays."""
    (tmp_path / "function.toml").write_text(source().replace('title = "', 'title = "My '))
    (tmp_path / "scraper.toml").write_text("name = ")
    (tmp_path / "haiku.toml").write_text(source("general").replace('"general"', '"haiku"'))
    (tmp_path / "notes.txt").write_text("not a specialist")
    files = load_folders([tmp_path, tmp_path / "missing"])
    good = {file.name: file for file in files if file.definition is not None}
    broken = [file for file in files if file.definition is None]
    assert sorted(good) == sorted([*KINDS, "haiku"])
    definition = good["function"].definition
    assert definition is not None
    assert definition.title.startswith("My ")
    assert good["scraper"].origin == BUILT_IN
    assert [(file.name, file.origin) for file in broken] == [("scraper", str(tmp_path / "scraper.toml"))]
    assert broken[0].problems


def test_examples_are_values() -> None:
    """They check themselves like everything else that is said."""
    with pytest.raises(ValueError, match="code"):
        Example(request="x", code="")
