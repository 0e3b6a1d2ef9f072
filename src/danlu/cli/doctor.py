"""danlu doctor."""

import re
from typing import TYPE_CHECKING

import typer

from danlu.text import printable, say

if TYPE_CHECKING:
    from danlu.services.doctor import Examination

SIGNS = {"ok": ("ok", "green"), "warning": ("!", "yellow"), "failed": ("x", "red")}
NAMES = {
    "processors": "处理器",
    "memory": "内存",
    "home": "数据目录",
    "disk": "磁盘",
    "database": "数据库",
    "system": "系统",
}
FIGURES = ((re.compile(r"([\d.]+) of ([\d.]+) GiB free"), r"可用 \1 GiB，共 \2 GiB"), (re.compile(r", (\d+) threads"), r"，\1 个线程"))
"""What is said of figures, in Chinese."""


def doctor(as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """Is this machine ready: Python, torch, GPU, memory, disk, home folder, database, and what each extra would add. (For data: danlu data inspect.)"""
    from danlu.cli.main import json_out
    from danlu.services.doctor import examine

    found = examine()
    if as_json:
        json_out(found.to_dict())
    else:
        print_examination(found)
    if not found.is_ready:
        raise typer.Exit(1)


def print_examination(found: "Examination") -> None:
    """Print what was looked at, then the extras, then the way on."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from danlu.errors.chinese import in_chinese

    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in found.checks:
        sign, colour = SIGNS[check.state]
        parts = (say(check.found, figures_in_chinese(check.found)), say(check.en, in_chinese(check.zh)), say(check.fix, in_chinese(check.fix)))
        told = " - ".join(filter(None, parts))
        table.add_row(Text(sign, style=colour), Text(say(check.name, NAMES.get(check.name, check.name)), style="bold"), Text(printable(told), overflow="fold"))
    console.print(table)
    console.print(Text("\n" + say("Extras:", "可选组件："), style="bold"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for extra in found.extras:
        how = "" if extra.is_installed else f"pip install 'danlu[{extra.name}]'  ({', '.join(extra.missing)})"
        table.add_row(
            Text("ok" if extra.is_installed else "-", style="green" if extra.is_installed else "dim"),
            Text(extra.name, style="bold"),
            say(extra.en, extra.zh),
            Text(how),
        )
    console.print(table)
    typer.echo("\n" + (say("Ready.", "一切就绪。") if found.is_ready else say("Something is wrong: see the lines with x.", "有问题：见标有 x 的各行。")))


def figures_in_chinese(found: str) -> str:
    """Figures with the words around them in Chinese."""
    for pattern, chinese in FIGURES:
        found = pattern.sub(chinese, found)
    return found
