"""What stages say while they work, in Chinese. A sentence without an entry here is shown as it is."""

import re

SENTENCES: tuple[tuple[str, str], ...] = (
    (r"forecast: (\d+) steps, at most ([\d.]+) minutes, ([\d.]+) GiB", r"预计：\1 步，最多 \2 分钟，\3 GiB 内存"),
    (r"no better validation loss for (\d+) validations", r"连续 \1 次验证没有改善，提前停止"),
    (r"no better validation (.+) for (\d+) validations", r"连续 \2 次验证 \1 没有改善，提前停止"),
    (r"the weights of step (\d+) are kept: its validation loss was the (?:best|lowest)", r"保留第 \1 步的权重：它的验证损失最低"),
    (r"the weights of step (\d+) are kept: its validation (.+) was the best", r"保留第 \1 步的权重：它的验证 \2 最好"),
    (r"no example of step (\d+) can be used: it changes nothing", r"第 \1 步没有可用的样例：这一步不改变任何权重"),
    (r"going on with run (.+)", r"继续运行 \1"),
    (r"going on after step (\d+) of (\d+)", r"从第 \1 步之后继续，共 \2 步"),
    (r"stopped by signal after step (\d+); start the same command to go on", r"收到信号，在第 \1 步之后停下；再次执行同一条命令即可继续"),
    (r"stopped at a rung of its sweep after step (\d+); start the same command to go on", r"在第 \1 步之后的比较点停下；再次执行同一条命令即可继续"),
    (r"stopped (.+) after step (\d+); start the same command to go on", r"在第 \2 步之后停下（\1）；再次执行同一条命令即可继续"),
    (
        r"going on after step (\d+) of (\d+), with (\d+) processes instead of (\d+): the same losses to rounding, not bitwise",
        r"从第 \1 步之后继续，共 \2 步；进程数由 \4 改为 \3：损失在舍入误差内相同，但并非逐位相同",
    ),
    (r"out of memory: going on with (\d+) tokens per forward pass; the loss does not change", r"内存不足：改为每次前向 \1 个词元后继续；损失不受影响"),
    (r"out of memory in the optimizer: the step is done again", "优化器内存不足：重做这一步"),
    (
        r"the system ended this run for lack of memory: going on with (\d+) tokens per forward pass",
        r"系统因内存不足结束了上次运行：改为每次前向 \1 个词元后继续",
    ),
    (r"out of memory: examples are scored (\d+) tokens at a time; the scores do not change", r"内存不足：改为每次评分 \1 个词元；分数不受影响"),
    (r"out of memory: answers are generated (\d+) at a time; they do not change", r"内存不足：改为每次生成 \1 个回答；结果不受影响"),
    (r"out of memory: (\d+) prompts are answered at a time; the answers do not change", r"内存不足：改为每次回答 \1 个问题；回答不受影响"),
    (r"out of memory: answers are measured (\d+) at a time; the loss does not change", r"内存不足：改为每次度量 \1 个回答；损失不受影响"),
    (r"checkpoint (.+) could not be written \((.+)\); training goes on with the older one", r"检查点 \1 无法写入（\2）；训练继续，保留上一个检查点"),
    (r"the weights of step (\d+) are damaged \((.+)\); those of the last step are kept", r"第 \1 步的权重已损坏（\2）；改为保留最后一步的权重"),
    (r"no samples from step (\d+) on: they would take more than ([\d.]+) % of the training time", r"第 \1 步起不再试答：会超过训练时间的 \2%"),
    (r"no samples from step (\d+) on: memory ran out while answering", r"第 \1 步起不再试答：试答时内存不足"),
    (r"(\w+) follows this run: (.+)", r"\1 跟踪本次运行：\2"),
    (r"(\w+) no longer follows this run: (.+)", r"\1 不再跟踪本次运行：\2"),
    (r"the loss became (.+)", r"损失变成了 \1"),
    (r"the gradient became (.+)", r"梯度变成了 \1"),
    (r"the (.+) became (.+)", r"\1 变成了 \2"),
    (r"checkpoint (.+) is not used: (.+)", r"不使用检查点 \1：\2"),
    (
        r"the tokenizer has no chat template: the documented default \(User: / Assistant:\) is used and stored with the result",
        "分词器没有对话模板：使用文档中写明的默认模板（User: / Assistant:），并随结果保存",
    ),
    (r"(\w+) export verified on (\d+) prompts: (.+)", r"\1 导出已用 \2 个问题验证：\3"),
    (r"reading rows", "读取数据行"),
    (r"reading rows of (.+)", r"读取 \1 的数据行"),
    (r"comparing examples", "比较样例，查找重复"),
    (r"tokenising (\w+)", r"分词 \1"),
    (r"heldout: likelihood, base", "留出样例：损失，基座模型"),
    (r"heldout: likelihood, tuned", "留出样例：损失，微调后"),
    (r"heldout: answers, base", "留出样例：生成回答，基座模型"),
    (r"heldout: answers, tuned", "留出样例：生成回答，微调后"),
    (r"preference: likelihood, base", "偏好：似然，基座模型"),
    (r"preference: likelihood, tuned", "偏好：似然，微调后"),
    (r"rewards: answers, base", "奖励：生成回答，基座模型"),
    (r"rewards: answers, tuned", "奖励：生成回答，微调后"),
    (r"reference likelihoods, train", "训练集在参考模型下的似然"),
    (r"reference likelihoods, validation", "验证集在参考模型下的似然"),
    (r"answering prompts", "回答问题"),
    (r"rounds: (.+), previous", r"各轮留出样例（\1）：损失，上一轮的模型"),
    (r"rounds: (.+), tuned", r"各轮留出样例（\1）：损失，微调后"),
    (r"retention: likelihood, base", "通用能力：损失，基座模型"),
    (r"retention: likelihood, tuned", "通用能力：损失，微调后"),
)
_PATTERNS = tuple((re.compile(pattern), chinese) for pattern, chinese in SENTENCES)


def in_chinese(sentence: str) -> str:
    """Return what a stage said in Chinese, or as it is."""
    for pattern, chinese in _PATTERNS:
        if match := pattern.fullmatch(sentence):
            return match.expand(chinese)
    return sentence
