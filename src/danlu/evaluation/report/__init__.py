"""report.json and report.html of a run, made from its files alone: no torch, no model, any time."""

from danlu.evaluation.report.assemble import build

__all__ = ["build"]
