"""Help on the settings of a recipe, in Chinese; the English is the field's own description.

By path. Where methods, objectives or formats have settings of their own, by path with their name in it (`method.full.init`), or without
it where the same sentence holds for all that have it.
"""

from danlu.web.words.recipe_parts import PARTS_ZH

WORDS: dict[str, tuple[str, str]] = {}


def help_zh(path: str, variant: str = "") -> str:
    """One sentence on a setting; `variant` is the method, objective or format it belongs to. Empty where there is none (a plugin of others)."""
    path = path.removesuffix(".type")
    group, _, name = path.rpartition(".")
    return HELP_ZH.get(f"{group}.{variant}.{name}") or HELP_ZH.get(path, "")


HELP_ZH = {
    "optim.optimizer": "用什么方法调整权重。adamw 通用；adamw_8bit 和 adafactor 省内存；lion 学习率要小 3 到 10 倍；muon 用于 full 和 freeze。",
    "optim.learning_rate": "学习率的峰值。LoRA 通常比全量微调高约 10 倍。",
    "optim.num_epochs": "把训练集过多少遍。设置了 max_steps 时保持 auto。",
    "optim.max_steps": "不按遍数，而是在这么多步之后停止。",
    "optim.global_batch_size": "每一步使用的样例数，所有设备合计。",
    "optim.micro_batch_tokens": "一次前向最多处理的词元数。内存不足时先降它；不影响损失。",
    "optim.scheduler": "预热之后学习率怎样变化。",
    "optim.scheduler_power": "仅用于 polynomial：剩余步数比例的幂；留空取 2。",
    "optim.scheduler_cycles": "仅用于 cosine_restarts：下降的次数；留空取 2。",
    "optim.scheduler_decay_ratio": "仅用于 wsd：最后下降阶段占全部步数的比例；留空取 0.2。",
    "optim.min_learning_rate_ratio": "最后的学习率占峰值的比例。",
    "optim.warmup_ratio": "学习率从零升到峰值所占的步数比例；auto 约为十步。",
    "optim.weight_decay": "矩阵的权重衰减（不作用于归一化层和偏置）。",
    "optim.beta1": "一阶动量的衰减。",
    "optim.beta2": "二阶动量的衰减；留空取 0.999（lion 取 0.99）。",
    "optim.max_grad_norm": "梯度长度超过它时按比例缩小。",
    "optim.neftune_alpha": "训练时给词元嵌入加入随机噪声，常用 5；留空不加。",
    "data.format": "数据的格式；auto 会根据内容判断。",
    "data.split.validation": "训练中用来观察的比例（提前停止、选最佳检查点）。",
    "data.split.test": "只在最后的证明中使用的比例。",
    "data.split.max_examples": "每个留出集最多的样例数；数据多时其余用于训练更好。",
    "data.split.column": "说明每一行属于哪一部分的列：train、validation（也可写 valid、val、dev、eval）或 test。没有任何行属于的部分按比例抽取。",
    "data.split.validation_dataset": "整个用作验证集的数据文件或数据集；不再按比例抽取。",
    "data.split.test_dataset": "整个用作测试集的数据文件或数据集；不再按比例抽取。",
    "data.mix": "混入训练的其他数据集，按训练样例的比例，如 {general: 0.1}。",
    "data.replay": "混入上一轮的训练行，避免遗忘，如 {run: my-run, share: 0.2}。",
    "data.replay.run": "上一轮的训练：编号或文件夹。它的留出样例绝不参与训练。",
    "data.replay.share": "加入它的多少训练行，按新训练样例的比例。",
    "data.max_seq_len": "每条样例最多的词元数；更长的会被截短并列出。",
    "data.truncation": "oldest_turns 先去掉最早的对话轮次；drop 直接不用这条样例。",
    "data.near_duplicates": "drop 每组近似重复只留一条；无论哪种，同组不会分到不同的集合。",
    "data.system": "给没有系统消息的样例加上的系统消息。",
    "data.new_tokens": "加入分词器并学习的新词元。",
    "training.path": "fast 用打包和融合内核；reference 用标准实现，供核对。",
    "training.dtype": "计算用的数字格式；auto 在支持的 GPU 上用 bfloat16，在 CPU 上用 float32。",
    "training.compute": "int8 用 8 位整数与冻结权重相乘：在部分 CPU 上更快更省，结果略有不同。",
    "training.validate_every_steps": "每隔多少步验证一次；auto 全程约十次。",
    "training.checkpoint_every_seconds": "机器断电时最多损失多少秒的工作。",
    "training.checkpoint_every_steps": "另外每隔多少步保存一次检查点。",
    "training.early_stopping_patience": "连续这么多次验证没有改善就停止；留空不提前停止。",
    "training.keep_best": "以验证最好的权重结束，而不是最后一步的权重。",
    "training.best_by": "凭什么判断哪次验证最好：loss、目标的数字（dpo 的 reward_accuracy），用 sft 时也可以是生成指标（rouge_l，每次答前 32 行）。",
    "training.sample_every_steps": "每隔多少步试答几个固定问题；留空不试答。",
    "training.sample_prompts": "试答的问题；留空取验证集的前三个。",
    "training.sample_max_new_tokens": "试答的最大长度。",
    "training.sample_time_share": "试答最多占训练时间的比例。",
    "method": "改变哪些权重：lora、qlora、full 等。",
    "objective": "学什么：sft 学对话中的回答，pretrain 学纯文本，dpo、orpo、simpo、kto 学偏好，reward 学打分，grpo 学奖励。",
    "evaluation.suites": "训练前后测什么；不填则由目标决定。",
    "evaluation.metrics": "在留出样例上对生成文本计算的指标；空列表则不生成。",
    "evaluation.max_new_tokens": "为计算指标而生成的最大长度。",
    "evaluation.max_generations": "最多为多少条留出样例生成回答。",
    "start_from": "从哪次已完成的训练或哪个适配器的权重开始。",
    "export": "训练结束时导出什么；之后也可以再导出。",
    "seed": "决定划分、顺序和随机数的种子。",
} | PARTS_ZH
