"""The coach's rules on rows of metrics, without a model: what needs long runs, and what it costs."""

import ast
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir
from danlu.training.coach import Coach
from danlu.training.coach.history import DataFacts, History
from danlu.training.coach.judge import EXPLAINS, judge

CURVES = Path(__file__).parents[1] / "fixtures/coach"


def recipe(**parts: Any) -> Recipe:
    optim = {"learning_rate": 1e-3, "num_epochs": 3.0, "global_batch_size": 8, "micro_batch_tokens": 1024, **parts.pop("optim", {})}
    return Recipe.model_validate({"base_model": "b", "dataset": "d", "optim": optim, **parts})


def row(step: int, loss: float, **fields: Any) -> dict[str, Any]:
    return {
        "step": step, "num_steps": 100, "epoch": step / 40, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0, "num_tokens": 3000 * step,
        "tokens_per_second": 900.0,
    } | fields  # fmt: skip


def history(rows: list[dict[str, Any]], **parts: Any) -> History:
    found = History(recipe(**parts), DataFacts(rows_in=400, used=400, num_train=320, num_train_tokens=40_000, num_validation=40), usual_learning_rate=1e-3)
    for one in rows:
        found.see("metrics", one)
    return found


def falling(count: int, *, end: float = 1.0) -> list[dict[str, Any]]:
    return [row(step, end + 2 / (1 + step / 10) + 0.02 * (step % 3)) for step in range(1, count + 1)]


@pytest.mark.parametrize(("speed", "names"), [(290.0, ["throughput_collapse"]), (400.0, []), (5000.0, [])])
def test_a_machine_that_slows_down_is_told(speed: float, names: list[str]) -> None:
    rows = falling(60)
    for one in rows[-10:]:
        one["tokens_per_second"] = speed
    found = judge(history(rows))
    assert [d.name for d in found] == names
    assert all(d.changes == {"optim.micro_batch_tokens": 512} for d in found)


def test_a_moment_of_somebody_elses_is_not_told() -> None:
    rows = falling(60)
    for one in rows:
        one["num_tokens"] //= 100
    for one in rows[-10:]:
        one["tokens_per_second"] = 100.0
    assert judge(history(rows)) == []


def test_a_loss_that_leaves_late_is_divergence() -> None:
    rows = falling(80)
    rows += [row(step, 6.0 + 0.1 * (step % 4)) for step in range(81, 97)]
    assert [d.name for d in judge(history(rows))] == ["divergence"]
    assert judge(history(falling(96))) == []


def test_a_step_that_is_told_again_replaces_what_came_after_it() -> None:
    one = history([*falling(30), {"step": 30, "validation_loss": 1.4}])
    one.see("metrics", row(21, 9.0))
    assert [r["step"] for r in one.steps] == list(range(1, 22)) and one.validations == []
    assert one.losses[-1] == 9.0


@pytest.mark.parametrize("step", [7, 40])
def test_a_rate_of_nan_is_forgotten_when_training_went_on(step: int) -> None:
    one = history(falling(6))
    one.see("not_finite", {"step": 7, "what": "loss", "value": "nan", "learning_rate": 1e-3})
    assert [d.name for d in judge(one)] == ["not_finite"]
    one.see("metrics", row(step, 2.0))
    assert judge(one) == []


def test_a_loss_that_is_near_zero_from_the_first_step_is_left_alone() -> None:
    rows = [row(step, 0.001 * (step % 2)) for step in range(1, 80)]
    assert judge(history(rows)) == []


def test_what_one_fault_explains_is_not_said_beside_it() -> None:
    known = {name for names in EXPLAINS.values() for name in names}
    assert not any(name in EXPLAINS[name] for name in EXPLAINS)
    assert known & set(EXPLAINS), "a chain of explanations is followed only one link far, which is enough for these"


@pytest.mark.parametrize(("is_estimate", "beginning"), [(False, "90 training examples"), (True, "About 90 training examples")])
def test_what_was_counted_on_a_sample_is_not_said_to_be_exact(is_estimate: bool, beginning: str) -> None:
    one = History(recipe(data={"max_seq_len": 64}), DataFacts(num_train=320, num_shortened=90, is_estimate=is_estimate))
    [found] = [d for d in judge(one) if d.name == "many_shortened"]
    assert found.what[0].startswith(beginning) and found.what[1].startswith("约") is is_estimate


@pytest.mark.parametrize("name", sorted(path.stem for path in CURVES.glob("*.jsonl")))
def test_curves_of_real_runs_are_judged_right(name: str) -> None:
    """danlu/tiny on danlu/zhangjiajie (scripts/coach_curves.py)."""
    head, *rows = [json.loads(line) for line in (CURVES / f"{name}.jsonl").read_text("utf-8").splitlines()]
    data = DataFacts(rows_in=300, used=300, num_train=240, num_train_tokens=20_000, num_validation=30)
    one = History(Recipe.model_validate(head["recipe"]), data, usual_learning_rate=head["facts"]["usual_learning_rate"], is_over=True)
    for fields in rows:
        one.see("metrics", fields)
    assert [d.name for d in judge(one)] == head["expected"]


def test_there_are_curves_of_real_runs() -> None:
    assert len(list(CURVES.glob("*.jsonl"))) >= 3


def test_it_listens_to_a_long_run_in_little_time(tmp_path: Path) -> None:
    run_dir = RunDir.create(tmp_path / "run")
    reporter = Reporter(run_dir)
    coach = Coach(recipe(), run_dir, reporter)
    start = time.process_time()
    for step in range(1, 20_001):
        coach("metrics", row(step, 1 + 2 / (1 + step / 1000) + 0.1 * (step % 7), num_steps=20_000))
    seconds = time.process_time() - start
    print(f"20,000 steps: {seconds:.2f} s")
    assert seconds < 10
    assert not run_dir.events.exists()


def test_the_page_lists_every_diagnosis_and_no_other() -> None:
    root = Path(__file__).parents[2]
    named = {
        node.args[0].value
        for path in (root / "src/danlu/training/coach").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Diagnosis" and isinstance(node.args[0], ast.Constant)
    }
    listed = set(re.findall(r"^\| `(\w+)` \| (?:error|warning|info)", (root / "docs/watching.md").read_text("utf-8"), re.MULTILINE))
    assert named == listed and len(named) == 19


def test_it_needs_no_torch() -> None:
    code = "import json, sys, danlu.training.coach, danlu.services.runs; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert [name for name in ("torch", "transformers", "peft", "pyarrow") if name in loaded] == []
