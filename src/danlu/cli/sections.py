"""The first page of `danlu --help`: every command in one line, by what people come to do, in their language.

What a command does in full is its own docstring (`danlu COMMAND --help`).
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from danlu.text import language, say

Label = tuple[str, str]
"""(English, Chinese)."""
BEGIN: Label = ("Begin here", "从这里开始")
TRAIN: Label = ("Train and prove", "训练与证明")
DATA: Label = ("Data and recipes", "数据与配方")
QUEUE: Label = ("The studio's queue", "工作室的队列")
NOUNS: Label = ("What the studio holds (--server URL for one elsewhere)", "工作室里的内容（别处的工作室用 --server 地址）")
CARE: Label = ("Looking after it", "维护")

SECTIONS: dict[Label, dict[str, Label]] = {
    BEGIN: {
        "studio": ("the studio in your browser, with a worker for its queue", "在浏览器里打开工作室，并启动执行进程"),
        "demo": ("the whole loop on the embedded model, in the terminal", "用内置模型在终端里跑完整个流程"),
        "doctor": ("is this machine ready, and what would each extra add", "本机是否就绪，每个可选组件能带来什么"),
    },
    TRAIN: {
        "run": ("data file and base model in, tuned model and proof out", "输入数据文件和基座模型，得到微调后的模型和证明"),
        "resume": ("go on with a run that was paused, killed or failed", "继续一次暂停、被杀或失败的运行"),
        "report": ("the proof of a run: better or not, how sure, what was lost", "一次运行的证明：变好没有、多大把握、忘了什么"),
        "coach": ("what went wrong in a run, why, and which setting changes it", "一次运行出了什么问题、为什么、改哪个设置"),
        "chat": ("talk to a run, base and tuned", "与一次运行对话，基座与微调后可切换"),
        "export": ("a run as files that other tools load, verified", "把运行导出为其他工具能用的文件，经过验证"),
        "continue": ("one more round on new data", "用新数据再来一轮"),
        "sweep": ("several settings of one recipe; the best is proved", "一份配方的多种设置，最好的再做证明"),
        "merge": ("one adapter of several runs", "把几次运行的适配器合成一个"),
        "bench": ("how fast and how small training is on this machine", "在本机训练有多快、占多少内存"),
    },
    DATA: {
        "data": ("look at a data file before training on it", "训练之前先看数据"),
        "recommend": ("settings for this data, model and machine, with reasons", "按数据、模型和本机推荐设置，附理由"),
        "forecast": ("memory, steps, disk and time of a run before it starts", "运行开始前预估内存、步数、磁盘和时间"),
        "recipe": ("check a recipe, or print what one can say", "检查配方，或列出配方能写什么"),
    },
    QUEUE: {
        "submit": ("put a run into the queue", "把运行放进队列"),
        "queue": ("what runs and what waits", "正在运行和等待的任务"),
        "logs": ("the log of a job or run; --follow goes on", "任务或运行的日志；--follow 持续输出"),
        "cancel": ("end a job, or all jobs of a run", "结束一个任务，或一次运行的所有任务"),
        "worker": ("carry out the queue without a server", "不启动服务，只执行队列"),
    },
    NOUNS: {
        "projects": ("projects and their members", "项目与成员"),
        "datasets": ("bring data in, look at its rows, correct them", "放入数据、查看行、改正行"),
        "recipes": ("check recipes, preview what they would take", "检查配方，预览所需资源"),
        "runs": ("run folders of this home; with a command, the studio's", "本机数据目录中的运行；带子命令时是工作室的运行"),
        "jobs": ("hold back, reorder, look at jobs", "查看、暂停、调整任务"),
        "models": ("base models and your own, with where they come from", "基座模型和自己的模型，以及来历"),
        "exports": ("runs as files, verified", "导出的文件，经过验证"),
        "engines": ("ask a model; the models that are loaded to answer", "向模型提问；已加载的模型"),
        "votes": ("votes and ratings on answers", "对回答的投票与评分"),
        "uploads": ("files on their way (`datasets add` does all of it)", "正在上传的文件（`datasets add` 会全部处理）"),
    },
    CARE: {
        "backup": ("copy the database, also while it is in use", "备份数据库，使用中也可以"),
        "restore": ("put a backup back", "恢复备份"),
        "check": ("read the database and every stored file from end to end", "从头到尾检查数据库和每个文件"),
        "system": ("how the installation stands", "安装的整体状况"),
        "storage": ("the room that things take", "各项占用的空间"),
        "users": ("users, and yourself", "用户与自己"),
        "keys": ("API keys", "API 密钥"),
        "invitations": ("accounts and new passwords by one-time tokens", "用一次性令牌开户或重设密码"),
        "sessions": ("where you are signed in", "登录的地方"),
        "subscriptions": ("who is told when runs end: webhooks and mail", "运行结束时通知谁：webhook 与邮件"),
        "audit": ("who did what, and when", "谁在何时做了什么"),
    },
}
"""Every command of `danlu`, by section; a test compares them with what is registered."""


class Sections(TyperGroup):
    """The group of all commands, which shows them by section."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a list for each section."""
        position = language() == "zh"
        width = max(len(name) for commands in SECTIONS.values() for name in commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title[position]):
                formatter.write_dl([(name.ljust(width), label[position]) for name, label in commands.items()])
        formatter.write_paragraph()
        formatter.write_text(say("danlu COMMAND --help has the options of a command.", "danlu 命令 --help 列出该命令的选项（英文）。"))
