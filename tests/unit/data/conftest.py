"""A recipe, a run folder and a call of the data stage in one fixture."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from danlu.data.accounting import Accounting
from danlu.data.prepare import prepare
from danlu.files import read_jsonl
from danlu.recipe.recipe import Recipe
from danlu.reporter import Reporter
from danlu.run_dir import RunDir


class Prepared:
    """What the data stage left behind."""

    def __init__(self, folder: Path, accounting: Accounting) -> None:
        self.folder, self.accounting = folder, accounting

    def split(self, name: str) -> list[dict[str, Any]]:
        return list(read_jsonl(self.folder / f"{name}.jsonl"))

    @property
    def examples(self) -> list[dict[str, Any]]:
        """All of them, by line."""
        return sorted((e for name in ("train", "validation", "test") for e in self.split(name)), key=lambda e: e["line"])

    @property
    def dropped(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.folder / "dropped.jsonl"))


Prepare = Callable[..., Prepared]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Run the data stage on a file, or on content written to one; other keywords are fields of the recipe's `data`."""
    calls = 0

    def run(
        source: Path | bytes | str,
        *,
        name: str = "data.jsonl",
        objective: str = "sft",
        mix: Mapping[str, tuple[float, Path]] | None = None,
        seed: int = 0,
        **data: Any,
    ) -> Prepared:
        nonlocal calls
        calls += 1
        if not isinstance(source, Path):
            path = tmp_path / f"source{calls}" / name
            path.parent.mkdir()
            path.write_bytes(source.encode() if isinstance(source, str) else source)
            source = path
        run_dir = RunDir.create(tmp_path / f"run{calls}")
        data["mix"] = {other: share for other, (share, _) in (mix or {}).items()}
        recipe = Recipe(base_model="danlu/tiny", dataset=str(source), objective=objective, seed=seed, data=data)
        files = {other: path for other, (_, path) in (mix or {}).items()}
        given = {split: Path(path) for split, path in recipe.data.split.datasets.items()}
        return Prepared(run_dir.data, prepare(recipe, run_dir, Reporter(run_dir), dataset=source, mix=files, given=given))

    return run
