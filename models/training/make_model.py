"""Make the demo model from nothing but seeds: `python models/training/make_model.py`.

Needs torch, tokenizers, gguf, numpy, llama-cpp-python, pillow and beautifulsoup4,
and Node 20 for the evaluation. Two free cores take about an hour. The corpus, its
order and the schedule are reproduced exactly; the weights depend on the processor
and on the version of torch in their last bits, so another machine makes a model of
the same quality and another checksum.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent
_MODEL: Final = _HERE.parent / "lumina" / "models" / "demo" / "demo.gguf"


def step(script: str, *options: str) -> None:
    """Run one of the scripts beside this one; raises where it fails."""
    path = f"import sys; sys.path.insert(0, {str(_HERE.parent)!r}); import runpy; "
    run = f"sys.argv[0] = {script!r}; sys.path.insert(0, {str(_HERE)!r}); "
    start = f"runpy.run_path({str(_HERE / script)!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", path + run + start, *options], check=True)


def main() -> None:
    """Train, export with its checksum, and evaluate."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/demo"), help="checkpoints and log")
    options.add_argument("--file", type=Path, default=_MODEL)
    options.add_argument("--report", type=Path, default=_HERE / "report.json")
    options.add_argument("--steps", type=int, help="fewer make a quick, bad model")
    given = options.parse_args()
    steps = [] if given.steps is None else ["--steps", str(given.steps)]
    step("train.py", "--out", str(given.out), *steps)
    step("export.py", "--out", str(given.out), "--file", str(given.file))
    step("evaluate.py", "--file", str(given.file), "--report", str(given.report))


if __name__ == "__main__":
    main()
