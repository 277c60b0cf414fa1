"""The text of the pytest file that `lumina freeze` writes. Pure."""

import re
from textwrap import dedent

from lumina.bus.archive_format import Manifest
from lumina.events.record import rfc3339
from lumina.replay.report import Report

_NO_NAME = re.compile(r"[^a-z0-9]+")


def name_of_test(manifest: Manifest) -> str:
    """Return the name of the test, for instance `test_r_1f3a`; the file is called like it."""
    return f"test_{_NO_NAME.sub('_', manifest.run or '')}"


def text_of_test(manifest: Manifest, *, file: str, proof: Report) -> str:
    """Return the test of a run that stands in `file`, beside it, and of which `proof` was found when it was frozen.

    It imports nothing but Lumina, and names nothing of the run but its id: what a run says is not to be trusted.
    """
    return dedent(f'''\
        """Run {manifest.run}, recorded by Lumina {manifest.code} until {rfc3339(manifest.until_ms)}, decided again.

        Written by `lumina freeze`. It needs no model, sandbox, linter, server or network.
        """

        from pathlib import Path

        from lumina.replay.frozen import replay_file
        from lumina.replay.report import Status

        RUN = Path(__file__).with_name("{file}")


        def {name_of_test(manifest)}() -> None:
            """Every agent, given the same records, decides the same {manifest.records:,} records to the byte."""
            report = replay_file(RUN)
            assert report.status is Status.OK, "\\n".join(("", *report.lines()))
            counts = (report.records, report.closed, report.pending)
            assert counts == ({proof.records}, {proof.closed}, {proof.pending}), (
                f"records, ends and decisions that are not in the log yet are {{counts}}: "
                "the file was cut, or the code goes on where the run had ended"
            )
        ''')
