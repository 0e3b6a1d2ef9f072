"""Rounds: what this round gained on its own held-out rows, and what it lost on those of the rounds before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.recipe.base import SUITES, SuiteConfig

if TYPE_CHECKING:
    from danlu.evaluation.run import Evaluation
    from danlu.recipe.recipe import Recipe

THIS = "this round"


@SUITES.register
class Rounds(SuiteConfig):
    """Likelihood under the model of the round before and under the tuned one: on this run's test rows and on those of every earlier round."""

    type: Literal["rounds"] = "rounds"
    version: ClassVar[str] = "1"

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What the numbers depend on besides data and weights; a change makes them be computed again."""
        return {}

    def measure(self, evaluation: Evaluation) -> dict[str, Any]:
        """Nats and label tokens of each row, by round."""
        from danlu.evaluation import likelihood

        rows = _rows(evaluation)
        found: dict[str, Any] = {}
        for name, examples in rows.items():
            objective = _objective(examples)
            encoded = likelihood.encode_set(
                examples, objective, evaluation.pair.renderer, max_seq_len=int(evaluation.recipe.data.max_seq_len), truncation="oldest_turns"
            )
            nats: dict[str, list[float]] = {}
            tokens: list[int] = []
            for model_name in ("previous", "tuned"):
                with getattr(evaluation.pair, model_name)() as model:
                    nats[model_name], tokens = likelihood.measure(evaluation, model, encoded, f"rounds: {name}, {model_name}")
            found[name] = {"num_examples": len(encoded.index), "label_tokens": tokens, "nats": nats, "num_dropped": encoded.account.num_dropped}
        return {"rounds": found}


def _rows(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Test rows by round, this one first; of pairs and labelled answers the wanted one is scored."""
    from danlu.files import read_jsonl

    data = evaluation.run_dir.data
    rows: dict[str, list[dict[str, Any]]] = {THIS: [_scored(row) for row in read_jsonl(data / "test.jsonl")]}
    for row in read_jsonl(data / "earlier.jsonl"):
        if row["split"] == "test":
            rows.setdefault(row["round"], []).append(_scored({key: value for key, value in row.items() if key not in ("round", "split")}))
    return {name: found for name, found in rows.items() if found}


def _scored(row: dict[str, Any]) -> dict[str, Any]:
    answer = row.get("chosen") or row.get("completion")
    return {**row, "messages": [*row["messages"], *answer], "train_on": [False] * len(row["messages"]) + [True] * len(answer)} if answer else row


def _objective(examples: list[dict[str, Any]]) -> Any:
    from danlu.recipe.base import OBJECTIVES

    return OBJECTIVES.parse("pretrain" if "text" in examples[0] else "sft")
