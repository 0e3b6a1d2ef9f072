"""Held-out prompts: what the answers of the model are worth to the reward functions it was trained with, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from danlu.recipe.base import SUITES, SuiteConfig

if TYPE_CHECKING:
    from danlu.evaluation.run import Evaluation
    from danlu.recipe.recipe import Recipe


@SUITES.register
class Rewards(SuiteConfig):
    """Greedy answers to held-out prompts, judged by the reward functions of the objective."""

    type: Literal["rewards"] = "rewards"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[str]] = frozenset({"prompt"})

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """What the numbers depend on besides data and weights; a change makes them be computed again."""
        return {"objective": recipe.objective.model_dump(mode="json"), "max_generations": recipe.evaluation.max_generations}

    def measure(self, evaluation: Evaluation) -> dict[str, Any]:
        """Reward of each answer of both models, in all and by reward function."""
        from danlu.data.encode import EncodeAccount, encode_batch
        from danlu.data.judge import judge
        from danlu.evaluation.suites.heldout import MODELS, Answers
        from danlu.files import read_jsonl

        recipe, pair = evaluation.recipe, evaluation.pair
        objective: Any = recipe.objective
        examples = list(read_jsonl(evaluation.run_dir.data / "test.jsonl"))[: recipe.evaluation.max_generations]
        account = EncodeAccount()
        tasks: list[dict[str, Any]] = []
        for index, example in enumerate(examples):
            for [prompt] in encode_batch([example], account, objective, pair.renderer, int(recipe.data.max_seq_len), recipe.data.truncation):
                task = {"example": index, "line": example.get("line"), "reference": example["answer"] or "", "ids": [int(i) for i in prompt.ids]}
                tasks.append(task)
        answers = Answers(evaluation, self, objective.max_completion_tokens)
        for name in MODELS:
            with getattr(pair, name)() as model:
                answers.generate(model, name, tasks)
        rows = answers.stored()
        tasks = [task for task in tasks if task["example"] not in answers.skipped]
        judged = {name: [judge(objective.rewards, rows[name, t["example"]]["prediction"], examples[t["example"]]) for t in tasks] for name in MODELS}
        scores = {"reward": {name: [reward for reward, _ in judged[name]] for name in MODELS} | {"unit": "reward", "version": self.version}}
        for reward in objective.rewards:
            by_model = {name: [parts[reward.type] for _, parts in judged[name]] for name in MODELS}
            scores[f"reward_{reward.type}"] = by_model | {"unit": "reward", "version": reward.version}
        return {
            "num_examples": len(tasks),
            "index": [task["example"] for task in tasks],
            "lines": [task["line"] for task in tasks],
            "scores": scores,
            "generation": answers.result(tasks, metrics=[]),
            "dropped": account.dropped,
            "truncated": account.truncated,
        }
