"""The rules for data, optimiser and loop. Pure arithmetic on facts that were measured before; sources in docs/recommend.md."""

from __future__ import annotations

import math
from collections.abc import Callable

from danlu.recipe.recipe import Recipe
from danlu.recipe.recommend.facts import Choice, Facts, Goal

SHARE = 0.8
"""Share of the memory that a recommendation may fill."""
CPU_TOKENS, GPU_TOKENS = 1024, 16384
"""More tokens per forward pass than this gain no speed."""
MIN_TOKENS = 64
PATIENCE = 3
WARMUP_STEPS = 10
REPLAY: dict[Goal, float] = {"style": 0.0, "task": 0.0, "reasoning": 0.05, "knowledge": 0.1}
"""Share of general conversations mixed in, so that less is forgotten."""


def _format(recipe: Recipe, facts: Facts) -> Choice:
    return Choice(facts.detected_format, "told from the content of the file", "由文件内容判断")


def _max_seq_len(recipe: Recipe, facts: Facts) -> Choice:
    if recipe.objective.needs == "text":
        value = min(facts.model_max_seq_len, 1024)
        en = f"plain text is cut into blocks; the model reads up to {facts.model_max_seq_len}"
        return Choice(value, en, f"纯文本按块切分；模型最多读 {facts.model_max_seq_len}", "danlu")
    wanted = max(64, math.ceil((facts.length_p995 * 1.1 + recipe.objective.reserved_tokens) / 64) * 64)
    value = min(wanted, facts.model_max_seq_len)
    en = f"99.5 % of the examples have at most {facts.length_p995} tokens; the model reads up to {facts.model_max_seq_len}"
    zh = f"99.5% 的样例不超过 {facts.length_p995} 个词元；模型最多读 {facts.model_max_seq_len}"
    return Choice(value, en, zh, "danlu")


def _learning_rate(recipe: Recipe, facts: Facts) -> Choice:
    usual, source = recipe.method.usual_learning_rate, "danlu"
    if usual is not None:
        en, zh = f"the usual value of method {recipe.method.type}", f"方法 {recipe.method.type} 的常用值"
    else:
        usual, source = min(5e-5 * (2000 / facts.hidden_size) ** 0.78 * (10 if recipe.method.makes_adapter else 1), 5e-3), "schulman2025"
        kind = "adapters want about ten times the rate of full tuning" if recipe.method.makes_adapter else "full tuning wants a small rate"
        kind_zh = "适配器的学习率约为全量微调的十倍" if recipe.method.makes_adapter else "全量微调要用较小的学习率"
        en, zh = f"{kind}; narrower models (here {facts.hidden_size}) want more", f"{kind_zh}；模型越窄（此处 {facts.hidden_size}）越大"
    factor = recipe.objective.learning_rate_factor
    if factor != 1:
        en, zh = f"{en}; objective {recipe.objective.type} wants {factor:g} of that of sft", f"{zh}；目标 {recipe.objective.type} 取 sft 的 {factor:g} 倍"
    by_optimizer = recipe.optim.learning_rate_factor
    if by_optimizer != 1:
        en, zh = f"{en}; {recipe.optim.optimizer} wants {by_optimizer:g} of that of adamw", f"{zh}；{recipe.optim.optimizer} 取 adamw 的 {by_optimizer:g} 倍"
    return Choice(float(f"{usual * factor * by_optimizer:.2g}"), en, zh, source)


def _global_batch_size(recipe: Recipe, facts: Facts) -> Choice:
    value = 4 if facts.num_train < 150 else 8 if facts.num_train < 2000 else 16 if facts.num_train < 20000 else 32
    en, zh = f"small batches give {facts.num_train} examples enough updates", f"{facts.num_train} 条样例用小批量可得到足够的更新次数"
    return Choice(value, en, zh, "schulman2025")


def _num_epochs(recipe: Recipe, facts: Facts) -> Choice | None:
    if recipe.optim.max_steps is not None:
        return None
    count = facts.num_train
    value = 6.0 if count < 100 else 5.0 if count < 300 else 4.0 if count < 1000 else 3.0 if count < 5000 else 2.0 if count < 30000 else 1.0
    if facts.goal == "style":
        value = max(1.0, value - 1)
    elif facts.goal == "knowledge" and not count >= 30000:
        value += 1
    en = f"{count} examples; so few passes that the learning rate has fallen to its end before the model learns the rows by heart"
    return Choice(value, en, f"{count} 条样例；遍数有限，学习率能降到底，也不至于死记硬背", "danlu")


def _dtype(recipe: Recipe, facts: Facts) -> Choice:
    if facts.has_gpu and facts.has_bfloat16:
        return Choice("bfloat16", "the GPU computes fastest in it", "GPU 上最快")
    return Choice("float32", "processors compute fastest and most exactly in it", "CPU 上最快也最精确", "danlu")


def _micro_batch_tokens(recipe: Recipe, facts: Facts) -> Choice:
    longest = int(recipe.data.max_seq_len)
    value = GPU_TOKENS if facts.has_gpu else CPU_TOKENS
    if facts.peak_bytes is not None:
        limit = SHARE * facts.available_memory_bytes
        while value > max(MIN_TOKENS, longest) and facts.peak_bytes(_with_tokens(recipe, value)) > limit:
            value //= 2
    en = "most tokens per forward pass that leave room in memory; it does not change the result"
    return Choice(max(longest, value), en, "内存允许的每次前向词元数上限；不影响结果", "danlu")


def _with_tokens(recipe: Recipe, tokens: int) -> Recipe:
    return recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"micro_batch_tokens": tokens})})


def num_steps(recipe: Recipe, facts: Facts) -> int:
    """Optimizer steps of the run."""
    batch = int(recipe.optim.global_batch_size)
    return recipe.optim.max_steps or max(1, math.ceil(float(recipe.optim.num_epochs) * math.ceil(facts.num_train / batch)))


def _warmup_ratio(recipe: Recipe, facts: Facts) -> Choice:
    steps = num_steps(recipe, facts)
    value = round(min(0.1, max(0.01, WARMUP_STEPS / steps)), 3)
    en = f"about {WARMUP_STEPS} of {steps} steps: before that AdamW's averages are not to be trusted"
    return Choice(value, en, f"{steps} 步中约 {WARMUP_STEPS} 步预热", "ma2021")


def _sample_every_steps(recipe: Recipe, facts: Facts) -> Choice:
    steps = num_steps(recipe, facts)
    return Choice(max(1, math.ceil(steps / 5)), f"about five rounds of samples over {steps} steps", f"在 {steps} 步中约试答五次", "danlu")


def _validate_every_steps(recipe: Recipe, facts: Facts) -> Choice:
    steps = num_steps(recipe, facts)
    return Choice(max(1, min(500, steps // 10)), f"about ten validations over {steps} steps", f"在 {steps} 步中约验证十次", "danlu")


def _early_stopping_patience(recipe: Recipe, facts: Facts) -> Choice:
    if not facts.num_validation or not recipe.data.split.has_validation:
        return Choice(None, "there are no validation examples to stop by", "没有验证样例，无从判断何时停止")
    return Choice(PATIENCE, f"{PATIENCE} validations without gain are no accident", f"连续 {PATIENCE} 次验证没有改善并非偶然", "prechelt1998")


RULES: dict[str, Callable[[Recipe, Facts], Choice | None]] = {
    "data.format": _format,
    "data.max_seq_len": _max_seq_len,
    "training.dtype": _dtype,
    "optim.learning_rate": _learning_rate,
    "optim.global_batch_size": _global_batch_size,
    "optim.num_epochs": _num_epochs,
    "optim.micro_batch_tokens": _micro_batch_tokens,
    "optim.warmup_ratio": _warmup_ratio,
    "training.validate_every_steps": _validate_every_steps,
    "training.sample_every_steps": _sample_every_steps,
    "training.early_stopping_patience": _early_stopping_patience,
}
"""For what a recipe leaves `auto`, in the order in which one builds on another."""


def _scheduler(recipe: Recipe, facts: Facts) -> Choice:
    return Choice("cosine", "the rate falls to zero at the end, and the last steps settle what was learnt", "学习率最后降到零，收尾更稳", "loshchilov2017")


def _packing(recipe: Recipe, facts: Facts) -> Choice:
    en = "examples are packed end to end without padding; the result is that of padded batches"
    return Choice("fast", en, "样例首尾相接、不做填充；结果与填充批次相同", "danlu")


def _replay(recipe: Recipe, facts: Facts) -> Choice | None:
    if recipe.objective.needs != "messages":
        return None
    share = REPLAY[facts.goal]
    if not share:
        return Choice({}, "nothing is mixed in: so small a change forgets little", "不混入通用对话：改动小，遗忘也少", "biderman2024")
    en = f"{share:.0%} general conversations are mixed in, so that less is forgotten"
    return Choice({"general": share}, en, f"混入 {share:.0%} 通用对话，减少遗忘", "ouyang2022")


FIXED_RULES: dict[str, Callable[[Recipe, Facts], Choice | None]] = {"optim.scheduler": _scheduler, "training.path": _packing, "data.mix": _replay}
"""For what has no `auto`: said by `danlu recommend` only."""
