"""Retention: does the tuned model still know what the base knew? Likelihood of a bundled general set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.recipe.base import SUITES, SuiteConfig

if TYPE_CHECKING:
    from danlu.evaluation.run import Evaluation
    from danlu.recipe.recipe import Recipe


@SUITES.register
class Retention(SuiteConfig):
    """General conversations in Chinese and English that have nothing to do with the dataset."""

    type: Literal["retention"] = "retention"
    version: ClassVar[str] = "1"
    file: str | None = None
    """JSONL file of `{"messages": [...], "language": ...}` rows to use instead of the bundled set."""

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What the numbers depend on besides data and weights; a change makes them be computed again."""
        return {}

    def measure(self, evaluation: Evaluation) -> dict[str, Any]:
        """Nats, tokens and bytes of each row, by language."""
        from danlu.evaluation import likelihood
        from danlu.recipe.base import OBJECTIVES

        rows = self._rows()
        # Always scored as answers in conversations: whole texts of the same rows would mostly measure the template.
        encoded = likelihood.encode_set(
            rows, OBJECTIVES.parse("sft"), evaluation.pair.renderer, max_seq_len=int(evaluation.recipe.data.max_seq_len), truncation="oldest_turns"
        )
        nats: dict[str, list[float]] = {}
        tokens: list[int] = []
        for name in ("base", "tuned"):
            with getattr(evaluation.pair, name)() as model:
                nats[name], tokens = likelihood.measure(evaluation, model, encoded, f"retention: likelihood, {name}")
        return {
            "num_examples": len(encoded.index),
            "index": encoded.index,
            "languages": [rows[i].get("language", "other") for i in encoded.index],
            "label_tokens": tokens,
            "bytes": encoded.num_bytes,
            "nats": nats,
            "dropped": encoded.account.dropped,
            "truncated": encoded.account.truncated,
        }

    def _rows(self) -> list[dict[str, Any]]:
        from danlu.errors import DataError
        from danlu.files import read_jsonl

        path = Path(self.file) if self.file else Path(str(_bundled()))
        rows = [{"line": number, **row} for number, row in enumerate(read_jsonl(path), 1)]
        if not rows:
            raise DataError(
                f"{path} holds no rows",
                why="retention is measured on conversations of this file",
                fix='give a JSONL file with {"messages": [...]} rows, or leave `file` out',
            )
        return rows


def _bundled() -> Any:
    from importlib.resources import files

    return files("danlu.bundled") / "retention.jsonl"
