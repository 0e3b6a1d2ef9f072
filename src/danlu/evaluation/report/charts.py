"""Small SVG pictures, drawn by hand: coloured by CSS variables, so that they follow light and dark, and need no library.

Every picture of a curve comes in two sizes, `wide` and `narrow`, of which CSS shows one: text stays readable on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

from markupsafe import Markup, escape

from danlu.evaluation.report.curves import Point

Label = tuple[str, str]
"""(English, Chinese)."""
SIZES = {"wide": (1072, 300), "half": (520, 200), "narrow": (330, 220)}
_RIGHT, _TOP, _BOTTOM = 12, 12, 44


@dataclass(frozen=True)
class Series:
    """One line of a chart. `style` is a CSS class: s0 .. s4 choose the colour, `faint` and `dots` how it is drawn."""

    points: Sequence[Point]
    style: str


def line_chart(
    series: Sequence[Series],
    *,
    title: Label,
    x: Label,
    y: Label,
    sizes: Sequence[str] = ("wide", "narrow"),
    mark: tuple[float, Label] | None = None,
    from_zero: bool = False,
) -> Markup:
    """Lines over steps with labelled axes; `mark` draws a dashed vertical line, `from_zero` starts the vertical axis at 0."""
    return Markup("").join(_one_chart(series, size, title, x, y, mark, from_zero) for size in sizes)


def _one_chart(series: Sequence[Series], size: str, title: Label, x: Label, y: Label, mark: tuple[float, Label] | None, from_zero: bool) -> Markup:
    width, height = SIZES[size]
    xs = [px for line in series for px, _ in line.points]
    ys = [py for line in series for _, py in line.points] + [0.0] * from_zero
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_ticks = nice_ticks(min(ys), max(ys), 4 if size == "half" else 5)
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))
    left, right, bottom = 32 + 7 * max(len(number(tick)) for tick in y_ticks), width - _RIGHT, height - _BOTTOM

    def px(value: float) -> float:
        return round(left + (value - x_low) / (x_high - x_low) * (right - left), 1)

    def py(value: float) -> float:
        return round(bottom - (value - y_low) / (y_high - y_low) * (bottom - _TOP), 1)

    parts = []
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{py(tick)}" y2="{py(tick)}"/>')
        parts.append(f'<text x="{left - 8}" y="{py(tick) + 4}" text-anchor="end">{number(tick)}</text>')
    for tick in nice_ticks(x_low, x_high, 4 if size != "wide" else 8):
        if x_low <= tick <= x_high and tick == floor(tick):
            parts.append(f'<text x="{px(tick)}" y="{bottom + 18}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    if mark is not None:
        anchor, shift = ("end", -6) if px(mark[0]) > width / 2 else ("start", 6)
        parts.append(f'<line class="mark" x1="{px(mark[0])}" x2="{px(mark[0])}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(_text(mark[1], px(mark[0]) + shift, _TOP + 10, anchor))
    for line in series:
        path = " ".join(f"{px(a)},{py(b)}" for a, b in line.points)
        parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if "dots" in line.style.split() or len(line.points) == 1:
            parts += [f'<circle class="{line.style}" cx="{px(a)}" cy="{py(b)}" r="3"/>' for a, b in line.points]
    parts.append(_text(x, (left + right) / 2, height - 8, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(_text(y, 12, middle, "middle", f' transform="rotate(-90 12 {middle})"'))
    return Markup(f'<svg class="chart {size}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title[0])}">{"".join(parts)}</svg>')


def interval(low: float | None, value: float, high: float | None, *, higher_is_better: bool, style: str, width: int = 148) -> Markup:
    """A dot with its interval beside a line at zero, in a row of a table. Right of the line is better."""
    sign = 1 if higher_is_better else -1
    ends = sorted(sign * end for end in (low, high) if end is not None) or [sign * value] * 2
    reach = max(abs(ends[0]), abs(ends[1]), abs(value)) or 1.0

    def px(position: float) -> float:
        return round(width / 2 + position / reach * (width / 2 - 6), 1)

    return Markup(
        f'<svg class="interval {style}" width="{width}" height="20" viewBox="0 0 {width} 20" aria-hidden="true">'
        f'<line class="zero" x1="{width / 2}" x2="{width / 2}" y1="1" y2="19"/>'
        f'<line class="range" x1="{px(ends[0])}" x2="{px(ends[1])}" y1="10" y2="10"/>'
        f'<circle cx="{px(sign * value)}" cy="10" r="4"/></svg>'
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        reach = abs(low) * 0.1 or 1.0
        low, high = low - reach, high + reach
    raw = (high - low) / count
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = floor(low / step + 1e-9)
    ticks = [round(first * step, 12)]
    while ticks[-1] < high - 1e-9 * step:
        first += 1
        ticks.append(round(first * step, 12))
    return ticks


def number(value: float) -> str:
    """Short text of an axis value."""
    if value == 0:
        return "0"
    if abs(value) < 0.0001:
        return f"{value:.0e}".replace("e-0", "e-")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"


def _text(label: Label, x: float, y: float, anchor: str, more: str = "") -> str:
    return "".join(
        f'<text class="{lang}" x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(words)}</text>' for lang, words in zip(("en", "zh"), label, strict=True)
    )
