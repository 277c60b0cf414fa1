"""A request may ask for a function without naming it: then the one that there is is called."""

from threading import Event as Flag

import pytest

from lumina.events.contract import Case, Form, Language, Limits, OutputContract
from lumina.events.execution import ExecutionVerdict
from lumina.sandbox.bubblewrap import Bubblewrap
from lumina.sandbox.judge import judge, verdict
from lumina.sandbox.programs import Call, Program, run_job

PYTHON = (
    "from math import floor\n\n\ndef helper(x):\n    return x + 1\n\n\ndef answer(x):\n    return floor(helper(x))\n"
)
JAVASCRIPT = "const helper = 1;\nfunction answer(x) {\n  return x + helper;\n}\nmodule.exports = { helper, answer };\n"
ONLY_EXPORT = "module.exports = (x) => x + 1;\n"


@pytest.mark.parametrize(
    ("language", "code"),
    [(Language.PYTHON, PYTHON), (Language.JAVASCRIPT, JAVASCRIPT), (Language.JAVASCRIPT, ONLY_EXPORT)],
)
def test_the_function_that_there_is_is_called(tier: Bubblewrap, language: Language, code: str) -> None:
    """Without a name in the contract the program's own function is found, helpers and imports passed over."""
    assert _verdict(tier, language=language, code=code) is ExecutionVerdict.PASSED


@pytest.mark.parametrize(
    ("language", "code"),
    [(Language.PYTHON, "from math import floor\n"), (Language.JAVASCRIPT, "module.exports = { answer: 2 };\n")],
)
def test_a_program_without_a_function_fails(tier: Bubblewrap, language: Language, code: str) -> None:
    """What is imported or is no function does not count."""
    assert _verdict(tier, language=language, code=code) is ExecutionVerdict.FAILED


def _verdict(tier: Bubblewrap, *, language: Language, code: str) -> ExecutionVerdict:
    case = Case(arguments="[1]", one_of=("2",))
    contract = OutputContract(language=language, form=Form.FUNCTION, cases=(case,))
    program = Program(
        code=code,
        language=language,
        form=Form.FUNCTION,
        limits=Limits(wall_ms=30_000, memory_bytes_max=2**30),
        calls=(Call(arguments=case.arguments, repeat=case.repeat),),
    )
    runs = (tier.run(run_job(program), stop=Flag()),)
    return verdict(runs, checks=judge(contract, runs))[0]
