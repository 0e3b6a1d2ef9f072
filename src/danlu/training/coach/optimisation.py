"""Is the model being moved at all, too far, or not far enough? From the training loss, the learning rate and the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean, median

from danlu.training.coach.diagnosis import Diagnosis, two_digits
from danlu.training.coach.history import History, last_mean, noise, smoothed

LOSS_IS_NO_FIT = ("grpo",)
"""Objectives whose loss stays near zero by construction and says nothing about how well the model fits."""
MIN_STEPS = 20
"""Fewer steps make no curve."""
FLAT_SHARE = 0.03
LOW_RATE = 1 / 8
HIGH_RATE = 8
"""How far from the usual rate a rate must be before a loss that hardly moves is blamed on it."""
SMALL_SHARE = 0.2
CLIP_RATIO = 10.0
DROWNED_RATIO = 1000.0
"""Adam does not care for the length of a gradient, so clipping harms little until it cuts them down to its epsilon."""


def check(history: History) -> Iterator[Diagnosis]:
    """Diagnoses of this kind."""
    yield from _not_finite(history)
    if history.recipe.objective.type not in LOSS_IS_NO_FIT:
        yield from _too_far(history)
        yield from _not_far_enough(history)
    yield from _clipping(history)


def _not_finite(history: History) -> Iterator[Diagnosis]:
    event = history.not_finite
    if event is None:
        return
    rate, what = event.get("learning_rate") or history.learning_rate or 0.0, event["what"]
    chinese = {"loss": "损失", "gradient": "梯度"}.get(what, what)
    yield Diagnosis(
        "not_finite",
        "error",
        (f"The {what} became {event['value']} at step {event['step']}.", f"第 {event['step']} 步的{chinese}变成了 {event['value']}。"),
        (
            f"Nearly always the learning rate ({history.learning_rate:g}) is too high; otherwise the weights or a row are broken."
            if history.learning_rate
            else "Nearly always the learning rate is too high.",
            "几乎总是因为学习率过高；否则是权重或某行数据有问题。",
        ),
        ("Start again with a tenth of it.", "请用十分之一的学习率重新开始。"),
        {"step": event["step"], "learning_rate": rate, "last_loss": history.losses[-1] if history.steps else 0.0},
        {"optim.learning_rate": two_digits((history.learning_rate or rate) / 10)},
    )


def _too_far(history: History) -> Iterator[Diagnosis]:
    """Divergence (the loss has left for good) or a rate that threw the loss up for a while."""
    losses, rate = history.losses, history.learning_rate
    if len(losses) < 6 or rate is None:
        return
    start, spread = losses[0], noise(losses)
    width = min(max(5, len(losses) // 10), len(losses) // 2)
    means = smoothed(losses, width)
    now, low = means[-1], min(means)
    is_suspect = history.usual_learning_rate is not None and rate >= HIGH_RATE * history.usual_learning_rate
    highest = max(smoothed(losses, 3 if is_suspect else 5))
    numbers = {"first_loss": start, "highest_mean_loss": highest, "last_mean_loss": now, "learning_rate": rate, "num_steps": len(losses)}
    lower = {"optim.learning_rate": two_digits(_next_lower(history, rate, 10))}
    is_falling = len(means) > width and now < means[-1 - width] - 2 * spread / width**0.5
    is_last = history.is_over or history.step >= history.num_steps
    is_above_start = now > max(1.1 * start, start + 0.5, start + 4 * spread) or now > max(1.5 * start, start + 1)
    is_above_low = now > max(1.5 * low, low + 1, low + 4 * spread)
    if (is_above_start and (is_last or not is_falling)) or (is_above_low and not is_falling):
        yield Diagnosis(
            "divergence",
            "error",
            (
                f"The training loss is {now:.2f} after {history.step} steps; it was {min(start, low):.2f} before.",
                f"第 {history.step} 步的训练损失为 {now:.2f}，而此前只有 {min(start, low):.2f}。",
            ),
            (f"The learning rate ({rate:g}) throws the weights further off with every step.", f"学习率（{rate:g}）过高，每一步都把权重推得更远。"),
            (
                f"Stop and start again with optim.learning_rate={lower['optim.learning_rate']:g}.",
                f"请停止，改用 optim.learning_rate={lower['optim.learning_rate']:g} 重新开始。",
            ),
            numbers,
            lower,
        )
        return
    rise, before, after = _largest_rise(means)
    highest = max(smoothed(losses, 5))
    certainly = 2 if is_suspect else 4
    is_rise = len(losses) >= MIN_STEPS and rise > max(certainly * spread * (2 / width) ** 0.5, 0.15 * before, 0.3)
    if not is_rise and highest - start > (max(0.15 * start, 0.3) if is_suspect else max(5 * spread, 0.2 * start, 0.5)):
        is_rise, before, after = True, start, highest
    if is_rise:
        lower = {"optim.learning_rate": two_digits(_next_lower(history, rate, 3))}
        yield Diagnosis(
            "learning_rate_too_high",
            "warning",
            (
                f"The training loss rose from {before:.2f} to {after:.2f} before it came down again.",
                f"训练损失曾从 {before:.2f} 升到 {after:.2f}，之后才回落。",
            ),
            (f"The learning rate ({rate:g}) is so high that steps undo what was learnt.", f"学习率（{rate:g}）过高，更新会毁掉已经学到的东西。"),
            (f"Try optim.learning_rate={lower['optim.learning_rate']:g}.", f"可改用 optim.learning_rate={lower['optim.learning_rate']:g}。"),
            numbers | {"rise": after - before},
            lower,
        )


def _next_lower(history: History, rate: float, divisor: float) -> float:
    """The usual rate for this model where it is lower, else a share of the present one."""
    usual = history.usual_learning_rate
    return usual if usual is not None and usual < rate / 2 else rate / divisor


def _largest_rise(means: list[float]) -> tuple[float, float, float]:
    """(rise, from, to) of the largest climb of a smoothed curve above an earlier low."""
    low, best = means[0], (0.0, means[0], means[0])
    for mean in means:
        low = min(low, mean)
        best = max(best, (mean - low, low, mean))
    return best


def _not_far_enough(history: History) -> Iterator[Diagnosis]:
    """A loss that does not move: the rate is too low, or there is nothing to learn."""
    losses, rate = history.losses, history.learning_rate
    if _clip_ratio(history) >= DROWNED_RATIO:  # that alone keeps it where it is
        return
    if rate is None or len(losses) < MIN_STEPS or not (history.is_over or len(losses) > 0.3 * history.num_steps):
        return
    window = len(losses) // 4
    first, last = fmean(losses[:window]), fmean(losses[-window:])
    if first < 0.1:  # it was learnt before the run began
        return
    share = (first - last) / first
    certainty = (first - last) / max(1e-9, noise(losses) * (2 / window) ** 0.5)
    validations = [row["validation_loss"] for row in history.validations]
    has_gained = len(validations) > 1 and min(validations) < (1 - FLAT_SHARE / 2) * validations[0]
    is_flat = not has_gained and (abs(share) < 0.01 or (abs(share) < FLAT_SHARE and certainty < 3))
    usual = history.usual_learning_rate
    is_low = usual is not None and rate <= LOW_RATE * usual
    numbers = {"first_mean_loss": first, "last_mean_loss": last, "change_percent": -100 * share, "learning_rate": rate, "num_steps": len(losses)}
    seen = (
        f"The training loss went from {first:.3f} to {last:.3f} in {len(losses)} steps ({-100 * share:+.1f} %).",
        f"{len(losses)} 步里训练损失从 {first:.3f} 到 {last:.3f}（{-100 * share:+.1f}%）。",
    )
    if usual is not None and is_low and (is_flat or 0 <= share < 0.1):
        yield Diagnosis(
            "learning_rate_too_low",
            "warning",
            seen,
            (
                f"The learning rate ({rate:g}) is {usual / rate:.0f} times lower than usual for this model and method ({usual:g}).",
                f"学习率（{rate:g}）比此模型与方法的常用值（{usual:g}）低 {usual / rate:.0f} 倍。",
            ),
            (f"Try optim.learning_rate={usual:g}.", f"可改用 optim.learning_rate={usual:g}。"),
            numbers | {"usual_learning_rate": usual},
            {"optim.learning_rate": usual},
        )
    elif (
        usual is not None
        and rate >= HIGH_RATE * usual
        and share < SMALL_SHARE
        and not any(d.name in ("divergence", "learning_rate_too_high") for d in _too_far(history))
    ):
        yield Diagnosis(
            "learning_rate_too_high",
            "warning",
            seen,
            (
                f"The learning rate ({rate:g}) is {rate / usual:.0f} times the usual one for this model and method ({usual:g}): steps jump over the goal.",
                f"学习率（{rate:g}）是此模型与方法常用值（{usual:g}）的 {rate / usual:.0f} 倍：每一步都跳过了目标。",
            ),
            (f"Try optim.learning_rate={usual:g}.", f"可改用 optim.learning_rate={usual:g}。"),
            numbers | {"usual_learning_rate": usual},
            {"optim.learning_rate": usual},
        )
    elif is_flat:
        yield Diagnosis(
            "loss_flat",
            "warning",
            seen,
            (
                "The rows hold nothing that can be predicted from their prompts, or nothing the model does not know already, or the rate is far too low.",
                "数据里没有能从问题推出的规律，或模型早已掌握，或学习率远远过低。",
            ),
            (
                "Look at the rows as the model sees them (danlu data show); when they are right, try a higher rate.",
                "请按模型看到的样子检查数据（danlu data show）；数据无误时可尝试更高的学习率。",
            ),
            numbers,
            {"optim.learning_rate": two_digits(min(1.0, 5 * rate))},
        )


def _norms(history: History) -> list[float]:
    return [row["grad_norm"] for row in history.steps if row.get("grad_norm") is not None]


def _clip_ratio(history: History) -> float:
    """How many times longer the median gradient is than what is left of it."""
    norms = _norms(history)
    return median(norms) / history.recipe.optim.max_grad_norm if norms else 0.0


def _clipping(history: History) -> Iterator[Diagnosis]:
    """Gradients that are cut to almost nothing at every step."""
    limit, norms = history.recipe.optim.max_grad_norm, _norms(history)
    if len(norms) < MIN_STEPS:
        return
    share, middle = sum(norm > limit for norm in norms) / len(norms), median(norms)
    if share < 0.95 or middle < CLIP_RATIO * limit:
        return
    value = two_digits(2 * middle)
    yield Diagnosis(
        "gradient_clipping_always",
        "warning" if middle >= DROWNED_RATIO * limit else "info",
        (
            f"{100 * share:.0f} % of the gradients were clipped; the usual one is {middle:.3g} long and is cut to {limit:g}.",
            f"{100 * share:.0f}% 的梯度被裁剪；一般长度为 {middle:.3g}，被裁到 {limit:g}。",
        ),
        (
            "Clipping is meant for the rare long gradient; at every step it replaces the learning rate.",
            "裁剪只应针对少数过长的梯度；步步裁剪等于另设了一个学习率。",
        ),
        (f"Try optim.max_grad_norm={value:g}.", f"可改用 optim.max_grad_norm={value:g}。"),
        {"clipped_percent": 100 * share, "median_grad_norm": middle, "max_grad_norm": limit, "last_loss": last_mean(history.losses)},
        {"optim.max_grad_norm": value},
    )
