"""The live terminal view of a run: stages, progress, loss, learning rate, speed, memory, time left."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from danlu.cli.chinese import in_chinese
from danlu.reporter import Listener
from danlu.text import printable, say

PLAIN_EVERY_SECONDS = 10.0


@contextmanager
def terminal_view(*, quiet: bool = False, plain: bool = False) -> Iterator[Listener]:
    """Yield a listener: a live bar on a terminal, plain lines to stderr otherwise, nothing when quiet."""
    if quiet:
        yield lambda kind, fields: None
    elif plain or not sys.stderr.isatty():
        yield PlainView()
    else:
        with LiveView() as view:
            yield view


class PlainView:
    """One line per event, and one about progress every ten seconds."""

    def __init__(self) -> None:
        self._last = 0.0
        self._clock = Clock()

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics":
            self._clock.see(fields)
            if "validation_loss" in fields:
                self._print("  " + _validation(fields))
            elif self._is_due():
                self._print("  " + self._clock.line(fields))
        elif kind == "progress":
            if self._is_due():
                self._print("  " + _progress(fields))
        else:
            self._print(event_line(kind, fields))

    def _is_due(self) -> bool:
        if time.monotonic() - self._last < PLAIN_EVERY_SECONDS:
            return False
        self._last = time.monotonic()
        return True

    @staticmethod
    def _print(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


class LiveView:
    """A status line that is redrawn, with events above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._clock = Clock()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
        )
        self._task: Any = None
        self._stage = ""

    def __enter__(self) -> "LiveView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "metrics":
            self._clock.see(fields)
            if "loss" in fields:
                self._show(fields["step"], fields["num_steps"], self._clock.line(fields))
        elif kind == "progress":
            self._show(fields["done"], fields["total"], _progress(fields))
        else:
            if kind == "stage":
                self._stage = say(*STAGE_NAMES.get(fields["stage"], (fields["stage"], fields["stage"])))
                if self._task is not None:
                    self._progress.remove_task(self._task)
                    self._task = None
            self._progress.console.print(printable(event_line(kind, fields)), markup=False, highlight=False)

    def _show(self, done: int, total: int | None, text: str) -> None:
        text = printable(text).replace("[", "\\[")
        if self._task is None:
            self._task = self._progress.add_task(text, total=total, completed=done, stage=self._stage)
        self._progress.update(self._task, completed=done, total=total, description=text, stage=self._stage)


class Clock:
    """Time left, from the speed of the last steps; and the numbers that belong on one line."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, float]] = []
        self._validation: float | None = None

    def see(self, fields: dict[str, Any]) -> None:
        """Take in one line of metrics."""
        if "validation_loss" in fields:
            self._validation = fields["validation_loss"]
        else:
            self._steps = [*self._steps[-20:], (fields["step"], time.monotonic())]

    def line(self, fields: dict[str, Any]) -> str:
        """Step, loss, rate, speed, memory and time left."""
        parts = [f"{fields['step']}/{fields['num_steps']}", f"loss {fields['loss']:.3f}"]
        if "reward" in fields:
            parts.append(say(f"reward {fields['reward']:.3f}", f"奖励 {fields['reward']:.3f}"))
        elif self._validation is not None:
            parts.append(f"val {self._validation:.3f}")
        parts += [f"lr {fields['learning_rate']:.1e}", f"{fields['tokens_per_second']:,.0f} tok/s", f"{fields['peak_memory_bytes'] / 2**30:.2f} GiB"]
        left = self._seconds_left(fields)
        if left is not None:
            parts.append(say(f"{_duration(left)} left", f"剩余 {_duration(left)}"))
        return "  ".join(parts)

    def _seconds_left(self, fields: dict[str, Any]) -> float | None:
        (first_step, first_time), (last_step, last_time) = self._steps[0], self._steps[-1]
        if last_step <= first_step:
            return None
        return float((fields["num_steps"] - last_step) * (last_time - first_time) / (last_step - first_step))


STAGES = {
    "data": ("Data: read, check, split, tokenise", "数据：读取、检查、切分、分词"),
    "training": ("Training", "训练"),
    "evaluation": ("Proof: base against tuned on held-out examples", "验证：在留出样例上比较基座与微调后的模型"),
    "report": ("Report", "报告"),
    "export": ("Export", "导出"),
}


STAGE_NAMES = {
    "data": ("data", "数据"),
    "training": ("training", "训练"),
    "evaluation": ("proof", "验证"),
    "report": ("report", "报告"),
    "export": ("export", "导出"),
}


def event_line(kind: str, fields: dict[str, Any]) -> str:
    """One line for a person."""
    if kind == "stage":
        en, zh = STAGES.get(fields["stage"], (fields["stage"], fields["stage"]))
        return "\n" + say(en, zh)
    if kind == "recommended":
        value = fields["value"]
        shown = value["type"] if isinstance(value, dict) and set(value) == {"type"} else value
        return f"  {fields['path']} = {shown}  ({say(fields['en'], fields['zh'])})"
    message = str(fields.get("message", kind))
    if kind == "sample":
        return say(f"  step {fields['step']} sample: {message}", f"  第 {fields['step']} 步试答：{message}")
    marks = {"warning": "! ", "data_warning": "! ", "alarm": "!! ", "error": "!! "}
    if kind == "coach":
        kind = fields["severity"] if fields["status"] == "found" else ""
    return f"  {marks.get(kind, '')}{say(message, fields.get('zh') or in_chinese(message))}"


def _validation(fields: dict[str, Any]) -> str:
    if "validation_reward" in fields:
        reward = f"{fields['validation_reward']:.4f}"
        return say(f"step {fields['step']}: mean reward of validation prompts {reward}", f"第 {fields['step']} 步：验证问题的平均奖励 {reward}")
    loss = f"{fields['validation_loss']:.4f}"
    return say(f"step {fields['step']}: validation loss {loss}", f"第 {fields['step']} 步：验证损失 {loss}")


def _progress(fields: dict[str, Any]) -> str:
    number = f"{fields['done']:,} / {fields['total']:,}" if fields["total"] else f"{fields['done']:,}"
    return say(f"{fields['what']}: {number}", f"{in_chinese(fields['what'])}：{number}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
