"""Measure the demo model by running what it writes.

`python models/training/evaluate.py --file demo.gguf --report models/training/report.json`
reports, with counts and 95 % intervals: held-out combinations, held-out wordings,
repairs, plans, and requests written by hand.
"""

# ruff: noqa: S311, E501

import argparse
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import checks
from llama_cpp import Llama

from lumina.models.demo import corpus, plan, repair
from lumina.models.demo.record import KINDS, Task

SEED: Final = 71
SAMPLES: Final = 5
CODE_TOKENS_MAX: Final = 420
PLAN_TOKENS_MAX: Final = 640
HANDWRITTEN: Final = Path(__file__).with_name("handwritten.jsonl")
SEED_REQUESTS: Final = (
    "Generate a GSAP timeline configuration object for a 2D character",
    "Scrape the titles and URLs of the first 5 articles",
    "Generate JavaScript code for a simple rock-paper-scissors",
    "Generate Python code for an NPC dialogue tree",
    "Generate a Python script using Pillow to layer 'base_character.png'",
)


class Writer:
    """The model, asked the way the product asks it: one thread, no penalties."""

    def __init__(self, file: Path) -> None:
        self.model = Llama(str(file), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)

    def write(self, prompt: str, *, seed: int | None = None, tokens_max: int = CODE_TOKENS_MAX) -> str:
        """Return the answer to a chat prompt, greedy without a seed and at 0.7 with one."""
        ids = self.model.tokenize(prompt.encode(), add_bos=False, special=True)
        made = self.model.create_completion(
            ids,
            max_tokens=min(tokens_max, 1023 - len(ids)),
            temperature=0.0 if seed is None else 0.7,
            top_k=40,
            top_p=1.0,
            min_p=0.0,
            repeat_penalty=1.0,
            seed=seed or 0,
            stop=["<|end|>"],
        )
        return str(made["choices"][0]["text"])


def interval(hits: int, count: int) -> dict[str, Any]:
    """Return a share with its count and Wilson's 95 % interval."""
    if count == 0:
        return {"hits": 0, "n": 0}
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return {
        "hits": hits,
        "n": count,
        "share": round(share, 3),
        "low": round(max(0.0, middle - half), 3),
        "high": round(min(1.0, middle + half), 3),
    }


def attempt(
    writer: Writer, *, kind: str, request: str, spec: dict[str, Any], seed: int | None = None
) -> tuple[str, str | None]:
    """Return an answer to `request` and what is wrong with it."""
    code = writer.write(corpus.chat(("user", request)), seed=seed)
    return code, checks.error_in(code, kind=kind, spec=spec)


def mend(writer: Writer, *, kind: str, request: str, spec: dict[str, Any], code: str, error: str) -> str | None:
    """Return what is wrong after one repair, None when it worked."""
    complaint = f"{error[:160]}\n{repair.FIX}"
    prompt = corpus.chat(("user", request), ("assistant", code), ("user", complaint))
    return checks.error_in(writer.write(prompt), kind=kind, spec=spec)


def full(writer: Writer, *, kind: str, request: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return how one request fares greedily, after a repair, and within five samples."""
    code, error = attempt(writer, kind=kind, request=request, spec=spec)
    result: dict[str, Any] = {"kind": kind, "request": request, "greedy": error is None}
    result["repaired"] = (
        error is None or mend(writer, kind=kind, request=request, spec=spec, code=code, error=error) is None
    )
    sampled = (attempt(writer, kind=kind, request=request, spec=spec, seed=seed)[1] for seed in range(1, SAMPLES + 1))
    result["best_of_5"] = any(problem is None for problem in sampled)
    result["loop"] = result["repaired"] or result["best_of_5"]
    if error is not None:
        result |= {"error": error[:200], "code": code}
    return result


def shares(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of the four ways to succeed."""
    ways = ("greedy", "repaired", "best_of_5", "loop")
    return {way: interval(sum(bool(result[way]) for result in results), len(results)) for way in ways}


def tasks(writer: Writer, *, per_kind: int, held: bool) -> dict[str, Any]:
    """Return the results on held-out combinations, or on wordings held out too."""
    rng = Random(SEED + held)
    results: list[dict[str, Any]] = []
    for kind in KINDS:
        for _ in range(per_kind):
            made = corpus.task(rng, part="test", kind=kind, held=held)
            results.append(full(writer, kind=kind, request=made.request, spec=json.loads(json.dumps(made.spec))))
    by_kind = {kind: shares([result for result in results if result["kind"] == kind]) for kind in KINDS}
    failures = [result for result in results if not result["greedy"]]
    return {"all": shares(results), "by_kind": by_kind, "failures": failures[:30]}


def repairs(writer: Writer, *, count: int) -> dict[str, Any]:
    """Return the share of injected faults that one repair mends, by execution."""
    rng = Random(SEED + 2)
    hits = done = 0
    while done < count:
        made: Task = corpus.task(rng, part="test")
        wrong = repair.fault(rng, made)
        spec = json.loads(json.dumps(made.spec))
        if wrong is None or checks.error_in(wrong.code, kind=made.kind, spec=spec) is None:
            continue
        done += 1
        problem = mend(writer, kind=made.kind, request=made.request, spec=spec, code=wrong.code, error=wrong.error)
        hits += problem is None
    return interval(hits, done)


def plans(writer: Writer, *, count: int, held: bool) -> dict[str, Any]:
    """Return how many plans are JSON, have the right kinds, and are right word for word."""
    rng = Random(SEED + 3 + held)
    valid = kinds = exact = 0
    for _ in range(count):
        wanted = corpus.plan_tasks(rng, part="test", held=held)
        prompt = corpus.chat(("system", plan.SYSTEM), ("user", plan.join(rng, wanted)))
        try:
            steps = json.loads(writer.write(prompt, tokens_max=PLAN_TOKENS_MAX))
            got = [(step["kind"], step["brief"]) for step in steps]
        except (ValueError, TypeError, KeyError):
            continue
        valid += 1
        kinds += [kind for kind, _ in got] == [made.kind for made in wanted]
        exact += got == [(made.kind, made.request) for made in wanted]
    return {"json": interval(valid, count), "kinds": interval(kinds, count), "verbatim": interval(exact, count)}


def handwritten(writer: Writer) -> dict[str, Any]:
    """Return the results on requests written by hand; the five of the demo apart."""
    records = [json.loads(line) for line in HANDWRITTEN.read_text().splitlines()]
    results = [full(writer, **record) for record in records]
    demo = [result for result in results if result["request"].startswith(SEED_REQUESTS)]
    others = [result for result in results if result not in demo]
    by_kind = {kind: shares([result for result in others if result["kind"] == kind]) for kind in KINDS}
    return {"others": shares(others), "by_kind": by_kind, "demo_requests": demo, "results": others}


def summary(report: dict[str, Any]) -> Iterable[str]:
    """Yield one line for each main figure."""
    for name in ("held_out_combinations", "held_out_wordings"):
        yield f"{name}: {report[name]['all']}"
        for kind, figures in report[name]["by_kind"].items():
            yield f"  {kind}: " + ", ".join(f"{way} {got['hits']}/{got['n']}" for way, got in figures.items())
    yield f"injected faults mended: {report['injected_faults_mended']}"
    yield f"plans: {report['plans']}"
    yield f"plans, held-out wordings: {report['plans_held_out_wordings']}"
    yield f"handwritten: {report['handwritten']['others']}"
    for result in report["handwritten"]["demo_requests"]:
        yield f"  demo {result['kind']}: greedy {result['greedy']}, repaired {result['repaired']}, best of 5 {result['best_of_5']}"


def main() -> None:
    """Read the options, measure, and write the report."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--file", type=Path, required=True)
    options.add_argument("--report", type=Path)
    options.add_argument("--per-kind", type=int, default=50)
    given = options.parse_args()
    writer = Writer(given.file)
    report = {
        "file_sha256": hashlib.sha256(given.file.read_bytes()).hexdigest(),
        "settings": {"format": "q8_0", "greedy_temperature": 0.0, "sampling_temperature": 0.7, "samples": SAMPLES},
        "handwritten": handwritten(writer),
        "held_out_combinations": tasks(writer, per_kind=given.per_kind, held=False),
        "held_out_wordings": tasks(writer, per_kind=given.per_kind // 2, held=True),
        "injected_faults_mended": repairs(writer, count=3 * given.per_kind),
        "plans": plans(writer, count=2 * given.per_kind, held=False),
        "plans_held_out_wordings": plans(writer, count=given.per_kind, held=True),
    }
    print("\n".join(summary(report)))
    if given.report is not None:
        given.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
