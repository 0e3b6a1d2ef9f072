"""Which method, and how large: from what is to be learnt, how much there is to learn, and what memory allows."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2

from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend.facts import Choice, Facts, Goal, Reason

FULL_MIN_EXAMPLES = 20_000
"""Below it every weight has more freedom than the data has to say."""
BITS_PER_PARAMETER, BITS_PER_TOKEN = 2.0, 1.0
"""What a trained weight can hold and what a trained token has to tell, in the estimate of Schulman et al. 2025."""
MIN_TRAINED = 1_000_000
"""A narrow model has few weights per rank; an adapter of fewer than this learns too little."""
MAX_RANK = 256
GOAL_RANKS: dict[Goal, int] = {"style": 8, "task": 16, "reasoning": 32, "knowledge": 64}
ALPHA = 32.0
SHARE = 0.8
"""Share of the memory that a recommendation may fill."""


def choose_method(recipe: Recipe, facts: Facts) -> tuple[Recipe, Reason]:
    """The recipe with the method that suits, and why."""
    if facts.goal == "knowledge" and facts.num_train >= FULL_MIN_EXAMPLES and _fits(recipe, {"type": "full"}, facts):
        en = f"{facts.num_train:,} examples of new facts are more than an adapter holds well, and every weight fits in memory"
        zh = f"{facts.num_train:,} 条新知识超出适配器的容量，而全部权重放得进内存"
        return _with_method(recipe, {"type": "full"}), Reason("method.type", "full", en, zh, "biderman2024")
    if not _fits(recipe, {"type": "lora"}, facts) and facts.can_quantise:
        en, zh = "the base model fits in memory only with its frozen weights in 4 bits", "只有把冻结权重存成 4 位，基座模型才放得进内存"
        return _with_method(recipe, {"type": "qlora"}), Reason("method.type", "qlora", en, zh, "dettmers2023")
    en = f"an adapter learns {facts.num_train:,} examples as well as full tuning, forgets less and is a small file"
    zh = f"学 {facts.num_train:,} 条样例，适配器与全量微调相当，遗忘更少，文件也小"
    return _with_method(recipe, {"type": "lora"}), Reason("method.type", "lora", en, zh, "schulman2025")


def _with_method(recipe: Recipe, method: dict[str, str]) -> Recipe:
    return Recipe.model_validate(recipe.to_dict() | {"method": method})


def _fits(recipe: Recipe, method: dict[str, str], facts: Facts) -> bool:
    """Whether a micro batch of one example fits; what was not measured is taken to fit an adapter and not to fit `full`."""
    if facts.peak_bytes is None:
        return method["type"] != "full"
    smallest = {"micro_batch_tokens": max(16, facts.length_p995), "global_batch_size": 4, "num_epochs": 1.0, "learning_rate": 1e-4}
    content = recipe.to_dict()
    content["method"], content["optim"] = method, content["optim"] | smallest | {"max_steps": None}
    content["data"]["max_seq_len"] = max(16, facts.length_p995)
    return facts.peak_bytes(Recipe.model_validate(content)) <= SHARE * facts.available_memory_bytes


def _rank(recipe: Recipe, facts: Facts) -> Choice:
    wanted = GOAL_RANKS[facts.goal]
    en, zh = {
        "style": ("a manner is a small change", "改变风格只需很小的改动"),
        "task": ("one kind of job", "学会一种任务"),
        "reasoning": ("ways of thinking are a middling change", "学会思考方式，改动中等"),
        "knowledge": ("facts take room", "记住知识需要容量"),
    }[facts.goal]
    if facts.parameters_per_rank:
        for_data = facts.num_label_tokens * BITS_PER_TOKEN / BITS_PER_PARAMETER / facts.parameters_per_rank
        for_model = MIN_TRAINED / facts.parameters_per_rank
        if max(for_data, for_model) > wanted:
            wanted = ceil(max(for_data, for_model))
            if for_data >= for_model:
                en, zh = f"{en}; {facts.num_label_tokens:,} trained tokens want so many weights", f"{zh}；{facts.num_label_tokens:,} 个训练词元需要这么多参数"
            else:
                en, zh = f"{en}; a model as narrow as this has few weights per rank", f"{zh}；模型较窄，每个秩的参数很少"
    value = min(2 ** ceil(log2(wanted)), MAX_RANK, 2 ** int(log2(facts.smallest_matrix)))
    return Choice(value, en, zh, "schulman2025")


def _alpha(recipe: Recipe, facts: Facts) -> Choice:
    return Choice(ALPHA, "with a constant alpha the best learning rate hardly depends on the rank", "alpha 固定时，最佳学习率几乎与秩无关", "schulman2025")


def _targets(recipe: Recipe, facts: Facts) -> Choice:
    return Choice("all-linear", "adapters on attention alone learn less, also at equal size", "只加在注意力上学得更少，参数量相同也是如此", "dettmers2023")


METHOD_RULES: dict[str, Callable[[Recipe, Facts], Choice]] = {"method.rank": _rank, "method.alpha": _alpha, "method.target_modules": _targets}
