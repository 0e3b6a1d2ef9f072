"""The home page."""

WORDS = {
    "active": ("Now and next", "正在进行"),
    "active_none": ("Nothing runs. Start a run and it appears here.", "没有正在进行的任务。开始一次训练后会显示在这里。"),
    "create": ("Create project", "创建项目"),
    "example": ("Load the example", "载入示例"),
    "example_project": ("My first specialist", "我的第一个专家模型"),
    "first_text": (
        "Danlu turns a general model into your specialist and proves whether it got better. "
        "Begin with the example: a travel guide, trained in a few minutes on this computer.",
        "丹炉把通用模型变成你的专家模型，并证明它是否真的变好。先从示例开始：一位旅行向导，在本机几分钟就能训练好。",
    ),
    "first_title": ("Make your first specialist", "做出第一个专家模型"),
    "intro": ("What is running, and what waits for you.", "正在进行的，以及等你处理的。"),
    "name": ("Name of the project", "项目名称"),
    "new_project": ("New project", "新建项目"),
    "next_failed": ("See what went wrong", "查看原因"),
    "next_paused": ("Go on", "继续"),
    "next_succeeded": ("See the proof", "查看证明"),
    "projects": ("Projects", "项目"),
    "project_text": ("A project holds data, runs and models that belong together.", "项目把相关的数据、训练和模型放在一起。"),
    "title": ("Home", "首页"),
    "waiting": ("Waits for you", "等你处理"),
    "waiting_none": ("Nothing waits for you.", "没有需要处理的事。"),
}
