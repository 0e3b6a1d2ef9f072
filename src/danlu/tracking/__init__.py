"""Trackers: a run's metrics sent to TensorBoard files, Weights & Biases, MLflow or SwanLab while it goes on. Off by default.

They are no part of the recipe, because they never change a result, and no failure of theirs ever harms a run.
"""
