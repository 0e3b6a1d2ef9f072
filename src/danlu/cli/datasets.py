"""danlu datasets add."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from danlu.cli.nouns import JSON, PROJECT, SERVER, studio
from danlu.text import printable, say

if TYPE_CHECKING:
    from danlu.client import Studio
    from danlu.client.datasets import DatasetHandle


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


def bring_in(opened: Studio, file: Path, *, project: str | None) -> DatasetHandle:
    """The dataset that holds a file of this machine: the newest version of the one called like it when that is this very file, else a new version."""
    import hashlib

    path = file.expanduser()
    name = path.name.partition(".")[0] or path.name
    for known in opened.datasets.list(project, limit=200).items:
        if known.name == name:
            there = opened.datasets.get(known.id)
            with path.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() == there.newest.digest:
                    return there
    return opened.datasets.add(path, name=name, project=project)
