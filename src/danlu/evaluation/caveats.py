"""What a reader must know beside the verdict: leaks, too few test rows, loops. Each has a stable code.

Knows files and numbers, not models. It is about how far the proof can be trusted; what went wrong in training, and
which setting changes that, is for the coach to say (training/coach), once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from danlu.data.reasons import in_chinese
from danlu.files import read_json

if TYPE_CHECKING:
    from danlu.run_dir import RunDir

FEW_TEST_ROWS = 10
CUT_SHARE = 0.1
LOOP_SHARE = 0.1
MEMORISED_SHARE = 0.01

Caveat = dict[str, Any]

_TEXTS = {
    "not_evaluated": (
        "Nothing was measured on held-out examples, so this report cannot say whether the model got better.",
        "没有在留出样例上做任何测量，因此本报告无法说明模型是否变好。",
    ),
    "too_few_test_rows": (
        "Only {num_examples} held-out examples: the verdict is not conclusive. "
        "Give at least {minimum}, better 50: raise the share of rows kept for the test (data.split.test), or add data.",
        "留出样例只有 {num_examples} 条，结论不可靠。请提高留作测试的比例（data.split.test）或增加数据，至少 {minimum} 条，最好 50 条。",
    ),
    "test_rows_dropped": (
        "{num_dropped} held-out rows could not be scored; the first because: {first_reason}.",
        "有 {num_dropped} 条留出样例无法评分；第一条的原因：{first_reason}。",
    ),
    "memorised": (
        "{num_found} of {num_checked} held-out rows have their prompt or answer in the training rows ({num_exact} word for word): "
        "part of the gain may be recall. Remove the copies from the data and train again.",
        "{num_checked} 条留出样例中有 {num_found} 条的问题或答案也出现在训练数据里（其中 {num_exact} 条逐字相同）："
        "提升可能有一部分来自记忆。请去掉重复数据后重新训练。",
    ),
    "chosen_less_likely": (
        "The chosen answers became less likely themselves ({base:.2f} to {tuned:.2f} nats per token): the model may prefer them and still not write them. "
        "Lower the learning rate or raise the pull toward the model before training (objective.beta), or fine-tune on the chosen answers first (sft, or orpo).",
        "被选中的回答本身变得更不可能（每词元 {base:.2f} → {tuned:.2f} 奈特）：模型可能更倾向于它们，却不会写出来。"
        "可降低学习率，或加大向训练前的模型拉回的力度（objective.beta），或先用被选中的回答做 sft（或用 orpo）。",
    ),
    "retention_forgotten": (
        "General ability was lost: the loss on general conversations rose by {percent:.1f} %. "
        "Lower the learning rate, train for fewer epochs, or mix in general data (data.mix).",
        "通用能力有损失：通用对话上的损失上升了 {percent:.1f}%。可降低学习率、减少训练轮数，或混入通用数据（data.mix）。",
    ),
    "best_lost": (
        "The weights of the best step ({best_step}) could not be read back from their checkpoint: this report is about those of the last step ({kept_step}). "
        "Check the disk.",
        "最佳一步（第 {best_step} 步）的权重无法从检查点读回：本报告说的是最后一步（第 {kept_step} 步）的权重。请检查磁盘。",
    ),
    "generation_cut": (
        "{num_cut} of {num_generated} answers of the tuned model were cut at {max_new_tokens} tokens; metrics of text see only "
        "their beginning. Raise {name} ({setting}).",
        "微调模型的 {num_generated} 个回答中有 {num_cut} 个在 {max_new_tokens} 个词元处被截断，文本指标只看到开头。可提高{name}（{setting}）。",
    ),
    "degenerate_generations": (
        "{num_loops} of {num_generated} answers of the tuned model end in a loop, repeating the same words. "
        "Usually the model is too small or undertrained, or the learning rate was too high.",
        "微调模型的 {num_generated} 个回答中有 {num_loops} 个陷入重复循环。通常是模型太小、训练不足或学习率过高。",
    ),
}
_SETTINGS = {
    "evaluation.max_new_tokens": ("the longest answer when measuring", "评测时回答的最大长度"),
    "objective.max_completion_tokens": ("the longest answer in training", "训练时回答的最大长度"),
}


def find(
    run_dir: RunDir,
    *,
    heldout: dict[str, Any] | None,
    retention: dict[str, Any] | None,
    memorised: dict[str, Any] | None,
    metrics: dict[str, Any],
    keep_best: bool,
) -> list[Caveat]:
    """All warnings of a run, the weightiest first; each `{code, en, zh, numbers}`. `heldout` is the result that the verdict rests on."""
    data = [*_test_rows(heldout), *_memorised(memorised)]
    return [*data, *_retention(retention), *_preference(metrics), *_best_lost(run_dir, keep_best), *_generations(heldout)]


def _caveat(code: str, **numbers: Any) -> Caveat:
    en, zh = _TEXTS[code]
    chinese = {key: in_chinese(value) if isinstance(value, str) else value for key, value in numbers.items()}
    en_name, zh_name = _SETTINGS.get(numbers.get("setting", ""), ("", ""))
    return {"code": code, "en": en.format(**numbers, name=en_name), "zh": zh.format(**chinese, name=zh_name), "numbers": numbers}


def _test_rows(heldout: dict[str, Any] | None) -> Iterator[Caveat]:
    if heldout is None:
        yield _caveat("not_evaluated")
        return
    count, dropped = heldout["num_examples"], heldout["dropped"]
    if count < FEW_TEST_ROWS:
        yield _caveat("too_few_test_rows", num_examples=count, minimum=FEW_TEST_ROWS)
    if dropped:
        yield _caveat("test_rows_dropped", num_dropped=len(dropped), num_examples=count, first_reason=dropped[0]["reason"])


def _memorised(memorised: dict[str, Any] | None) -> Iterator[Caveat]:
    if memorised and memorised["num_found"] >= max(1, MEMORISED_SHARE * memorised["num_checked"]):
        yield _caveat("memorised", **{key: memorised[key] for key in ("num_found", "num_exact", "num_checked")})


def _retention(retention: dict[str, Any] | None) -> Iterator[Caveat]:
    if retention and retention["label"] == "forgotten":
        yield _caveat("retention_forgotten", percent=100 * retention["relative"], ci=retention["ci"])


def _preference(metrics: dict[str, Any]) -> Iterator[Caveat]:
    chosen = metrics.get("chosen_likelihood")
    if chosen and chosen["label"] == "regressed":
        yield _caveat("chosen_less_likely", base=chosen["base"], tuned=chosen["tuned"])


def _best_lost(run_dir: RunDir, keep_best: bool) -> Iterator[Caveat]:
    path = run_dir.path / "training.json"
    training = read_json(path) if path.exists() else {}
    if keep_best and training.get("best_step") is not None and training["kept_step"] != training["best_step"]:
        yield _caveat("best_lost", best_step=training["best_step"], kept_step=training["kept_step"])


def _generations(heldout: dict[str, Any] | None) -> Iterator[Caveat]:
    generation = heldout.get("generation") if heldout else None
    if not generation:
        return
    setting = "objective.max_completion_tokens" if "scores" in (heldout or {}) else "evaluation.max_new_tokens"
    total, cut, loops = len(generation["examples"]), generation["num_cut"], generation["num_loops"]
    if cut["tuned"] > CUT_SHARE * total:
        yield _caveat(
            "generation_cut", num_cut=cut["tuned"], num_cut_base=cut["base"], num_generated=total, max_new_tokens=generation["max_new_tokens"], setting=setting
        )
    if loops["tuned"] > LOOP_SHARE * total:
        yield _caveat("degenerate_generations", num_loops=loops["tuned"], num_loops_base=loops["base"], num_generated=total)
