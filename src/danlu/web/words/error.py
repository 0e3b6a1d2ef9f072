"""What is said when something does not work."""

WORDS = {
    "copy": ("Copy diagnostics", "复制诊断信息"),
    "fix": ("What to do:", "怎么办："),
    "title": ("That did not work", "没有成功"),
    "why": ("Why", "原因"),
}
