"""What makes replays differ elsewhere, each trap tried on purpose. Others are tried beside what they are about.

- A torn last record, a bad one in the middle: `tests/bus/test_damage.py`, `tests/faults`.
- Duplicates, oversize events, slots after the dedupe window: `tests/bus/test_log_contract.py`.
- Recovery done twice, completion order: `tests/agents/test_keeping.py`.
- A crash between effect and outcome: `tests/agents/test_working.py`.
- Old schemas: `test_corpus.py`. Clocks and chance: `tests/test_tidy.py`.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.history import History as Long
from tests.replay.conftest import NODE, now_ms

from lumina.agents import errors as agent_errors
from lumina.agents.executing import ExecutionEffect
from lumina.agents.governor import Governor
from lumina.agents.keeping import KeeperRunner
from lumina.agents.specialist import Call
from lumina.agents.validating import ValidationEffect
from lumina.bus import errors as bus_errors
from lumina.bus.memory import MemoryBlobs, MemoryLog
from lumina.events import errors as event_errors
from lumina.events.catalogue import EVENT_TYPES
from lumina.events.codec import decode, encode
from lumina.events.contract import OutputContract
from lumina.events.errors import InvalidEvent
from lumina.events.generation import Sampling
from lumina.events.run import RunCancelRequested
from lumina.events.values import Canonical
from lumina.models import errors as model_errors
from lumina.replay.report import Status
from lumina.replay.verifying.verify import verify_all
from lumina.sandbox import errors as sandbox_errors
from lumina.sandbox.reports import NESTING_MAX, nested_too_deeply, parsed

History = tuple[MemoryLog, MemoryBlobs]
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "events" / "golden"
DIGESTS = """
from hashlib import sha256
from tests.bench.history import History

history = History()
history.extend(60)
print(sha256("".join(each.digest for each in history.records).encode()).hexdigest())
"""


def test_the_order_of_sets_and_dictionaries_is_in_no_digest() -> None:
    """Processes whose hashes are seeded otherwise, at other times, decide the same history byte for byte."""
    found = {
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(found) == 1


@given(st.text())
def test_text_is_written_as_it_is(reason: str) -> None:
    """Any Unicode text that can be sent is read back as it was; what looks alike is not made alike."""
    try:
        reason.encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair is no text
    event = RunCancelRequested(reason=reason[:500])
    assert decode(encode(event), event_type="run.cancel_requested.v1") == event


def test_two_spellings_of_a_letter_are_two_texts() -> None:
    """One code point, or a letter and its accent: nothing is normalised, so nothing is otherwise later."""
    one, two = (encode(RunCancelRequested(reason=text)) for text in ("caf\u00e9", "cafe\u0301"))
    assert sha256(one).digest() != sha256(two).digest()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_can_not_be_said(number: float) -> None:
    """NaN and infinities have no canonical bytes: no field takes them, and no decoder reads them."""
    with pytest.raises(msgspec.ValidationError):
        Sampling(temperature=number, seed=1, tokens_max=5)
    with pytest.raises((msgspec.DecodeError, msgspec.ValidationError)):
        msgspec.json.decode(b'{"temperature":NaN,"seed":1,"tokens_max":5}', type=Sampling)


def test_numbers_have_one_spelling() -> None:
    """However a temperature was written, it is written again in one way, and a whole number stays a float."""
    spellings = (b"0.1", b"1e-1", b"0.10", b"0.1000000000000000055511151231257827")
    bodies = (b'{"temperature":' + text + b',"seed":1,"tokens_max":5}' for text in spellings)
    assert {encode(msgspec.json.decode(body, type=Sampling)) for body in bodies} == {
        b'{"temperature":0.1,"seed":1,"tokens_max":5}'
    }
    assert b'"temperature":1.0' in encode(Sampling(temperature=1, seed=1, tokens_max=5))


def test_half_a_surrogate_can_not_be_said() -> None:
    """A text that has no UTF-8 is no event, whoever sends it."""
    with pytest.raises(InvalidEvent):
        decode(b'{"type":"run.cancel_requested.v1","reason":"\\ud800"}', event_type="run.cancel_requested.v1")


def test_how_deep_the_caller_stands_decides_nothing() -> None:
    """The same JSON text is read, or refused, at any depth of the stack: the limit is ours, not the interpreter's."""

    def at_depth(depth: int, text: str) -> str:
        if depth:
            return at_depth(depth - 1, text)
        try:
            parsed(text)
        except ValueError:
            return "refused"
        return "read"

    for nesting, verdict in ((NESTING_MAX, "read"), (NESTING_MAX + 1, "refused"), (100_000, "refused")):
        text = "[" * nesting + "]" * nesting
        assert {at_depth(depth, text) for depth in (0, 300)} == {verdict}
    assert not nested_too_deeply('["' + "[" * 1_000 + '"]')
    assert not nested_too_deeply('["\\"' + "[" * 1_000)


OUR_ERRORS = {
    name for module in (agent_errors, bus_errors, event_errors, model_errors, sandbox_errors) for name in vars(module)
}
DECIDING = ("agents/lumina/agents", "models/lumina/models", "sandbox/lumina/sandbox", "events/lumina/events")
EFFECTS = {"keeping.py", "working.py", "specialist_calls.py", "validator.py", "sandbox.py", "stoppable.py"}
"""What happens in an effect is recorded as it was."""
AT_THE_CLIENT = {"specialist_files.py", "specialist_folders.py", "prompt_templates.py"}
"""A specialist's file is checked before anything is submitted; a definition that is in a log was sound."""
IN_MESSAGES = {"codec.py", "record.py"}
"""Errors that end up on a terminal: what can't be decoded decides nothing."""
FOLDED = (
    "answers.py",
    "judge.py",
    "reports.py",
    "rendering.py",
    "linters.py",
    "prompting.py",
    "turns.py",
    "artifacts.py",
    "programs.py",
)


def quoted_exceptions(path: Path) -> Iterator[str]:
    """Yield the places where words of somebody else's exception become a text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ExceptHandler) or node.name is None or node.type is None:
            continue
        kinds = {
            each.attr if isinstance(each, ast.Attribute) else each.id
            for each in ast.walk(node.type)
            if isinstance(each, ast.Attribute | ast.Name)
        }
        if kinds <= OUR_ERRORS:
            continue
        for inner in ast.walk(node):
            if not isinstance(inner, ast.FormattedValue | ast.Call):
                continue
            said = inner.value if isinstance(inner, ast.FormattedValue) else None
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in {"str", "repr"}:
                said = inner.args[0]
            if isinstance(said, ast.Name) and said.id == node.name:
                yield f"{path.name}:{inner.lineno}"


def test_no_decision_quotes_a_library() -> None:
    """Words of an exception of Python or of a library, which its next version may change, are in no decision."""
    found: list[str] = []
    looked_at = 0
    for folder in DECIDING:
        for path in sorted((ROOT / folder).glob("*.py")):
            pure = folder.startswith(("agents", "events")) or path.name in FOLDED
            if pure and path.name not in EFFECTS | AT_THE_CLIENT | IN_MESSAGES:
                looked_at += 1
                found += quoted_exceptions(path)
    assert looked_at > 50
    assert found == []


def test_a_library_that_is_quoted_is_noticed(tmp_path: Path) -> None:
    """The look at the sources sees what it is for."""
    path = tmp_path / "quoting.py"
    path.write_text("try:\n    pass\nexcept ValueError as error:\n    detail = f'no: {error}'\n    more = str(error)\n")
    assert sorted(quoted_exceptions(path)) == ["quoting.py:4", "quoting.py:5"]


@pytest.mark.anyio
async def test_the_same_question_answered_differently() -> None:
    """Runs that ask one model the same thing and get different programs are proved: answers are recorded."""
    history = Long()
    history.extend(40)
    asked: dict[str, set[str]] = {}
    for each in history.records:
        if each.type == "generation.finished.v1":
            asked.setdefault(each.event.effect, set()).add(each.event.code.digest)  # type: ignore[attr-defined]  # of this type it has one
    codes = {digest for several in asked.values() for digest in several}
    assert len(codes) >= 3
    prompts = {each.event.ask.brief for each in history.records if each.type == "generation.requested.v1"}  # type: ignore[attr-defined]  # of this type it has one
    assert len(prompts) == 1
    blobs = MemoryBlobs()
    blobs.contents = history.blobs
    assert (await verify_all(MemoryLog(history.records), blobs)).status is Status.OK


@pytest.mark.anyio
async def test_a_governor_that_dies_while_leases_are_out(history: History) -> None:
    """Wherever a governor died, the next one says what is missing and nothing else, and the log still verifies."""
    log, blobs = history
    own = {each.id: each for each in log.records if each.agent == "governor"}
    out = 0
    for end in range(3, len(log.records)):
        before = log.records[:end]
        granted = {each.id for each in before if each.type == "lease.granted.v1"}
        given_back = {each.event.lease for each in before if each.type == "lease.released.v1"}  # type: ignore[attr-defined]  # of this type it has one
        out += bool(granted - given_back)
        again = MemoryLog(before)
        await KeeperRunner(Governor(node=NODE), events=again, now_ms=now_ms).recover()
        added = again.records[end:]
        # The slots, and what fills them, are those of the governor that lived.
        assert all(own[each.id].digest == each.digest for each in added if each.id in own)
        assert len({each.id for each in again.records}) == len(again.records)
        assert (await verify_all(again, blobs)).status is Status.OK
    assert out > 10


def later(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a struct as a later version has it: with one more field in front of the others and one behind them."""
    fields = [
        (field.name, field.type) if field.default is msgspec.NODEFAULT else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(kind)
    ]
    tag = kind.__struct_config__.tag
    return msgspec.defstruct(
        kind.__name__,
        [("added_first", str, "nothing"), *fields, ("added_last", tuple[int, ...], (1, 2))],
        bases=(Canonical,),
        frozen=True,
        kw_only=True,
        omit_defaults=True,
        tag=tag,
        tag_field=kind.__struct_config__.tag_field,
    )


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_a_field_that_is_added_to_an_event_leaves_its_bytes(event_type: str) -> None:
    """What is on disk today has the same digest when it is written again by a version with more fields."""
    body = (GOLDEN / f"{event_type}.json").read_bytes().strip()
    again = msgspec.json.decode(body, type=later(EVENT_TYPES[event_type]))
    assert encode(again) == body


@pytest.mark.parametrize("kind", [Call, ValidationEffect, ExecutionEffect, OutputContract])
def test_a_field_that_is_added_to_an_effect_leaves_its_digest(kind: type[msgspec.Struct]) -> None:
    """Effects and contracts are digested, and derived again by later versions: the digest stays."""
    seen = 0
    for struct in derived(kind):
        body = encode(struct)
        seen += 1
        assert encode(msgspec.json.decode(body, type=later(kind))) == body
        assert encode(msgspec.json.decode(body, type=kind)) == body
    assert seen > 0


def derived(kind: type[msgspec.Struct]) -> Iterator[msgspec.Struct]:
    """Yield the effects and contracts of this kind that occur in a history."""
    from lumina.replay.cast import whole_cast

    history = Long()
    history.extend(20)
    cast = whole_cast()
    for each in history.records:
        contract = getattr(each.event, "contract", None)
        if isinstance(contract, kind):
            yield contract
        name = {"lease.granted.v1": "specialist", "validation.requested.v1": "validator"}.get(each.type)
        name = "sandbox" if each.type == "execution.requested.v1" else name
        if name is not None:
            worker = cast.workers[name]
            blobs = {digest: history.blobs[digest] for digest in worker.needs(each, blobs={})}
            effect = worker.prepare(each, blobs=blobs)
            if isinstance(effect, kind):
                yield effect
