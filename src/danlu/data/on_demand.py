"""The training split of a run whose tokens are still being made: an example is tokenised when a step asks for it.

Each example is a function of its row alone, so it is the same whether it is made here, a second time after a resume, or read from
the token file, which takes over once it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import orjson

from danlu.data.encode import EncodeAccount, encode_each
from danlu.data.pack import EncodedExample, TokenFile
from danlu.data.tokenise import is_complete, train_tokens
from danlu.run_dir import RunDir

if TYPE_CHECKING:
    from danlu.data.chat import ChatRenderer
    from danlu.recipe.recipe import Recipe


class OnDemand:
    """What the loop needs of a `TokenFile`, for the training split."""

    def __init__(self, recipe: Recipe, run_dir: RunDir, renderer: ChatRenderer) -> None:
        self.recipe, self.run_dir, self.renderer = recipe, run_dir, renderer
        path = run_dir.data / "train.jsonl"
        with path.open("rb") as file:
            self._ends = np.cumsum(np.fromiter((len(line) for line in file), np.int64))
        self._rows = np.memmap(path, np.uint8, "r")
        self._whole: TokenFile | None = None
        self.sample = train_tokens(run_dir)
        """What lengths are read from: examples that stand for all."""

    def __len__(self) -> int:
        """Sequences, with the empty ones of examples that are dropped."""
        return len(self._ends) * self.recipe.objective.group_size

    def groups(self, indices: Sequence[int], size: int) -> list[list[EncodedExample]]:
        """The sequences of several examples; none, or empty ones, of an example that is dropped."""
        if self._whole is None and is_complete(self.run_dir):
            self._whole = train_tokens(self.run_dir)
        if self._whole is not None:
            return self._whole.groups(indices, size)
        data, rows = self.recipe.data, [self._row(index) for index in indices]
        encoded = encode_each(rows, EncodeAccount(), self.recipe.objective, self.renderer, int(data.max_seq_len), data.truncation)
        return [blocks or [] for blocks in encoded]

    def _row(self, index: int) -> dict[str, object]:
        start = int(self._ends[index - 1]) if index else 0
        row: dict[str, object] = orjson.loads(self._rows[start : int(self._ends[index])].tobytes())
        return row
