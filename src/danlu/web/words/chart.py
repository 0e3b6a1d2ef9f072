"""Charts."""

WORDS = {
    "empty": ("Nothing measured yet.", "还没有数据。"),
    "log": ("Log scale", "对数刻度"),
    "smooth": ("Smooth", "平滑"),
    "step": ("optimizer step", "优化步"),
    "summary": ("{name}: from {first} to {last}, lowest {low}.", "{name}：从 {first} 到 {last}，最低 {low}。"),
}
