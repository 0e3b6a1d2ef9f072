"""How numbers and names read, in English and Chinese."""

from __future__ import annotations

from typing import Any

from danlu.data.reasons import in_chinese

Label = tuple[str, str]

VERDICTS = {"improved": ("Improved", "变好了"), "no_difference": ("No difference shown", "未见差别"), "regressed": ("Regressed", "变差了")}
RETENTION = {"kept": ("Kept", "保持"), "slightly_worse": ("Slightly worse", "略有下降"), "forgotten": ("Forgotten", "明显遗忘")}
SEVERITIES = {"error": "bad", "warning": "warn", "info": "muted"}
ROUND = RETENTION | {"improved": ("Better", "变好"), "no_difference": ("No difference shown", "未见差别"), "regressed": ("Worse", "变差")}
TONES = {"improved": "good", "no_difference": "warn", "regressed": "bad", "kept": "good", "slightly_worse": "warn", "forgotten": "bad"}

_REWARDS = {
    "exact_match": ("exact match", "完全一致"),
    "rouge_l": ("ROUGE-L", "ROUGE-L"),
    "number": ("right number", "数字正确"),
    "pattern": ("form", "格式"),
    "tags": ("tags", "标签"),
    "json_object": ("JSON", "JSON"),
    "length": ("length", "长度"),
}
_NAMES = {
    "nll_per_token": ("Loss per token", "每词元损失"),
    "perplexity": ("Perplexity", "困惑度"),
    "nll_per_byte": ("Loss per byte", "每字节损失"),
    "preference_accuracy": ("Prefers the chosen answer", "更倾向被选中的回答"),
    "preference_margin": ("Margin of the chosen answer", "被选中回答的领先"),
    "chosen_likelihood": ("Log-likelihood of chosen answers", "被选中回答的对数似然"),
    "label_separation": ("Wanted above unwanted answers", "好回答高于坏回答"),
    "reward": ("Mean reward", "平均奖励"),
    "exact_match": ("Exact match", "完全一致"),
    "rouge_l": ("ROUGE-L", "ROUGE-L"),
    "bleu": ("BLEU", "BLEU"),
    "chrf": ("chrF", "chrF"),
    "rows_in": ("Rows in the file", "文件行数"),
    "used": ("Used", "使用"),
    "dropped": ("Dropped", "丢弃"),
    "duplicate": ("Duplicates left out", "去掉的重复行"),
    "near_duplicate": ("Near duplicates left out", "去掉的近似重复行"),
    "near_duplicates_kept": ("Near duplicates kept, in one split", "保留的近似重复行（同一划分）"),
    "fixed": ("Used after a repair", "修正后使用"),
    "split_train": ("Training split", "训练集"),
    "split_validation": ("Validation split", "验证集"),
    "split_test": ("Held-out test split", "留出测试集"),
    "en": ("English", "英文"),
    "zh": ("Chinese", "中文"),
    "other": ("Other", "其他"),
    "user": ("User", "用户"),
    "system": ("System", "系统"),
    "assistant": ("Assistant", "助手"),
    "tool": ("Tool", "工具"),
    "training_seconds": ("Training time", "训练时间"),
    "data_seconds": ("Data preparation", "数据准备"),
    "evaluation_seconds": ("Evaluation time", "评测时间"),
    "wall_seconds": ("Whole run", "总用时"),
    "peak_memory_bytes": ("Peak memory", "内存峰值"),
    "process_bytes": ("Python, libraries, kernels, token cache", "Python、程序库、内核、词元缓存"),
    "weights_bytes": ("Base model weights", "基座模型权重"),
    "adapters_bytes": ("Adapter", "适配器"),
    "gradients_bytes": ("Gradients", "梯度"),
    "optimizer_bytes": ("Optimizer state", "优化器状态"),
    "activations_bytes": ("Activations", "激活值"),
    "temporary_bytes": ("Temporary", "临时"),
    "disk_bytes": ("Disk", "磁盘"),
    "data_bytes": ("Data and token cache", "数据与词元缓存"),
    "checkpoints_bytes": ("Checkpoints", "检查点"),
    "result_bytes": ("Adapter or model", "适配器或模型"),
    "exports_bytes": ("Exports", "导出"),
    "cost": ("Money", "费用"),
    "optimizer_steps_seconds": ("Optimizer steps alone", "仅优化步"),
    "evaluation_heldout_seconds": ("Held-out suite", "留出样例评测"),
    "evaluation_preference_seconds": ("Preference suite", "偏好评测"),
    "evaluation_rewards_seconds": ("Reward suite", "奖励评测"),
    "evaluation_rounds_seconds": ("Rounds suite", "轮次评测"),
    "evaluation_retention_seconds": ("Retention suite", "通用能力评测"),
    "evaluation_memorised_seconds": ("Memorisation check", "记忆检查"),
    "num_tokens": ("Tokens trained on", "训练词元数"),
    "num_steps": ("Optimizer steps", "优化步数"),
    "device": ("Device", "设备"),
    "platform": ("Platform", "平台"),
    "num_cpus": ("CPU cores", "CPU 核数"),
    "memory_bytes": ("Memory", "内存"),
    "danlu": ("Danlu", "Danlu"),
    "python": ("Python", "Python"),
}


def name(key: str) -> Label:
    """A key of the report in words."""
    plain = key.removesuffix("_seconds").removesuffix("_bytes").replace("_", " ")
    if key.startswith("reward_") and key.removeprefix("reward_") in _REWARDS:
        en, zh = _REWARDS[key.removeprefix("reward_")]
        return f"Reward: {en}", f"奖励：{zh}"
    return _NAMES.get(key, (plain[:1].upper() + plain[1:], plain))


def value(number: float | None, unit: str) -> str:
    """A metric value with the digits its unit deserves."""
    if number is None:
        return "\u2013"
    if unit == "0-100":
        return f"{number:.1f}"
    return f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}" if abs(number) < 1000 else f"{number:,.0f}"


def signed(number: float | None, unit: str) -> str:
    """Like `value`, always with a sign."""
    if number is None:
        return "\u2013"
    text = value(abs(number), unit)
    return text if not text.strip("0.") else ("+" if number > 0 else "\u2212") + text


def percent(share: float | None) -> str:
    """A change as percent with sign, e.g. -34.6 %."""
    if share is None:
        return "\u2013"
    text = f"{abs(100 * share):.1f}"
    return f"{'0.0' if text == '0.0' else ('+' if share > 0 else chr(0x2212)) + text} %"


def p_value(p: float | None) -> str:
    """A p-value with at most four digits."""
    if p is None:
        return "\u2013"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> Label:
    """Seconds in words."""
    if seconds < 60:
        shown = f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"
        return f"{shown} s", f"{shown} 秒"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s", f"{minutes} 分 {rest} 秒"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min", f"{hours} 小时 {minutes} 分"


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units, with three digits or four."""
    if num_bytes is None:
        return "\u2013"
    if 1e10 <= num_bytes < 1e12:
        return f"{num_bytes / 1e9:.1f} GB"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.2f} {unit}" if unit in ("TB", "GB") else f"{num_bytes / scale:.0f} {unit}"
    return f"{num_bytes:.0f} B"


def quantity(key: str, number: Any) -> Label:
    """A number in the unit its name ends with."""
    if not isinstance(number, int | float) or isinstance(number, bool):
        return str(number), str(number)
    if key.endswith("_seconds"):
        return duration(number)
    if key.endswith("_bytes"):
        return size(number), size(number)
    text = f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"
    return text, text


def accounting(rows: dict[str, Any] | None, encoded: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Lines of the data accounting: {name, value, level}; the reasons one level below what they explain."""
    lines: list[dict[str, Any]] = []

    def add(key: str | Label, number: Any, level: int = 0) -> None:
        text = number if isinstance(number, tuple) else quantity("", number)
        lines.append({"name": name(key) if isinstance(key, str) else key, "value": text, "level": level})

    rows = rows or {}
    for key in ("rows_in", "used", "dropped", "duplicate", "near_duplicate", "near_duplicates_kept", "fixed"):
        if rows.get(key) is not None:
            add(key, rows[key])
        for reason, number in (rows.get("reasons") or {}).get(key, {}).items():
            add((reason, in_chinese(reason)), number, 1)
    given = rows.get("given") or {}
    for split, number in (rows.get("splits") or {}).items():
        number += given.get(split, {}).get("used", 0)
        add({"train": "split_train", "validation": "split_validation", "test": "split_test"}.get(split, split), number)
        for key, label in (("dropped", ("Left out of its own file", "从它自己的文件里舍弃")), ("duplicate", ("Twice in its own file", "在它自己的文件里重复"))):
            if given.get(split, {}).get(key):
                add(label, given[split][key], 1)
        if given.get(split, {}).get("leaked"):
            add(("Also among the test rows, left out", "也在测试集中，没有使用"), given[split]["leaked"], 1)
    for mixed, numbers in (rows.get("mix") or {}).items():
        add((f"Mixed in from {mixed}", f"混入 {mixed}"), numbers.get("added", 0))
    for split, numbers in (encoded or {}).items():
        for key, label in (("truncated", ("Shortened to fit", "截短")), ("dropped", ("Too long, left out", "过长未用"))):
            if numbers.get(key):
                en, zh = name(f"split_{split}")
                add((f"{label[0]} ({en})", f"{label[1]}（{zh}）"), numbers[key])
    return lines
