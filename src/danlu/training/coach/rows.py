"""Can these rows teach anything? From the accounting of the data stage, before the first step."""

from __future__ import annotations

from collections.abc import Iterator

from danlu.training.coach.diagnosis import Diagnosis
from danlu.training.coach.history import History

FEW_EXAMPLES = 50
FEW_TOKENS = 20_000
"""Of plain text, whose blocks are of any length."""
UNLABELLED_SHARE = 0.5
TEMPLATE_SHARE = 0.2
END_TOKEN_SHARE = 0.5
DUPLICATE_SHARE = 0.5
SHORTENED_SHARE = 0.2


def check(history: History) -> Iterator[Diagnosis]:
    """Diagnoses of this kind."""
    yield from _labels(history)
    yield from _template(history)
    yield from _too_few(history)
    yield from _duplicates(history)
    yield from _too_long(history)


def _labels(history: History) -> Iterator[Diagnosis]:
    data = history.data
    total = data.num_train + data.num_unlabelled
    if data.num_unlabelled < UNLABELLED_SHARE * total or not data.num_unlabelled:
        return
    yield Diagnosis(
        "all_labels_masked",
        "error",
        (
            f"{data.num_unlabelled} of {total} rows hold no token that is trained on; they were left out.",
            f"{total} 行中有 {data.num_unlabelled} 行没有任何参与训练的词元，已被排除。",
        ),
        (
            "Loss is taken on the assistant's turns only, and here the chat template marks none, or every turn has a loss weight of 0.",
            "只有 assistant 轮参与训练，而这里的对话模板没有标出任何一轮，或每一轮的权重都是 0。",
        ),
        (
            "Look at them with danlu data show: give the answers the role assistant, remove weights of 0, or use a model whose template marks them.",
            "请用 danlu data show 查看：把回答的角色设为 assistant，去掉为 0 的权重，或换用会标出回答的模型。",
        ),
        {"num_unlabelled": data.num_unlabelled, "num_train": data.num_train},
        {},
    )


def _template(history: History) -> Iterator[Diagnosis]:
    data = history.data
    share = data.num_with_template_text / max(1, data.num_probed)
    if share >= TEMPLATE_SHARE:
        yield Diagnosis(
            "wrong_template",
            "warning",
            (
                f"{100 * share:.0f} % of the conversations have a prompt template written into their messages (such as `Human:` or `Assistant:`).",
                f"{100 * share:.0f}% 的对话把提示模板写进了消息里（例如 `Human:`、`Assistant:`）。",
            ),
            (
                "The model's own chat template is put around every message; it would learn to write the second one as part of its answers.",
                "每条消息都会套上模型自己的对话模板；模型会把这第二层模板也当作回答来学。",
            ),
            ("Remove these labels: one message per turn, with role and plain content.", "请去掉这些标签：每轮一条消息，只含角色与纯文本。"),
            {"num_rows": data.num_with_template_text, "num_probed": data.num_probed, "percent": 100 * share},
            {},
        )
    if data.end_token_share is not None and data.end_token_share < END_TOKEN_SHARE:
        yield Diagnosis(
            "no_end_of_turn",
            "warning",
            (
                f"The trained part of the examples does not end in one common token (the commonest: {100 * data.end_token_share:.0f} %).",
                f"各样例参与训练的部分没有共同的结尾词元（最常见的只占 {100 * data.end_token_share:.0f}%）。",
            ),
            (
                "The chat template of this model puts no end token after an answer, so the model does not learn to stop.",
                "此模型的对话模板没有在回答之后放结束词元，模型学不会停下。",
            ),
            ("Use a model whose chat template ends the assistant's turn with a token.", "请换用会以词元结束 assistant 轮的模型或对话模板。"),
            {"percent": 100 * data.end_token_share},
            {},
        )


def _too_few(history: History) -> Iterator[Diagnosis]:
    data = history.data
    is_text = history.recipe.objective.needs == "text"
    if not data.num_train or (data.num_train_tokens >= FEW_TOKENS if is_text else data.num_train >= FEW_EXAMPLES):
        return
    yield Diagnosis(
        "data_too_small",
        "warning",
        (f"{data.num_train_tokens:,} tokens to train on.", f"只有 {data.num_train_tokens:,} 个词元可供训练。")
        if is_text
        else (f"{data.num_train} examples to train on.", f"只有 {data.num_train} 条样例可供训练。"),
        ("So little teaches a manner at best, and is soon known by heart.", "这么少的数据最多教会一种口吻，很快就会被背下来。"),
        (f"Add rows: at least {FEW_EXAMPLES}, better some hundreds.", f"请增加数据：至少 {FEW_EXAMPLES} 条，最好几百条。")
        if not is_text
        else (f"Add text: at least {FEW_TOKENS:,} tokens.", f"请增加文本：至少 {FEW_TOKENS:,} 个词元。"),
        {"num_train": data.num_train, "num_train_tokens": data.num_train_tokens},
        {},
    )


def _duplicates(history: History) -> Iterator[Diagnosis]:
    data = history.data
    repeated = data.duplicate + data.near_duplicates_kept
    if not data.rows_in or repeated < DUPLICATE_SHARE * data.rows_in:
        return
    kept = data.near_duplicates_kept
    yield Diagnosis(
        "duplicates_dominating",
        "warning",
        (
            f"{repeated} of {data.rows_in} rows repeat another one ({data.duplicate} were left out, {kept} near copies were kept).",
            f"{data.rows_in} 行中有 {repeated} 行与其他行重复（{data.duplicate} 行已去掉，{kept} 行近似副本仍在）。",
        ),
        (
            "The file says far less than its size suggests, and what is said often is learnt by heart first.",
            "文件的实际内容远少于行数；重复最多的内容会先被背下来。",
        ),
        ("Leave the near copies out (data.near_duplicates=drop), and add different rows.", "请去掉近似副本（data.near_duplicates=drop），并增加不同的数据。")
        if kept
        else ("Add different rows; the copies were left out already.", "副本已去掉；请增加不同的数据。"),
        {"num_repeated": repeated, "rows_in": data.rows_in, "num_train": data.num_train},
        {"data.near_duplicates": "drop"} if kept and history.recipe.data.near_duplicates != "drop" else {},
    )


def _too_long(history: History) -> Iterator[Diagnosis]:
    data, length = history.data, history.recipe.data.max_seq_len
    if not data.num_train or data.num_shortened < SHORTENED_SHARE * data.num_train or length == "auto":
        return
    about, about_zh = ("About ", "约") if data.is_estimate else ("", "")
    longer = min(2 * int(length), history.model_max_seq_len or 2 * int(length))
    changes = {"data.max_seq_len": longer} if longer > int(length) else {}
    yield Diagnosis(
        "many_shortened",
        "warning",
        (
            f"{about}{data.num_shortened} training examples do not fit in {length} tokens and were cut or left out.",
            f"{about_zh}有 {data.num_shortened} 条训练样例超过 {length} 个词元，被截短或排除。",
        ),
        ("What is cut is not learnt, and the answer may refer to it.", "被截掉的内容学不到，而回答可能正依赖它。"),
        (f"Set data.max_seq_len={longer}; it costs memory and time.", f"请设 data.max_seq_len={longer}（会占用更多内存和时间）。")
        if changes
        else ("Split long rows, or use a model with a longer context.", "请拆分过长的行，或换用上下文更长的模型。"),
        {"num_shortened": data.num_shortened, "num_train": data.num_train, "max_seq_len": int(length)},
        changes,
    )
