"""Values for what a recipe leaves `auto`, each with its reason. Pure arithmetic on facts that were measured before.

Sources: learning rate -- Schulman et al. 2025, "LoRA Without Regret" (Thinking Machines Lab): the best LoRA rate is
about ten times that of full fine-tuning and falls with width as (2000 / hidden)^0.78, from 5e-5 for `full`.
Epochs and batch: the rule of thumb that a few hundred updates suffice for style and format, bounded by early stopping.
"""

import math
from dataclasses import dataclass
from typing import Any

from danlu.recipe.recipe import Recipe


@dataclass(frozen=True)
class Facts:
    """What was measured on the data, the model and the machine."""

    num_train: int
    """Examples to train on (blocks for pretraining)."""
    length_p50: int
    """Median tokens per example."""
    length_p995: int
    """Tokens that 99.5 % of the examples do not exceed."""
    length_max: int
    model_max_seq_len: int
    hidden_size: int
    num_parameters: int
    available_memory_bytes: int
    has_gpu: bool
    has_bfloat16: bool
    detected_format: dict[str, Any]


@dataclass(frozen=True)
class Reason:
    """Why a value was chosen, in both languages."""

    path: str
    value: Any
    en: str
    zh: str


def recommend(recipe: Recipe, facts: Facts) -> list[Reason]:
    """Return a value and a reason for every `auto` of `recipe`."""
    reasons = []
    for path, rule in RULES.items():
        section, name = path.split(".")
        if getattr(getattr(recipe, section), name) == "auto":
            value, en, zh = rule(recipe, facts)
            if value is not None:
                reasons.append(Reason(path, value, en, zh))
                recipe = with_values(recipe, {path: value})
    return reasons


def resolve(recipe: Recipe, facts: Facts) -> tuple[Recipe, list[Reason]]:
    """Return the recipe with every `auto` filled in, and the reasons."""
    reasons = recommend(recipe, facts)
    return with_values(recipe, {reason.path: reason.value for reason in reasons}), reasons


def with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """Return a validated copy with dotted paths replaced."""
    content = recipe.to_dict()
    for path, value in values.items():
        section, name = path.split(".")
        content[section][name] = value
    return Recipe.model_validate(content)


def _format(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    return facts.detected_format, "told from the content of the file", "由文件内容判断"


def _max_seq_len(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    if recipe.objective.needs == "text":
        value = min(facts.model_max_seq_len, 1024)
        return value, f"plain text is cut into blocks; the model reads up to {facts.model_max_seq_len}", f"纯文本按块切分；模型最多读 {facts.model_max_seq_len}"
    wanted = max(64, math.ceil(facts.length_p995 * 1.1 / 64) * 64)
    value = min(wanted, facts.model_max_seq_len)
    en = f"99.5 % of the examples have at most {facts.length_p995} tokens; the model reads up to {facts.model_max_seq_len}"
    zh = f"99.5% 的样例不超过 {facts.length_p995} 个词元；模型最多读 {facts.model_max_seq_len}"
    return value, en, zh


def _learning_rate(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    usual = recipe.method.usual_learning_rate
    if usual is not None:
        en, zh = f"what method {recipe.method.type} usually wants", f"方法 {recipe.method.type} 的常用值"
    else:
        usual = min(5e-5 * (2000 / facts.hidden_size) ** 0.78 * (10 if recipe.method.makes_adapter else 1), 5e-3)
        kind = "adapters want about ten times the rate of full tuning" if recipe.method.makes_adapter else "full tuning wants a small rate"
        kind_zh = "适配器的学习率约为全量微调的十倍" if recipe.method.makes_adapter else "全量微调要用较小的学习率"
        en, zh = f"{kind}; narrower models (here {facts.hidden_size}) want more", f"{kind_zh}；模型越窄（此处 {facts.hidden_size}）越大"
    factor = recipe.optim.learning_rate_factor
    if factor != 1.0:
        en, zh = f"{en}; {recipe.optim.optimizer} wants {factor:g} times that", f"{zh}；{recipe.optim.optimizer} 取其 {factor:g} 倍"
    return float(f"{usual * factor:.2g}"), en, zh


def _global_batch_size(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    value = 4 if facts.num_train < 150 else 8 if facts.num_train < 2000 else 16 if facts.num_train < 20000 else 32
    return value, f"small batches give {facts.num_train} examples enough updates", f"{facts.num_train} 条样例用小批量可得到足够的更新次数"


def _num_epochs(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    if recipe.optim.max_steps is not None:
        return None, "", ""
    value = float(max(1, min(10, round(3000 / facts.num_train) + 1)))
    return (
        value,
        f"{facts.num_train} examples; early stopping ends it sooner when validation stops improving",
        f"{facts.num_train} 条样例；验证损失不再下降时会提前停止",
    )


def _micro_batch_tokens(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    longest = int(recipe.data.max_seq_len)
    ceiling = 16384 if facts.has_gpu else 4096
    # About 34 float32 values of width `hidden` per token and layer are alive; layers ~ parameters / (12 hidden^2).
    layers = max(1, facts.num_parameters / (12 * facts.hidden_size**2))
    fits = int(0.4 * facts.available_memory_bytes / (34 * 4 * facts.hidden_size * layers))
    value = max(longest, min(ceiling, 2 ** int(math.log2(max(fits, 16)))))
    return value, "most tokens per forward pass that leave room in memory; it does not change the result", "内存允许的每次前向词元数上限；不影响结果"


def _num_steps(recipe: Recipe, facts: Facts) -> int:
    batch = int(recipe.optim.global_batch_size)
    return recipe.optim.max_steps or math.ceil(float(recipe.optim.num_epochs) * math.ceil(facts.num_train / batch))


def _sample_every_steps(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    steps = _num_steps(recipe, facts)
    return max(1, math.ceil(steps / 5)), f"about five rounds of samples over {steps} steps", f"在 {steps} 步中约试答五次"


def _validate_every_steps(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    steps = _num_steps(recipe, facts)
    value = max(1, min(500, steps // 10))
    return value, f"about ten validations over {steps} steps", f"在 {steps} 步中约验证十次"


def _dtype(recipe: Recipe, facts: Facts) -> tuple[Any, str, str]:
    if facts.has_gpu and facts.has_bfloat16:
        return "bfloat16", "the GPU computes fastest in it", "GPU 上最快"
    return "float32", "processors compute fastest and most exactly in it", "CPU 上最快也最精确"


RULES = {
    "data.format": _format,
    "data.max_seq_len": _max_seq_len,
    "optim.learning_rate": _learning_rate,
    "optim.global_batch_size": _global_batch_size,
    "optim.num_epochs": _num_epochs,
    "optim.micro_batch_tokens": _micro_batch_tokens,
    "training.validate_every_steps": _validate_every_steps,
    "training.sample_every_steps": _sample_every_steps,
    "training.dtype": _dtype,
}
