"""What operations answer, in a terminal: a table for many, lines for one; or the exact JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import typer

from danlu.text import printable, say

if TYPE_CHECKING:
    from danlu.services.platform.operations import Operation

HEADINGS = {
    "id": "编号",
    "name": "名称",
    "state": "状态",
    "kind": "类型",
    "type": "类型",
    "role": "角色",
    "priority": "优先级",
    "progress": "进度",
    "attempt": "尝试",
    "number": "版本",
    "verdict": "结论",
    "base_model": "基座模型",
    "file_name": "文件",
    "size_bytes": "大小",
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
MAX_COLUMNS = 8


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = columns(field.name for field in fields(rows[0]))
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(heading(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell(name, getattr(row, name)))) for name in names))
    Console().print(table)


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
