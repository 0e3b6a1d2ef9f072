"""What is said when something does not work."""

WORDS = {
    "copy": ("Copy diagnostics", "复制诊断信息"),
    "fix": ("What to do:", "怎么办："),
    "forbidden": (
        "You may not do this (any more). What you entered is still here: ask an administrator of the project, then press again.",
        "你没有（或不再有）这项权限。填写的内容都还在：请联系项目管理员，然后再点一次。",
    ),
    "home": ("To the home page", "回到首页"),
    "many_pages": (
        "You have too many pages of the studio open. Close some, and load this one again in a minute.",
        "你打开的工作室页面太多了。请关闭一些，一分钟后再刷新这一页。",
    ),
    "only_people": (
        "The pages are for people. A program with an API key asks /api/v1.",
        "页面是给人看的。带 API 密钥的程序请访问 /api/v1。",
    ),
    "original": ("As the log has it", "原文"),
    "title": ("That did not work", "没有成功"),
    "why": ("Why", "原因"),
}
