"""A breakpoint holds where its expression does, and a wrong one is refused with the place of the mistake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.replay.conftest import History

from lumina.replay.errors import BadBreakpoint
from lumina.replay.stepping.breakpoints import CHARACTERS_MAX, Breakpoint, as_json


@pytest.mark.parametrize(
    ("expression", "types"),
    [
        ("step.accepted", {"step.accepted.v1"}),
        ("step.accepted.v1", {"step.accepted.v1"}),
        (" lease.granted ", {"lease.granted.v1"}),
        ("type=='run.closed.v1'", {"run.closed.v1"}),
        ("agent=='validator'", {"validation.finished.v1"}),
        ("starts_with(type, 'run.') && agent!='client'", {"run.planned.v1", "run.closed.v1"}),
        ("event.verdict=='failed'", {"execution.finished.v1"}),
        ("event.checks[?!passed]", {"execution.finished.v1"}),
        ("event.rung=='repair'", {"step.attempt_started.v1"}),
        ("event.detail=='' && event.usage.generated_tokens > `0`", {"generation.finished.v1"}),
        ("!causation && stream=='r-bbb'", {"run.submitted.v1"}),
        ("contains(causation, 'x') || agent=='node'", set()),
    ],
)
def test_a_breakpoint_holds_where_it_should(history: History, expression: str, types: set[str]) -> None:
    """Bare types, comparisons, functions, fields with defaults; null where a text is wanted does not hold."""
    stop = Breakpoint(expression)
    assert {each.type for each in history[0].records if each.stream != "local" and stop.look(each).holds} == types


def test_a_breakpoint_sees_the_whole_record(history: History) -> None:
    """Each field of a record by which it can be asked for holds at exactly one record, or at all of a run."""
    record = history[0].records[8]
    seen = as_json(record)
    for field in ("seq", "id", "digest"):
        stop = Breakpoint(f"{field}==`{seen[field]}`" if field == "seq" else f"{field}=='{seen[field]}'")
        assert [each for each in history[0].records if stop.look(each).holds] == [record]
    assert seen["time"].endswith("Z")
    assert seen["event"]["type"] == record.type


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("type==", "column 7: something is missing"),
        ("a b", "column 3: 'b' can't stand there"),
        ("type=='a", "column 7: Unclosed"),
        ("seq>5", "column 5: write numbers between backticks: `5`"),
        ("starts_wth(type,'a')", "column 1: no function starts_wth; there is starts_with"),
        ("a || length()", "column 6: length takes 1 arguments, not 0"),
        ("not_null()", "column 1: not_null takes 1 or more arguments, not 0"),
        ("seq > `five`", "column 7: no JSON stands between these backticks"),
        ("validation.failed", "validation.finished, validation.requested"),
        ("run.closed.v7", "no event is called run.closed.v7"),
        ("stap.accepted", "no event is called stap.accepted; there is step.accepted"),
        ("nosuch.event", "no event is called nosuch.event; there is "),
        ("(" * 900, "nested too deeply"),
        ("a" * (CHARACTERS_MAX + 1), "1,001 characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(expression: str, words: str) -> None:
    """The message names column and mistake, and a line points at it."""
    with pytest.raises(BadBreakpoint) as refused:
        Breakpoint(expression)
    assert words in str(refused.value)
    if "column" in words:
        message, shown, pointer = str(refused.value).split("\n")
        assert shown.strip() == expression.strip()
        assert f"column {pointer.index('^') - 1}:" in message


def test_what_could_not_be_told_is_said(history: History) -> None:
    """A function that gets null for a text does not hold, and the reason is kept for who wonders."""
    verdict = Breakpoint("contains(causation, 'x')").look(history[0].records[0])
    assert not verdict.holds
    assert "contains" in verdict.problem


@given(st.text("abt .'`\"[]{}()&|!=<>@*?:,_\\-0e\n\u202e", max_size=30))
def test_no_expression_does_harm(history: History, expression: str) -> None:
    """Whatever is typed is asked or refused; no record makes it fail."""
    try:
        stop = Breakpoint(expression)
    except BadBreakpoint:
        return
    for record in history[0].records[:4]:
        stop.look(record)
