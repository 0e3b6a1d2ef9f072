"""Reward functions: what an answer is worth. One file each; found by the registry; none runs code that data or a recipe brings."""
