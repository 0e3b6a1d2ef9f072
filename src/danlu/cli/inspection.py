"""The data doctor's findings in a terminal."""

from typing import TYPE_CHECKING, Any

from danlu.data.reasons import in_chinese
from danlu.text import printable, say

if TYPE_CHECKING:
    from danlu.data.inspect import Inspection, Lengths

SHOWN_CHARS = 400


def print_inspection(found: "Inspection") -> None:
    """Print what a file holds: facts first, then what would be dropped or fixed, then warnings and examples."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(found):
        table.add_row(Text(name, style="bold"), Text(printable(value), overflow="fold"))
    console.print(table)
    for action, title in (("dropped", say("Dropped:", "丢弃：")), ("fixed", say("Fixed:", "修正："))):
        if found.reasons[action]:
            console.print(Text("\n" + title, style="bold"))
            for reason, count in found.reasons[action].items():
                console.print(Text(printable(_reason(found, reason, count))))
    for warning in found.warnings:
        console.print(Text("! " + printable(say(warning.en, warning.zh)), style="yellow"))
    for number, example in enumerate(found.examples, 1):
        console.print(Text("\n" + say(f"Example {number}", f"样例 {number}"), style="bold"))
        for role, text in _turns(example):
            console.print(Text(printable(role), style="dim"))
            console.print(Text(printable(text[:SHOWN_CHARS] + ("…" if len(text) > SHOWN_CHARS else ""))))


def _facts(found: "Inspection") -> list[tuple[str, str]]:
    facts = [
        (say("file", "文件"), found.path),
        (say("format", "格式"), ", ".join(part for part in (found.format, found.container, found.encoding) if part)),
        (say("rows", "行数"), f"{found.rows_in:,}"),
        (say("usable", "可用"), f"{found.usable:,}"),
        (say("dropped", "丢弃"), f"{found.dropped:,}"),
        (
            say("duplicates", "重复"),
            say(f"{found.duplicate:,} exact, {found.near_duplicate:,} near", f"完全相同 {found.duplicate:,}，近似 {found.near_duplicate:,}"),
        ),
        (say("fixed", "修正"), f"{found.fixed:,}"),
    ]
    if found.makes != "text":
        facts.append((say("prompt", "问题长度"), _lengths(found.prompt_chars)))
        facts.append((say("answer", "回答长度"), _lengths(found.completion_chars)))
        facts.append((say("turns", "轮数"), say(f"{found.turns.p50} in most, at most {found.turns.max}", f"一般 {found.turns.p50}，最多 {found.turns.max}")))
    else:
        facts.append((say("text", "文本长度"), _lengths(found.completion_chars)))
    names = {"zh": say("Chinese", "中文"), "en": say("English", "英文"), "other": say("other", "其他")}
    languages = say(", ", "，").join(f"{names.get(key, key)} {share:.0%}" for key, share in found.languages.items() if share)
    return [*facts, (say("languages", "语言"), languages or "-")]


def _lengths(lengths: "Lengths") -> str:
    return say(
        f"{lengths.p50:,} characters (median), 95 % up to {lengths.p95:,}, longest {lengths.max:,}",
        f"中位数 {lengths.p50:,} 字，95% 不超过 {lengths.p95:,}，最长 {lengths.max:,}",
    )


def _reason(found: "Inspection", reason: str, count: int) -> str:
    line = found.first_lines.get(reason)
    en = f"  {count:,} x {reason}" + (f" (first: {found.unit} {line})" if line is not None else "")
    zh = f"  {count:,} 行：{in_chinese(reason)}" + (f"（首次在第 {line} 行）" if line is not None else "")
    return say(en, zh)


def _turns(example: Any) -> list[tuple[str, str]]:
    """(role, text) of an example, with both answers of a pair, the mark of a marked one, the reference of a prompt."""
    if "text" in example:
        return [("text", example["text"])]
    turns = [(message["role"], str(message.get("content") or "")) for message in example.get("messages") or []]
    for side in ("chosen", "rejected", "completion"):
        name = (
            side
            if "label" not in example
            else say("wanted answer" if example["label"] else "unwanted answer", "好的回答" if example["label"] else "不好的回答")
        )
        turns += [(name, str(message.get("content") or "")) for message in example.get(side) or []]
    if example.get("answer"):
        turns.append((say("reference", "参考答案"), example["answer"]))
    return turns
