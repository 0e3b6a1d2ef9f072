"""Is the machine the trouble? From speed and memory."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from danlu.training.coach.diagnosis import Diagnosis
from danlu.training.coach.history import History

WINDOW = 10
COLLAPSE = 1 / 3
MIN_SLOW_SECONDS = 20.0
"""Shorter than this it was somebody else's moment."""
HALVED_OFTEN = 2


def check(history: History) -> Iterator[Diagnosis]:
    """Diagnoses of this kind."""
    yield from _slow(history)
    yield from _halved(history)


def _slow(history: History) -> Iterator[Diagnosis]:
    rows = [row for row in history.steps if row.get("tokens_per_second")]
    if len(rows) < 3 * WINDOW:
        return
    before, now = (median(row["tokens_per_second"] for row in part) for part in (rows[2:-WINDOW], rows[-WINDOW:]))
    num_tokens = rows[-1]["num_tokens"] - rows[-WINDOW - 1]["num_tokens"]
    if now > COLLAPSE * before or num_tokens / now < MIN_SLOW_SECONDS:
        return
    limit = history.recipe.optim.micro_batch_tokens
    smaller = {} if limit == "auto" or int(limit) < 32 else {"optim.micro_batch_tokens": int(limit) // 2}
    yield Diagnosis(
        "throughput_collapse",
        "info",
        (
            f"The last {WINDOW} steps ran at {now:,.0f} tokens/s, earlier ones at {before:,.0f}.",
            f"最近 {WINDOW} 步的速度为 {now:,.0f} 词元/秒，此前为 {before:,.0f}。",
        ),
        ("The machine is swapping, or another program takes its processors. The result does not change.", "机器在换页，或有其他程序占用处理器。结果不受影响。"),
        ("Close other programs; when memory is short, lower optim.micro_batch_tokens.", "请关闭其他程序；内存紧张时可降低 optim.micro_batch_tokens。"),
        {"tokens_per_second": now, "earlier_tokens_per_second": before},
        smaller,
    )


def _halved(history: History) -> Iterator[Diagnosis]:
    events = history.out_of_memory
    if len(events) < HALVED_OFTEN:
        return
    reached = events[-1].get("micro_batch_tokens")
    limit = history.recipe.optim.micro_batch_tokens
    value = int(reached) if reached else None if limit == "auto" else max(16, int(limit) >> len(events))
    yield Diagnosis(
        "micro_batch_halved_often",
        "info",
        (f"Memory ran out {len(events)} times; each time the micro batch was halved.", f"内存不足 {len(events)} 次，每次都把微批减半。"),
        (
            "Less memory is free than when the run began, or the first guess was too high. The loss does not change, but time is lost.",
            "可用内存比开始时少，或起初估计过高。损失不受影响，但浪费了时间。",
        ),
        (f"Start the next run with optim.micro_batch_tokens={value}.", f"下次请从 optim.micro_batch_tokens={value} 开始。")
        if value
        else ("Close other programs.", "请关闭其他程序。"),
        {"num_times": len(events)},
        {"optim.micro_batch_tokens": value} if value else {},
    )
