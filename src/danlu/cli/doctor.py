"""The data doctor's findings in a terminal."""

from typing import Any

from danlu.text import printable, say


def print_inspection(found: Any) -> None:
    """Print an Inspection: facts first, then what would be dropped or fixed, then warnings and examples."""
    import orjson
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    content = found.to_dict()
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in content.items():
        if key in ("examples", "warnings") or value in (None, {}, []):
            continue
        shown = value if isinstance(value, str) else orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)
        table.add_row(Text(key.replace("_", " "), style="bold"), Text(printable(shown), overflow="fold"))
    console.print(table)
    for warning in content.get("warnings") or []:
        message = warning if isinstance(warning, str) else say(warning.get("en", str(warning)), warning.get("zh", str(warning)))
        console.print(Text(f"! {printable(message)}", style="yellow"))
    for example in content.get("examples") or []:
        console.print()
        for message in example.get("messages", []) + example.get("chosen", []):
            console.print(Text(f"{message['role']}: ", style="bold") + Text(printable(str(message.get("content", "")))[:400]))
        if "text" in example:
            console.print(Text(printable(example["text"])[:400]))
