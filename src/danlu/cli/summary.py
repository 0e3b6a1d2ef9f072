"""The proof of a run in a terminal: verdict, numbers, warnings, where the report is."""

from pathlib import Path
from typing import Any

from danlu.text import language, printable, say

LABELS = {"improved": ("IMPROVED", "变好了", "green"), "no_difference": ("NO DIFFERENCE", "没有差别", "yellow"), "regressed": ("REGRESSED", "变差了", "red")}


def print_summary(report: dict[str, Any], html: Path) -> None:
    """Print the report for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    verdict = report.get("verdict") or {}
    console.print()
    if verdict.get("label"):
        en, zh, colour = LABELS[verdict["label"]]
        console.print(Text(say(en, zh), style=f"bold {colour}"))
        console.print(Text(printable((verdict.get("text") or {}).get(language(), ""))))
    else:
        console.print(say("This run was not evaluated.", "本次运行没有做验证。"))
    if report.get("metrics"):
        table = Table(box=None, pad_edge=False)
        table.add_column(say("metric", "指标"), no_wrap=True)
        for title in (say("base", "基座"), say("tuned", "微调后"), say("change [95 % interval]", "变化 [95% 区间]"), "p", say("win/tie/loss", "胜/平/负")):
            table.add_column(title, justify="right", no_wrap=True)
        for name, metric in report["metrics"].items():
            table.add_row(name, *_cells(metric))
        console.print()
        console.print(table)
    console.print()
    retention = report.get("retention") or {}
    if retention.get("label"):
        console.print(
            Text(say("General ability: ", "通用能力：") + f"{retention['label']}  ({_number(retention.get('base'))} → {_number(retention.get('tuned'))} NLL)")
        )
    rows = report.get("rows") or {}
    if rows.get("rows_in") is not None:
        console.print(Text(say("Rows: ", "数据行：") + _rows(rows)))
    for warning in report.get("warnings") or []:
        console.print(Text(f"! {printable(warning[language()])}", style="yellow"))
    console.print()
    console.print(Text(say("Report: ", "报告：") + str(html)), soft_wrap=True)


def _cells(metric: dict[str, Any]) -> list[str]:
    low, high = metric.get("ci") or (None, None)
    record = "/".join(str(metric.get(key, "-")) for key in ("wins", "ties", "losses"))
    p = metric.get("p")
    change = f"{_number(metric.get('delta'), sign=True)} [{_number(low, sign=True)}, {_number(high, sign=True)}]"
    shown_p = "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return [_number(metric.get("base")), _number(metric.get("tuned")), change, shown_p, record]


def _rows(rows: dict[str, Any]) -> str:
    parts = [f"{rows['rows_in']:,} in"]
    for key, value in rows.items():
        if key != "rows_in" and isinstance(value, int) and not isinstance(value, bool) and value:
            parts.append(f"{value:,} {key.replace('_', ' ')}")
    return ", ".join(parts)


def _number(value: Any, *, sign: bool = False) -> str:
    if not isinstance(value, int | float):
        return "-"
    digits = 3 if abs(value) < 100 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"
