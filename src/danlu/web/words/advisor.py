"""The advisor. Its questions and reasons carry both languages themselves (services/advisor.py)."""

WORDS = {
    "again": ("Answer again", "重新回答"),
    "intro": (
        "Six questions, then an honest answer: fine-tune, write a better prompt, or let the model look things up.",
        "六个问题，给一个实在的建议：微调、改提示词，还是让模型查资料。",
    ),
    "new_run": ("Start a run", "开始训练"),
    "next": ("What to do next", "接下来做什么"),
    "question": ("Question {number} of {total}", "第 {number} 题，共 {total} 题"),
    "reasons": ("Why", "理由"),
    "title": ("Advisor", "顾问"),
}
