"""The proof of a run in a terminal: verdict, numbers, warnings, where the report is."""

from pathlib import Path
from typing import Any

from danlu.text import language, printable, say

LABELS = {"improved": ("IMPROVED", "变好了", "green"), "no_difference": ("NO DIFFERENCE", "没有差别", "yellow"), "regressed": ("REGRESSED", "变差了", "red")}

ROWS = {
    "used": ("used", "使用"),
    "dropped": ("dropped", "丢弃"),
    "duplicate": ("duplicates left out", "去掉重复"),
    "near_duplicate": ("near duplicates left out", "去掉近似重复"),
    "near_duplicates_kept": ("near duplicates kept in one split", "近似重复（保留在同一划分）"),
    "fixed": ("fixed", "修正后使用"),
    "truncated": ("shortened to fit", "截短"),
}


def print_summary(report: dict[str, Any], html: Path) -> None:
    """Print the report for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from danlu.evaluation.report import words

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
            table.add_row(say(*words.name(name)), *_cells(metric))
        console.print()
        console.print(table)
    console.print()
    retention = report.get("retention") or {}
    if retention.get("label"):
        change = say(
            f"loss on general conversations {words.percent(retention.get('relative'))}", f"通用对话上的损失 {words.percent(retention.get('relative'))}"
        )
        console.print(Text(say("General ability: ", "通用能力：") + say(*words.RETENTION[retention["label"]]).lower() + say(f" ({change})", f"（{change}）")))
    for name, change in (report.get("rounds") or {}).items():
        whose = say("this round's rows", "本轮样例") if name == "this round" else say(f"rows of {name}", f"{name} 的样例")
        label = say(*words.ROUND[change["label"]]).lower()
        console.print(
            Text(
                say(
                    f"Round before -> this one, {whose}: {label} (loss {words.percent(change.get('relative'))})",
                    f"上一轮 → 本轮，{whose}：{label}（损失 {words.percent(change.get('relative'))}）",
                )
            )
        )
    rows = report.get("rows") or {}
    if rows.get("rows_in") is not None:
        shortened = sum(split.get("truncated", 0) for split in (report.get("encoded") or {}).values())
        console.print(Text(say("Rows: ", "数据行：") + _rows(rows | {"truncated": shortened})))
    for warning in report.get("warnings") or []:
        console.print(Text(f"! {printable(warning[language()])}", style="yellow"))
    print_coach(report.get("coach") or [], console)
    console.print()
    console.print(Text(say("Report: ", "报告：") + str(html)), soft_wrap=True)


def print_coach(diagnoses: list[dict[str, Any]], console: Any) -> None:
    """Print what the coach says, each with the settings to change."""
    from rich.text import Text

    styles = {"error": ("!!", "bold red"), "warning": ("!", "yellow"), "info": ("-", "")}
    for diagnosis in diagnoses:
        mark, style = styles[diagnosis["severity"]]
        console.print(Text(f"{mark} {say('Coach', '教练')} [{diagnosis['name']}]: {printable(diagnosis[language()])}", style=style))
        if diagnosis["changes"]:
            console.print(Text(say("  next time: ", "  下次：") + " ".join(f"{path}={value}" for path, value in diagnosis["changes"].items())))


def _cells(metric: dict[str, Any]) -> list[str]:
    low, high = metric.get("ci") or (None, None)
    record = "/".join(str(metric.get(key, "-")) for key in ("wins", "ties", "losses"))
    p = metric.get("p")
    change = f"{_number(metric.get('delta'), sign=True)} [{_number(low, sign=True)}, {_number(high, sign=True)}]"
    shown_p = "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return [_number(metric.get("base")), _number(metric.get("tuned")), change, shown_p, record]


def _rows(rows: dict[str, Any]) -> str:
    parts = [say(f"{rows['rows_in']:,} in the file", f"文件中 {rows['rows_in']:,} 行")]
    for key, (en, zh) in ROWS.items():
        if rows.get(key):
            parts.append(say(f"{rows[key]:,} {en}", f"{zh} {rows[key]:,}"))
    return say(", ", "，").join(parts)


def _number(value: Any, *, sign: bool = False) -> str:
    if not isinstance(value, int | float):
        return "-"
    digits = 3 if abs(value) < 100 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"
