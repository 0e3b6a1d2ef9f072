"""Held-out preferences: which of two answers does the model find likelier (or reward more), before and after?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.recipe.base import SUITES, SuiteConfig

if TYPE_CHECKING:
    from danlu.evaluation.run import Evaluation
    from danlu.recipe.recipe import Recipe


@SUITES.register
class Preference(SuiteConfig):
    """Held-out pairs (or marked answers): how often, and by how much, the model prefers the answer that was chosen."""

    type: Literal["preference"] = "preference"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[str]] = frozenset({"preference", "labelled"})
    takes_reward_models: ClassVar[bool] = True

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What the numbers depend on besides data and weights; a change makes them be computed again."""
        return {"objective": recipe.objective.type}

    def measure(self, evaluation: Evaluation) -> dict[str, Any]:
        """Nats and tokens of each answer under both models; of a reward model its scores, negated, as "nats" of one token."""
        from danlu.evaluation import likelihood
        from danlu.files import read_jsonl

        recipe, pair = evaluation.recipe, evaluation.pair
        examples = list(read_jsonl(evaluation.run_dir.data / "test.jsonl"))
        encoded = likelihood.encode_set(examples, recipe.objective, pair.renderer, max_seq_len=int(recipe.data.max_seq_len), truncation=recipe.data.truncation)
        # An answer at a time: one entry for each sequence of each example.
        owners = [index for index, blocks in zip(encoded.index, encoded.blocks, strict=True) for _ in blocks]
        answers = likelihood.EncodedSet(owners, [[block] for blocks in encoded.blocks for block in blocks], [], encoded.account)
        nats: dict[str, list[float]] = {}
        tokens: list[int] = []
        for name in ("base", "tuned"):
            with getattr(pair, name)() as model:
                nats[name], tokens = likelihood.measure(evaluation, model, answers, f"preference: likelihood, {name}")
        return {
            "num_examples": len(encoded.index),
            "index": encoded.index,
            "lines": [examples[i].get("line") for i in encoded.index],
            "owners": owners,
            "sides": [side for i in encoded.index for side in _sides(examples[i])],
            "label_tokens": tokens,
            "nats": nats,
            "dropped": encoded.account.dropped,
            "truncated": encoded.account.truncated,
        }


def _sides(example: dict[str, Any]) -> list[str]:
    """What each answer of an example is: `chosen` and `rejected`, or `wanted` or `unwanted`."""
    return ["chosen", "rejected"] if "chosen" in example else ["wanted" if example["label"] else "unwanted"]
