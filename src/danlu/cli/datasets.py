"""danlu datasets add."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from danlu.cli.nouns import JSON, PROJECT, SERVER, studio
from danlu.text import printable, say


def add(
    file: Annotated[Path, typer.Argument(help="Data file: JSON, JSONL, CSV, XLSX, Parquet, TXT, also .gz.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the dataset; a new version where there is one of that name. The file's by default.")
    ] = None,
    project: Annotated[str | None, PROJECT] = None,
    as_json: Annotated[bool, JSON] = False,
    server: Annotated[str | None, SERVER] = None,
) -> None:
    """Bring a data file in: a new dataset, or a new version of one. Started again after a cut, it goes on where it was."""
    from danlu.cli.tables import write_json
    from danlu.store.datasets import DatasetVersion

    with studio(server) as opened:
        made = opened.datasets.add(file, name=name, project=project)
    if as_json:
        write_json(DatasetVersion, made.newest)
    else:
        typer.echo(printable(say(f"Added: {made.ref}\n  danlu submit --data {made.ref}", f"已添加：{made.ref}\n  danlu submit --data {made.ref}")))
