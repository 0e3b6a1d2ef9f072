"""Fine-tune or not? Six questions, one advice with its reasons. Rules a person can check, no score that hides them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from danlu.recipe.base import StrictModel

Label = tuple[str, str]
"""(English, Chinese)."""
Advice = Literal["fine_tune", "prompt_first", "rag", "rag_then_fine_tune", "collect_data", "not_yet"]

FEW_EXAMPLES = "few"
MANY_CHANGES = "daily"


class Answers(StrictModel):
    """What someone says about what they want."""

    wish: Literal["style", "format", "skill", "facts"]
    """What the model is to do better: a manner of speaking, a fixed form, a kind of job, or to know things."""
    changes: Literal["never", "monthly", "daily"]
    """How often what it is to know changes."""
    examples: Literal["none", "few", "hundreds", "thousands"]
    """How many good question and answer pairs there are: none, below 50, up to 1,000, or more."""
    tried: Literal["no", "helps", "fails"]
    """Whether a good prompt with examples was tried: not yet, it is enough, or it is not enough."""
    sources: Literal["no", "yes"]
    """Whether answers must cite where they come from."""
    measure: Literal["no", "yes"]
    """Whether a good answer can be told from a bad one."""


@dataclass(frozen=True)
class Recommendation:
    """What to do, why, and what next."""

    advice: Advice
    title: Label
    reasons: list[Label]
    next_steps: list[Label]


QUESTIONS: dict[str, tuple[Label, dict[str, Label]]] = {
    "wish": (
        ("What should the model do better?", "希望模型在哪方面做得更好？"),
        {
            "style": ("Speak in our manner", "用我们的语气说话"),
            "format": ("Always answer in a fixed form (fields, JSON, a template)", "始终按固定格式回答（字段、JSON、模板）"),
            "skill": ("Do one kind of job well (sort, rewrite, extract, reason)", "把某一类工作做好（分类、改写、抽取、推理）"),
            "facts": ("Know things it does not know (our products, our rules)", "知道它不知道的事（我们的产品、规定）"),
        },
    ),
    "changes": (
        ("How often does what it has to know change?", "它需要知道的内容多久变一次？"),
        {"never": ("Hardly ever", "几乎不变"), "monthly": ("Every few weeks or months", "几周或几个月一次"), "daily": ("Every day", "每天都变")},
    ),
    "examples": (
        ("How many good examples (question and answer) do you have?", "手里有多少条好的样例（问题和回答）？"),
        {
            "none": ("None yet", "还没有"),
            "few": ("Fewer than 50", "不到 50 条"),
            "hundreds": ("50 to 1,000", "50 到 1,000 条"),
            "thousands": ("More than 1,000", "1,000 条以上"),
        },
    ),
    "tried": (
        ("Have you tried a good prompt with a few examples in it?", "试过写一个好的提示词、并附上几条样例吗？"),
        {
            "no": ("Not yet", "还没有"),
            "helps": ("Yes, and it is nearly good enough", "试过，已经差不多够用"),
            "fails": ("Yes, and it is not good enough", "试过，仍然不够"),
        },
    ),
    "sources": (
        ("Must an answer say where it comes from?", "回答必须注明出处吗？"),
        {"no": ("No", "不必"), "yes": ("Yes, it must be possible to check it", "必须，要能核对")},
    ),
    "measure": (
        ("Can you tell a good answer from a bad one?", "能分辨回答的好坏吗？"),
        {"no": ("Not really", "说不清"), "yes": ("Yes: there is a reference answer, or a person who judges", "能：有参考答案，或有人能评判")},
    ),
}
"""Name of each answer -> the question and what can be answered."""

_TITLES: dict[Advice, Label] = {
    "fine_tune": ("Fine-tune", "适合微调"),
    "prompt_first": ("Try a better prompt first", "先把提示词写好"),
    "rag": ("Let it look things up instead", "先让它查资料（检索增强）"),
    "rag_then_fine_tune": ("Look things up for facts, fine-tune for form", "事实靠查资料，形式靠微调"),
    "collect_data": ("Collect examples first", "先收集样例"),
    "not_yet": ("Don't fine-tune yet", "先不要微调"),
}


def advise(answers: Answers) -> Recommendation:
    """Say what to do first, and why."""
    needs_lookup = answers.sources == "yes" or answers.changes == MANY_CHANGES or answers.wish == "facts"
    reasons = list(_reasons(answers))
    advice = _advice(answers, needs_lookup=needs_lookup)
    return Recommendation(advice, _TITLES[advice], reasons, _next_steps(advice))


def _advice(answers: Answers, *, needs_lookup: bool) -> Advice:
    if answers.measure == "no":
        return "not_yet"
    if answers.wish == "facts":
        return "rag"
    if answers.tried == "helps":
        return "prompt_first"
    if answers.examples in ("none", FEW_EXAMPLES):
        return "prompt_first" if answers.tried == "no" else "collect_data"
    if needs_lookup:
        return "rag_then_fine_tune"
    if answers.tried == "no" and answers.examples == "hundreds" and answers.wish == "skill":
        return "prompt_first"
    return "fine_tune"


def _reasons(answers: Answers) -> list[Label]:
    told: list[tuple[bool, Label]] = [
        (
            answers.measure == "no",
            (
                "Without a way to tell good answers from bad ones nobody can say whether training helped; it could make things worse unnoticed.",
                "分不清好坏，就没人能说训练有没有用，变差了也不会发现。",
            ),
        ),
        (
            answers.wish == "facts",
            (
                "Fine-tuning teaches a manner, not facts: a model asked for facts it saw a few times invents the rest with confidence.",
                "微调教的是做法而不是事实：只见过几次的事实，模型会自信地编出其余部分。",
            ),
        ),
        (
            answers.wish in ("style", "format"),
            (
                "A manner or a fixed form is what fine-tuning does best, often with a few hundred examples.",
                "语气和固定格式正是微调最擅长的，往往几百条样例就够。",
            ),
        ),
        (
            answers.wish == "skill",
            ("One well-defined kind of job is learnt well from examples that show it.", "一类边界清楚的工作，适合从样例中学会。"),
        ),
        (
            answers.changes == "daily",
            (
                "What changes every day is outdated before a training is over; a document that is looked up is not.",
                "每天都变的内容，训练还没结束就过时了；查资料则不会。",
            ),
        ),
        (
            answers.sources == "yes",
            ("A fine-tuned model cannot say where it knows something from; looking it up can.", "微调后的模型说不出依据，查资料可以给出处。"),
        ),
        (
            answers.tried == "no",
            (
                "A prompt costs an hour and shows what is still missing; it is also what the tuned model is compared with.",
                "写提示词只要一小时，还能看清缺什么；它也是微调后要比较的对象。",
            ),
        ),
        (
            answers.tried == "helps",
            (
                "What a prompt does nearly well enough is cheaper to improve than to train, and changes in a minute.",
                "提示词已经差不多时，改提示词比训练便宜，而且一分钟就能改。",
            ),
        ),
        (
            answers.examples in ("none", FEW_EXAMPLES),
            (
                "With fewer than 50 examples no honest proof of a gain is possible, and the model tends to learn them by heart.",
                "不到 50 条样例时，无法如实证明有没有提升，模型也容易死记硬背。",
            ),
        ),
        (
            answers.examples in ("hundreds", "thousands"),
            ("There are enough examples to train on and to hold some out for the proof.", "样例足够：既能训练，也能留出一部分做证明。"),
        ),
    ]
    return [label for is_true, label in told if is_true]


def _next_steps(advice: Advice) -> list[Label]:
    prompt = (
        "Write a prompt with three to five of your best examples in it and try twenty real questions.",
        "写一个附有三到五条最佳样例的提示词，用二十个真实问题试一试。",
    )
    measure = ("Write down twenty questions with the answer you would want: this becomes your test.", "写下二十个问题和理想回答：这就是你的测试集。")
    train = (
        "Bring your examples and start a run with the recommended values; its proof says whether it helped.",
        "带上样例，用推荐值开始一次训练；训练后的证明会告诉你是否有用。",
    )
    search = ("Collect the documents and let a search find the passages that go into the prompt.", "把资料收集起来，用检索找到相关段落放进提示词。")
    collect = (
        "Collect at least 50 good examples, better 300; real questions with corrected answers are worth most.",
        "至少收集 50 条好样例，最好 300 条；真实问题加修正后的回答最有价值。",
    )
    return {
        "fine_tune": [train],
        "prompt_first": [prompt, collect],
        "rag": [search, prompt],
        "rag_then_fine_tune": [search, train],
        "collect_data": [collect, train],
        "not_yet": [measure, prompt],
    }[advice]
