"""Record the curves of real runs for the coach's tests: `python scripts/coach_curves.py [NAME ...]` writes tests/fixtures/coach/NAME.jsonl.

The first line holds the recipe's part that matters, the facts, and the names the coach is to give; the others are metrics.jsonl.
danlu/tiny on danlu/zhangjiajie, some minutes on a CPU. Not part of the tests: they read what is written here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import orjson

from danlu import bundled
from danlu.files import read_jsonl
from danlu.recipe.load import load_recipe
from danlu.services.pipeline import resolved
from danlu.services.runs import run

OUT = Path(__file__).parent.parent / "tests/fixtures/coach"
KEYS = ("step", "num_steps", "epoch", "loss", "validation_loss", "learning_rate", "grad_norm", "num_tokens", "tokens_per_second")
OPTIM = ("learning_rate", "num_epochs", "max_steps", "global_batch_size", "micro_batch_tokens", "max_grad_norm")
SHORT = {"num_epochs": "auto", "max_steps": 40}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "rate-x100": ({"learning_rate": 0.15, **SHORT}, ["divergence"]),
    "rate-x0.001": ({"learning_rate": 1.5e-6, **SHORT}, ["learning_rate_too_low"]),
    "healthy": ({}, []),
}
"""Changes of the bundled recipe's `optim`, and what the coach is to say."""


def record(name: str, folder: Path) -> None:
    """Train one case and write its file."""
    optim, expected = CASES[name]
    recipe_file = bundled.recipe_path("danlu/zhangjiajie")
    assert recipe_file is not None
    changes = {"optim": optim, "evaluation": {"suites": []}, "export": [], "training": {"sample_every_steps": None, "early_stopping_patience": None}}
    done = run(load_recipe([recipe_file], values=changes), run_dir=folder / name)
    rows = [{key: shortened(row[key]) for key in KEYS if key in row} for row in read_jsonl(done.run_dir.metrics)]
    recipe = resolved(done.run_dir).to_dict()
    parts = {"method": {"type": recipe["method"]["type"]}, "optim": {key: recipe["optim"][key] for key in OPTIM}}
    head = {
        "expected": expected,
        "recipe": {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie", **parts},
        "facts": done.run_dir.read_record()["facts"],
    }
    (OUT / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in [head, *rows]))
    print(name, [diagnosis["name"] for diagnosis in (done.report or {})["coach"]], "expected", expected)


def shortened(value: float) -> float:
    """Five digits are enough for a curve."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*CASES, []], help="cases; all by default")
    names = parser.parse_args().names or list(CASES)
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="danlu-curves-") as folder:
        for name in names:
            record(name, Path(folder))


if __name__ == "__main__":
    main()
