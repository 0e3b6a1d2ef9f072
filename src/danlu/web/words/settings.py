"""Settings."""

WORDS = {
    "about": ("About this installation", "关于本机"),
    "form": ("Forms", "表单"),
    "form_text": ("Simple shows what matters; Advanced shows every setting of a recipe.", "简洁模式只显示关键设置；高级模式显示配方的全部设置。"),
    "home": ("Home folder", "主目录"),
    "look": ("Language and colours", "语言与配色"),
    "look_text": ("Kept for you, and the same in every browser.", "会为你记住，换个浏览器也一样。"),
    "memory": ("Memory free for a run", "训练可用内存"),
    "database": ("Database", "数据库"),
    "disk": ("Free disk", "可用磁盘"),
    "tab": ("Studio", "工作室"),
    "title": ("Settings", "设置"),
    "tour": ("Tour", "入门引导"),
    "tour_again": ("Take the tour again", "再看一遍引导"),
    "tour_text": ("A minute on the home page: what to do first, and where things are.", "在首页用一分钟走一遍：先做什么，东西在哪里。"),
    "version": ("Version", "版本"),
}
