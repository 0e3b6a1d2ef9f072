"""Help."""

WORDS = {
    "glossary": ("Words", "术语"),
    "how": ("From examples to a proven model", "从样例到有证明的模型"),
    "how_1": ("Bring your examples: a file with questions and the answers you would want.", "准备样例：一个写有问题和理想回答的文件。"),
    "how_2": (
        "Start a new run: choose the data, the base model and what it is to learn. Everything else is recommended, with reasons.",
        "新建训练：选择数据、基座模型和学习目标。其余都有推荐值和理由。",
    ),
    "how_3": ("Watch it, or close the page. The run lives in its own process and goes on.", "可以看着它训练，也可以关掉页面。训练会在后台继续。"),
    "how_4": ("Read the proof: base against tuned on rows the model has never seen.", "看证明：在模型没见过的样例上比较微调前后。"),
    "questions": ("Common questions", "常见问题"),
    "q_close": ("Can I close the page?", "可以关掉页面吗？"),
    "q_close_a": ("Yes. Everything is kept on the server; drafts of forms too.", "可以。一切都保存在服务器上，表单草稿也在。"),
    "q_how_many": ("How many examples do I need?", "需要多少条样例？"),
    "q_how_many_a": (
        "50 at the least, for an honest proof; 300 usually teach a manner or a form well.",
        "至少 50 条才能如实证明；教语气或格式通常 300 条就不错。",
    ),
    "q_network": ("Does anything leave this machine?", "数据会离开这台机器吗？"),
    "q_network_a": (
        "No. The pages load nothing from elsewhere; only a base model from a hub is fetched, and only when you name one.",
        "不会。页面不从外部加载任何内容；只有你指定了网上的基座模型时才会下载它。",
    ),
    "q_stop": ("What happens when I stop a run?", "停止训练会怎样？"),
    "q_stop_a": ("You choose: keep it so that it can go on later, or discard it with its files.", "由你选择：保留，之后可以继续；或连同文件一起丢弃。"),
    "title": ("Help", "帮助"),
}
