"""danlu data inspect, data show."""

from itertools import islice
from pathlib import Path
from typing import Any

import typer

from danlu.cli.run import names_in
from danlu.text import say

app = typer.Typer(help="Look at data before training on it.", no_args_is_help=True, rich_markup_mode=None)


@app.command("inspect")
def inspect_file(
    file: Path = typer.Argument(..., help="Data file: JSON, JSONL, CSV, XLSX, Parquet, TXT, also .gz."),
    limit: int = typer.Option(None, "--limit", min=1, help="Look at the first rows only."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable."),
) -> None:
    """The data doctor: format, encoding, lengths, languages, duplicates, and every row that would be dropped or fixed."""
    from danlu.cli.main import json_out
    from danlu.data.inspect import inspect
    from danlu.services.datasets import find_dataset

    found = inspect(find_dataset(str(file)), limit=limit)
    if as_json:
        json_out(found.to_dict())
        return
    from danlu.cli.inspection import print_inspection

    print_inspection(found)


@app.command()
def show(
    file: Path = typer.Argument(..., help="Data file or bundled dataset."),
    model: str = typer.Option("danlu/tiny", "--model", "-m", help="Base model whose chat template and tokenizer are used."),
    rows: int = typer.Option(3, "--rows", "-n", min=1, help="How many examples."),
    objective: str = typer.Option("sft", "--objective", help=f"One of {names_in('danlu.training.objectives')}."),
    as_json: bool = typer.Option(False, "--json", help="Tokens and loss mask as JSON."),
) -> None:
    """Print examples exactly as the model will read them; the tokens that are trained on are coloured."""
    from danlu.services.datasets import rendered_examples

    shown = list(islice(rendered_examples(str(file), model, objective), rows))
    if as_json:
        from danlu.cli.main import json_out

        json_out([{"line": e.line, "tokens": e.tokens, "ids": e.ids, "loss_mask": e.mask} for e in shown])
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for example in shown:
        trained = sum(example.mask)
        console.print(
            Text(
                say(
                    f"line {example.line}: {len(example.ids)} tokens, {trained} trained",
                    f"第 {example.line} 行：{len(example.ids)} 个词元，其中 {trained} 个参与训练",
                ),
                style="bold",
            )
        )
        console.print(coloured(example))
        console.print()


def coloured(example: Any) -> Any:
    """The text of an example with trained stretches in reverse green (and in brackets where there is no colour)."""
    from rich.console import Console
    from rich.text import Text

    from danlu.text import printable

    plain = Console().color_system is None
    text = Text()
    for stretch, is_trained in example.stretches():
        shown = printable(stretch)
        if is_trained and plain:
            shown = f"⟦{shown}⟧"
        text.append(shown, style="black on green" if is_trained else "dim")
    return text
