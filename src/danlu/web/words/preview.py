"""The card beside a form that starts work."""

WORDS = {
    "ahead": ("Jobs ahead", "前面的任务"),
    "alternatives": ("What would fit", "可行的调整"),
    "apply": ("Use this", "采用"),
    "cost": ("Cost", "费用"),
    "disk": ("Disk", "磁盘"),
    "disk_text": ("{needed}, {free} free", "{needed}，可用 {free}"),
    "examples": ("Examples to train on", "训练样例"),
    "fixes": ("Take the offered settings", "采用建议的设置"),
    "memory": ("Memory", "内存"),
    "memory_means": (
        "Free is what a run could take at this moment: of the GPU where there is one, else of the machine and within its limits. "
        "What other programs and runs hold is not free until they end.",
        "“可用”指此刻训练能占用的内存：有显卡时是显存，否则是本机内存（不超过其限额）。其他程序和训练占用的部分，要等它们结束才可用。",
    ),
    "memory_text": ("{needed} needed, {available} free", "需要 {needed}，可用 {available}"),
    "not_ready": ("Not ready", "未就绪"),
    "ready": ("Ready", "就绪"),
    "steps": ("Optimizer steps", "优化步数"),
    "time": ("Training time", "训练时间"),
    "time_unknown": ("The training time is told once the run has started: only a measured speed is told.", "训练时间在开始后给出：只报告实测的速度。"),
    "title": ("What will happen", "预览"),
    "tokens": ("Tokens", "词元"),
    "trained": ("Weights that change", "会改变的权重"),
    "truncated": ("Shortened examples", "被截短的样例"),
    "waiting": ("Looking at data and model\u2026", "正在查看数据和模型……"),
    "problem_DL501": ("This run does not fit into memory.", "内存放不下这次训练。"),
    "problem_DL700": ("The disk has no room for this run.", "磁盘空间不够。"),
}
