"""The runs of a project."""

WORDS = {
    "column_base": ("Base model", "基座模型"),
    "column_created": ("Created", "创建时间"),
    "column_name": ("Run", "训练"),
    "column_state": ("State", "状态"),
    "column_verdict": ("Verdict", "结论"),
    "empty_text": (
        "A run trains a model on your examples and proves the result. It takes three steps to start one.",
        "一次训练用你的样例训练模型，并证明结果。三步就能开始。",
    ),
    "empty_title": ("No runs yet", "还没有训练"),
    "title": ("Runs", "训练记录"),
}
