"""What a reader must know beside the verdict: overfitting, leaks, too little data, loops. Each has a stable code.

Knows files and numbers, not models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from danlu.files import read_json, read_jsonl

if TYPE_CHECKING:
    from danlu.run_dir import RunDir

FEW_TEST_ROWS = 10
VALIDATION_RISE = 0.05
TRAIN_BELOW_VALIDATION = 0.5
CUT_SHARE = 0.1
LOOP_SHARE = 0.1
MEMORISED_SHARE = 0.01

Caveat = dict[str, Any]

_TEXTS = {
    "not_evaluated": (
        "Nothing was measured on held-out examples, so this report cannot say whether the model got better.",
        "没有在留出样例上做任何测量，因此本报告无法说明模型是否变好。",
    ),
    "too_few_test_rows": (
        "Only {num_examples} held-out examples: the verdict is not conclusive. "
        "Give at least {minimum}, better 50, by raising data.split.test or by adding data.",
        "留出样例只有 {num_examples} 条，结论不可靠。请提高 data.split.test 或增加数据，至少 {minimum} 条，最好 50 条。",
    ),
    "test_rows_dropped": (
        "{num_dropped} held-out rows could not be scored; the first because: {first_reason}.",
        "有 {num_dropped} 条留出样例无法评分；第一条的原因：{first_reason}。",
    ),
    "memorised": (
        "{num_found} of {num_checked} held-out rows have their prompt or answer in the training rows ({num_exact} word for word): "
        "part of the gain may be recall. Remove the copies from the data and train again.",
        "{num_checked} 条留出样例中有 {num_found} 条的问题或答案也出现在训练数据里（其中 {num_exact} 条逐字相同）："
        "提升可能有一部分来自记忆。请去掉重复数据后重新训练。",
    ),
    "retention_forgotten": (
        "General ability was lost: the loss on general conversations rose by {percent:.1f} %. "
        "Lower the learning rate, train for fewer epochs, or mix in general data (data.mix).",
        "通用能力有损失：通用对话上的损失上升了 {percent:.1f}%。可降低学习率、减少训练轮数，或混入通用数据（data.mix）。",
    ),
    "no_validation": (
        "There was no validation split: overfitting could not be watched during training.",
        "没有验证集：训练过程中无法观察过拟合。",
    ),
    "overfit": (
        "Validation loss rose {percent:.0f} % above its best (step {best_step}) while training loss kept falling: "
        "the model began to learn the rows by heart. Train for fewer epochs.",
        "验证损失比最低点（第 {best_step} 步）上升了 {percent:.0f}%，而训练损失仍在下降：模型开始死记训练数据。请减少训练轮数。",
    ),
    "overfit_best_kept": (
        "Validation loss rose {percent:.0f} % above its best (step {best_step}) while training loss kept falling: "
        "the model began to learn the rows by heart. The weights of the best step were kept, so the result is not harmed.",
        "验证损失比最低点（第 {best_step} 步）上升了 {percent:.0f}%，而训练损失仍在下降：模型开始死记训练数据。已保留最佳一步的权重，结果不受影响。",
    ),
    "overfit_gap": (
        "Training loss ({train_loss:.2f}) ended far below validation loss ({last_validation_loss:.2f}): "
        "the model knows its training rows much better than new ones.",
        "训练损失（{train_loss:.2f}）远低于验证损失（{last_validation_loss:.2f}）：模型对训练数据的掌握远好于新数据。",
    ),
    "generation_cut": (
        "{num_cut} of {num_generated} answers of the tuned model were cut at {max_new_tokens} tokens; metrics of text see only "
        "their beginning. Raise evaluation.max_new_tokens.",
        "微调模型的 {num_generated} 个回答中有 {num_cut} 个在 {max_new_tokens} 个词元处被截断，文本指标只看到开头。可提高 evaluation.max_new_tokens。",
    ),
    "degenerate_generations": (
        "{num_loops} of {num_generated} answers of the tuned model end in a loop, repeating the same words. "
        "Usually the model is too small or undertrained, or the learning rate was too high.",
        "微调模型的 {num_generated} 个回答中有 {num_loops} 个陷入重复循环。通常是模型太小、训练不足或学习率过高。",
    ),
}


def find(run_dir: RunDir, *, heldout: dict[str, Any] | None, retention: dict[str, Any] | None, memorised: dict[str, Any] | None) -> list[Caveat]:
    """All warnings of a run, the weightiest first; each `{code, en, zh, numbers}`."""
    return [*_test_rows(heldout), *_memorised(memorised), *_retention(retention), *_overfit(run_dir), *_generations(heldout)]


def _caveat(code: str, *, text: str | None = None, **numbers: Any) -> Caveat:
    en, zh = _TEXTS[text or code]
    return {"code": code, "en": en.format(**numbers), "zh": zh.format(**numbers), "numbers": numbers}


def _test_rows(heldout: dict[str, Any] | None) -> Iterator[Caveat]:
    if heldout is None:
        yield _caveat("not_evaluated")
        return
    count, dropped = heldout["num_examples"], heldout["dropped"]
    if count < FEW_TEST_ROWS:
        yield _caveat("too_few_test_rows", num_examples=count, minimum=FEW_TEST_ROWS)
    if dropped:
        yield _caveat("test_rows_dropped", num_dropped=len(dropped), num_examples=count, first_reason=dropped[0]["reason"])


def _memorised(memorised: dict[str, Any] | None) -> Iterator[Caveat]:
    if memorised and memorised["num_found"] >= max(1, MEMORISED_SHARE * memorised["num_checked"]):
        yield _caveat("memorised", **{key: memorised[key] for key in ("num_found", "num_exact", "num_checked")})


def _retention(retention: dict[str, Any] | None) -> Iterator[Caveat]:
    if retention and retention["label"] == "forgotten":
        yield _caveat("retention_forgotten", percent=100 * retention["relative"], ci=retention["ci"])


def _overfit(run_dir: RunDir) -> Iterator[Caveat]:
    rows = list(read_jsonl(run_dir.metrics))
    steps = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    validations = [(row["step"], row["validation_loss"]) for row in rows if row.get("validation_loss") is not None]
    if steps and not validations:
        yield _caveat("no_validation")
    if not steps or not validations:
        return
    best_step, best = min(validations, key=lambda pair: pair[1])
    last = validations[-1][1]
    window = max(1, len(steps) // 10)
    train_end = _mean([loss for _, loss in steps[-window:]])
    train_at_best = _mean([loss for step, loss in steps if step <= best_step][-window:] or [steps[0][1]])
    training = run_dir.path / "training.json"
    numbers = {
        "percent": 100 * (last / best - 1) if best > 0 else 0.0,
        "best_step": best_step,
        "best_validation_loss": best,
        "last_validation_loss": last,
        "train_loss": train_end,
        "kept_step": read_json(training).get("kept_step") if training.exists() else None,
    }
    if numbers["percent"] > 100 * VALIDATION_RISE and train_end < train_at_best:
        yield _caveat("overfit", text="overfit_best_kept" if numbers["kept_step"] == best_step else "overfit", **numbers)
    elif train_end < TRAIN_BELOW_VALIDATION * last:
        yield _caveat("overfit", text="overfit_gap", **numbers)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _generations(heldout: dict[str, Any] | None) -> Iterator[Caveat]:
    generation = heldout["generation"] if heldout else None
    if not generation:
        return
    total, cut, loops = len(generation["examples"]), generation["num_cut"], generation["num_loops"]
    if cut["tuned"] > CUT_SHARE * total:
        yield _caveat("generation_cut", num_cut=cut["tuned"], num_cut_base=cut["base"], num_generated=total, max_new_tokens=generation["max_new_tokens"])
    if loops["tuned"] > LOOP_SHARE * total:
        yield _caveat("degenerate_generations", num_loops=loops["tuned"], num_loops_base=loops["base"], num_generated=total)
