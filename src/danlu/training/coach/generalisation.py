"""Does it learn the task or the rows? From training loss beside validation loss."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from statistics import fmean

from danlu.training.coach.diagnosis import Diagnosis, Text
from danlu.training.coach.history import History, last_mean
from danlu.training.coach.optimisation import LOSS_IS_NO_FIT

FEW_VALIDATION = 10
GOOD_VALIDATION = 20
MEMORISED_LOSS = 0.05
VALIDATION_RISE = 0.05
TRAIN_BELOW_VALIDATION = 0.5
LEAST_GAP = 0.2
"""Nats per token; where both losses are near zero, their ratio says nothing."""
NO_GAIN = 0.02


def check(history: History) -> Iterator[Diagnosis]:
    """Diagnoses of this kind."""
    yield from _validation_rows(history)
    if history.recipe.objective.type not in LOSS_IS_NO_FIT and len(history.steps) >= 3:
        yield from _memorisation(history)
        yield from _overfitting(history)
        yield from _no_gain(history)


def _validation_rows(history: History) -> Iterator[Diagnosis]:
    data, share = history.data, history.recipe.data.split.validation
    if not data.num_train or data.num_validation >= FEW_VALIDATION:
        return
    wanted = min(0.3, ceil(100 * GOOD_VALIDATION / max(1, data.used)) / 100)
    is_drawn = not history.recipe.data.split.is_given and wanted > share and wanted + history.recipe.data.split.test < 1
    changes = {"data.split.validation": wanted} if is_drawn else {}
    fix: Text = (
        (f"Set data.split.validation={wanted:g}, or add rows.", f"请设 data.split.validation={wanted:g}，或增加数据。")
        if changes
        else ("Add rows.", "请增加数据。")
    )
    numbers = {"num_validation": data.num_validation, "num_train": data.num_train, "share": share}
    if data.num_validation:
        yield Diagnosis(
            "validation_too_small",
            "warning",
            (f"Only {data.num_validation} examples are in the validation split.", f"验证集只有 {data.num_validation} 条样例。"),
            (
                "Their loss goes up and down by chance, and the best step and early stopping are chosen by it.",
                "它们的损失会随机起伏，而最佳步与提前停止都由它决定。",
            ),
            fix,
            numbers,
            changes,
        )
    else:
        yield Diagnosis(
            "no_validation",
            "info",
            ("There is no validation split.", "没有验证集。"),
            ("Nobody can see during training whether the model learns the task or the rows.", "训练中无法看出模型学会的是任务还是死记数据。"),
            fix,
            numbers,
            changes,
        )


def _memorisation(history: History) -> Iterator[Diagnosis]:
    end, row = last_mean(history.losses), history.steps[-1]
    last = history.validations[-1]["validation_loss"] if history.validations else None
    if end >= min(MEMORISED_LOSS, history.losses[0] / 4) or row.get("epoch", 0) <= 1 or (last is not None and last < max(0.2, 5 * end)):
        return
    best = min(history.validations, key=lambda v: v["validation_loss"])["step"] if history.validations else None
    reached = next(s["step"] for s in history.steps if s["loss"] < 5 * max(end, MEMORISED_LOSS))
    stop = best or reached
    beside = ("", "") if last is None else (f", the validation loss {last:.2f}", f"，验证损失为 {last:.2f}")
    yield Diagnosis(
        "memorisation",
        "warning",
        (f"The training loss is {end:.3f}{beside[0]}.", f"训练损失已低至 {end:.3f}{beside[1]}。"),
        (
            f"The model knows the training rows by heart after {row['epoch']:.1f} passes; nothing more is learnt from them.",
            f"{row['epoch']:.1f} 轮之后模型已能背出训练数据，再学无益。",
        ),
        ("Train for fewer passes, or add rows.", "请减少训练轮数，或增加数据。"),
        {"train_loss": end, "epochs": row["epoch"]} | ({} if last is None else {"last_validation_loss": last}),
        history.shorter(stop),
    )


def _overfitting(history: History) -> Iterator[Diagnosis]:
    if not history.validations:
        return
    best_row = min(history.validations, key=lambda v: v["validation_loss"])
    best_step, best, last = best_row["step"], best_row["validation_loss"], history.validations[-1]["validation_loss"]
    window = max(1, len(history.losses) // 10)
    end = fmean(history.losses[-window:])
    at_best = fmean([row["loss"] for row in history.steps if row["step"] <= best_step][-window:] or [history.losses[0]])
    # While the run goes on one bad validation may be chance; at its end it is the result.
    recent = [row["validation_loss"] for row in history.validations[-1 if history.is_over else -2 :]]
    rise = min(recent) / best - 1 if best > 0 else 0.0
    numbers = {"rise_percent": 100 * rise, "best_step": best_step, "best_validation_loss": best, "last_validation_loss": last, "train_loss": end}
    is_kept = history.kept_step == best_step if history.kept_step is not None else history.recipe.training.keep_best
    saved: Text = (" The weights of the best step are kept, so the result is not harmed.", "最佳一步的权重会保留，结果不受影响。") if is_kept else ("", "")
    if rise > VALIDATION_RISE and end < at_best:
        yield Diagnosis(
            "overfitting",
            "info" if is_kept else "warning",
            (
                f"The validation loss rose by {100 * rise:.0f} % since step {best_step} ({best:.2f} to {last:.2f}) while the training loss kept falling.",
                f"第 {best_step} 步之后验证损失上升了 {100 * rise:.0f}%（{best:.2f} 到 {last:.2f}），而训练损失仍在下降。",
            ),
            ("The model began to learn the rows by heart.", "模型开始死记训练数据。"),
            ("Train for fewer passes." + saved[0], "请减少训练轮数。" + saved[1]),
            numbers,
            history.shorter(best_step),
        )
    elif end < min(TRAIN_BELOW_VALIDATION * last, last - LEAST_GAP) and history.steps[-1].get("epoch", 0) > 1:
        yield Diagnosis(
            "overfitting",
            "info" if is_kept else "warning",
            (f"The training loss ({end:.2f}) is far below the validation loss ({last:.2f}).", f"训练损失（{end:.2f}）远低于验证损失（{last:.2f}）。"),
            ("The model knows its training rows much better than new ones.", "模型对训练数据的掌握远好于新数据。"),
            ("Add rows, or train for fewer passes." + saved[0], "请增加数据，或减少训练轮数。" + saved[1]),
            numbers,
            history.shorter(best_step),
        )


def _no_gain(history: History) -> Iterator[Diagnosis]:
    """The training loss falls, and validation never gets better than the untrained model was."""
    validations = [row["validation_loss"] for row in history.validations]
    if len(validations) < 3:
        return
    # The first step's loss is measured before any update: what the base model gives on rows of this kind.
    start, best, end = fmean(history.losses[:2]), min(validations), last_mean(history.losses)
    if best < (1 - NO_GAIN) * min(start, validations[0]) or end > 0.85 * start:
        return
    yield Diagnosis(
        "validation_not_improving",
        "warning",
        (
            f"The training loss fell from {start:.2f} to {end:.2f}; the validation loss never fell below {best:.2f}.",
            f"训练损失从 {start:.2f} 降到 {end:.2f}，而验证损失从未低于 {best:.2f}。",
        ),
        (
            "What is learnt from the training rows does not hold for others: the answers may not belong to their prompts, or the rows have nothing in common.",
            "从训练数据学到的东西不适用于其他数据：回答可能与问题对不上，或各行之间毫无共性。",
        ),
        (
            "Check that prompts and answers belong together (danlu data show); training longer does not help.",
            "请检查问题与回答是否对应（danlu data show）；继续训练没有帮助。",
        ),
        {"first_loss": start, "train_loss": end, "best_validation_loss": best, "last_validation_loss": validations[-1]},
        {},
    )
