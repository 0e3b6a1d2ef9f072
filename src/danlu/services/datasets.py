"""Use cases on data files: find one by name, show its examples exactly as a model will read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from danlu import bundled
from danlu.errors import DataError
from danlu.recipe.base import OBJECTIVES


def find_dataset(name: str) -> Path:
    """File of a dataset: a path, or a bundled name such as `danlu/zhangjiajie`.

    Raises:
        DataError: there is none.
    """
    path = Path(os.path.expanduser(name))
    if os.path.exists(path):
        return path
    found = bundled.dataset_path(name)
    if found is not None:
        return found
    raise DataError(
        f"there is no data file {name!r}",
        why=f"it is neither a file here ({Path.cwd()}) nor a bundled dataset ({', '.join(bundled.example_names())})",
        fix="check the path",
    )


@dataclass(frozen=True)
class RenderedExample:
    """One example after the chat template: text pieces, ids and loss mask, token by token."""

    line: int
    tokens: list[str]
    ids: list[int]
    mask: list[bool]
    _stretches: list[tuple[str, bool]]

    def stretches(self) -> Iterator[tuple[str, bool]]:
        """Text in order, cut where `is trained` changes."""
        yield from self._stretches


def rendered_examples(dataset: str, model: str, objective: str, *, line: int | None = None) -> Iterator[RenderedExample]:
    """Yield the examples of `dataset` (the one at `line` only) as `model` will read them, in file order; rows that would be dropped are left out."""
    from danlu.data.chat import ChatRenderer
    from danlu.data.convert import examples
    from danlu.models.catalogue import find_base_model
    from danlu.models.load import load_tokenizer

    config = OBJECTIVES.parse(objective)
    renderer = ChatRenderer(load_tokenizer(find_base_model(model).folder))
    for example in examples(find_dataset(dataset), needs=config.needs, only=line):
        for block in config.encode([example], renderer, 10**9)[0]:
            ids, mask = [int(i) for i in block.ids], [bool(m) for m in block.mask]
            tokens = [renderer.tokenizer.decode([i]) for i in ids]
            yield RenderedExample(example["line"], tokens, ids, mask, _stretches(renderer, ids, mask))


def _stretches(renderer: object, ids: list[int], mask: list[bool]) -> list[tuple[str, bool]]:
    pieces: list[tuple[str, bool]] = []
    start = 0
    for position in range(1, len(ids) + 1):
        if position == len(ids) or mask[position] != mask[start]:
            pieces.append((renderer.tokenizer.decode(ids[start:position]), mask[start]))  # type: ignore[attr-defined]
            start = position
    return pieces
