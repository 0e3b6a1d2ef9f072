"""States and verdicts."""

WORDS = {
    "waiting": ("Waiting for others", "等待前置任务"),
    "queued": ("Queued", "排队中"),
    "running": ("Running", "进行中"),
    "pausing": ("Pausing", "正在暂停"),
    "paused": ("Paused", "已暂停"),
    "cancelling": ("Stopping", "正在停止"),
    "cancelled": ("Stopped", "已停止"),
    "succeeded": ("Done", "已完成"),
    "failed": ("Failed", "失败"),
    "improved": ("Improved", "变好了"),
    "no_difference": ("No difference shown", "未见差别"),
    "regressed": ("Regressed", "变差了"),
    "kept": ("Kept", "保持"),
    "slightly_worse": ("Slightly worse", "略有下降"),
    "forgotten": ("Forgotten", "明显遗忘"),
}
