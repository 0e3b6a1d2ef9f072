"""Forms that are made from the recipe's schema."""

WORDS = {
    "changed": ("changed", "已更改"),
    "default": ("Default: {value}", "默认：{value}"),
    "group_data": ("Data", "数据"),
    "group_evaluation": ("Proof", "证明"),
    "group_method": ("Method", "方法"),
    "group_objective": ("Objective", "目标"),
    "group_optim": ("Optimisation", "优化"),
    "group_recipe": ("Run", "整体"),
    "group_training": ("Training", "训练过程"),
    "none_found": ("No setting of that name.", "没有这个设置。"),
    "not_a_value": ("This is not a value: {text}", "不是有效的值：{text}"),
}
