"""Words that many pages use."""

WORDS = {
    "advanced": ("Advanced", "高级"),
    "back": ("Back", "返回"),
    "cancel": ("Cancel", "取消"),
    "close": ("Close", "关闭"),
    "colon": (": ", "："),
    "comma": (", ", "，"),
    "copied": ("Copied.", "已复制。"),
    "help": ("What this means", "说明"),
    "next": ("Next", "下一页"),
    "page": ("Page {number}", "第 {number} 页"),
    "previous": ("Previous", "上一页"),
    "semicolon": ("; ", "；"),
    "simple": ("Simple", "简洁"),
}
