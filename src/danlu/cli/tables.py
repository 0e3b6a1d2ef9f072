"""What operations answer, in a terminal: a table for many, lines for one; or the exact JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import typer

from danlu.text import printable, say

if TYPE_CHECKING:
    from danlu.services.platform.downloads import Download
    from danlu.services.platform.operations import Operation

HEADINGS = {
    "id": "编号",
    "name": "名称",
    "state": "状态",
    "kind": "类型",
    "type": "类型",
    "role": "角色",
    "priority": "优先级",
    "not_before": "最早开始",
    "attempt": "尝试",
    "number": "版本",
    "verdict": "结论",
    "base_model": "基座模型",
    "file_name": "文件",
    "size_bytes": "大小",
    "licence": "许可证",
    "num_parameters": "参数量",
    "fit": "内存够否",
    "needed_bytes": "需要",
    "available_bytes": "空闲",
    "action": "操作",
    "subject": "对象",
    "user_id": "用户",
    "run_id": "运行",
    "description": "说明",
    "is_active": "有效",
    "is_admin": "管理员",
    "expires_at": "到期",
    "created_at": "创建时间",
    "at": "时间",
}
"""Columns of a table, in this order, in Chinese; in English they are called like the field."""
WHERE_SET = ("not_before",)
"""Columns that are left out where no row has a value."""
MAX_COLUMNS = 8
MAX_WIDTH = 32
"""What a column asks for at most; longer text is folded. An id is shorter."""
IDS = ("id", "run_id", "user_id")


def show(operation: Operation[..., Any], result: Any, *, as_json: bool) -> None:
    """Print what an operation answered."""
    from danlu.store.rows import Page

    if as_json:
        write_json(operation.types["return"], result)
    elif result is None:
        typer.echo(say("Done.", "完成。"))
    elif isinstance(result, list):
        print_rows(result)
    elif isinstance(result, Page):
        print_rows(result.items)
        if result.next is not None:
            typer.echo(say(f"More: --after {result.next}", f"还有更多：--after {result.next}"))
    else:
        print_one(result)


def show_saved(download: Download, target: Path | None, *, as_json: bool) -> None:
    """Write a file, and say where; into this folder under its own name when no other is given."""
    from danlu.client.transfers import save

    if target is None:
        target = Path(PurePosixPath(download.file_name.replace("\\", "/")).name.lstrip(".") or "download")
    save(download, target)
    if as_json:
        write_json(Any, {"file": str(target), "size_bytes": download.size_bytes})
    else:
        typer.echo(printable(say(f"Written: {target}", f"已写入：{target}")))


def write_json(hint: Any, value: Any) -> None:
    """Write a value as JSON to stdout, as REST would."""
    from pydantic import TypeAdapter

    sys.stdout.write(TypeAdapter(hint).dump_json(value, indent=2).decode() + "\n")


def print_rows(rows: Sequence[Any]) -> None:
    """Print a table of what people look for, or that there is nothing."""
    if not rows:
        typer.echo(say("Nothing there.", "没有内容。"))
        return
    if not is_dataclass(rows[0]):
        for row in rows:
            typer.echo(printable(cell("", row)))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = columns(field.name for field in fields(rows[0]) if field.name not in WHERE_SET or any(getattr(row, field.name) is not None for row in rows))
    cells = {name: [Text(printable(cell(name, getattr(row, name)))) for row in rows] for name in names}
    console = Console()
    names = fitting({name: max(cell_len(heading(name)), *(text.cell_len for text in cells[name])) for name in names}, console.width)
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(heading(name), overflow="fold", no_wrap=name in IDS)
    for number in range(len(rows)):
        table.add_row(*(cells[name][number] for name in names))
    console.print(table)


def print_one(record: Any) -> None:
    """Print every field of a record on its own line."""
    if not is_dataclass(record):
        typer.echo(printable(cell("", record)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for field in fields(record):
        table.add_row(Text(heading(field.name), style="bold"), Text(printable(cell(field.name, getattr(record, field.name))), overflow="fold"))
    Console().print(table)


def columns(names: Iterable[str]) -> list[str]:
    """The fields that a table shows."""
    there = list(names)
    return ([name for name in HEADINGS if name in there] or there)[:MAX_COLUMNS]


def fitting(widths: Mapping[str, int], room: int) -> list[str]:
    """As many columns from the left as have room without folding; ids are to be copied, so they are never cut. At least two."""
    names = list(widths)
    while len(names) > 2 and sum(min(widths[name], MAX_WIDTH) for name in names) + 2 * (len(names) - 1) > room:
        names.pop()
    return names


def heading(name: str) -> str:
    """What a column is called."""
    return say(name.replace("_", " "), HEADINGS.get(name, name.replace("_", " ")))


def cell(name: str, value: Any) -> str:
    """A value as people read it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return say("yes", "是") if value else say("no", "否")
    if isinstance(value, float) and (name.endswith("_at") or name in ("at", "not_before")):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if isinstance(value, int | float) and name.endswith("_bytes"):
        return size(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict | list) or is_dataclass(value):
        from pydantic import TypeAdapter

        return TypeAdapter(Any).dump_json(value).decode()
    return str(value)


def size(num_bytes: float) -> str:
    """A number of bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
