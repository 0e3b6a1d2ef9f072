"""The frame of every page."""

WORDS = {
    "brand": ("Danlu", "丹炉"),
    "group_guide": ("Guide", "指引"),
    "language": ("Language", "语言"),
    "menu": ("Open or close the menu", "打开或关闭菜单"),
    "nav_advisor": ("Advisor", "顾问"),
    "nav_datasets": ("Datasets", "数据集"),
    "nav_help": ("Help", "帮助"),
    "nav_home": ("Home", "首页"),
    "nav_new_run": ("New run", "新建训练"),
    "nav_queue": ("Queue", "队列"),
    "nav_runs": ("Runs", "训练记录"),
    "nav_settings": ("Settings", "设置"),
    "navigation": ("Pages", "页面"),
    "project": ("Project", "项目"),
    "skip": ("Skip to the content", "跳到正文"),
    "theme": ("Colours", "配色"),
    "theme_auto": ("Auto", "自动"),
    "theme_dark": ("Dark", "深色"),
    "theme_light": ("Light", "浅色"),
}
