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
    "needs_role": ("This needs the role {needed}; yours in this project is {role}.", "需要“{needed}”角色；你在这个项目中的角色是“{role}”。"),
    "next": ("Next", "下一页"),
    "page": ("Page {number}", "第 {number} 页"),
    "previous": ("Previous", "上一页"),
    "role_admin": ("administrator", "管理员"),
    "role_editor": ("editor", "编辑者"),
    "role_none": ("none", "无"),
    "role_reviewer": ("reviewer", "评审者"),
    "role_viewer": ("viewer", "查看者"),
    "semicolon": ("; ", "；"),
    "simple": ("Simple", "简洁"),
}
