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
    "no_project_go": ("Begin on the home page", "去首页开始"),
    "no_project_title": ("First a project", "先建一个项目"),
    "project_text": ("A project holds data, runs and models that belong together.", "项目把相关的数据、训练和模型放在一起。"),
    "title": ("Home", "首页"),
    "tour_back": ("Back", "上一步"),
    "tour_chat": ("Try it yourself", "亲自试试"),
    "tour_chat_text": (
        "Talk to your model and to the one it came from. Compare shows them side by side, blind if you like.",
        "和你的模型、以及它原来的模型对话。“对比”可以并排比较，也可以盲评。",
    ),
    "tour_count": ("{number} of {total}", "第 {number} 步，共 {total} 步"),
    "tour_data": ("Your examples", "你的样例"),
    "tour_data_text": (
        "Drop a file with questions and the answers you would want: 50 at least, 300 is good. The data doctor says what is wrong and puts it right.",
        "拖入一个写有问题和理想回答的文件：至少 50 条，300 条较好。数据检查会指出问题，并一键修正。",
    ),
    "tour_done": ("Done", "完成"),
    "tour_first": ("Begin here", "从这里开始"),
    "tour_first_text": (
        "The example takes you through everything in a few minutes: a travel guide, trained on this computer. Nothing leaves it.",
        "用示例几分钟走完全程：在这台电脑上训练一位旅行向导。数据不会离开本机。",
    ),
    "tour_help": ("Help is always here", "随时可以求助"),
    "tour_help_text": (
        "How it works, every word explained, and this tour again. Below it you choose language and colours.",
        "怎么用、每个术语的意思，也可以再看一遍这个引导。下面可以选择语言和配色。",
    ),
    "tour_next": ("Next", "下一步"),
    "tour_proof": ("What proof means", "证明是什么"),
    "tour_proof_text": (
        "A finished run waits here with its proof: before against after on rows the model has never seen, how sure that is, and what it forgot. "
        "\u201cNo difference\u201d is an honest answer.",
        "完成的训练会在这里等你看证明：用模型没见过的样例比较训练前后，说明有多大把握、忘了什么。“未见差别”也是实话。",
    ),
    "tour_runs": ("Where a run lives", "训练在哪里"),
    "tour_runs_text": (
        "A run goes on by itself: close the page, come back tomorrow, and find its curves, its log and its answers here.",
        "训练会自己进行：关掉页面，明天再来，曲线、日志和试答都在这里。",
    ),
    "tour_skip": ("Skip the tour", "跳过引导"),
    "tour_start": ("Begin here", "从这里开始"),
    "tour_start_text": (
        "Three steps to a run: choose data, choose a model and a goal, look over what is recommended.",
        "三步开始训练：选数据，选模型和目标，看一遍推荐的设置。",
    ),
    "tour_train": ("Start a run", "开始训练"),
    "tour_train_text": (
        "Every value is recommended, with its reason. A card says beforehand how much memory and disk it will take and whether it can start.",
        "每个数值都有推荐和理由。开始之前就会说明需要多少内存和磁盘、能否开始。",
    ),
    "waiting": ("Waits for you", "等你处理"),
    "waiting_none": ("Nothing waits for you.", "没有需要处理的事。"),
}
