"""`danlu run` with every objective: from a file to a true report, on a small model and in a few steps."""

from pathlib import Path
from typing import Any

import pytest

from danlu.errors import DataError, FormatError, RecipeError
from danlu.files import read_jsonl
from danlu.recipe.base import OBJECTIVES
from danlu.recipe.load import load_recipe
from danlu.services.runs import run
from models import recipe_values
from rows import write_rows

OPTIONS: dict[str, dict[str, Any]] = {"grpo": {"num_answers": 4, "max_completion_tokens": 8, "rewards": [{"type": "length", "minimum": 40}]}}
PREFERENCE_OBJECTIVES = [name for name in OBJECTIVES if OBJECTIVES[name].needs in ("preference", "labelled") and not OBJECTIVES[name].makes_reward_model]


def values_of(objective: str, model: Path, folder: Path, *, needs: str | None = None, **values: Any) -> dict[str, Any]:
    path = write_rows(folder / "rows.jsonl", needs or OBJECTIVES[objective].needs, 120)
    optim = {"max_steps": 12, "global_batch_size": 8, "learning_rate": 0.01}
    return recipe_values(
        model, path, objective={"type": objective, **OPTIONS.get(objective, {})}, optim=optim, data={"near_duplicates": "keep_together"}, **values
    )


@pytest.mark.parametrize(("objective", "needs"), [*((name, None) for name in PREFERENCE_OBJECTIVES), ("kto", "preference")])
def test_a_run_ends_with_a_verdict_on_what_the_objective_is_for(tmp_path: Path, small_model: Path, objective: str, needs: str | None) -> None:
    result = run(load_recipe(values=values_of(objective, small_model, tmp_path, needs=needs)), run_dir=tmp_path / "run")

    assert result.report is not None
    verdict = result.report["verdict"]
    is_paired = OBJECTIVES[objective].needs == "preference" or needs == "preference"
    assert verdict["metric"] == ("preference_accuracy" if is_paired else "label_separation")
    assert verdict["tuned"] >= verdict["base"] and verdict["label"] != "regressed"
    assert result.report["metrics"]["preference_margin" if is_paired else "label_separation"]["label"] == "improved"
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("更倾向被选中的回答" if is_paired else "好回答高于坏回答") in page


def test_a_grpo_run_ends_with_a_verdict_on_the_reward_and_its_answers_are_kept(tmp_path: Path, small_model: Path) -> None:
    result = run(load_recipe(values=values_of("grpo", small_model, tmp_path)), run_dir=tmp_path / "run")

    assert result.report is not None
    verdict, metrics = result.report["verdict"], result.report["metrics"]
    assert verdict["metric"] == "reward" and verdict["num_examples"] == metrics["reward_length"]["num_examples"] == 3  # evaluation.max_generations
    assert "平均奖励" in (tmp_path / "run" / "report.html").read_text()
    answers = list(read_jsonl(tmp_path / "run" / "rollouts.jsonl"))
    assert {"step", "line", "completion", "reward", "scores", "advantage"} <= answers[0].keys()
    steps = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert len(answers) == len(steps) * 8 * 4
    first = [answer for answer in answers if answer["step"] == 1]
    assert steps[0]["reward"] == pytest.approx(sum(a["reward"] for a in first) / len(first))


@pytest.mark.parametrize(
    "method",
    [{"type": "lora", "rank": 4}, *({"type": "lora", "rank": 4, "init": init} for init in ("pissa", "pissa_niter_16")), {"type": "full"}],
    ids=lambda method: method.get("init", method["type"]),
)
def test_grpo_compares_with_the_model_before_this_training(tmp_path: Path, small_model: Path, method: dict[str, Any]) -> None:
    """Before the first step nothing has moved, so the divergence is that of rounding; in a second round too."""
    values = values_of("grpo", small_model, tmp_path, method=method, evaluation={"suites": []})
    values["objective"] |= {"beta": 0.1}
    values["optim"] = {"max_steps": 3, "global_batch_size": 4, "learning_rate": 0.001}
    first, second = tmp_path / "first", tmp_path / "second"

    run(load_recipe(values=values), run_dir=first)
    divergences = [divergence(first)]
    if "init" not in method:  # PiSSA ends as ordinary LoRA of twice the rank
        run(load_recipe(values=values | {"start_from": str(first)}), run_dir=second)
        divergences.append(divergence(second))

    assert all(abs(before) < 1e-6 and after > 1e-6 for before, *_, after in divergences), divergences


def divergence(run_dir: Path) -> list[float]:
    return [row["kl"] for row in read_jsonl(run_dir / "metrics.jsonl") if "kl" in row]


def test_a_reward_that_compares_needs_something_to_compare_with(tmp_path: Path, small_model: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(f'{{"prompt": "what is {n}?"}}' for n in range(30)))

    with pytest.raises(DataError, match="line .* has no reference answer") as caught:
        run(load_recipe(values=recipe_values(small_model, path, objective={"type": "grpo", "rewards": ["exact_match"]})), run_dir=tmp_path / "run")

    assert "add a column `answer`" in caught.value.fix


def test_preferences_cannot_be_learnt_from_conversations(tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(FormatError, match="holds messages .* but the objective needs preference") as caught:
        run(load_recipe(values=values_of("dpo", small_model, tmp_path, needs="messages")), run_dir=tmp_path / "run")

    assert "objective: {type: sft}" in caught.value.fix and "`chosen` and `rejected`" in caught.value.fix


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"type": "dpo", "loss_type": "ipo", "label_smoothing": 0.1}, "label_smoothing has no effect with loss_type ipo"),
        ({"type": "dpo", "loss_type": "robust"}, "robust needs label_smoothing"),
        ({"type": "simpo", "lambda": 1}, "there is no such setting"),
        ({"type": "grpo", "epsilon_high": 0.3}, "epsilon_high has no effect with num_iterations 1"),
        ({"type": "grpo", "rewards": ["length", "length"]}, "twice"),
        ({"type": "grpo", "rewards": [{"type": "pattern", "pattern": "("}]}, "is not a regular expression"),
        ({"type": "grpo", "rewards": [{"type": "length", "minimum": 9, "maximum": 3}]}, "minimum 9 is more than maximum 3"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path: Path, small_model: Path, objective: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(values=recipe_values(small_model, tmp_path / "rows.jsonl", objective=objective))


def test_a_suite_that_does_not_fit_the_objective_is_refused(tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(RecipeError, match="preference cannot be measured with objective sft; remove it, or use: heldout, retention"):
        load_recipe(values=recipe_values(small_model, tmp_path / "rows.jsonl", evaluation={"suites": ["preference"]}))
